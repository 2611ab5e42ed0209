//! Between the kernel and the overlay: translates requests and answers, decides nothing. With [`crate::session`]
//! the only place that knows fuser.
//!
//! A panic in a handler would end the session and with it the mount: each is caught, logged, and answered EIO.

mod aside;
mod convert;

use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::{
    BackingId, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::io::Errno as LowerErrno;

use aside::Aside;
use convert::{attr, handle, kind, node, open_flags, timespec, ttl};

use crate::fault::{self, Point};
use crate::overlay::Overlay;
use crate::overlay::attributes::Changes;
use crate::overlay::eviction::Kernel;
use crate::overlay::names::Wanted;
use crate::overlay::node::{Backing, NodeId};
use crate::overlay::open::Opened;
use crate::overlay::steady::Told;

/// How long the kernel may believe a name: names change only through it.
const ENTRY_TTL: Duration = Duration::from_secs(1);

/// Largest read or write request: what 256 pages hold, the kernel's default limit.
const MAX_REQUEST_BYTES: u32 = 1 << 20;

/// Requests that the kernel may have under way in the background, read-ahead included.
const MAX_BACKGROUND: u16 = 64;

type Lower<T> = rustix::io::Result<T>;

/// The file system as fuser sees it.
pub(crate) struct Adapter {
    overlay: Arc<Overlay>,
    /// Whether the mount wants passthrough at all.
    passthrough: bool,
    /// Told once whether the kernel granted it.
    granted: Arc<OnceLock<Result<(), String>>>,
    aside: Aside,
}

impl Adapter {
    pub(crate) fn new(
        overlay: Arc<Overlay>,
        passthrough: bool,
        granted: Arc<OnceLock<Result<(), String>>>,
    ) -> Self {
        Self { overlay, passthrough, granted, aside: Aside::default() }
    }
}

/// Runs a handler; a panic is an I/O error.
fn guard<T>(what: &'static str, work: impl FnOnce() -> Lower<T>) -> Result<T, Errno> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| {
            tracing::error!("a handler panicked in {what}; answered with an I/O error");
            Err(LowerErrno::IO)
        })
        .map_err(|error| Errno::from_i32(error.raw_os_error()))
}

fn caller(request: &Request) -> (u32, u32) {
    (request.uid(), request.gid())
}

fn reply_entry(result: Result<Told, Errno>, reply: ReplyEntry) {
    match result {
        Ok(told) => {
            let attr = attr(&told.stat, told.node.id);
            reply.entry_with_ttls(&ttl(&told), &ENTRY_TTL, &attr, Generation(0));
        }
        Err(error) => reply.error(error),
    }
}

fn reply_empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn flags_of(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags
}

/// What tells the kernel something that it did not ask. If it does not know what it is told of, there is nothing to forget.
pub(crate) struct Notices(pub(crate) Notifier);

impl Kernel for Notices {
    fn forget_attributes(&self, id: NodeId) {
        /// No byte of the file, but its attributes.
        const ATTRIBUTES_ONLY: i64 = -1;
        let _ = self.0.inval_inode(INodeNo(id.0), ATTRIBUTES_ONLY, 0);
    }

    fn forget_name(&self, parent: NodeId, name: &OsStr) {
        let _ = self.0.inval_entry(INodeNo(parent.0), name);
    }
}

