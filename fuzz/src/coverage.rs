//! Which branches an execution took, in a build that counts them: `scripts/fuzz.sh --guided` makes one.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

static START: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static END: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// What the compiler calls, before `main`, with where its counters are: one byte for each branch of the program.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    START.store(start, Relaxed);
    END.store(end, Relaxed);
}

/// What all executions so far have taken.
pub(crate) struct Coverage {
    /// For each branch, the magnitudes of its counts: bit `i` for 2^`i` and more.
    seen: Vec<u8>,
}

impl Coverage {
    /// `None` in a build that does not count.
    pub(crate) fn new() -> Option<Self> {
        let len = counters().len();
        (len > 0).then(|| Self { seen: vec![0; len] })
    }

    /// Branches that were ever taken.
    pub(crate) fn branches(&self) -> usize {
        self.seen.iter().filter(|seen| **seen != 0).count()
    }

    /// Forgets what was counted last.
    pub(crate) fn begin(&self) {
        counters().fill(0);
    }

    /// Adds what was counted since. Whether a branch was taken that never was, or more often by a magnitude.
    pub(crate) fn add(&mut self) -> bool {
        let mut is_new = false;
        let (words, _) = counters().as_chunks::<8>();
        for (counts, seen) in words.iter().zip(self.seen.as_chunks_mut::<8>().0) {
            if u64::from_ne_bytes(*counts) == 0 {
                continue;
            }
            for (count, seen) in counts.iter().zip(seen) {
                let magnitude = count.checked_ilog2().map_or(0, |log| 1 << log);
                is_new |= magnitude & !*seen != 0;
                *seen |= magnitude;
            }
        }
        is_new
    }
}

/// The counters; empty in a build that does not count.
fn counters() -> &'static mut [u8] {
    let (start, end) = (START.load(Relaxed), END.load(Relaxed));
    if start.is_null() {
        return &mut [];
    }
    // SAFETY: the section of the counters, which are bytes for as long as the process lives. Code that is counted
    // writes them behind our back, but nothing is read while an execution runs.
    unsafe { std::slice::from_raw_parts_mut(start, end.addr() - start.addr()) }
}
