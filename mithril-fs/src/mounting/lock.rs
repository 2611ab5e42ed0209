//! One daemon a directory: a lock in the lower `.mithril`, held as long as its process lives.

use std::fs::{File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::fault::{self, Point};
use crate::overlay::STORE_DIR;

const LOCK: &str = "lock";

/// What the lock of somebody says who only reads.
const READING: &str = "a command that reads";

/// How long a process that was killed may take to end.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// A directory that is ours alone.
#[derive(Debug)]
pub struct Locked {
    /// The lower `.mithril`.
    pub store: OwnedFd,
    file: File,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the directory is in use by {holder}; end that process first (mithril-fs umount)")]
    Held {
        /// What the lock file says of it.
        holder: String,
    },
    /// What is there is not ours to trust: what is wrong, and what to do.
    #[error(".mithril is there, but {0}")]
    Foreign(String),
    /// There is no store, and none was to be made.
    #[error("the directory has no .mithril: it was never mounted")]
    Missing,
    /// The system refused.
    #[error("cannot {action} .mithril: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's own error.
        source: std::io::Error,
    },
}

fn system(action: &'static str) -> impl Fn(Errno) -> LockError {
    move |error| LockError::System { action, source: error.into() }
}

/// Locks `root`; `purpose` is what others are told. With `create`, a directory that was never mounted gets its
/// `.mithril`.
///
/// # Errors
/// [`LockError`].
pub fn lock(root: impl AsFd, purpose: &str, create: bool) -> Result<Locked, LockError> {
    if create {
        match rustix::fs::mkdirat(&root, STORE_DIR, Mode::from_raw_mode(0o700)) {
            Ok(()) => fault::reached(Point::StoreMade),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(system("create")(error)),
        }
    }
    let locked = open(root)?;
    wait_for(&locked.file, is_passing, || {
        rustix::fs::flock(&locked.file, FlockOperation::NonBlockingLockExclusive)
    })?;
    locked.say(purpose);
    Ok(locked)
}

/// Locks `root` for reading, beside others who read. The first of them has it alone until it calls [`Locked::share`]:
/// opening a store may repair it.
///
/// # Errors
/// [`LockError`].
pub fn lock_to_read(root: impl AsFd) -> Result<Locked, LockError> {
    let locked = open(root)?;
    wait_for(&locked.file, is_passing, || {
        rustix::fs::flock(&locked.file, FlockOperation::NonBlockingLockExclusive)
            .or_else(|_| rustix::fs::flock(&locked.file, FlockOperation::NonBlockingLockShared))
    })?;
    locked.say(READING);
    Ok(locked)
}

/// Opens `.mithril` and its lock, neither of which is locked yet.
fn open(root: impl AsFd) -> Result<Locked, LockError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let store = rustix::fs::openat(&root, STORE_DIR, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => LockError::Missing,
        Errno::NOTDIR | Errno::LOOP => LockError::Foreign("is no directory of ours; move it away".to_owned()),
        other => system("open")(other),
    })?;
    let stat = rustix::fs::fstat(&store).map_err(system("look at"))?;
    is_ours_alone(stat.st_uid, rustix::process::geteuid().as_raw(), stat.st_mode)
        .map_err(LockError::Foreign)?;
    // Not for writing, as long as it is held: whoever wants the file system below to be read-only would be refused.
    let open_lock = |access: OFlags| {
        let flags = access | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&store, LOCK, flags, Mode::from_raw_mode(0o600))
            .map_err(system("open the lock in"))
    };
    let mut file = open_lock(OFlags::RDONLY)?;
    // NFS locks only what is open for writing. Whether somebody else has it is for the caller to find out.
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::BADF) {
        file = open_lock(OFlags::RDWR)?;
    }
    Ok(Locked { store, file: File::from(file) })
}

/// Whoever else can write to a store could have put links and forged chunks there: root most of all must not follow.
fn is_ours_alone(owner: u32, me: u32, mode: u32) -> Result<(), String> {
    if owner != me {
        return Err(format!(
            "belongs to user {owner}, and only that user may use it; run this as that user, or move it away"
        ));
    }
    if mode & 0o077 != 0 {
        return Err(format!(
            "is open to other users (mode {:o}); see that nobody put anything there, then chmod 700 it",
            mode & 0o777
        ));
    }
    Ok(())
}

/// Tries to lock until that works; others are waited for while they are `passing`.
fn wait_for(
    file: &File,
    passing: impl Fn(&str) -> bool,
    lock: impl Fn() -> rustix::io::Result<()>,
) -> Result<(), LockError> {
    let deadline = Instant::now() + LAST_BREATH;
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => {
                let holder = holder(file);
                if !passing(&holder) || Instant::now() > deadline {
                    return Err(LockError::Held { holder });
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(system("lock")(error)),
        }
    }
}

fn holder(file: &File) -> String {
    let mut text = [0; 4096];
    let len = file.read_at(&mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..len]).trim().to_owned();
    if text.is_empty() { "another process".to_owned() } else { text }
}

