//! What packing needs of the file system below: a file is begun only where it would fit even if it hardly got smaller,
//! so that packing, which is to make room, does not take the last of it from those who write. What is lacking all the
//! same keeps the packer waiting, and no file is to blame for it.

use mithril_engine::Error;
use rustix::fs::{Stat, StatVfs};
use rustix::io::Errno;

use super::pause;
use super::queue::Item;
use super::verdicts::size_of;
use super::worker::Packer;

/// What is left to those who write: this part of the disk, but no more than so many bytes.
const RESERVED_PART: u64 = 100;
const RESERVED_MAX_BYTES: u64 = 1 << 30;

/// What packing a file may take beside its bytes: a part of them for names and footers, and what is rounded up.
const OVERHEAD_PART: u64 = 64;
const OVERHEAD_BYTES: u64 = 1 << 20;

/// Why a file cannot be begun.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum NoRoom {
    /// None could.
    ForAny,
    /// This one could take more than there is. Says so.
    ForThis(String),
}

/// Whether there is room for packing a file, in a file system as it is.
fn check(space: &StatVfs, stat: &Stat) -> Result<(), NoRoom> {
    let total = space.f_blocks.saturating_mul(space.f_frsize);
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let reserve = (total / RESERVED_PART).min(RESERVED_MAX_BYTES) + OVERHEAD_BYTES;
    // Holes are not stored.
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(u64::MAX / 512).saturating_mul(512);
    let bytes = size_of(stat).min(allocated);
    let need = bytes + bytes / OVERHEAD_PART + reserve;
    if total == 0 {
        // Some file systems do not count.
        Ok(())
    } else if free < reserve {
        Err(NoRoom::ForAny)
    } else if free < need {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let said = format!("packing it may take {} MiB, and {} MiB are free", mib(need), mib(free));
        Err(NoRoom::ForThis(said))
    } else {
        Ok(())
    }
}

impl Packer {
    /// Whether there is room for packing a file.
    pub(super) fn has_room(&self, stat: &Stat) -> Result<(), NoRoom> {
        // Where it is not known, packing tells.
        self.parts.overlay.space().map_or(Ok(()), |space| check(&space, stat))
    }

    /// If an error says that something is lacking that packing needs, waits for it with all files, this one included.
    pub(super) fn waits_for(&self, item: &Item, error: &Error) -> bool {
        let Error::Io { source, .. } = error else { return false };
        Errno::from_io_error(source).is_some_and(|errno| self.waits_after(item, errno))
    }

    /// As `waits_for`.
    pub(super) fn waits_after(&self, item: &Item, errno: Errno) -> bool {
        let Some(reason) = self.lacking(errno) else { return false };
        if self.queue.paused(true).is_none() {
            tracing::warn!(path = %item.path.display(), "packing waits: {reason}");
        }
        self.queue.put_back(item, item.path.clone());
        self.queue.pause(|pause| pause.lacks(reason.to_owned()));
        true
    }

    /// Something is lacking from the beginning.
    pub(crate) fn lacks(&self, errno: Errno) {
        if let Some(reason) = self.lacking(errno) {
            self.queue.pause(|pause| pause.lacks(reason.to_owned()));
        }
    }

    /// What an error says is lacking.
    fn lacking(&self, errno: Errno) -> Option<&'static str> {
        let space = self.parts.overlay.space();
        // Some file systems make inodes as they need them, and say that they have none.
        let inodes_left = space.map_or(true, |space| space.f_files == 0 || space.f_ffree > 0);
        pause::lacking(errno, inodes_left)
    }

    /// No file is begun any more, until [`Self::resume`]. The one that is being packed is finished.
    pub(crate) fn pause(&self) {
        self.queue.pause(pause::Pause::command);
    }

    /// Files are begun again, also if something was lacking.
    pub(crate) fn resume(&self) {
        self.queue.pause(pause::Pause::resume);
    }

    /// Whether somebody wants no file to be begun.
    pub(crate) fn is_paused_by_command(&self) -> bool {
        let mut is_so = false;
        self.queue.pause(|pause| is_so = pause.is_by_command());
        is_so
    }

    /// Why no file is begun, if none is.
    pub(crate) fn paused(&self) -> Option<String> {
        self.queue.paused(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_room_for_itself_and_some_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut space = rustix::fs::statvfs(dir.path()).unwrap();
        let mut stat = rustix::fs::stat(dir.path()).unwrap();
        (space.f_frsize, space.f_blocks) = (4096, 1 << 18);
        (stat.st_size, stat.st_blocks) = (64 << 20, (64 << 20) / 512);
        for (free_mib, expected) in [(100, true), (70, false), (20, false)] {
            space.f_bavail = free_mib << 8;
            assert_eq!(check(&space, &stat).is_ok(), expected, "{free_mib} MiB");
        }
        let said = check(&space, &stat);
        assert!(matches!(&said, Err(NoRoom::ForThis(said)) if said.contains("20 MiB are free")), "{said:?}");
        stat.st_blocks = 0;
        assert_eq!(check(&space, &stat), Ok(()), "holes take nothing");
        space.f_bavail = 256;
        assert_eq!(check(&space, &stat), Err(NoRoom::ForAny));
    }
}
