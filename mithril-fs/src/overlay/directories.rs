//! Listing directories. Offsets are the lower file system's own cookies, so that a listing can be resumed while
//! entries come and go, as below.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Result;

use super::handle::{DirHandle, DirPosition, HandleId};
use super::node::NodeId;
use super::{Counters, Overlay, STORE_DIR};

/// Bytes of entries that are taken from the lower directory at once.
const LISTING_BYTES: usize = 32 << 10;

/// An entry of a directory.
pub(crate) struct Entry<'a> {
    pub(crate) inode: u64,
    /// Where the listing goes on after this entry.
    pub(crate) next: u64,
    pub(crate) kind: FileType,
    pub(crate) name: &'a OsStr,
}

impl Overlay {
    /// Opens a directory for listing.
    pub(crate) fn open_dir(&self, id: NodeId) -> Result<HandleId> {
        let node = self.nodes.get(id)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&node.fd, c".", flags, Mode::empty())?;
        Ok(self.handles.insert_dir(DirHandle { node, position: Mutex::new(DirPosition { fd, offset: 0 }) }))
    }

    /// Hands the entries after `offset` to `sink` until it returns `true` for full.
    pub(crate) fn list_dir(
        &self,
        id: HandleId,
        offset: u64,
        mut sink: impl FnMut(&Entry<'_>) -> bool,
    ) -> Result<()> {
        let handle = self.handles.dir(id)?;
        let is_root = handle.node.id == NodeId::ROOT;
        let mut position = handle.position.lock().unwrap_or_else(PoisonError::into_inner);
        if position.offset != offset {
            rustix::fs::seek(&position.fd, SeekFrom::Start(offset))?;
            position.offset = offset;
        }
        let mut buffer = vec![MaybeUninit::uninit(); LISTING_BYTES];
        let DirPosition { fd, offset } = &mut *position;
        let mut listing = RawDir::new(&*fd, &mut buffer);
        let mut reached = *offset;
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let next = entry.next_entry_cookie();
            if !(is_root && name == STORE_DIR) {
                let inode =
                    if is_root && (name == "." || name == "..") { NodeId::ROOT.0 } else { entry.ino() };
                if sink(&Entry { inode, next, kind: entry.file_type(), name }) {
                    // The descriptor is further than the kernel's reader: the next call seeks.
                    *offset = u64::MAX;
                    return Ok(());
                }
            }
            reached = next;
        }
        *offset = reached;
        Ok(())
    }

    /// Makes a directory's entries durable.
    pub(crate) fn sync_dir(&self, id: HandleId) -> Result<()> {
        let handle = self.handles.dir(id)?;
        let position = handle.position.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::fsync(&position.fd)?;
        Counters::add(&self.counters.fsyncdir_requests, 1);
        Ok(())
    }

    /// The kernel is done with a directory.
    pub(crate) fn release_dir(&self, id: HandleId) {
        if let Some(handle) = self.handles.remove_dir(id) {
            let node = std::sync::Arc::clone(&handle.node);
            drop(handle);
            self.nodes.unpin(node);
        }
    }
}
