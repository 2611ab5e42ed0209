//! Opening and releasing regular files.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

use mithril_engine::file::read::PackedFile;
use mithril_engine::settings::PACK_MIN_BYTES;
use rustix::fs::{FileType, OFlags, Stat, StatVfsMountFlags};
use rustix::io::{Errno, Result};

use super::attributes::ROOT;
use super::handle::{FileHandle, HandleId};
use super::names::Wanted;
use super::node::{Backing, Content, Node, NodeId};
use super::privileges::{drop_special_bits, is_special};
use super::state::Mode;
use super::{Counters, Overlay, STORE_DIR, lower};
use crate::stub::{self, Authority};

/// How the kernel is to be answered.
pub(crate) struct Opened {
    pub(crate) handle: HandleId,
    /// In passthrough, the registration to answer with.
    pub(crate) backing: Option<Backing>,
    /// Whether the kernel may keep what it has cached of the file.
    pub(crate) keep_cache: bool,
    /// Whether the kernel is to bring each read and write here, uncached, although the file is passed through.
    pub(crate) direct: bool,
}

/// Registers the lower file with the kernel for passthrough.
pub(crate) type Register<'a> = &'a dyn Fn(BorrowedFd<'_>) -> std::io::Result<Backing>;

/// Flags of an `open` that are meant for the kernel's side of the handle, or are carried out here already.
///
/// The kernel says where to write, also at the end; and what was written through a mapping comes by the same descriptor,
/// for the place where it was written: a descriptor that appends would put it at the end.
const NOT_FOR_BELOW: OFlags = OFlags::CREATE
    .union(OFlags::APPEND)
    .union(OFlags::EXCL)
    .union(OFlags::TRUNC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::DIRECT)
    .union(OFlags::NONBLOCK);

impl Overlay {
    /// Opens a file for a user. Never waits for a file's bytes to move.
    pub(crate) fn open(
        &self,
        id: NodeId,
        flags: OFlags,
        caller: u32,
        register: Register<'_>,
    ) -> Result<Opened> {
        let node = self.nodes.get(id)?;
        self.open_node(&node, flags, caller, register, None)
    }

    /// Whether opening with these flags empties a packed file: that is synced, which takes as long as the disk is
    /// slow.
    pub(crate) fn open_syncs(&self, id: NodeId, flags: OFlags) -> bool {
        let truncates = flags.contains(OFlags::TRUNC) && flags & OFlags::RWMODE != OFlags::RDONLY;
        let (true, Some(namespace), Ok(node)) = (truncates, self.namespace, self.nodes.get(id)) else {
            return false;
        };
        rustix::fs::getxattr_query(lower::proc_path(&node.fd), namespace.name()).is_ok()
    }

    /// Creates a file if it is not there, and opens it.
    pub(crate) fn create(
        &self,
        parent: NodeId,
        name: &OsStr,
        permissions: Wanted,
        flags: OFlags,
        caller: (u32, u32),
        register: Register<'_>,
    ) -> Result<(Arc<Node>, Stat, Opened)> {
        if parent == NodeId::ROOT && name == STORE_DIR {
            return Err(Errno::PERM);
        }
        let parent = self.nodes.get(parent)?;
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | (flags & !NOT_FOR_BELOW);
        let permissions = permissions.below(&parent);
        let created = lower::as_caller(self.caller(caller), || {
            rustix::fs::openat(&parent.fd, name, create, permissions)
        });
        let created = match created {
            Ok(created) => Some(File::from(created)),
            // Somebody was faster.
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => None,
            Err(error) => return Err(error),
        };
        self.make_room();
        let (node, stat) = self.nodes.look_up(lower::locate(&parent.fd, name)?)?;
        node.set_place(parent.id, name);
        let created = created.filter(|file| lower::stat(file).is_ok_and(|own| own.st_ino == stat.st_ino));
        let opened = if node.kind == FileType::RegularFile {
            self.open_node(&node, flags, caller.0, register, created)
        } else {
            Err(Errno::INVAL)
        };
        match opened.and_then(|opened| Ok((opened, node.stat()?))) {
            Ok((opened, stat)) => Ok((node, stat, opened)),
            Err(error) => {
                let id = node.id;
                drop(node);
                self.forget(id, 1);
                Err(error)
            }
        }
    }

    /// The identity to take on for a caller's creations.
    pub(crate) fn caller(&self, caller: (u32, u32)) -> Option<(u32, u32)> {
        self.impersonate.then_some(caller)
    }

    fn open_node(
        &self,
        node: &Arc<Node>,
        flags: OFlags,
        caller: u32,
        register: Register<'_>,
        created: Option<File>,
    ) -> Result<Opened> {
        let access = flags & OFlags::RWMODE;
        let writable = access != OFlags::RDONLY;
        let mut handles = node.handles();
        if writable {
            node.will_change();
        }
        if writable && created.is_none() && flags.contains(OFlags::TRUNC) {
            self.empty(node)?;
            if caller != ROOT {
                drop_special_bits(node)?;
            }
        }
        // What was just created is plain. Its mode may forbid even us to ask for our attribute.
        let packed = handles.open.is_idle() && created.is_none() && self.load_content(node)?.is_some();
        if writable && packed {
            refuse_read_only(node)?;
        }
        if created.is_some() && handles.open.is_idle() {
            *node.content_mut() = Content::Plain;
        }
        let daemon_serves = packed || handles.open.has(Mode::Daemon);
        let passes = self.passthrough && !handles.refused && !daemon_serves;
        let special = passes && is_special(node);
        let mut mode = handles.open.next_mode(packed, passes && !special);
        // A writer's lower file is opened now: whoever may not write below learns it at open. But who creates a file
        // may use it, whatever its mode says.
        let mut lower = OnceLock::new();
        if writable && (mode == Mode::Passthrough || !packed) {
            let file = created.map_or_else(|| lower::reopen(&node.fd, flags & !NOT_FOR_BELOW), Ok)?;
            lower = OnceLock::from(file);
        } else if mode == Mode::Daemon && !packed {
            lower = created.map_or_else(OnceLock::new, OnceLock::from);
        }
        if mode == Mode::Passthrough && handles.backing.is_none() {
            match register(std::os::fd::AsFd::as_fd(&node.fd)) {
                Ok(backing) => handles.backing = Some(backing),
                Err(error) => {
                    tracing::info!(inode = node.id.0, %error, "no passthrough for this file");
                    handles.refused = true;
                    mode = Mode::Daemon;
                }
            }
        }
        let (backing, keep_cache) = match mode {
            Mode::Passthrough => {
                if writable && !special {
                    handles.unseen_writers.push(caller);
                }
                handles.maybe_mapped |= writable;
                handles.cached = None;
                Counters::add(&self.counters.passthrough_opens, 1);
                (handles.backing.clone(), false)
            }
            Mode::Daemon => {
                let now = match &*node.content() {
                    Content::Packed(file) => Some(file.id()),
                    _ => None,
                };
                let keep = now.is_some() && handles.cached == now;
                handles.cached = now;
                (None, keep)
            }
        };
        handles.open.opened(mode);
        handles.writers += u32::from(writable);
        let passed = mode == Mode::Passthrough;
        drop(handles);
        if writable {
            // What is written to a mapping changes the times unseen.
            self.forget_attributes(node);
        }
        // Others have it in passthrough since before it became special: theirs stays so, but this writer is seen.
        let direct = passed && writable && special;
        let unseen_writer = (passed && writable && !special).then_some(caller);
        let handle = FileHandle { node: Arc::clone(node), mode, writable, unseen_writer, lower };
        Ok(Opened { handle: self.handles.insert_file(handle), backing, keep_cache, direct })
    }

    /// Finds out where the bytes of an idle file are. Call with the handles locked.
    ///
    /// A stub that cannot be believed is an I/O error: its bytes are not here, and zeros are not an answer.
    pub(crate) fn load_content(&self, node: &Node) -> Result<Option<Arc<PackedFile>>> {
        let mut content = node.content_mut();
        if let Content::Packed(file) = &*content {
            return Ok(Some(Arc::clone(file)));
        }
        let Some(authority) = self.authority(node)? else {
            if self.is_orphan(node) {
                return Err(self.report(node, "cannot open file", &stub::ORPHAN));
            }
            *content = Content::Plain;
            return Ok(None);
        };
        let file = self
            .packed_file(authority.manifest)
            .map_err(|error| self.report(node, "cannot open packed file", &error))?;
        if file.len() != authority.size {
            return Err(self.report(node, "cannot open packed file", &"its manifest has another length"));
        }
        *content = Content::Packed(Arc::clone(&file));
        Ok(Some(file))
    }

    /// Whether a file without our attribute is what is left of a packed one. If it cannot be read, it is not: whoever
    /// reads it is told why.
    fn is_orphan(&self, node: &Node) -> bool {
        let long = |stat: &Stat| u64::try_from(stat.st_size).is_ok_and(|size| size >= PACK_MIN_BYTES);
        if self.namespace.is_none() || !node.stat().is_ok_and(|stat| long(&stat)) {
            return false;
        }
        lower::reopen_quietly(&node.fd).and_then(|file| {
            let size = file.metadata().map_err(|_| Errno::IO)?.len();
            stub::is_orphan(&file, size).map_err(|_| Errno::IO)
        }) == Ok(true)
    }

    /// What the stub says, if the file is packed; checked against the file. Call with the handles or the content
    /// locked.
    pub(crate) fn authority(&self, node: &Node) -> Result<Option<Authority>> {
        let Some(namespace) = self.namespace else { return Ok(None) };
        let mut value = [0; stub::AUTHORITY_BYTES + 1];
        let len = match rustix::fs::getxattr(lower::proc_path(&node.fd), namespace.name(), &mut value[..]) {
            Ok(len) => len,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) => value.len(),
            Err(error) => return Err(error),
        };
        let stat = node.stat()?;
        let authority = Authority::decode(&value[..len])
            .and_then(|a| {
                a.check(self.store.id(), stat.st_ino, u64::try_from(stat.st_size).unwrap_or(0)).map(|()| a)
            })
            .map_err(|error| self.report(node, "cannot open packed file", &error))?;
        if stat.st_size == 0 {
            // A truncation that was interrupted: it is empty, and plain. The attribute goes now, or it would be
            // believed again as soon as the file grows.
            let file = lower::reopen(&node.fd, OFlags::WRONLY)?;
            stub::remove_attribute(&file, namespace).map_err(|_| Errno::IO)?;
            rustix::fs::fsync(&file)?;
            return Ok(None);
        }
        Ok(Some(authority))
    }

    /// The kernel is done with a handle.
    pub(crate) fn release(&self, id: HandleId) {
        let Some(handle) = self.handles.remove_file(id) else { return };
        let (node, mode, writable) = (Arc::clone(&handle.node), handle.mode, handle.writable);
        let unseen_writer = handle.unseen_writer;
        // Our own descriptor must be gone before anybody asks for a lease.
        drop(handle);
        if self.let_go(&node, mode, writable, unseen_writer) {
            self.watcher.closed(&node, writable);
        }
        self.nodes.unpin(node);
    }

    /// Counts a handle off. Returns whether it was the last one, of a plain file.
    pub(super) fn let_go(&self, node: &Node, mode: Mode, writable: bool, unseen_writer: Option<u32>) -> bool {
        let mut handles = node.handles();
        handles.open.released(mode);
        handles.writers = handles.writers.saturating_sub(u32::from(writable));
        if let Some(at) = handles.unseen_writers.iter().position(|&writer| Some(writer) == unseen_writer) {
            handles.unseen_writers.swap_remove(at);
        }
        if !handles.open.is_idle() {
            return false;
        }
        handles.backing = None;
        let content = std::mem::replace(&mut *node.content_mut(), Content::Unknown);
        matches!(content, Content::Plain)
    }
}

/// Refuses writers where the file system below is read-only. Below, a packed file is opened for writing only once
/// something is written.
fn refuse_read_only(node: &Node) -> Result<()> {
    let is_read_only = rustix::fs::fstatvfs(&node.fd)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    if is_read_only { Err(Errno::ROFS) } else { Ok(()) }
}
