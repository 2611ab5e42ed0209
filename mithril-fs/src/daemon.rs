//! The daemon: puts the parts together, serves until the mount ends, and answers the commands.
//!
//! Order of life: lower directory opened and locked, what it can do probed, store opened, mount made, commands
//! answered, the whole directory looked through once. Order of death: mount gone, packing stopped, commands answered.

mod commands;
mod signals;
mod tree;
mod unnamed;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mithril_engine::file::cache::ChunkCache;
use mithril_engine::file::read::ReadAhead;
use mithril_engine::store::Store;
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};

use crate::control::protocol::CommandError;
use crate::control::server::Server;
use crate::control::socket;
use crate::events::Events;
use crate::exit::ExitCode;
use crate::mounting::lock::{self, LockError};
use crate::mounting::probe::{self, Obstacle};
use crate::mounting::{holders, mountinfo, readahead, since, unmount};
use crate::overlay::eviction::Capacity;
use crate::overlay::node::Node;
use crate::overlay::watcher::Watcher;
use crate::overlay::{Overlay, Parts};
use crate::packer::{ENCODER_NICENESS, Packer, PackerParts};
use crate::session::{self, SessionSettings};
use crate::settings::MountSettings;
use tree::TreeGuard;

/// Bytes that are decoded ahead of a sequential reader: enough for every core to have some chunks under way.
const AHEAD_BYTES: u64 = 8 << 20;

/// After a signal, how long open handles may keep a daemon whose mount is detached.
const LINGER: Duration = Duration::from_secs(5);

/// How long commands that are being answered may keep a daemon whose mount is gone.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// A daemon that serves.
struct Daemon {
    overlay: Arc<Overlay>,
    /// The packer, or why there is none.
    packer: Result<Arc<Packer>, String>,
    passthrough: Result<(), String>,
    settings: MountSettings,
    tree: Arc<TreeGuard>,
    root: OwnedFd,
    /// Set once the directory was looked through.
    scanned: Arc<Latch>,
    /// Set once nobody uses the mount any more.
    ended: Latch,
    packer_thread: Mutex<Option<JoinHandle<()>>>,
}

/// Opens once.
#[derive(Default)]
struct Latch(Mutex<bool>, Condvar);

impl Latch {
    fn open(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    fn is_open(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.1.wait_while(open, |open| !*open));
    }
}

/// Hands what the file system sees to the packer, which is made after it.
#[derive(Default)]
struct Relay {
    packer: OnceLock<Arc<Packer>>,
    tree: Arc<TreeGuard>,
}

impl Watcher for Relay {
    fn closed(&self, node: &Arc<Node>, _written: bool) {
        if let Some(packer) = self.packer.get() {
            packer.closed(node);
        }
    }

    fn linked(&self, node: &Arc<Node>, path: &Path) {
        if let Some(packer) = self.packer.get() {
            packer.linked(node, path);
        }
    }

    fn renamed(&self, from: &Path, to: &Path, exchanged: bool) {
        if let Some(packer) = self.packer.get() {
            packer.renamed(from, to, exchanged);
        }
    }

    fn names_change(&self, call: &mut dyn FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
        self.tree.name_moves(call)
    }
}

fn failed(what: impl std::fmt::Display) -> CommandError {
    CommandError { message: what.to_string(), exit_code: ExitCode::Failed as u8 }
}

