//! Why files are plain: what came of trying them, by inode, so that it goes with a file wherever it is renamed to.
//!
//! Only a hint. Whoever tells it looks at the files themselves first: one that is gone, or packed, is in no report.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use rustix::fs::Stat;

use crate::overlay::lower;

/// Files whose verdict is remembered. Those beyond are tried again by the next `sync`.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();

/// Why a file is plain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// Packing would hardly make it smaller. Holds until it changes.
    Incompressible,
    /// Somebody unpacked it. Holds until it changes.
    KeptPlain,
    /// The mount was told to leave it alone.
    Excluded,
    /// It is smaller than what the mount was told to pack.
    Small,
    /// It is one of the newest of its kind.
    Hot,
    /// It was there before the directory was mounted, and did not change since.
    Existing,
    /// It is open through the mount.
    Open,
    /// It was mapped, or open below the mount, when it was tried.
    InUse,
    /// It is known to nobody but the file system below, or was forgotten.
    Untried,
    /// It waits to be tried again.
    Waiting,
    /// No file is begun just now.
    Paused,
    /// Trying it failed.
    Failed(String),
}

impl Reason {
    /// Whether it is as it should be: nothing comes of trying the file again.
    pub(crate) fn is_final(&self) -> bool {
        use Reason::{Excluded, Existing, Hot, Incompressible, KeptPlain, Small};
        matches!(self, Incompressible | KeptPlain | Excluded | Small | Hot | Existing)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reason::Incompressible => "hardly compressible",
            Reason::KeptPlain => "unpacked by hand",
            Reason::Excluded => "excluded",
            Reason::Small => "smaller than --min-size",
            Reason::Hot => "hot: stays plain until newer ones come",
            Reason::Existing => "there before the directory was mounted; `pack` packs it",
            Reason::Open => "open",
            Reason::InUse => "in use: mapped, or open below the mount",
            Reason::Untried => "not tried yet",
            Reason::Waiting => "changed or in use just now; it is tried again later",
            Reason::Paused => "packing is paused",
            Reason::Failed(error) => error,
        })
    }
}

/// A file as it was when it was tried, and what came of it.
struct Verdict {
    size: u64,
    mtime_ns: i64,
    reason: Reason,
}

/// What came of the files that were tried last.
pub(super) struct Verdicts(Mutex<LruCache<u64, Verdict>>);

impl Verdicts {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<u64, Verdict>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what came of a file.
    pub(super) fn note(&self, stat: &Stat, reason: Reason) {
        let verdict = Verdict { size: size_of(stat), mtime_ns: lower::mtime_ns(stat), reason };
        self.lock().put(stat.st_ino, verdict);
    }

    /// Forgets what came of a file.
    pub(super) fn forget(&self, inode: u64) {
        self.lock().pop(&inode);
    }

    /// What came of a file, if it holds for the file as it is. That somebody uses it does so until it is tried again:
    /// what is written through a mapping moves its time.
    pub(super) fn of(&self, stat: &Stat) -> Option<Reason> {
        let mut verdicts = self.lock();
        let Verdict { size, mtime_ns, reason } = verdicts.get(&stat.st_ino)?;
        let is_same = (*size, *mtime_ns) == (size_of(stat), lower::mtime_ns(stat));
        (is_same || *reason == Reason::InUse).then(|| reason.clone())
    }
}

/// Bytes of a file.
pub(super) fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_of_a_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let stat = || rustix::fs::stat(&path).unwrap();
        let verdicts = Verdicts::new();
        for reason in [Reason::Incompressible, Reason::Failed("why".to_owned()), Reason::InUse] {
            let before = stat();
            verdicts.note(&before, reason.clone());
            assert_eq!(verdicts.of(&before), Some(reason.clone()));
            let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            file.set_len(before.st_size as u64 + 1).unwrap();
            let holds = (reason == Reason::InUse).then_some(reason);
            assert_eq!(verdicts.of(&stat()), holds);
        }
        verdicts.forget(stat().st_ino);
        assert_eq!(verdicts.of(&stat()), None);
    }
}
