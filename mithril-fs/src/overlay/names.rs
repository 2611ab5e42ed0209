//! Directory entries: looking up, creating, linking, renaming, removing. All of it is the lower file system's; the
//! top `.mithril` is ours and not there.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};
use rustix::io::{Errno, Result};

use super::node::{Node, NodeId};
use super::steady::Told;
use super::{Overlay, STORE_DIR, lower};

/// The attribute with the access rights that new files in a directory get.
const DEFAULT_ACL: &str = "system.posix_acl_default";

/// The permissions that somebody wants a new file or directory to have.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// With the file type, where that is asked for.
    pub(crate) mode: u32,
    /// What their umask takes off.
    pub(crate) umask: u32,
}

impl Wanted {
    /// What is asked for below `parent`. A default list of access rights there takes the umask's place, as it does
    /// everywhere; the file system below applies it.
    pub(super) fn below(self, parent: &Node) -> Mode {
        let default = rustix::fs::getxattr_query(lower::proc_path(&parent.fd), DEFAULT_ACL);
        let mode = if matches!(default, Ok(1..)) { self.mode } else { self.mode & !self.umask };
        Mode::from_raw_mode(mode & 0o7777)
    }
}

impl Overlay {
    fn is_ours(parent: NodeId, name: &OsStr) -> bool {
        parent == NodeId::ROOT && name == STORE_DIR
    }

    /// The parent of something to be created or removed.
    fn parent(&self, parent: NodeId, name: &OsStr) -> Result<Arc<Node>> {
        if Self::is_ours(parent, name) {
            return Err(Errno::PERM);
        }
        self.nodes.get(parent)
    }

    /// Finds an entry; the kernel will know it from here on.
    pub(crate) fn look_up(&self, parent: NodeId, name: &OsStr) -> Result<Told> {
        if Self::is_ours(parent, name) {
            return Err(Errno::NOENT);
        }
        let parent = self.nodes.get(parent)?;
        self.make_room();
        let (node, _) = self.nodes.look_up(lower::locate(&parent.fd, name)?)?;
        node.set_place(parent.id, name);
        let id = node.id;
        // What is not told is not counted.
        Told::of(node).inspect_err(|_| self.forget(id, 1))
    }

    /// The kernel dropped references.
    pub(crate) fn forget(&self, id: NodeId, count: u64) {
        if self.nodes.forget(id, count) {
            self.bell.leave(id);
        }
    }

    /// Creates a directory.
    pub(crate) fn make_dir(
        &self,
        parent: NodeId,
        name: &OsStr,
        permissions: Wanted,
        caller: (u32, u32),
    ) -> Result<Told> {
        let dir = self.parent(parent, name)?;
        let mode = permissions.below(&dir);
        lower::as_caller(self.caller(caller), || rustix::fs::mkdirat(&dir.fd, name, mode))?;
        self.look_up(parent, name)
    }

    /// Creates a regular file, pipe, socket or device.
    pub(crate) fn make_node(
        &self,
        parent: NodeId,
        name: &OsStr,
        permissions: Wanted,
        device: u64,
        caller: (u32, u32),
    ) -> Result<Told> {
        let dir = self.parent(parent, name)?;
        let kind = FileType::from_raw_mode(permissions.mode);
        let permissions = permissions.below(&dir);
        lower::as_caller(self.caller(caller), || {
            rustix::fs::mknodat(&dir.fd, name, kind, permissions, device)
        })?;
        self.look_up(parent, name)
    }

    /// Creates a symlink.
    pub(crate) fn make_symlink(
        &self,
        parent: NodeId,
        name: &OsStr,
        target: &Path,
        caller: (u32, u32),
    ) -> Result<Told> {
        let dir = self.parent(parent, name)?;
        lower::as_caller(self.caller(caller), || rustix::fs::symlinkat(target, &dir.fd, name))?;
        self.look_up(parent, name)
    }

    /// Where a symlink points.
    pub(crate) fn read_link(&self, id: NodeId) -> Result<Vec<u8>> {
        let node = self.nodes.get(id)?;
        Ok(rustix::fs::readlinkat(&node.fd, c"", Vec::new())?.into_bytes())
    }

    /// Gives a file another name.
    pub(crate) fn make_link(&self, id: NodeId, parent: NodeId, name: &OsStr) -> Result<Told> {
        let node = self.nodes.get(id)?;
        let dir = self.parent(parent, name)?;
        self.watcher.names_change(&mut || {
            rustix::fs::linkat(
                rustix::fs::CWD,
                lower::proc_path(&node.fd),
                &dir.fd,
                name,
                AtFlags::SYMLINK_FOLLOW,
            )
        })?;
        if node.kind == FileType::RegularFile
            && let Some(dir) = lower::path_below(&self.nodes.root().fd, &dir.fd)
        {
            self.watcher.linked(&node, &dir.join(name));
        }
        self.look_up(parent, name)
    }

    /// Removes a name of a file.
    pub(crate) fn unlink(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        let dir = self.parent(parent, name)?;
        rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        let dir = self.parent(parent, name)?;
        rustix::fs::unlinkat(&dir.fd, name, AtFlags::REMOVEDIR)
    }

    /// Renames, replaces or exchanges.
    pub(crate) fn rename(
        &self,
        (parent, name): (NodeId, &OsStr),
        (new_parent, new_name): (NodeId, &OsStr),
        flags: u32,
    ) -> Result<()> {
        let from = self.parent(parent, name)?;
        let to = self.parent(new_parent, new_name)?;
        let root = &self.nodes.root().fd;
        let places = lower::path_below(root, &from.fd).zip(lower::path_below(root, &to.fd));
        let flags = RenameFlags::from_bits_retain(flags);
        self.watcher
            .names_change(&mut || rustix::fs::renameat_with(&from.fd, name, &to.fd, new_name, flags))?;
        if let Some((from, to)) = places {
            let exchanged = flags.contains(RenameFlags::EXCHANGE);
            self.watcher.renamed(&from.join(name), &to.join(new_name), exchanged);
        }
        Ok(())
    }
}