/// Mounts and serves until the mount ends; `ready` is called when it is there, with what its user should know.
///
/// # Errors
/// What kept it from starting.
///
/// `begin_log` is given the store's directory as soon as it is known to be ours, and may have something for the user too.
pub(crate) fn run(
    settings: MountSettings,
    begin_log: impl FnOnce(BorrowedFd<'_>) -> Result<Option<String>, CommandError>,
    ready: impl FnOnce(&[String]),
) -> Result<(), CommandError> {
    signals::prepare();
    rustix::process::umask(Mode::empty());
    let descriptors = raise_descriptor_limit();
    keep_freed_memory();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = &settings.directory;
    let root = rustix::fs::open(directory, flags, Mode::empty())
        .map_err(|error| failed(format!("{}: {error}", directory.display())))?;
    let locked = lock::lock(&root, "mounting", true).map_err(|error| CommandError {
        message: format!("{}: {error}", directory.display()),
        exit_code: if matches!(error, LockError::Held { .. }) {
            ExitCode::AlreadyMounted
        } else {
            ExitCode::Failed
        } as u8,
    })?;
    let stubs =
        probe::stubs(&locked.store).map_err(|error| failed(format!("{}: {error}", directory.display())))?;
    let mut notices = Vec::new();
    notices.extend(begin_log(locked.store.as_fd())?);
    if let Err(obstacle) = &stubs.packing {
        notices.push(match (stubs.namespace, obstacle) {
            (None, _) => format!("files stay plain: {obstacle}"),
            (Some(_), Obstacle::Lack(_)) => format!("packing waits, and goes on by itself: {obstacle}"),
            (Some(_), _) => format!("packing is off, and files that are plain stay so: {obstacle}"),
        });
    }
    let in_place = settings.mountpoint == settings.directory;
    if in_place {
        for holder in holders::holders(directory, None) {
            let directory = directory.display();
            notices
                .push(format!("{holder} is in {directory} already and will not see the mount: restart it"));
        }
    }
    notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    // The directory of whoever started us may be below the mount.
    std::env::set_current_dir("/").map_err(failed)?;

    let store = Arc::new(Store::open(locked.store.as_fd()).map_err(failed)?);
    let threads = if settings.threads == 0 {
        std::thread::available_parallelism().map_or(2, usize::from)
    } else {
        settings.threads
    };
    let readers = Arc::new(pool("read", threads, 0)?);
    let cache = Arc::new(ChunkCache::new(Arc::clone(&store), settings.cache_bytes));
    let privileged = rustix::process::geteuid().is_root();
    let relay = Arc::new(Relay::default());
    let lower_root = rustix::io::fcntl_dupfd_cloexec(&root, 0).map_err(failed)?;
    let overlay = Overlay::new(Parts {
        root: lower_root,
        store,
        cache,
        ahead: Some(ReadAhead { pool: readers, bytes: AHEAD_BYTES }),
        namespace: stubs.namespace,
        passthrough: settings.passthrough && privileged,
        impersonate: privileged,
        capacity: Capacity::of_descriptors(descriptors),
        events: Arc::new(Events::default()),
        watcher: Arc::clone(&relay) as Arc<dyn Watcher>,
    });
    let overlay = Arc::new(overlay.map_err(failed)?);
    let packer = match (stubs.packing, stubs.namespace) {
        _ if !settings.packing => Err("switched off".to_owned()),
        (Err(obstacle @ Obstacle::Lasting(_)), _) | (Err(obstacle), None) => Err(obstacle.to_string()),
        (Ok(()), None) => Err("there is no place for stubs".to_owned()),
        (tried, Some(namespace)) => {
            let pool = Arc::new(pool("pack", threads, ENCODER_NICENESS)?);
            let (settle, level, rate) = (settings.settle, settings.level, settings.pack_rate);
            let policy = settings.policy.clone();
            let has_packs = overlay.store.usage().packs > 0;
            // Where it cannot be noted, there is none: what waits must not be forgotten.
            let since = since::since(&locked.store, has_packs, policy.existing).unwrap_or_else(|error| {
                tracing::warn!("cannot note since when files are packed: {error}");
                0
            });
            let overlay = Arc::clone(&overlay);
            let parts = PackerParts { overlay, namespace, policy, since, settle, level, rate, pool };
            let packer = Arc::new(Packer::new(parts).map_err(failed)?);
            if let Err(Obstacle::Lack(errno)) = tried {
                packer.lacks(errno);
            }
            let _ = relay.packer.set(Arc::clone(&packer));
            Ok(packer)
        }
    };

    // Never more than the file system below allows: a mount must not make programs set-user-id that were not.
    let below = overlay.space().map_err(failed)?.f_flag;
    let served = session::serve(
        &overlay,
        &SessionSettings {
            mountpoint: &settings.mountpoint,
            source: mountinfo::source_name(&settings.directory),
            passthrough: settings.passthrough && privileged,
            allow_other: settings.allow_other,
            set_user_id: privileged && !below.contains(StatVfsMountFlags::NOSUID),
            devices: privileged && !below.contains(StatVfsMountFlags::NODEV),
        },
    )
    .map_err(|error| failed(mount_failure(&settings, &error)))?;
    locked.describe(&settings.mountpoint);
    let passthrough = if settings.passthrough && !privileged {
        Err("only root may use it".to_owned())
    } else {
        served.passthrough
    };
    let daemon = Arc::new(Daemon {
        overlay,
        packer,
        passthrough,
        tree: Arc::clone(&relay.tree),
        root,
        scanned: Arc::default(),
        ended: Latch::default(),
        packer_thread: Mutex::default(),
        settings,
    });
    let server = daemon.begin()?;
    ready(&notices);
    let ended = served.session.join();
    daemon.ended.open();
    daemon.end();
    server.finish(LAST_ANSWERS);
    tracing::info!("the mount is gone");
    // Threads may be at work on the directory still. The lock ends with them, as the process does.
    std::mem::forget(locked);
    ended.map_err(failed)
}

impl Daemon {
    /// Starts what runs beside the session.
    fn begin(self: &Arc<Self>) -> Result<Server, CommandError> {
        let mounted = std::fs::metadata(&self.settings.mountpoint).map_err(failed)?.dev();
        let device = format!("{}:{}", rustix::fs::major(mounted), rustix::fs::minor(mounted));
        if let Err(reason) = readahead::raise(&device) {
            tracing::info!("the kernel's read-ahead stays as it is: {reason}");
        }
        let places = socket::places(rustix::process::geteuid().as_raw(), &device);
        let events = Arc::clone(&self.overlay.events);
        let server = Server::start(places, Arc::clone(self) as _, move |error| events.error(error));
        let server = server.map_err(failed)?;
        let waiting = Arc::clone(self);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(failed)
        };
        spawn("signals", Box::new(move || waiting.wait_for_signal()))?;
        let overlay = Arc::clone(&self.overlay);
        spawn("evict", Box::new(move || overlay.evict()))?;
        if let Ok(packer) = &self.packer {
            let (scanning, scanned) = (Arc::clone(packer), Arc::clone(&self.scanned));
            let events = Arc::clone(&self.overlay.events);
            spawn(
                "scan",
                Box::new(move || {
                    if catch_unwind(AssertUnwindSafe(|| scanning.scan())).is_err() {
                        events.error("looking through the directory panicked".to_owned());
                    }
                    // Whoever waits for it looks through the directory too.
                    scanned.open();
                }),
            )?;
            let packing = Arc::clone(packer);
            let thread = spawn("packer", Box::new(move || packing.run()))?;
            *self.packer_thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        } else {
            self.scanned.open();
        }
        Ok(server)
    }

    /// Ends what runs beside the session: nothing is lost by it. Only the thread that serves the mount calls it: it must
    /// not let go of the directory before.
    fn end(&self) {
        if let Ok(packer) = &self.packer
            && let Some(path) = packer.stop(Duration::ZERO)
        {
            tracing::info!(path = %path.display(), "the mount is gone; waiting for the packer");
        }
        let thread = self.packer_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// A signal unmounts, as `umount` does; but where that would be refused, the mount is detached, since whoever
    /// sends signals to a daemon wants it gone.
    fn wait_for_signal(self: &Arc<Self>) {
        static AGAIN: AtomicBool = AtomicBool::new(false);
        loop {
            let signal = signals::wait();
            tracing::info!("signal {signal}: ending the mount");
            let mountpoint = &self.settings.mountpoint;
            if unmount::unmount(mountpoint, false).is_err()
                && let Err(error) = unmount::unmount(mountpoint, true)
            {
                self.overlay.events.error(format!("cannot unmount: {error:?}"));
            }
            if !AGAIN.swap(true, Ordering::SeqCst) {
                // Handles that are open keep a detached session alive: they are given a moment.
                let daemon = Arc::clone(self);
                std::thread::spawn(move || {
                    std::thread::sleep(LINGER);
                    if !daemon.ended.is_open() {
                        tracing::warn!("files are still open; ending all the same");
                        std::process::exit(0);
                    }
                });
            }
        }
    }
}

/// What to do about a mount that failed.
fn mount_failure(settings: &MountSettings, error: &std::io::Error) -> String {
    let place = settings.mountpoint.display();
    let hint = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV) => {
            "; /dev/fuse is missing: load the module fuse, or run where it is there"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "; run it as root, or give users access to /dev/fuse and install fuse3"
        }
        _ if error.to_string().contains("allow_other") => "; add user_allow_other to /etc/fuse.conf",
        _ => "",
    };
    format!("cannot mount at {place}: {error}{hint}")
}

