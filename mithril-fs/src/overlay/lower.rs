//! System calls on the lower file system, by descriptor. No absolute path but those of `/proc/self/fd`, which lead
//! to the very inode that a descriptor holds.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::{Errno, Result};

/// Resolution that never leaves the directory that was mounted over: no `..` out of it, no magic links, no other
/// file systems mounted below it (their inode numbers would collide with ours).
const CONFINED: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// The path under which `/proc` shows a descriptor of this process.
pub(crate) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Metadata of what the descriptor holds, a symlink itself included.
pub(crate) fn stat(fd: impl AsFd) -> Result<Stat> {
    rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
}

/// A handle on the directory entry `name`, without opening it.
pub(crate) fn locate(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(&dir, name, flags, Mode::empty(), CONFINED) {
        // A kernel or a sandbox without openat2: a single name cannot leave the directory but through a mount.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}

/// A handle on what lies at `path` below `root`, following no symlink at all.
pub(crate) fn locate_path(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.as_os_str().is_empty() {
        return rustix::fs::openat(root, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    }
    rustix::fs::openat2(root, path, flags, Mode::empty(), CONFINED | ResolveFlags::NO_SYMLINKS)
}

/// Opens what an `O_PATH` descriptor holds.
pub(crate) fn reopen(fd: impl AsFd, flags: OFlags) -> Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(proc_path(fd), flags, Mode::empty()).map(File::from)
}

/// Opens for reading without touching the access time where we may.
pub(crate) fn reopen_quietly(fd: impl AsFd) -> Result<File> {
    match reopen(&fd, OFlags::RDONLY | OFlags::NOATIME) {
        Err(Errno::PERM) => reopen(fd, OFlags::RDONLY),
        other => other,
    }
}

/// Where `fd` lies below `root`, by the name that it was found under; `None` if that was deleted or moved out.
pub(crate) fn path_below(root: impl AsFd, fd: impl AsFd) -> Option<PathBuf> {
    let top = rustix::fs::readlink(proc_path(&root), Vec::new()).ok()?.into_bytes();
    let path = rustix::fs::readlink(proc_path(&fd), Vec::new()).ok()?.into_bytes();
    let rest = if top == b"/" { path.strip_prefix(b"/")? } else { path.strip_prefix(&top[..])? };
    let rest = match rest {
        [] => rest,
        [b'/', rest @ ..] => rest,
        rest if top == b"/" => rest,
        _ => return None,
    };
    let below = PathBuf::from(std::ffi::OsString::from_vec(rest.to_vec()));
    // So the kernel marks a name that is gone; but a name may end like that too.
    if rest.ends_with(b" (deleted)") && !is_at(root, &below, fd) {
        return None;
    }
    Some(below)
}

/// Whether `path` below `root` is a name of what `fd` holds.
pub(crate) fn is_at(root: impl AsFd, path: &Path, fd: impl AsFd) -> bool {
    let named = locate_path(root, path).and_then(stat);
    let held = stat(fd);
    named.is_ok_and(|named| held.is_ok_and(|held| (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)))
}

/// Sets the modification time and leaves the access time.
pub(crate) fn set_mtime(file: impl AsFd, mtime_ns: i64) -> Result<()> {
    rustix::fs::futimens(file, &Timestamps { last_access: omit(), last_modification: timespec(mtime_ns) })
}

/// Leaves a time as it is.
pub(crate) fn omit() -> Timespec {
    Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT }
}

/// Nanoseconds since 1970 as the system has them.
pub(crate) fn timespec(ns: i64) -> Timespec {
    Timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) }
}

/// Modification time in nanoseconds since 1970; times beyond 2262 are cut off there.
pub(crate) fn mtime_ns(stat: &Stat) -> i64 {
    nanoseconds(stat.st_mtime.cast_signed_i64(), stat.st_mtime_nsec.cast_signed_i64())
}

/// Change time in nanoseconds since 1970.
pub(crate) fn ctime_ns(stat: &Stat) -> i64 {
    nanoseconds(stat.st_ctime.cast_signed_i64(), stat.st_ctime_nsec.cast_signed_i64())
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// The time fields of `stat` are signed on some architectures and unsigned on others.
trait CastSigned {
    fn cast_signed_i64(self) -> i64;
}

impl CastSigned for i64 {
    fn cast_signed_i64(self) -> i64 {
        self
    }
}

impl CastSigned for u64 {
    fn cast_signed_i64(self) -> i64 {
        self.cast_signed()
    }
}

/// Gives the blocks of the first `len` bytes back; size and times of the data stay.
pub(crate) fn punch(file: impl AsFd, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    // To the end of the last block, or its rest stays allocated.
    let len = len.div_ceil(4096) * 4096;
    rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, len)
}

/// Takes a write lease: granted only while nobody else has the file open or mapped.
pub(crate) fn take_lease(file: &File) -> Result<()> {
    set_lease(file, libc::F_WRLCK)
}

/// Takes a lease that is only given while nobody can write to the file: neither through a descriptor nor a mapping.
pub(crate) fn take_reading_lease(file: &File) -> Result<()> {
    set_lease(file, libc::F_RDLCK)
}

/// Gives the lease back; whoever waits in `open` goes on.
pub(crate) fn drop_lease(file: &File) -> Result<()> {
    set_lease(file, libc::F_UNLCK)
}

fn set_lease(file: &File, kind: libc::c_int) -> Result<()> {
    // SAFETY: fcntl with F_SETLEASE takes an integer and touches no memory of ours; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Runs `work` with the file-system identity of a caller, so that what it creates belongs to them. The kernel has
/// checked permissions already; capabilities that a change of identity drops are only needed for that check.
pub(crate) fn as_caller<T>(caller: Option<(u32, u32)>, work: impl FnOnce() -> T) -> T {
    let Some((uid, gid)) = caller.filter(|&(uid, gid)| uid != 0 || gid != 0) else { return work() };
    let _identity = Identity::assume(uid, gid);
    work()
}

/// This thread's file-system identity, put back when dropped.
struct Identity {
    uid: libc::c_long,
    gid: libc::c_long,
}

impl Identity {
    fn assume(uid: u32, gid: u32) -> Self {
        // SAFETY: setfsgid and setfsuid change this thread's credentials only and cannot fail in a way that
        // matters here: without the privilege nothing changes, and files belong to the daemon's user.
        unsafe {
            let gid = libc::syscall(libc::SYS_setfsgid, gid);
            let uid = libc::syscall(libc::SYS_setfsuid, uid);
            raise_dac_override();
            Self { uid, gid }
        }
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // SAFETY: as above; these are the identities that the thread had before.
        unsafe {
            libc::syscall(libc::SYS_setfsuid, self.uid);
            libc::syscall(libc::SYS_setfsgid, self.gid);
        }
    }
}

/// Leaving uid 0 drops the file-system capabilities from the effective set. `CAP_DAC_OVERRIDE` is raised again:
/// the kernel checked the caller's permissions, supplementary groups included, which we do not know.
fn raise_dac_override() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    if let Ok(mut sets) = capabilities(None)
        && sets.permitted.contains(CapabilitySet::DAC_OVERRIDE)
    {
        sets.effective |= CapabilitySet::DAC_OVERRIDE;
        // Refused: then the lower file system decides by the caller's own rights.
        let _ = set_capabilities(None, sets);
    }
}
