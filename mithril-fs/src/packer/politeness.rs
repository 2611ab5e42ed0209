//! Packing takes what others leave: processors, disks, and no more of them than a mount was told.
//!
//! Threads that encode are as nice as can be, but not `SCHED_IDLE`: they look chunks up under locks that those who
//! answer the kernel need too, and with the idle policy a busy machine might not let one of them go on to release a
//! lock for very long. The thread that packs stays as it is: it does little but wait and append, and turns files into
//! stubs under the locks of their nodes. Bytes are read from files with the idle class for I/O, where no lock is held;
//! all else has the class that it would have anyway. Of the kernel's schedulers, bfq and mq-deadline know classes;
//! "none" and kyber take no notice.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mithril_engine::range::ByteRange;
use mithril_engine::source::{FileSource, Source};

/// The niceness of threads that encode.
pub(crate) const ENCODER_NICENESS: i32 = 19;

/// How long whoever ends packing may have to wait for one who waits for their turn to read.
const MOMENT: Duration = Duration::from_millis(50);

/// How much may be read at once after nothing was read for a while.
const BURST: Duration = Duration::from_millis(100);

/// From linux/ioprio.h: this thread, and the class for those who want only what nobody else wants.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_IDLE: libc::c_int = 3 << 13;

/// Bytes a second.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_second: u64,
    /// When the next byte may be read.
    next: Mutex<Instant>,
}

impl Rate {
    /// `None` for 0, which is no limit.
    pub(super) fn new(bytes_per_second: u64) -> Option<Self> {
        (bytes_per_second > 0).then(|| Self { bytes_per_second, next: Mutex::new(Instant::now()) })
    }

    /// When so many bytes may be read, which are counted as read then.
    fn turn(&self, bytes: usize, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(now.checked_sub(BURST).unwrap_or(now));
        *next = turn + takes;
        *next
    }
}

/// A file that is read politely.
pub(super) struct PoliteSource<'a> {
    pub(super) file: FileSource,
    pub(super) rate: Option<&'a Rate>,
    /// Set by whoever wants packing to end.
    pub(super) cancel: &'a AtomicBool,
}

impl Source for PoliteSource<'_> {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(rate) = self.rate {
            let turn = rate.turn(buf.len(), Instant::now());
            loop {
                if self.cancel.load(Ordering::Relaxed) {
                    return Err(io::Error::other("packing ends"));
                }
                let wait = turn.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    break;
                }
                std::thread::sleep(wait.min(MOMENT));
            }
        }
        with_idle_io(|| self.file.read_exact_at(buf, offset))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<ByteRange>> {
        self.file.next_data(offset)
    }

    fn done_with(&self, range: ByteRange) {
        self.file.done_with(range);
    }
}

/// Does something with the idle class for I/O. Call it with nothing locked. Refused, it is done all the same.
fn with_idle_io<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: these calls take integers; 0 is the calling thread.
    let (before, set) = unsafe {
        let before = libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
        (before, libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE))
    };
    let result = work();
    if set == 0 && before >= 0 {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, before) };
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_at_once_is_waited_for_later() {
        let rate = Rate::new(1000).unwrap();
        let start = Instant::now();
        let turns: Vec<Duration> = (0..4).map(|_| rate.turn(500, start) - start).collect();
        for (number, turn) in turns.iter().enumerate() {
            let expected = 0.5 * (number + 1) as f64;
            assert!((turn.as_secs_f64() - expected).abs() < 0.11, "{turns:?}");
        }
        // What was not read for a long time is not made up for.
        let later = start + Duration::from_secs(60);
        assert!(rate.turn(500, later) - later >= Duration::from_millis(399));
        assert!(Rate::new(0).is_none());
    }

    #[test]
    fn the_class_is_what_it_was_after_reading() {
        // SAFETY: as in `with_idle_io`.
        let class = || unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) };
        let before = class();
        let during = with_idle_io(class);
        assert_eq!((during >> 13, class()), (3, before));
    }
}
