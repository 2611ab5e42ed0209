//! The thread that packs, and what it remembers.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use lru::LruCache;
use mithril_engine::codec::Level;
use mithril_engine::file::pack::{self, Outcome, Packed, Packing};
use mithril_engine::settings::PACK_MIN_BYTES;
use mithril_engine::source::FileSource;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::pause::Pause;
use super::policy::{Asked, Policy};
use super::politeness::{PoliteSource, Rate};
use super::queue::{Item, Queue};
use super::room::NoRoom;
use super::verdicts::{Reason, Verdicts, size_of};
use super::{candidates, scan};
use crate::control::protocol::{PackReport, Progress, RelPath};
use crate::fault::{self, Point};
use crate::ops::walk::store_above;
use crate::overlay::node::{Node, NodeId};
use crate::overlay::transition::{Fingerprint, Refusal};
use crate::overlay::unpack::keep_plain;
use crate::overlay::{Overlay, lower};
use crate::settings::PackPolicy;
use crate::stub::{self, KeepPlain, Namespace};

/// After how long a file that is in use, mapped or failed is tried again; doubled each time, up to the limit.
const RETRY_AFTER: Duration = Duration::from_secs(15);
const RETRY_LIMIT: Duration = Duration::from_secs(600);

/// After how long at most it is looked whether there is room for a file.
const ROOM_LIMIT: Duration = Duration::from_secs(60);

/// File times advance in ticks of up to 10 ms on older kernels: a file that changed less than this ago could change
/// again without its times telling.
const CLOCK_TICK: Duration = Duration::from_millis(20);

/// Files that got another name by `link`, whose name is remembered: that of their inode may be gone.
const REMEMBERED_LINKS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// What a packer is made of.
pub(crate) struct PackerParts {
    pub(crate) overlay: Arc<Overlay>,
    /// Where stubs keep their authority.
    pub(crate) namespace: Namespace,
    /// Which files are packed by themselves.
    pub(crate) policy: PackPolicy,
    /// Files that did not change since then were there before, in ns since 1970.
    pub(crate) since: i64,
    /// How long a file must have been closed.
    pub(crate) settle: Duration,
    /// The level that they encode with.
    pub(crate) level: Level,
    /// Bytes that are read from files in a second, at most; 0 for no limit.
    pub(crate) rate: u64,
    /// Threads that encode.
    pub(crate) pool: Arc<rayon::ThreadPool>,
}

/// What was packed since the mount.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) files: AtomicU64,
    pub(crate) logical_bytes: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) nanoseconds: AtomicU64,
    /// Of the file that is being packed.
    current_logical: AtomicU64,
    current_stored: AtomicU64,
}

/// Packs files in the background.
pub(crate) struct Packer {
    pub(super) parts: PackerParts,
    pub(super) queue: Queue,
    pub(crate) totals: Totals,
    pub(super) policy: Policy,
    pub(super) rate: Option<Rate>,
    pub(super) cancel: AtomicBool,
    verdicts: Verdicts,
    links: Mutex<LruCache<NodeId, PathBuf>>,
}

/// What became of one file.
enum Done {
    /// It is packed now.
    Packed(Packed),
    /// There is nothing to pack: gone, packed already, small, no regular file.
    Nothing,
    /// It stays plain until it changes.
    NotWorthwhile,
    /// It stays plain while others are newer, or for good.
    Policy(Reason),
    /// It stays plain for now.
    Refused(Refusal),
    /// Packing it could take more room than there is.
    NoRoom(NoRoom),
    /// It is to be tried again: the end of the mount came first.
    Cancelled,
}

impl Packer {
    /// # Errors
    /// What is wrong with the policy.
    pub(crate) fn new(parts: PackerParts) -> Result<Self, String> {
        Ok(Self {
            policy: Policy::new(&parts.policy, parts.since)?,
            rate: Rate::new(parts.rate),
            parts,
            queue: Queue::default(),
            totals: Totals::default(),
            cancel: AtomicBool::new(false),
            verdicts: Verdicts::new(),
            links: Mutex::new(LruCache::new(REMEMBERED_LINKS)),
        })
    }