/// The registration that this adapter made, back from the overlay, which does not know what it is.
fn backing_id(backing: &Backing) -> Option<&BackingId> {
    backing.downcast_ref()
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            // Without it, the kernel takes the mask of a list of access rights for the rights of the group. The umask
            // is ours then: it does not count where a directory has a default list.
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_DONT_MASK;
        if let Err(missing) = config.add_capabilities(wanted) {
            let _ = config.add_capabilities(wanted & !missing);
        }
        let granted = if !self.passthrough {
            Err("switched off".to_owned())
        } else if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_err() {
            Err("the kernel is older than 6.9, or was built without it".to_owned())
        } else {
            config.set_max_stack_depth(1).map(drop).map_err(|_| "refused by the kernel".to_owned())
        };
        let _ = self.granted.set(granted);
        let _ = config.set_max_write(MAX_REQUEST_BYTES);
        let _ = config.set_max_readahead(MAX_REQUEST_BYTES);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let look_up = || {
            if name.as_encoded_bytes().starts_with(b"fault-") {
                fault::reached(Point::Lookup);
            }
            self.overlay.look_up(node(parent), name)
        };
        reply_entry(guard("lookup", look_up), reply);
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let _ = guard("forget", || {
            self.overlay.forget(node(ino), count);
            Ok(())
        });
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match guard("getattr", || self.overlay.attributes(node(ino))) {
            Ok(told) => reply.attr(&ttl(&told), &attr(&told.stat, node(ino))),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = Changes {
            mode,
            owner: uid,
            group: gid,
            size,
            access_time: atime.map(timespec),
            modification_time: mtime.map(timespec),
            caller: request.uid(),
        };
        let overlay = Arc::clone(&self.overlay);
        let work =
            move || match guard("setattr", || overlay.set_attributes(node(ino), fh.map(handle), &changes)) {
                Ok(told) => reply.attr(&ttl(&told), &attr(&told.stat, node(ino))),
                Err(error) => reply.error(error),
            };
        // A new size may have to unpack or to sync, and a new time waits for a step of that or for a packing's end.
        if size.is_some() || mtime.is_some() { self.aside.run(work) } else { work() }
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match guard("readlink", || self.overlay.read_link(node(ino))) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let make = || {
            let device = rustix::fs::makedev(libc::major(u64::from(rdev)), libc::minor(u64::from(rdev)));
            self.overlay.make_node(node(parent), name, Wanted { mode, umask }, device, caller(request))
        };
        reply_entry(guard("mknod", make), reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let make = || self.overlay.make_dir(node(parent), name, Wanted { mode, umask }, caller(request));
        reply_entry(guard("mkdir", make), reply);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(guard("unlink", || self.overlay.unlink(node(parent), name)), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(guard("rmdir", || self.overlay.remove_dir(node(parent), name)), reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let make = || self.overlay.make_symlink(node(parent), name, target, caller(request));
        reply_entry(guard("symlink", make), reply);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = || self.overlay.rename((node(parent), name), (node(newparent), newname), flags.bits());
        reply_empty(guard("rename", rename), reply);
    }

    fn link(&self, _request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        reply_entry(guard("link", || self.overlay.make_link(node(ino), node(newparent), newname)), reply);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (id, flags, caller) = (node(ino), open_flags(flags.0), request.uid());
        let overlay = Arc::clone(&self.overlay);
        let work = move || {
            let register = |fd: std::os::fd::BorrowedFd<'_>| Ok(Arc::new(reply.open_backing(fd)?) as Backing);
            match guard("open", || overlay.open(id, flags, caller, &register)) {
                Ok(opened) => {
                    let fh = FileHandle(opened.handle.0);
                    match opened.backing.as_ref().and_then(backing_id) {
                        Some(backing) => reply.opened_passthrough(fh, flags_of(&opened), backing),
                        None => reply.opened(fh, flags_of(&opened)),
                    }
                }
                Err(error) => reply.error(error),
            }
        };
        if self.overlay.open_syncs(id, flags) { self.aside.run(work) } else { work() }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let register = |fd: std::os::fd::BorrowedFd<'_>| Ok(Arc::new(reply.open_backing(fd)?) as Backing);
        let created = guard("create", || {
            let (parent, permissions) = (node(parent), Wanted { mode, umask });
            self.overlay.create(parent, name, permissions, open_flags(flags), caller(request), &register)
        });
        match created {
            Ok((node, stat, opened)) => {
                let (fh, attr) = (FileHandle(opened.handle.0), attr(&stat, node.id));
                match opened.backing.as_ref().and_then(backing_id) {
                    Some(backing) => reply.created_passthrough(
                        &Duration::ZERO,
                        &attr,
                        Generation(0),
                        fh,
                        flags_of(&opened),
                        backing,
                    ),
                    None => reply.created(&Duration::ZERO, &attr, Generation(0), fh, flags_of(&opened)),
                }
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut reply = Some(reply);
        let read = guard("read", || {
            self.overlay.read(handle(fh), offset, size as usize, |bytes| {
                if let Some(reply) = reply.take() {
                    reply.data(bytes);
                }
            })
        });
        if let (Err(error), Some(reply)) = (read, reply) {
            reply.error(error);
        }
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let drop_privileges = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let overlay = Arc::clone(&self.overlay);
        let write = move |data: &[u8]| match guard("write", || {
            overlay.write(handle(fh), offset, data, drop_privileges)
        }) {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(error),
        };
        if self.overlay.must_unpack(handle(fh)) {
            let data = data.to_vec();
            self.aside.run(move || write(&data));
        } else {
            write(data);
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Nothing is kept back until close, and the kernel keeps the locks: it need not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let released = guard("release", || {
            self.overlay.release(handle(fh));
            Ok(())
        });
        reply_empty(released, reply);
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let overlay = Arc::clone(&self.overlay);
        self.aside.run(move || reply_empty(guard("fsync", || overlay.fsync(handle(fh), datasync)), reply));
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match guard("opendir", || self.overlay.open_dir(node(ino))) {
            Ok(id) => reply.opened(FileHandle(id.0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = guard("readdir", || {
            self.overlay.list_dir(handle(fh), offset, |entry| {
                reply.add(INodeNo(entry.inode), entry.next, kind(entry.kind), entry.name)
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let released = guard("releasedir", || {
            self.overlay.release_dir(handle(fh));
            Ok(())
        });
        reply_empty(released, reply);
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let overlay = Arc::clone(&self.overlay);
        self.aside.run(move || reply_empty(guard("fsyncdir", || overlay.sync_dir(handle(fh))), reply));
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match guard("statfs", || self.overlay.space()) {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                u32::try_from(s.f_bsize).unwrap_or(4096),
                u32::try_from(s.f_namemax).unwrap_or(255),
                u32::try_from(s.f_frsize).unwrap_or(4096),
            ),
            Err(error) => reply.error(error),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (flags, caller) = (flags.cast_unsigned(), request.uid());
        let set = || self.overlay.set_xattr(node(ino), name, value, flags, caller);
        reply_empty(guard("setxattr", set), reply);
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let mut value = vec![0; size as usize];
        match guard("getxattr", || self.overlay.xattr(node(ino), name, &mut value)) {
            Ok(len) if size == 0 => reply.size(u32::try_from(len).unwrap_or(u32::MAX)),
            Ok(len) => reply.data(&value[..len]),
            Err(error) => reply.error(error),
        }
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match guard("listxattr", || self.overlay.xattr_names(node(ino))) {
            Ok(names) if size == 0 => reply.size(u32::try_from(names.len()).unwrap_or(u32::MAX)),
            Ok(names) if names.len() > size as usize => reply.error(Errno::ERANGE),
            Ok(names) => reply.data(&names),
            Err(error) => reply.error(error),
        }
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(guard("removexattr", || self.overlay.remove_xattr(node(ino), name)), reply);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let overlay = Arc::clone(&self.overlay);
        let work = move || overlay.fallocate(handle(fh), offset, length, mode.cast_unsigned());
        self.aside.run(move || reply_empty(guard("fallocate", work), reply));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let overlay = Arc::clone(&self.overlay);
        let drop_privileges = request.uid() != 0;
        let (from, to) = ((handle(fh_in), offset_in), (handle(fh_out), offset_out));
        let work = move || overlay.copy_range(from, to, len, drop_privileges);
        self.aside.run(move || match guard("copy_file_range", work) {
            Ok(copied) => reply.written(copied),
            Err(error) => reply.error(error),
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let sought = guard("lseek", || {
            let from = u64::try_from(offset).map_err(|_| LowerErrno::NXIO)?;
            let to_data = match whence {
                libc::SEEK_DATA => true,
                libc::SEEK_HOLE => false,
                _ => return Err(LowerErrno::INVAL),
            };
            self.overlay.seek(handle(fh), from, to_data)
        });
        match sought {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(error) => reply.error(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_io_error() {
        let result: Result<(), Errno> = guard("a test", || panic!("on purpose"));
        assert_eq!(result.map_err(i32::from), Err(libc::EIO));
        assert_eq!(guard("a test", || Ok(7)).map_err(i32::from), Ok(7));
    }
}
