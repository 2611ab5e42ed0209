//! A disk that logs: a file system with one file, `image`, which a loop device stands on.
//!
//! Order is what it is about, and nothing between the file system under test and the log may change that:
//!
//! * The file is opened for direct I/O, so the kernel keeps none of its pages: a write of the loop device is a write
//!   here, and the loop device says that it is done only after it was answered.
//! * The loop device has a write cache, as far as the file system above knows, since the file can be synced. Its flushes
//!   are syncs here, and where a write wants to be durable by itself, the kernel makes that a write and a flush.
//! * One thread answers. So when a flush is logged, each write that was answered before it was asked for is in the log
//!   before it. Some that were not may be, too: such a disk flushes more than it has to, and only then.
//!
//! It is a process of its own. The page fault of a process that waits for this disk may hold what another of its
//! threads needs for a little memory.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, Session, WriteFlags,
};
use rustix::fs::FallocateFlags;

use super::log::{self, Action};

/// The name of the one file.
pub const IMAGE: &str = "image";

const IMAGE_NODE: INodeNo = INodeNo(2);

/// How long the kernel may believe what it was told: nothing changes.
const TTL: Duration = Duration::from_secs(3600);

/// Largest request, the kernel's default limit.
const MAX_REQUEST_BYTES: u32 = 1 << 20;

/// As in `linux/prctl.h`.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

struct Device {
    image: File,
    log: File,
    len: u64,
}

/// Serves `image` below `mountpoint` and logs to `log` what is done to it, until it is unmounted.
///
/// # Errors
/// Those of opening the files and of mounting.
pub fn serve(mountpoint: &Path, image: &Path, log: &Path) -> io::Result<()> {
    // What this thread needs memory for must not wait until something was written to this disk.
    // SAFETY: changes a flag of the calling thread. A refusal leaves things as they are.
    unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    let image = OpenOptions::new().read(true).write(true).open(image)?;
    let log = OpenOptions::new().append(true).create_new(true).open(log)?;
    let len = image.metadata()?.len();
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("logging-disk".to_owned())];
    Session::new(Device { image, log, len }, mountpoint, &config)?.run()
}

impl Device {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_image = ino == IMAGE_NODE;
        FileAttr {
            ino,
            size: if is_image { self.len } else { 0 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_image { FileType::RegularFile } else { FileType::Directory },
            perm: if is_image { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn read_at(&self, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; u64::from(size).min(self.len.saturating_sub(offset)).try_into().unwrap_or(0)];
        self.image.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset + data.len() as u64 > self.len {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        self.image.write_all_at(data, offset)?;
        log::append(&self.log, Action::Write, offset, data.len() as u64, data)
    }

    fn zero(&self, offset: u64, len: u64, mode: i32) -> io::Result<()> {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        if !mode.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) {
            return Err(rustix::io::Errno::OPNOTSUPP.into());
        }
        let len = len.min(self.len.saturating_sub(offset));
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.image, punch, offset, len)?;
        log::append(&self.log, Action::Zero, offset, len, &[])
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

fn answer(result: io::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

impl Filesystem for Device {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _ = config.set_max_write(MAX_REQUEST_BYTES);
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == IMAGE {
            reply.entry(&TTL, &self.attr(IMAGE_NODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_at(offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_at(offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(&error)),
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
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer(log::append(&self.log, Action::Flush, 0, 0, &[]), reply);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer(self.zero(offset, length, mode), reply);
    }
}
