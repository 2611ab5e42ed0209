//! What the process has on its heap, counted where it is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, and a count. Allocations of C (contexts of zstd, of some 200 KiB) are not seen.
pub(crate) struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Counts what is asked for, also where the system then refuses it.
fn asked(bytes: usize) {
    PEAK.fetch_max(LIVE.fetch_add(bytes, Relaxed).saturating_add(bytes), Relaxed);
}

fn given_back(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call is the system allocator's; the counts touch no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        asked(layout.size());
        // SAFETY: the caller keeps to the contract, which is the same.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() {
            given_back(layout.size());
        }
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        asked(layout.size());
        // SAFETY: the caller keeps to the contract, which is the same.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if memory.is_null() {
            given_back(layout.size());
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there at a time.
        asked(size);
        // SAFETY: the caller keeps to the contract, which is the same.
        let moved = unsafe { System.realloc(memory, layout, size) };
        given_back(if moved.is_null() { size } else { layout.size() });
        moved
    }
}

/// Runs `work` and says how many bytes it had at most beyond those that were there before.
pub(crate) fn watch<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    (result, PEAK.load(Relaxed).saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_and_freed_again_counts() {
        let (_, peak) = watch(|| drop(std::hint::black_box(vec![1u8; 1 << 20])));
        assert!(peak >= 1 << 20, "{peak}");
        let mut list = Vec::<u8>::new();
        let (refused, peak) = watch(|| list.try_reserve_exact(1 << 60).is_err());
        assert!(refused && peak >= 1 << 60, "{peak}");
    }
}
