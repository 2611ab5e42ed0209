//! The semantics of the file system, without a kernel: an overlay on a directory whose regular files are plain or
//! packed.
//!
//! Names, modes, owners, times and links are those of the lower file system. This module owns what differs:
//! where the bytes are ([`node::Content`]), which handles may mix ([`state`]), and how bytes move
//! ([`transition`], [`unpack`], [`heal`]). FUSE types stay in the adapter.
//!
//! The threads that answer the kernel are few, so no lock of a node is held for as long as a file is big, but the one
//! of whoever unpacks it ([`node::Node::unpacking`]).

pub(crate) mod attributes;
pub(crate) mod directories;
pub(crate) mod eviction;
pub(crate) mod handle;
mod heal;
pub(crate) mod io;
pub(crate) mod lower;
pub(crate) mod names;
pub(crate) mod node;
pub(crate) mod open;
mod privileges;
pub(crate) mod state;
pub(crate) mod steady;
pub(crate) mod transition;
pub(crate) mod unpack;
pub(crate) mod watcher;

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lru::LruCache;
use mithril_engine::file::cache::ChunkCache;
use mithril_engine::file::read::{PackedFile, ReadAhead};
use mithril_engine::id::ManifestId;
use mithril_engine::store::Store;
use rustix::io::Errno;

use crate::events::Events;
use crate::stub::Namespace;
use eviction::{Bell, Capacity, Kernel};
use handle::HandleTable;
use node::NodeTable;
use watcher::Watcher;

/// The name at the top of the directory that belongs to us.
pub(crate) const STORE_DIR: &str = ".mithril";

/// Packed files whose manifests are kept although nobody has them open.
const IDLE_MANIFESTS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// What the daemon did, for `status`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) read_requests: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) write_requests: AtomicU64,
    pub(crate) write_bytes: AtomicU64,
    pub(crate) fsync_requests: AtomicU64,
    pub(crate) fsyncdir_requests: AtomicU64,
    pub(crate) passthrough_opens: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

/// What an overlay is made of.
pub(crate) struct Parts {
    /// The lower directory, `O_PATH`.
    pub(crate) root: OwnedFd,
    /// Where bytes of packed files are.
    pub(crate) store: Arc<Store>,
    /// Decoded chunks.
    pub(crate) cache: Arc<ChunkCache>,
    /// Who decodes ahead.
    pub(crate) ahead: Option<ReadAhead>,
    /// Where stubs keep their authority; `None` where the lower file system cannot keep any.
    pub(crate) namespace: Option<Namespace>,
    /// Whether plain files may be opened with passthrough.
    pub(crate) passthrough: bool,
    /// Whether callers' identities are taken on for what they create.
    pub(crate) impersonate: bool,
    /// How many inodes may be known.
    pub(crate) capacity: Capacity,
    /// Where errors are told.
    pub(crate) events: Arc<Events>,
    /// Who is told of files that may be packed.
    pub(crate) watcher: Arc<dyn Watcher>,
}

/// The file system.
pub(crate) struct Overlay {
    pub(crate) store: Arc<Store>,
    pub(crate) cache: Arc<ChunkCache>,
    pub(crate) namespace: Option<Namespace>,
    pub(crate) nodes: NodeTable,
    pub(crate) counters: Counters,
    pub(crate) events: Arc<Events>,
    handles: HandleTable,
    ahead: Option<ReadAhead>,
    passthrough: bool,
    impersonate: bool,
    watcher: Arc<dyn Watcher>,
    manifests: Mutex<LruCache<ManifestId, Arc<PackedFile>>>,
    /// The kernel, once it is there.
    kernel: OnceLock<Box<dyn Kernel>>,
    capacity: Capacity,
    bell: Bell,
}

impl Overlay {
    pub(crate) fn new(parts: Parts) -> rustix::io::Result<Self> {
        Ok(Self {
            store: parts.store,
            cache: parts.cache,
            namespace: parts.namespace,
            nodes: NodeTable::new(parts.root)?,
            counters: Counters::default(),
            events: parts.events,
            handles: HandleTable::default(),
            ahead: parts.ahead,
            passthrough: parts.passthrough,
            impersonate: parts.impersonate,
            watcher: parts.watcher,
            manifests: Mutex::new(LruCache::new(IDLE_MANIFESTS)),
            kernel: OnceLock::new(),
            capacity: parts.capacity,
            bell: Bell::default(),
        })
    }

    /// From here on the kernel is there, and can be told.
    pub(crate) fn tell_kernel(&self, kernel: Box<dyn Kernel>) {
        let _ = self.kernel.set(kernel);
    }

    /// The packed file with this manifest.
    pub(crate) fn packed_file(&self, id: ManifestId) -> mithril_engine::Result<Arc<PackedFile>> {
        let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = manifests.get(&id) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(PackedFile::open(id, Arc::clone(&self.cache), self.ahead.clone())?);
        manifests.put(id, Arc::clone(&file));
        Ok(file)
    }

    /// Tells of damage that a caller only sees as an I/O error.
    pub(crate) fn report(&self, node: &node::Node, action: &str, error: &dyn std::fmt::Display) -> Errno {
        let path = lower::path_below(&self.nodes.root().fd, &node.fd);
        let name = path.map_or_else(|| format!("inode {}", node.id.0), |path| path.display().to_string());
        self.events.error(format!("{action} {name}: {error}"));
        Errno::IO
    }
}
