//! Open files and directories, as the kernel refers to them.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use rustix::io::{Errno, Result};

use super::node::Node;
use super::state::Mode;

/// The number of a handle towards the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct HandleId(pub(crate) u64);

/// An open regular file.
pub(crate) struct FileHandle {
    pub(crate) node: Arc<Node>,
    pub(crate) mode: Mode,
    pub(crate) writable: bool,
    /// The user who writes through it unseen, in passthrough.
    pub(crate) unseen_writer: Option<u32>,
    /// The lower file with the access that the caller has. Writers have it from the start, so that an error of
    /// writing back is reported to their fsync; readers only once they need it.
    pub(crate) lower: OnceLock<File>,
}

/// An open directory.
pub(crate) struct DirHandle {
    pub(crate) node: Arc<Node>,
    pub(crate) position: Mutex<DirPosition>,
}

/// The lower directory and where its descriptor stands.
pub(crate) struct DirPosition {
    pub(crate) fd: OwnedFd,
    pub(crate) offset: u64,
}

/// All handles.
#[derive(Default)]
pub(crate) struct HandleTable {
    files: RwLock<HashMap<HandleId, Arc<FileHandle>>>,
    dirs: RwLock<HashMap<HandleId, Arc<DirHandle>>>,
    next: AtomicU64,
}

impl HandleTable {
    fn next(&self) -> HandleId {
        HandleId(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn insert_file(&self, handle: FileHandle) -> HandleId {
        let id = self.next();
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(handle));
        id
    }

    pub(crate) fn file(&self, id: HandleId) -> Result<Arc<FileHandle>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned().ok_or(Errno::BADF)
    }

    pub(crate) fn remove_file(&self, id: HandleId) -> Option<Arc<FileHandle>> {
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    pub(crate) fn insert_dir(&self, handle: DirHandle) -> HandleId {
        let id = self.next();
        self.dirs.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(handle));
        id
    }

    pub(crate) fn dir(&self, id: HandleId) -> Result<Arc<DirHandle>> {
        self.dirs.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned().ok_or(Errno::BADF)
    }

    pub(crate) fn remove_dir(&self, id: HandleId) -> Option<Arc<DirHandle>> {
        self.dirs.write().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}
