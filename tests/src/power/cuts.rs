//! Disks as they may be after a power cut, made from the log.
//!
//! What was written before the last flush is there. Of what was written after it, a disk may have any part: it writes
//! in any order, and may have come to the middle of something, at the end of a sector.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::copy_sparse;
use super::log::{self, Action, Record};
use super::promises::SECTOR_BYTES;
use crate::data::Random;

/// Where the block with ext4's superblock ends.
const SUPERBLOCK_END: u64 = 4096;

/// A power cut.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Where the log had come to: what was promised until then must hold.
    pub position: u64,
    /// Records that are on the disk, from the first on.
    base: usize,
    /// What else is on the disk of the records after those.
    more: Vec<Part>,
}

/// A record of which these bytes are on the disk.
#[derive(Clone, Debug)]
struct Part {
    record: usize,
    from: u64,
    to: u64,
}

impl Cut {
    /// What to call it where it is told.
    pub fn name(&self) -> String {
        format!("records up to {} and {} later ones, at {}", self.base, self.more.len(), self.position)
    }
}

/// Which power cuts there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disk {
    /// A disk that does what it says.
    Honest,
    /// A disk that says that it flushed, and did not: what such a one loses must be noticed.
    Lying,
}

/// Chooses `count` cuts at or after the record `from`, those first that have the least on the disk for certain.
pub fn choose(records: &[Record], from: usize, count: usize, disk: Disk, random: &mut Random) -> Vec<Cut> {
    let flushes: Vec<usize> =
        (from..records.len()).filter(|&at| records[at].action == Action::Flush).collect();
    let mut cuts: Vec<Cut> = (0..count).map(|_| choose_one(records, from, &flushes, disk, random)).collect();
    cuts.sort_by_key(|cut| cut.base);
    cuts
}

fn choose_one(records: &[Record], from: usize, flushes: &[usize], disk: Disk, random: &mut Random) -> Cut {
    // Half of them anywhere, half soon after a flush: many of the writes are of one large file, and most of what happens
    // happens between.
    let end = match random.below(2) {
        0 => from + random.index(records.len() - from),
        _ => (flushes[random.index(flushes.len())] + random.index(6)).min(records.len() - 1),
    } + 1;
    let position = records[end - 1].end;
    let flushed_before = |end: usize| flushes[..flushes.partition_point(|&at| at < end)].last().copied();
    let flushed = flushed_before(end).map_or(from, |at| at + 1);
    if disk == Disk::Lying {
        let known = flushes.partition_point(|&at| at < end);
        let base = flushes[..known.saturating_sub(1 + random.index(20))].last().map_or(from, |at| at + 1);
        return Cut { position, base, more: Vec::new() };
    }
    if random.below(3) == 0 {
        // In order, as far as it came.
        let more = torn(end - 1, &records[end - 1], random).into_iter().collect();
        return Cut {
            position,
            base: (end - 1).max(flushed),
            more: if end > flushed { more } else { Vec::new() },
        };
    }
    let share = [1, 5, 9][random.index(3)];
    let mut more = Vec::new();
    for (at, record) in records.iter().enumerate().take(end).skip(flushed) {
        if random.below(10) < share {
            more.extend(if random.below(8) == 0 { torn(at, record, random) } else { whole(at, record) });
        }
    }
    Cut { position, base: flushed, more }
}

fn whole(at: usize, record: &Record) -> Option<Part> {
    (record.action != Action::Flush).then_some(Part { record: at, from: 0, to: record.len })
}

/// The beginning or the end of a record. Not of ext4's superblock, which has a checksum and is written in place: torn, it
/// could be mounted by nobody before `e2fsck` took another one.
fn torn(at: usize, record: &Record, random: &mut Random) -> Option<Part> {
    let part = whole(at, record)?;
    if record.offset < SUPERBLOCK_END {
        return Some(part);
    }
    let sectors = record.len / SECTOR_BYTES as u64;
    let middle = random.below(sectors + 1) * SECTOR_BYTES as u64;
    Some(if random.below(2) == 0 { Part { to: middle, ..part } } else { Part { from: middle, ..part } })
}

/// Makes disks from a log, one after the other.
#[derive(Debug)]
pub struct Replay {
    log: File,
    records: Vec<Record>,
    /// The disk after the first `applied` records.
    base: File,
    applied: usize,
    buffer: Vec<u8>,
}

impl Replay {
    /// Begins with the disk as it was before the log, which is changed.
    ///
    /// # Errors
    /// Those of reading.
    pub fn new(base: &Path, log: &Path) -> io::Result<Self> {
        let base = File::options().read(true).write(true).open(base)?;
        let (records, log) = (log::read(log)?, File::open(log)?);
        Ok(Self { log, records, base, applied: 0, buffer: Vec::new() })
    }

    /// What the log has.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Makes `image` the disk after a cut. Each cut has at least as much on the disk for certain as the one before it.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn make(&mut self, cut: &Cut, image: &File) -> io::Result<()> {
        while self.applied < cut.base {
            let record = self.records[self.applied];
            apply(&self.log, &record, 0, record.len, &self.base, &mut self.buffer)?;
            self.applied += 1;
        }
        copy_sparse(&self.base, image)?;
        for part in &cut.more {
            apply(&self.log, &self.records[part.record], part.from, part.to, image, &mut self.buffer)?;
        }
        Ok(())
    }
}

/// Does to a disk what a record says, between two places in it.
fn apply(
    log: &File,
    record: &Record,
    from: u64,
    to: u64,
    disk: &File,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    if from == to {
        return Ok(());
    }
    match record.action {
        Action::Flush => Ok(()),
        Action::Zero => {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(fallocate(disk, punch, record.offset + from, to - from)?)
        }
        Action::Write => {
            buffer.resize(usize::try_from(to - from).map_err(io::Error::other)?, 0);
            log.read_exact_at(buffer, record.bytes_at + from)?;
            disk.write_all_at(buffer, record.offset + from)
        }
    }
}
