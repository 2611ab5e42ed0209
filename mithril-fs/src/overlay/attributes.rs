//! Metadata: all of it the lower file's, except that our own attributes are not there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, StatVfs, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use super::handle::HandleId;
use super::io::drop_special_bits;
use super::node::{Node, NodeId};
use super::{Overlay, lower};
use crate::stub::RESERVED_NAMES;

/// What is to change. A time is as `utimensat` takes it, `UTIME_NOW` included.
#[derive(Clone, Copy, Default)]
pub(crate) struct Changes {
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) access_time: Option<Timespec>,
    pub(crate) modification_time: Option<Timespec>,
    /// Whether a new size takes setuid and setgid off: the caller may not keep them.
    pub(crate) drop_privileges: bool,
}

impl Overlay {
    /// Metadata of a file, and whether it cannot change without us hearing of it.
    pub(crate) fn attributes(&self, id: NodeId) -> Result<Stat> {
        self.nodes.get(id)?.stat()
    }

    /// Changes metadata, in the order in which the kernel's own file systems do.
    pub(crate) fn set_attributes(
        &self,
        id: NodeId,
        handle: Option<HandleId>,
        changes: &Changes,
    ) -> Result<Stat> {
        let node = self.nodes.get(id)?;
        let path = lower::proc_path(&node.fd);
        if changes.owner.is_some() || changes.group.is_some() {
            let (owner, group) = (changes.owner.map(Uid::from_raw), changes.group.map(Gid::from_raw));
            rustix::fs::chownat(&node.fd, c"", owner, group, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = changes.mode {
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode & 0o7777))?;
        }
        if let Some(size) = changes.size {
            self.resize(&node, handle, size)?;
            if changes.drop_privileges {
                drop_special_bits(&node)?;
            }
        }
        if changes.access_time.is_some() || changes.modification_time.is_some() {
            let times = Timestamps {
                last_access: changes.access_time.unwrap_or_else(lower::omit),
                last_modification: changes.modification_time.unwrap_or_else(lower::omit),
            };
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::empty())?;
            if changes.modification_time.is_some() && node.kind == rustix::fs::FileType::RegularFile {
                self.note_mtime(&node)?;
            }
        }
        node.stat()
    }

    fn resize(&self, node: &std::sync::Arc<Node>, handle: Option<HandleId>, size: u64) -> Result<()> {
        node.will_change();
        if size == 0 {
            // The handles are locked, so that no packer commits meanwhile.
            let _handles = node.handles();
            return self.empty(node);
        }
        let opened = handle.map(|id| self.handles.file(id)).transpose()?;
        self.change(node, |node| {
            match opened.as_ref().filter(|handle| handle.writable).and_then(|handle| handle.lower.get()) {
                Some(file) => rustix::fs::ftruncate(file, size),
                None => rustix::fs::ftruncate(lower::reopen(&node.fd, OFlags::WRONLY)?, size),
            }
        })
    }

    /// Space of the lower file system.
    pub(crate) fn space(&self) -> Result<StatVfs> {
        rustix::fs::fstatvfs(lower::reopen(&self.nodes.root().fd, OFlags::RDONLY | OFlags::DIRECTORY)?)
    }

    /// An extended attribute; its length alone if `buffer` is empty.
    pub(crate) fn xattr(&self, id: NodeId, name: &OsStr, buffer: &mut [u8]) -> Result<usize> {
        if is_reserved(name) {
            return Err(Errno::NODATA);
        }
        rustix::fs::getxattr(lower::proc_path(&self.nodes.get(id)?.fd), name, buffer)
    }

    /// The names of the extended attributes, each with a NUL at its end, without ours.
    pub(crate) fn xattr_names(&self, id: NodeId) -> Result<Vec<u8>> {
        let path = lower::proc_path(&self.nodes.get(id)?.fd);
        let mut names = vec![0; 64 << 10];
        let len = rustix::fs::listxattr(&path, &mut names[..])?;
        let visible = names[..len].split_inclusive(|&byte| byte == 0);
        Ok(visible
            .filter(|name| !is_reserved(OsStr::from_bytes(&name[..name.len() - 1])))
            .flatten()
            .copied()
            .collect())
    }

    /// Sets an extended attribute.
    pub(crate) fn set_xattr(&self, id: NodeId, name: &OsStr, value: &[u8], flags: u32) -> Result<()> {
        if is_reserved(name) {
            return Err(Errno::PERM);
        }
        let flags = XattrFlags::from_bits_retain(flags);
        rustix::fs::setxattr(lower::proc_path(&self.nodes.get(id)?.fd), name, value, flags)
    }

    /// Removes an extended attribute.
    pub(crate) fn remove_xattr(&self, id: NodeId, name: &OsStr) -> Result<()> {
        if is_reserved(name) {
            return Err(Errno::PERM);
        }
        rustix::fs::removexattr(lower::proc_path(&self.nodes.get(id)?.fd), name)
    }
}

fn is_reserved(name: &OsStr) -> bool {
    RESERVED_NAMES.contains(&name.as_bytes())
}