/// Whether the lock of `directory`, as it lies there uncovered, says that it is mounted at `mountpoint`. It says so too
/// of a daemon that died.
pub fn says_mounted_at(directory: &Path, mountpoint: &Path) -> bool {
    File::open(directory.join(STORE_DIR).join(LOCK))
        .is_ok_and(|file| holder(&file).ends_with(&format!("({})", mounted_at(mountpoint))))
}

/// The process that has the lock of `directory`, which lies there uncovered; `None` if nobody has, or it cannot be seen
/// from here. What the lock says is believed only of a process that has it open.
pub fn holding_process(directory: &Path) -> Option<u32> {
    let file = File::open(directory.join(STORE_DIR).join(LOCK)).ok()?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let process = process_of(&holder(&file))?;
    let lock = file.metadata().ok()?;
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let has_it = descriptors.flatten().any(|descriptor| {
        // Not followed at first: others may lead to a mount that hangs.
        let leads_to_lock = std::fs::read_link(descriptor.path()).is_ok_and(|target| target.ends_with(LOCK));
        let is_it = |other: Metadata| (other.dev(), other.ino()) == (lock.dev(), lock.ino());
        leads_to_lock && std::fs::metadata(descriptor.path()).is_ok_and(is_it)
    });
    has_it.then_some(process)
}

/// The process that a lock names.
fn process_of(holder: &str) -> Option<u32> {
    holder.strip_prefix("process ")?.split(' ').next()?.parse().ok()
}

/// Whether a holder is likely to be gone in a moment: most of what reads is `status` or `ls`.
fn is_passing(holder: &str) -> bool {
    is_ending(holder) || holder.ends_with(&format!("({READING})"))
}

/// Whether the process that a lock names is dead, and only its last threads still have the lock: one that was killed
/// while it waited for a disk.
fn is_ending(holder: &str) -> bool {
    let Some(pid) = process_of(holder) else { return false };
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

impl Locked {
    /// Tells others what it is used for from here on.
    pub fn describe(&self, mountpoint: &Path) {
        self.say(&mounted_at(mountpoint));
    }

    fn say(&self, purpose: &str) {
        let text = format!("process {} ({purpose})\n", std::process::id());
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Only for messages: a full disk must not keep a directory from being mounted.
        if let Ok(file) = rustix::fs::openat(&self.store, LOCK, flags, Mode::empty()) {
            let _ = File::from(file).write_all_at(text.as_bytes(), 0);
        }
    }

    /// Lets others read too, who locked it with [`lock_to_read`].
    ///
    /// # Errors
    /// Those of the system.
    pub fn share(&self) -> Result<(), LockError> {
        rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockShared).map_err(system("share"))
    }
}

fn mounted_at(mountpoint: &Path) -> String {
    format!("mounted at {}", mountpoint.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        assert!(matches!(lock(&root, "test", false), Err(LockError::Missing)));
        let held = lock(&root, "test", true).unwrap();
        let refused = lock(&root, "test", true).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert_eq!(holding_process(dir.path()), Some(std::process::id()));
        // Of another process, which has not got it open.
        std::fs::write(dir.path().join(STORE_DIR).join(LOCK), "process 1 (test)\n").unwrap();
        assert_eq!(holding_process(dir.path()), None);
        drop(held);
        assert_eq!(holding_process(dir.path()), None);
        lock(&root, "test", true).unwrap();
    }

    #[test]
    fn a_foreign_name_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".mithril"), "mine").unwrap();
        let root = File::open(dir.path()).unwrap();
        assert!(matches!(lock(&root, "test", true), Err(LockError::Foreign(_))));
        assert_eq!(std::fs::read_to_string(dir.path().join(".mithril")).unwrap(), "mine");
    }

    #[test]
    fn a_store_that_others_can_write_to_is_refused() {
        assert_eq!(is_ours_alone(7, 7, 0o040_700), Ok(()));
        assert!(is_ours_alone(7, 0, 0o040_700).is_err_and(|said| said.contains("user 7")));
        assert!(is_ours_alone(0, 7, 0o040_700).is_err());
        for mode in [0o710, 0o701, 0o777] {
            let dir = tempfile::tempdir().unwrap();
            let store = dir.path().join(".mithril");
            std::fs::create_dir(&store).unwrap();
            std::fs::set_permissions(&store, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            let refused = lock(File::open(dir.path()).unwrap(), "test", true).unwrap_err().to_string();
            assert!(refused.contains("chmod 700"), "{mode:o}: {refused}");
            assert_eq!(std::fs::read_dir(&store).unwrap().count(), 0, "{mode:o}: it was written to");
        }
    }

    #[test]
    fn readers_share_and_others_wait_for_none_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        drop(lock(&root, "test", true).unwrap());
        let first = lock_to_read(&root).unwrap();
        first.share().unwrap();
        let second = lock_to_read(&root).unwrap();
        second.share().unwrap();
        assert!(matches!(lock(&root, "test", true), Err(LockError::Held { .. })));
        drop((first, second));
        let alone = lock(&root, "test", true).unwrap();
        assert!(matches!(lock_to_read(&root), Err(LockError::Held { .. })));
        drop(alone);
    }
}
