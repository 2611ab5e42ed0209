//! Metadata: all of it the lower file's, except that our own attributes are not there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, StatVfs, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use super::handle::HandleId;
use super::node::{Node, NodeId};
use super::privileges::{SPECIAL_BITS, drop_special_bits, gives_rights, may_become_special};
use super::steady::Told;
use super::{Overlay, lower};
use crate::stub::RESERVED_NAMES;

/// The user who keeps setuid and setgid on what they change.
pub(super) const ROOT: u32 = 0;

/// What is to change. A time is as `utimensat` takes it, `UTIME_NOW` included.
#[derive(Clone, Copy, Default)]
pub(crate) struct Changes {
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) access_time: Option<Timespec>,
    pub(crate) modification_time: Option<Timespec>,
    /// The user who asks.
    pub(crate) caller: u32,
}

impl Overlay {
    /// Metadata of a file, and whether it cannot change without us hearing of it.
    pub(crate) fn attributes(&self, id: NodeId) -> Result<Told> {
        Told::of(self.nodes.get(id)?)
    }

    /// Changes metadata, in the order in which the kernel's own file systems do.
    pub(crate) fn set_attributes(
        &self,
        id: NodeId,
        handle: Option<HandleId>,
        changes: &Changes,
    ) -> Result<Told> {
        let node = self.nodes.get(id)?;
        if changes.owner.is_some() || changes.group.is_some() {
            let (owner, group) = (changes.owner.map(Uid::from_raw), changes.group.map(Gid::from_raw));
            rustix::fs::chownat(&node.fd, c"", owner, group, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = changes.mode {
            self.set_mode(&node, mode & 0o7777, changes.caller)?;
        }
        if let Some(size) = changes.size {
            self.resize(&node, handle, size)?;
            if changes.caller != ROOT {
                drop_special_bits(&node)?;
            }
        }
        if changes.access_time.is_some() || changes.modification_time.is_some() {
            let times = Timestamps {
                last_access: changes.access_time.unwrap_or_else(lower::omit),
                last_modification: changes.modification_time.unwrap_or_else(lower::omit),
            };
            self.set_times(&node, &times)?;
        }
        Told::of(node)
    }

    fn set_mode(&self, node: &Node, mode: u32, caller: u32) -> Result<()> {
        let set = || rustix::fs::chmod(lower::proc_path(&node.fd), Mode::from_raw_mode(mode));
        if mode & SPECIAL_BITS == 0 || node.kind != FileType::RegularFile {
            return set();
        }
        // The handles are locked until it is done, so that the next open sees it.
        let handles = node.handles();
        may_become_special(&handles, caller)?;
        set()
    }

    fn resize(&self, node: &Arc<Node>, handle: Option<HandleId>, size: u64) -> Result<()> {
        node.will_change();
        if size == 0 {
            // The handles are locked, so that no packer commits meanwhile.
            let _handles = node.handles();
            return self.empty(node);
        }
        let opened = handle.map(|id| self.handles.file(id)).transpose()?;
        let _held = self.hold(node)?;
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
        let path = lower::proc_path(&self.nodes.get(id)?.fd);
        let found = if buffer.is_empty() {
            rustix::fs::getxattr_query(path, name)
        } else {
            rustix::fs::getxattr(path, name, buffer)
        };
        match found {
            // The kernel asks for these before it lets anybody in: a file system without them has none.
            Err(Errno::OPNOTSUPP) if name.as_bytes().starts_with(b"system.posix_acl_") => Err(Errno::NODATA),
            other => other,
        }
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

    /// Sets an extended attribute for a user.
    pub(crate) fn set_xattr(
        &self,
        id: NodeId,
        name: &OsStr,
        value: &[u8],
        flags: u32,
        caller: u32,
    ) -> Result<()> {
        if is_reserved(name) {
            return Err(Errno::PERM);
        }
        let node = self.nodes.get(id)?;
        let flags = XattrFlags::from_bits_retain(flags);
        let set = || rustix::fs::setxattr(lower::proc_path(&node.fd), name, value, flags);
        if !gives_rights(name) {
            return set();
        }
        let handles = node.handles();
        may_become_special(&handles, caller)?;
        set()
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
