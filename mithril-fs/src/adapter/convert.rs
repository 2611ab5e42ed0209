//! fuser's types to the overlay's and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileHandle, FileType, INodeNo, TimeOrNow};
use rustix::fs::{FileType as LowerType, OFlags, Stat, Timespec};

use crate::overlay::handle::HandleId;
use crate::overlay::lower;
use crate::overlay::node::NodeId;
use crate::overlay::steady::{ATTRIBUTE_TTL, Told};

pub(super) fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

pub(super) fn handle(fh: FileHandle) -> HandleId {
    HandleId(fh.0)
}

pub(super) fn open_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}

pub(super) fn kind(kind: LowerType) -> FileType {
    match kind {
        LowerType::Directory => FileType::Directory,
        LowerType::Symlink => FileType::Symlink,
        LowerType::Fifo => FileType::NamedPipe,
        LowerType::Socket => FileType::Socket,
        LowerType::CharacterDevice => FileType::CharDevice,
        LowerType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

pub(super) fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

pub(super) fn attr(stat: &Stat, id: NodeId) -> FileAttr {
    let atime = Timespec { tv_sec: stat.st_atime, tv_nsec: i64::try_from(stat.st_atime_nsec).unwrap_or(0) };
    FileAttr {
        ino: INodeNo(id.0),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        atime: time(atime.tv_sec.saturating_mul(1_000_000_000).saturating_add(atime.tv_nsec)),
        mtime: time(lower::mtime_ns(stat)),
        ctime: time(lower::ctime_ns(stat)),
        crtime: UNIX_EPOCH,
        kind: kind(LowerType::from_raw_mode(stat.st_mode)),
        perm: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: u32::try_from(stat.st_rdev).unwrap_or(0),
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        flags: 0,
    }
}

/// How long the kernel may believe the attributes that it is told.
pub(super) fn ttl(told: &Told) -> Duration {
    if told.steady { ATTRIBUTE_TTL } else { Duration::ZERO }
}

pub(super) fn timespec(time: TimeOrNow) -> Timespec {
    match time {
        TimeOrNow::Now => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        TimeOrNow::SpecificTime(time) => match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timespec {
                tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(after.subsec_nanos()),
            },
            Err(before) => lower::timespec(
                i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, std::ops::Neg::neg),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_after_2262_do_not_panic() {
        assert_eq!(time(-1), UNIX_EPOCH - Duration::from_nanos(1));
        time(i64::MIN);
        time(i64::MAX);
        let before = UNIX_EPOCH - Duration::from_millis(1500);
        let converted = timespec(TimeOrNow::SpecificTime(before));
        assert_eq!((converted.tv_sec, converted.tv_nsec), (-2, 500_000_000));
    }
}