fn pool(name: &'static str, threads: usize, niceness: i32) -> Result<rayon::ThreadPool, CommandError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |index| format!("{name}-{index}"))
        .start_handler(move |_| {
            if niceness > 0 {
                // SAFETY: setpriority takes integers; 0 is the calling thread. Refused, it stays as nice as it was.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
            }
        })
        // Of work that somebody waits for, they get the panic. Of other work nobody would, and rayon ends the process.
        .panic_handler(move |panic| {
            let said = panic.downcast_ref::<&str>().map(ToString::to_string);
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!("a thread of the pool \"{name}\" panicked: {said}");
        })
        .build()
        .map_err(failed)
}

/// Each inode that the kernel knows costs a descriptor. Returns how many there may be.
fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Chunks are allocated and freed all the time. By default the allocator gives buffers of their size back to the
/// system at once, and the next one costs a page fault every 4 KiB: a third of the time of reading.
fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        const LARGEST_KEPT_BYTES: libc::c_int = 32 << 20;
        const KEPT_BYTES: libc::c_int = 64 << 20;
        const ARENAS: libc::c_int = 4;
        // SAFETY: mallopt takes integers, and no other thread runs yet. Refused, it is only slower.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_pool_ends_neither_the_process_nor_the_pool() {
        let pool = pool("test", 2, 0).unwrap();
        for _ in 0..10 {
            // Nobody waits for it: without a handler the process would be aborted.
            pool.spawn(|| panic!("on purpose"));
        }
        assert!(catch_unwind(AssertUnwindSafe(|| pool.install(|| panic!("on purpose")))).is_err());
        assert_eq!(pool.install(|| rayon::join(|| 1, || 2)), (1, 2));
    }
}
