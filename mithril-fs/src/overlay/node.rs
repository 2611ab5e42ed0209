//! The inodes that the kernel knows, and what the daemon knows of each.

use std::any::Any;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};
use std::time::{Duration, Instant};

use mithril_engine::file::read::PackedFile;
use mithril_engine::id::ManifestId;
use rustix::fs::{FileType, Stat};
use rustix::io::{Errno, Result};

use super::lower;
use super::state::OpenHandles;

/// What the kernel calls an inode: the lower inode number, but 1 for the root.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct NodeId(pub(crate) u64);

impl NodeId {
    /// The mounted directory.
    pub(crate) const ROOT: NodeId = NodeId(1);
}

/// A registration with the kernel for passthrough, opaque here; dropping it ends it.
pub(crate) type Backing = Arc<dyn Any + Send + Sync>;

/// Where the bytes of a regular file are.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Not looked at since nobody has it open.
    Unknown,
    /// In the lower file.
    Plain,
    /// In the store.
    Packed(Arc<PackedFile>),
}

/// What changes with handles. Its lock is taken before that of the content, never after. Neither is held for long.
#[derive(Default)]
pub(crate) struct Handles {
    /// The open handles.
    pub(crate) open: OpenHandles,
    /// The kernel's registration of the lower file, while a passthrough handle is open.
    pub(crate) backing: Option<Backing>,
    /// Who writes in passthrough, unseen: their user ids, once for each handle.
    pub(crate) unseen_writers: Vec<u32>,
    /// Handles that may write, in either mode.
    pub(crate) writers: u32,
    /// It was open for writing in passthrough, and may be mapped still.
    pub(crate) maybe_mapped: bool,
    /// Passthrough was refused for this very file (overlayfs below): not tried again.
    pub(crate) refused: bool,
    /// The manifest whose bytes the kernel's page cache may hold. Only for it may the cache be kept at open.
    pub(crate) cached: Option<ManifestId>,
}

/// One inode.
pub(crate) struct Node {
    /// Its name towards the kernel.
    pub(crate) id: NodeId,
    /// An `O_PATH` descriptor: it pins the lower inode, so that its number is not given to another file.
    pub(crate) fd: OwnedFd,
    /// What it is.
    pub(crate) kind: FileType,
    /// Its open handles.
    handles: Mutex<Handles>,
    /// Where its bytes are.
    content: RwLock<Content>,
    /// Held by whoever makes the file plain.
    unpacking: Mutex<()>,
    /// Counts everything that may have changed the bytes: opens for writing, truncations. A packer compares.
    changes: AtomicU64,
    /// A name that the kernel knows it by: the directory, and the name in it.
    place: Mutex<Option<(NodeId, Box<OsStr>)>>,
    /// When the kernel was told last what it may believe for a while, in milliseconds since the first node.
    told_ms: AtomicU64,
    /// References that the kernel holds; guarded by the table's lock.
    lookups: AtomicU64,
}

impl Node {
    fn new(id: NodeId, fd: OwnedFd, stat: &Stat) -> Self {
        Self {
            id,
            fd,
            kind: FileType::from_raw_mode(stat.st_mode),
            handles: Mutex::default(),
            content: RwLock::new(Content::Unknown),
            unpacking: Mutex::default(),
            changes: AtomicU64::new(0),
            place: Mutex::default(),
            told_ms: AtomicU64::new(u64::MAX),
            lookups: AtomicU64::new(0),
        }
    }

    /// Locks what changes with handles.
    pub(crate) fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, unless somebody has it.
    pub(crate) fn try_handles(&self) -> Option<MutexGuard<'_, Handles>> {
        match self.handles.try_lock() {
            Ok(handles) => Some(handles),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Notes the name that the kernel looked it up by.
    pub(crate) fn set_place(&self, parent: NodeId, name: &OsStr) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if !place.as_ref().is_some_and(|(known, at)| *known == parent && **at == *name) {
            *place = Some((parent, name.into()));
        }
    }

