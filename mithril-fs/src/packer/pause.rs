//! Why no file is begun just now: somebody said so, or there is nothing to pack with, above all no room.
//!
//! Owns the reasons and the times; the queue asks it before it gives a file out.

use std::time::{Duration, Instant};

use rustix::io::Errno;

/// How long the packer waits for something that it lacks before it tries again; doubled each time, up to the limit.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What is said while somebody paused packing.
const BY_COMMAND: &str = "by command, until `mithril-fs resume` or the next mount";

/// What the packer lacks.
#[derive(Clone, Debug)]
struct Lack {
    reason: String,
    /// No file is begun before.
    until: Instant,
    /// Times in a row that it was lacking.
    times: u32,
}

/// Why no file is begun.
#[derive(Clone, Debug, Default)]
pub(super) struct Pause {
    by_command: bool,
    lack: Option<Lack>,
}

impl Pause {
    /// Somebody wants no file to be begun.
    pub(super) fn command(&mut self) {
        self.by_command = true;
    }

    /// Whether somebody wants no file to be begun.
    pub(super) fn is_by_command(&self) -> bool {
        self.by_command
    }

    /// Somebody wants packing to go on, also where it waits.
    pub(super) fn resume(&mut self) {
        *self = Self::default();
    }

    /// Something that packing needs was lacking.
    pub(super) fn lacks(&mut self, reason: String) {
        let times = self.lack.as_ref().map_or(0, |lack| lack.times);
        let wait = FIRST_WAIT.saturating_mul(1 << times.min(10)).min(LONGEST_WAIT);
        self.lack = Some(Lack { reason, until: Instant::now() + wait, times: times.saturating_add(1) });
    }

    /// Somebody waits for packing: what was lacking is looked for at once.
    pub(super) fn try_now(&mut self) {
        if let Some(lack) = &mut self.lack {
            lack.until = Instant::now();
            lack.times = 0;
        }
    }

    /// A file was packed: nothing is lacking.
    pub(super) fn worked(&mut self) {
        self.lack = None;
    }

    /// Whether a file may be begun; if not, how long to wait before asking again, if that is known.
    pub(super) fn wait(&self, now: Instant) -> Option<Option<Duration>> {
        if self.by_command {
            return Some(None);
        }
        let until = self.lack.as_ref()?.until;
        (until > now).then(|| Some(until - now))
    }

    /// Why no file is begun; also while it is tried out whether one can be.
    pub(super) fn reason(&self) -> Option<String> {
        if self.by_command {
            Some(BY_COMMAND.to_owned())
        } else {
            self.lack.as_ref().map(|lack| lack.reason.clone())
        }
    }
}

/// What an error says is lacking, if it is something that may be there again later, and not the fault of a file.
pub(super) fn lacking(error: Errno, inodes_left: bool) -> Option<&'static str> {
    match error {
        Errno::NOSPC if !inodes_left => Some("the file system below has no inodes left"),
        Errno::NOSPC => Some("the disk is full"),
        Errno::DQUOT => Some("the disk quota is used up"),
        Errno::ROFS => Some("the file system below is read-only"),
        Errno::MFILE | Errno::NFILE => Some("there are too many open files"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_looked_for_less_and_less_often_until_somebody_waits() {
        let mut pause = Pause::default();
        assert_eq!(pause.wait(Instant::now()), None);
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            pause.lacks("no room".to_owned());
            let wait = pause.wait(Instant::now()).unwrap().unwrap();
            assert!(wait > last.saturating_sub(Duration::from_millis(500)) && wait <= LONGEST_WAIT);
            last = wait;
        }
        assert!(last > LONGEST_WAIT / 2);
        pause.try_now();
        assert_eq!((pause.wait(Instant::now()), pause.reason().as_deref()), (None, Some("no room")));
        pause.worked();
        assert_eq!(pause.reason(), None);
    }

    #[test]
    fn a_command_outlasts_what_is_lacking() {
        let mut pause = Pause::default();
        pause.lacks("no room".to_owned());
        pause.command();
        pause.worked();
        assert_eq!(pause.wait(Instant::now()), Some(None));
        assert!(pause.reason().unwrap().contains("command"));
        pause.resume();
        assert_eq!(pause.wait(Instant::now()), None);
    }
    #[test]
    fn what_may_be_there_again_later_is_no_failure_of_a_file() {
        for (error, said) in
            [(Errno::DQUOT, "quota"), (Errno::ROFS, "read-only"), (Errno::MFILE, "open files")]
        {
            assert!(lacking(error, true).unwrap().contains(said));
        }
        assert!(lacking(Errno::NOSPC, false).unwrap().contains("inodes"));
        assert!(lacking(Errno::IO, true).is_none() && lacking(Errno::ACCESS, true).is_none());
    }
}