    /// Packs until stopped. One thread calls it; the encoding is spread over the pool.
    pub(crate) fn run(&self) {
        while let Some(item) = self.queue.take() {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.pack_item(&item)));
            if caught.is_err() {
                self.fail(&item, "packing panicked; the file stays as it is");
            }
            self.queue.finished();
        }
    }

    /// Ends packing: the file that is being packed stays plain, unless it is at its last step. Waits for that a while;
    /// what is returned is being packed still, by a thread that waits for the disk.
    pub(crate) fn stop(&self, patience: Duration) -> Option<PathBuf> {
        self.cancel.store(true, Ordering::SeqCst);
        self.queue.stop(patience)
    }

    /// A file may be worth packing from now on.
    pub(crate) fn offer(&self, path: PathBuf, stat: &Stat, delay: Duration, asked: Asked) {
        if let Some(size) = self.worth_trying(&path, stat, asked) {
            self.queue.add(path, size, delay, asked);
        }
    }

    /// A plain file was found by looking through the directory. Changes nothing if it is known already.
    pub(crate) fn found(&self, path: PathBuf, stat: &Stat) {
        if let Some(size) = self.worth_trying(&path, stat, Asked::No) {
            self.queue.found(path, size);
        }
    }

    /// The size of a file that may be packed, unless it is known that it is not worth it.
    fn worth_trying(&self, path: &Path, stat: &Stat, asked: Asked) -> Option<u64> {
        let is_worth = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && size_of(stat) >= PACK_MIN_BYTES
            && self.verdicts.of(stat) != Some(Reason::Incompressible)
            && self.policy.alone(path, stat, asked).is_none();
        is_worth.then(|| size_of(stat))
    }

    /// The last handle of a plain file was released.
    pub(crate) fn closed(&self, node: &Node) {
        let Ok(stat) = node.stat() else { return };
        // The size first: this is asked at every last close, and most files are small.
        if stat.st_nlink == 0 || !self.is_large_enough(&stat) || self.is_kept_plain(node, &stat) {
            return;
        }
        if let Some(path) = self.path_of(node) {
            self.offer(path, &stat, self.parts.settle, Asked::No);
        }
    }

    /// A file has one more name, which may be the one to stay.
    pub(crate) fn linked(&self, node: &Node, path: &Path) {
        let Ok(stat) = node.stat() else { return };
        self.links.lock().unwrap_or_else(PoisonError::into_inner).put(node.id, path.to_owned());
        self.offer(path.to_owned(), &stat, self.parts.settle, Asked::No);
    }

    /// Files have other paths now.
    pub(crate) fn renamed(&self, from: &Path, to: &Path, exchanged: bool) {
        self.queue.renamed(from, to, exchanged);
        if self.policy.depends_on_names() {
            // What was excluded under its old name may not be under the new one, nor what is below it.
            self.queue.found(to.to_owned(), 0);
            if exchanged {
                self.queue.found(from.to_owned(), 0);
            }
        }
    }

    /// What waits, by path, with sizes.
    pub(crate) fn waiting(&self) -> Vec<(PathBuf, u64)> {
        self.queue.waiting().into_iter().map(|item| (item.path, item.size)).collect()
    }

    /// The file that is being packed.
    pub(crate) fn active(&self) -> Option<PathBuf> {
        self.queue.active()
    }

    /// Whether somebody unpacked the file, as it is.
    fn is_kept_plain(&self, node: &Node, stat: &Stat) -> bool {
        KeepPlain::read(&lower::proc_path(&node.fd), self.parts.namespace) == Some(keep_plain(stat))
    }

    /// Forgets what was decided about a file, since somebody asks for it.
    pub(crate) fn forget_verdict(&self, path: &Path, stat: &Stat) {
        if let Ok(fd) = lower::locate_path(&self.parts.overlay.nodes.root().fd, path) {
            KeepPlain::remove(&lower::proc_path(&fd), self.parts.namespace);
        }
        self.verdicts.forget(stat.st_ino);
    }

    /// Whether a file is worth packing by its size.
    pub(crate) fn is_large_enough(&self, stat: &Stat) -> bool {
        size_of(stat) >= PACK_MIN_BYTES
    }

    /// Why a plain file is left so; `None` for one that is going to be tried without anything more to happen, or is
    /// too small to be packed.
    pub(crate) fn why_plain(&self, path: &Path, stat: &Stat) -> Option<Reason> {
        if size_of(stat) < PACK_MIN_BYTES || self.queue.is_due(path) {
            return None;
        }
        let verdict = self.verdicts.of(stat);
        if verdict == Some(Reason::Incompressible) {
            return verdict;
        }
        if let Some(reason) = self.policy.alone(path, stat, Asked::No) {
            return Some(reason);
        }
        let nodes = &self.parts.overlay.nodes;
        let (node, stat) = lower::locate_path(&nodes.root().fd, path).and_then(|fd| nodes.pin(fd)).ok()?;
        let reason = if self.is_kept_plain(&node, &stat) {
            Some(Reason::KeptPlain)
        } else if !node.handles().open.is_idle() {
            Some(Reason::Open)
        } else if self.is_packed(&node) {
            // Since it was found.
            None
        } else {
            let policy = self.policy.reason(&self.parts.overlay, path, &stat, Asked::No);
            policy.or(verdict).or(Some(Reason::Untried))
        };
        nodes.unpin(node);
        reason
    }

    /// A name of the file, if one is known.
    fn path_of(&self, node: &Node) -> Option<PathBuf> {
        let root = &self.parts.overlay.nodes.root().fd;
        lower::path_below(root, &node.fd).or_else(|| {
            let path = self.links.lock().unwrap_or_else(PoisonError::into_inner).get(&node.id)?.clone();
            lower::is_at(root, &path, &node.fd).then_some(path)
        })
    }

    /// Packs everything that waits at or below `prefix` without its settle time, and waits for it. What it left plain is
    /// not in the report.
    pub(crate) fn drain(&self, prefix: &Path, progress: &mut dyn FnMut(Progress) -> bool) -> PackReport {
        let files = self.totals.files.load(Ordering::Relaxed);
        let (logical, stored) = self.done_bytes();
        self.queue.hurry(prefix, true);
        self.queue.pause(Pause::try_now);
        while self.queue.is_busy(prefix) && !self.queue.is_stopped() && self.queue.paused(false).is_none() {
            let waiting: u64 = self.queue.waiting().iter().map(|item| item.size).sum();
            let (now_logical, now_stored) = self.done_bytes();
            let current = self.totals.current_logical.load(Ordering::Relaxed);
            let done = now_logical - logical + current;
            let more = progress(Progress {
                path: self.active().map(RelPath::from),
                done_bytes: done,
                total_bytes: (now_logical - logical + waiting).max(done),
                stored_bytes: now_stored - stored + self.totals.current_stored.load(Ordering::Relaxed),
            });
            if !more {
                break;
            }
            self.queue.wait_a_moment();
            self.queue.hurry(prefix, false);
        }
        let (now_logical, now_stored) = self.done_bytes();
        PackReport {
            files: self.totals.files.load(Ordering::Relaxed) - files,
            logical_bytes: now_logical - logical,
            stored_bytes: now_stored - stored,
            paused: self.queue.paused(false).filter(|_| self.queue.is_busy(prefix)),
            ..PackReport::default()
        }
    }

    fn done_bytes(&self) -> (u64, u64) {
        (self.totals.logical_bytes.load(Ordering::Relaxed), self.totals.stored_bytes.load(Ordering::Relaxed))
    }

    /// Looks through the whole directory once: heals what a crash interrupted, and offers what is plain.
    pub(crate) fn scan(&self) {
        scan::scan(&self.parts.overlay, self.parts.namespace, &self.cancel, &mut |path, stat| {
            // What just appeared may still be written to below the mount.
            self.offer(path, stat, self.parts.settle, Asked::No);
        });
    }

    fn pack_item(&self, item: &Item) {
        fault::reached(Point::Taken);
        let root = &self.parts.overlay.nodes.root().fd;
        let located = lower::locate_path(root, &item.path).and_then(|fd| self.parts.overlay.nodes.pin(fd));
        let (node, stat) = match located {
            Ok(located) => located,
            // Gone, or moved just now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return self.queue.lost(item),
            Err(error) if self.waits_after(item, error) => return,
            Err(error) => return self.fail(item, &error.to_string()),
        };
        let started = Instant::now();
        // What another store keeps, or is made of, is not for this one to take away.
        let done = match store_above(root, &item.path) {
            None => match self.policy.reason(&self.parts.overlay, &item.path, &stat, item.asked) {
                _ if node.kind == FileType::Directory => Ok(Done::Nothing),
                Some(reason) => Ok(Done::Policy(reason)),
                None => self.pack_node(&node, &stat, &item.path),
            },
            Some(_) => Ok(Done::Nothing),
        };
        let path = self.path_of(&node).unwrap_or_else(|| item.path.clone());
        match done {
            Ok(Done::Packed(packed)) => {
                self.totals.files.fetch_add(1, Ordering::Relaxed);
                self.totals.logical_bytes.fetch_add(packed.logical_bytes, Ordering::Relaxed);
                self.totals.stored_bytes.fetch_add(packed.stored_bytes, Ordering::Relaxed);
                let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.totals.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
                self.verdicts.forget(stat.st_ino);
                self.queue.pause(Pause::worked);
                tracing::info!(path = %path.display(), bytes = packed.logical_bytes, stored = packed.stored_bytes, "packed");
            }
            Ok(Done::Nothing) if node.kind == FileType::Directory => self.offer_below(&path),
            Ok(Done::Nothing) => {}
            Ok(Done::Policy(Reason::Hot)) => self.offer_superseded(&path),
            Ok(Done::Policy(_)) => {}
            Ok(Done::NotWorthwhile) => self.verdicts.note(&stat, Reason::Incompressible),
            Ok(Done::Refused(Refusal::Changed)) => {
                self.queue.retry(item, path, self.parts.settle.max(CLOCK_TICK), false);
            }
            Ok(Done::Refused(Refusal::Open)) => {
                // Its release will bring it back, unless its name is not known then.
                self.queue.retry(item, path, delay_after(item.attempts), true);
            }
            Ok(Done::Refused(Refusal::Leased)) => {
                self.verdicts.note(&stat, Reason::InUse);
                self.queue.retry(item, path, delay_after(item.attempts), true);
            }
            Ok(Done::NoRoom(NoRoom::ForAny)) => {
                self.waits_after(&item.at(path), Errno::NOSPC);
            }
            // Others that fit may make room for it.
            Ok(Done::NoRoom(NoRoom::ForThis(reason))) => {
                self.verdicts.note(&stat, Reason::Failed(reason));
                self.queue.retry(item, path, delay_after(item.attempts).min(ROOM_LIMIT), true);
            }
            Ok(Done::Cancelled) => self.queue.retry(item, path, Duration::ZERO, false),
            Err(error) if self.waits_for(&item.at(path.clone()), &error) => {}
            Err(error) => self.fail(&item.at(path), &error.to_string()),
        }
        self.totals.current_logical.store(0, Ordering::Relaxed);
        self.totals.current_stored.store(0, Ordering::Relaxed);
        self.parts.overlay.nodes.unpin(node);
    }

    fn fail(&self, item: &Item, reason: &str) {
        self.parts.overlay.events.error(format!("cannot pack {}: {reason}", item.path.display()));
        let root = &self.parts.overlay.nodes.root().fd;
        if let Ok(stat) = lower::locate_path(root, &item.path).and_then(lower::stat) {
            self.verdicts.note(&stat, Reason::Failed(reason.to_owned()));
        }
        self.queue.retry(item, item.path.clone(), delay_after(item.attempts), true);
    }

    /// One file, from plain to packed.
    fn pack_node(&self, node: &Arc<Node>, stat: &Stat, path: &Path) -> mithril_engine::Result<Done> {
        let overlay = &self.parts.overlay;
        let io = |action, error: Errno| mithril_engine::Error::io(action, path, error);
        if node.kind != FileType::RegularFile
            || size_of(stat) < PACK_MIN_BYTES
            || stat.st_nlink == 0
            || self.is_packed(node)
        {
            return Ok(Done::Nothing);
        }
        {
            // Nobody notes just now that it is to stay plain: they would hold it open.
            let handles = node.handles();
            if !handles.open.is_idle() {
                return Ok(Done::Refused(Refusal::Open));
            }
            if self.is_kept_plain(node, &node.stat().map_err(|e| io("stat", e))?) {
                return Ok(Done::Nothing);
            }
            // A note of what it was before would cost the stub a block of its own.
            KeepPlain::remove(&lower::proc_path(&node.fd), self.parts.namespace);
        }
        if let Err(no_room) = self.has_room(stat) {
            return Ok(Done::NoRoom(no_room));
        }
        let (file, fingerprint) = match overlay.open_for_packing(node).map_err(|e| io("open", e))? {
            Ok(opened) => opened,
            Err(refusal) => return Ok(Done::Refused(refusal)),
        };
        if stub::is_orphan(&file, size_of(stat)).is_ok_and(|is_orphan| is_orphan) {
            return Err(mithril_engine::Error::corrupt("file", stub::ORPHAN));
        }
        // Before the first byte is read: what changes from here on has another time than this.
        wait_for_clock(fingerprint.ctime_ns);
        let pin = overlay.store.pin();
        let packed = match self.encode(node, file, fingerprint, &pin, path) {
            Ok(Outcome::Packed(packed)) => packed,
            Ok(Outcome::NotWorthwhile) => return Ok(Done::NotWorthwhile),
            Err(_) if self.cancel.load(Ordering::SeqCst) => {
                return Ok(Done::Cancelled);
            }
            Err(mithril_engine::Error::Cancelled) => return Ok(Done::Refused(Refusal::Changed)),
            // It became shorter while it was read.
            Err(_) if Fingerprint::of(node).ok() != Some(fingerprint) => {
                return Ok(Done::Refused(Refusal::Changed));
            }
            Err(error) => return Err(error),
        };
        let committed = overlay.commit(node, self.parts.namespace, packed.manifest, fingerprint);
        Ok(match committed.map_err(|e| io("turn into a stub", e))? {
            Ok(()) => Done::Packed(packed),
            Err(refusal) => Done::Refused(refusal),
        })
    }

    /// Chunks and manifest, durable. The file's descriptor is closed again at the end.
    fn encode(
        &self,
        node: &Node,
        file: std::fs::File,
        fingerprint: Fingerprint,
        pin: &mithril_engine::store::Pin<'_>,
        path: &Path,
    ) -> mithril_engine::Result<Outcome> {
        let file = FileSource::new(file).map_err(|e| mithril_engine::Error::io("stat", path, e))?;
        let source = PoliteSource { file, rate: self.rate.as_ref(), cancel: &self.cancel };
        let overlay = &self.parts.overlay;
        let changed = AtomicBool::new(false);
        let candidates = candidates::manifests(overlay, path, fingerprint.size, fingerprint.mtime_ns);
        let packing = Packing {
            store: &overlay.store,
            pool: &self.parts.pool,
            level: self.parts.level,
            candidates: &candidates,
            cancel: &changed,
            progress: &|logical, stored| {
                self.totals.current_logical.store(logical, Ordering::Relaxed);
                self.totals.current_stored.store(stored, Ordering::Relaxed);
                let now = Fingerprint::of(node);
                if self.cancel.load(Ordering::Relaxed) || now.ok() != Some(fingerprint) {
                    changed.store(true, Ordering::Relaxed);
                }
            },
        };
        let mut writer = pin.writer()?;
        let outcome = pack::pack(&source, &packing, &mut writer)?;
        if let Outcome::Packed(_) = outcome {
            writer.finish()?;
        }
        Ok(outcome)
    }

    fn is_packed(&self, node: &Node) -> bool {
        self.is_stub(&node.fd)
    }

    pub(super) fn is_stub(&self, fd: &OwnedFd) -> bool {
        let mut value = [0; stub::AUTHORITY_BYTES + 1];
        let name = self.parts.namespace.name();
        !matches!(
            rustix::fs::getxattr(lower::proc_path(fd), name, &mut value[..]),
            Err(Errno::NODATA | Errno::OPNOTSUPP)
        )
    }
}

fn delay_after(attempts: u32) -> Duration {
    RETRY_AFTER.saturating_mul(1 << attempts.min(10)).min(RETRY_LIMIT)
}

/// Waits until the time of a file's last change is old enough for the next one to show.
fn wait_for_clock(changed: i64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let age = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX).saturating_sub(changed);
    if let Ok(age) = u64::try_from(age) {
        std::thread::sleep(CLOCK_TICK.saturating_sub(Duration::from_nanos(age)));
    }
}