    /// Whether a name is known that the kernel was not asked to forget yet.
    pub(crate) fn has_place(&self) -> bool {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The name that it was looked up by last, for the kernel to be asked once.
    pub(crate) fn take_place(&self) -> Option<(NodeId, Box<OsStr>)> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes that the kernel is told of attributes that it may believe. Call with the handles locked.
    pub(crate) fn tell(&self) {
        self.told_ms.store(now_ms(), Ordering::SeqCst);
    }

    /// Whether the kernel may believe what it was told, if that is for as long as `ttl` from when the answer came to it. Call with the handles locked.
    pub(crate) fn is_believed(&self, ttl: Duration) -> bool {
        let told = self.told_ms.load(Ordering::SeqCst);
        told != u64::MAX && u128::from(now_ms().saturating_sub(told)) <= 2 * ttl.as_millis()
    }

    /// Waits for its turn to make the file plain, for as long as the file is big. No other lock may be held.
    pub(crate) fn unpacking(&self) -> MutexGuard<'_, ()> {
        self.unpacking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to change a packed file's blocks, unless somebody makes it plain just now.
    pub(crate) fn try_unpacking(&self) -> Option<MutexGuard<'_, ()>> {
        match self.unpacking.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Reads where the bytes are; they stay there while the guard lives. An open file that is plain stays so without.
    pub(crate) fn content(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks everybody out while it is decided where the bytes are.
    pub(crate) fn content_mut(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the bytes may change from here on.
    pub(crate) fn will_change(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// How often they may have changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// The lower file's metadata.
    pub(crate) fn stat(&self) -> Result<Stat> {
        lower::stat(&self.fd)
    }
}

/// A clock that never goes back.
fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX - 1)
}

/// All inodes that the kernel or a packer refers to.
pub(crate) struct NodeTable {
    root: Arc<Node>,
    nodes: Mutex<HashMap<NodeId, Arc<Node>>>,
    /// Device of the root: what lies on another one is not ours.
    device: u64,
}

impl NodeTable {
    /// A table with the root only.
    pub(crate) fn new(root: OwnedFd) -> Result<Self> {
        let stat = lower::stat(&root)?;
        let root = Arc::new(Node::new(NodeId::ROOT, root, &stat));
        Ok(Self { root, nodes: Mutex::default(), device: stat.st_dev })
    }

    /// The mounted directory.
    pub(crate) fn root(&self) -> &Arc<Node> {
        &self.root
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node that the kernel calls so.
    pub(crate) fn get(&self, id: NodeId) -> Result<Arc<Node>> {
        if id == NodeId::ROOT {
            return Ok(Arc::clone(&self.root));
        }
        self.lock().get(&id).cloned().ok_or(Errno::STALE)
    }

    /// The node of a located file, counted as known to the kernel.
    pub(crate) fn look_up(&self, fd: OwnedFd) -> Result<(Arc<Node>, Stat)> {
        self.enter(fd, 1)
    }

    /// The node of a located file, for our own use: it stays the same node for the kernel as long as the `Arc` lives.
    pub(crate) fn pin(&self, fd: OwnedFd) -> Result<(Arc<Node>, Stat)> {
        self.enter(fd, 0)
    }

    fn enter(&self, fd: OwnedFd, lookups: u64) -> Result<(Arc<Node>, Stat)> {
        let stat = lower::stat(&fd)?;
        if stat.st_dev != self.device {
            return Err(Errno::XDEV);
        }
        let id = NodeId(stat.st_ino);
        if id == NodeId::ROOT {
            // Inode 1 below is somebody's special file; its number is the root's name towards the kernel.
            return Err(Errno::PERM);
        }
        let mut nodes = self.lock();
        let node = nodes.entry(id).or_insert_with(|| Arc::new(Node::new(id, fd, &stat)));
        node.lookups.fetch_add(lookups, Ordering::SeqCst);
        Ok((Arc::clone(node), stat))
    }

    /// The kernel dropped `count` references. Returns whether the node is still there although the kernel has none left:
    /// whoever is about to let go of it (a thread that has answered just now) may not know that it is the last.
    pub(crate) fn forget(&self, id: NodeId, count: u64) -> bool {
        let mut nodes = self.lock();
        let Some(node) = nodes.get(&id) else { return false };
        let left = node.lookups.load(Ordering::SeqCst).saturating_sub(count);
        node.lookups.store(left, Ordering::SeqCst);
        let unused = Self::take_unused(&mut nodes, id);
        drop(nodes);
        left == 0 && unused.is_none()
    }

    /// Lets go of a node that the kernel has forgotten, if nobody else has it. Returns whether somebody still has.
    pub(crate) fn let_go(&self, id: NodeId) -> bool {
        self.forget(id, 0)
    }

    /// Gives a pinned node back: it goes if the kernel does not know it.
    pub(crate) fn unpin(&self, node: Arc<Node>) {
        let id = node.id;
        drop(node);
        let unused = Self::take_unused(&mut self.lock(), id);
        drop(unused);
    }

    /// Whoever holds an `Arc` (a handle, a packer) keeps the node in the table: a second node for the same inode
    /// would not see its locks.
    ///
    /// What is returned is to be dropped without the lock: closing the last descriptor of a deleted file frees its
    /// blocks and pages, which takes a tenth of a second a gigabyte.
    fn take_unused(nodes: &mut HashMap<NodeId, Arc<Node>>, id: NodeId) -> Option<Arc<Node>> {
        let node = nodes.get(&id)?;
        let unused = node.lookups.load(Ordering::SeqCst) == 0 && Arc::strong_count(node) == 1;
        if unused { nodes.remove(&id) } else { None }
    }

    /// How many there are, beside the root.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Up to `count` nodes that are `wanted` and that only the kernel refers to, each to be given back with
    /// [`NodeTable::unpin`].
    pub(crate) fn pin_some(&self, count: usize, wanted: impl Fn(&Node) -> bool) -> Vec<Arc<Node>> {
        let nodes = self.lock();
        let unused = nodes.values().filter(|node| Arc::strong_count(node) == 1 && wanted(node));
        unused.take(count).cloned().collect()
    }

    /// All nodes but the root, each to be given back with [`NodeTable::unpin`].
    pub(crate) fn pin_all(&self) -> Vec<Arc<Node>> {
        self.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags};

    use super::*;

    #[test]
    fn what_the_kernel_forgets_while_somebody_has_it_is_let_go_of_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = |fd: &str| rustix::fs::openat(CWD, fd, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let table = NodeTable::new(path(dir.path().to_str().unwrap()).unwrap()).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "a").unwrap();
        let (node, _) = table.look_up(path(file.to_str().unwrap()).unwrap()).unwrap();
        let id = node.id;
        assert!(table.forget(id, 1), "this thread has it still");
        assert!(table.let_go(id), "and still");
        assert_eq!(table.len(), 1);
        drop(node);
        assert!(!table.let_go(id));
        assert_eq!(table.len(), 0);
        // One that nobody has goes at once, and one that the kernel looked up again stays.
        let (node, _) = table.look_up(path(file.to_str().unwrap()).unwrap()).unwrap();
        drop(node);
        assert!(!table.let_go(id));
        assert_eq!(table.len(), 1);
        assert!(!table.forget(id, 1));
        assert_eq!(table.len(), 0);
    }
}
