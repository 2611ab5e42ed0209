//! Work that threads do side by side, and whose results are taken in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// Threads that work at once, at most: each has some megabytes of buffers, and who takes the results is one.
const THREADS: usize = 16;

/// Results a thread that may wait for their turn, and all of them: enough that nobody has to wait for a piece that takes
/// long.
const AHEAD_A_THREAD: usize = 8;
const AHEAD: usize = 64;

/// Does `work` for each number below `count` on the threads of a pool, and gives the results to `take` in order, while the
/// work goes on. A thread takes what is due as soon as it has done a piece, so none is idle but at the very end, and no
/// more than some pieces a thread are ahead of what was taken. Neither `work` nor `take` may wait for the pool: what a
/// thread did in the meantime could be this very work, which waits for it.
///
/// # Errors
/// The first error of `take`: nothing is taken after it.
pub(super) fn ordered<T: Send>(
    pool: &rayon::ThreadPool,
    count: usize,
    work: impl Fn(usize) -> T + Sync,
    take: impl FnMut(T) -> Result<()> + Send,
) -> Result<()> {
    let threads = pool.current_num_threads().min(THREADS);
    let line = Line {
        count,
        ahead: (threads * AHEAD_A_THREAD).min(AHEAD),
        next: AtomicUsize::new(0),
        waiting: Mutex::new(Waiting { results: BTreeMap::new(), taken: 0 }),
        moved: Condvar::new(),
        taker: Mutex::new(Taker { take, error: None }),
        ended: AtomicBool::new(false),
    };
    pool.install(|| {
        rayon::scope(|scope| {
            for _ in 0..threads.min(count) {
                scope.spawn(|_| line.run(&work));
            }
        });
    });
    line.taker.into_inner().unwrap_or_else(PoisonError::into_inner).error.map_or(Ok(()), Err)
}

struct Line<T, F> {
    count: usize,
    /// How far the work may be ahead of what was taken.
    ahead: usize,
    /// The next number that nobody works for.
    next: AtomicUsize,
    waiting: Mutex<Waiting<T>>,
    /// Told when something was taken, and at the end.
    moved: Condvar,
    taker: Mutex<Taker<F>>,
    /// Nothing is to be begun any more.
    ended: AtomicBool,
}

struct Waiting<T> {
    results: BTreeMap<usize, T>,
    /// All below this were taken.
    taken: usize,
}

struct Taker<F> {
    take: F,
    error: Option<crate::error::Error>,
}

/// Lets the others go if a thread panics: what it worked for never comes.
struct Release<'a, T, F>(&'a Line<T, F>);

impl<T, F> Drop for Release<'_, T, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

impl<T: Send, F: FnMut(T) -> Result<()> + Send> Line<T, F> {
    fn run(&self, work: &(impl Fn(usize) -> T + Sync)) {
        let _release = Release(self);
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count || !self.wait_for_turn(number) {
                return;
            }
            let result = work(number);
            self.lock().results.insert(number, result);
            self.take_what_is_due();
        }
    }

    /// Waits until not too much is ahead. `false` if it is over. Whoever has the lowest number never waits here.
    fn wait_for_turn(&self, number: usize) -> bool {
        let mut waiting = self.lock();
        while !self.ended.load(Ordering::Relaxed) && number >= waiting.taken + self.ahead {
            waiting = self.moved.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        !self.ended.load(Ordering::Relaxed)
    }

    /// Takes the results whose turn it is, unless another thread is about it: that one looks again after it let go.
    fn take_what_is_due(&self) {
        while self.is_due() {
            let Ok(mut taker) = self.taker.try_lock() else { return };
            while let Some(result) = self.pop() {
                if taker.error.is_some() {
                    continue;
                }
                if let Err(error) = (taker.take)(result) {
                    taker.error = Some(error);
                    self.end();
                }
            }
        }
    }

    fn is_due(&self) -> bool {
        let waiting = self.lock();
        waiting.results.contains_key(&waiting.taken)
    }

    fn pop(&self) -> Option<T> {
        let mut waiting = self.lock();
        let taken = waiting.taken;
        let result = waiting.results.remove(&taken)?;
        waiting.taken += 1;
        self.moved.notify_all();
        Some(result)
    }
}

impl<T, F> Line<T, F> {
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        // Under the lock: who is about to wait for a turn either sees it, or waits already and is woken.
        let _waiting = self.lock();
        self.ended.store(true, Ordering::Relaxed);
        self.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    /// Takes longer for some numbers than for others.
    fn slowly(number: usize) -> usize {
        std::thread::sleep(std::time::Duration::from_micros((number as u64 * 7919) % 300));
        number
    }

    #[test]
    fn results_come_in_order_whoever_is_slow() {
        for threads in [1, 2, 5] {
            for count in [0, 1, 2, 300] {
                let mut taken = Vec::new();
                let take = |number| {
                    taken.push(number);
                    Ok(())
                };
                ordered(&pool(threads), count, slowly, take).unwrap();
                assert!(taken.iter().copied().eq(0..count), "{threads} {count}");
            }
        }
    }

    #[test]
    fn not_much_is_ahead_of_what_was_taken() {
        let (begun, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let most = AtomicUsize::new(0);
        let work = |number| {
            let ahead = begun.fetch_add(1, Ordering::SeqCst) + 1 - taken.load(Ordering::SeqCst);
            most.fetch_max(ahead, Ordering::SeqCst);
            // The first one holds all others up.
            std::thread::sleep(std::time::Duration::from_millis(if number == 0 { 100 } else { 0 }));
        };
        let take = |()| {
            taken.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        ordered(&pool(3), 500, work, take).unwrap();
        let most = most.into_inner();
        // Those that are being worked on are counted too, and what is just being taken.
        assert!((2..=3 * AHEAD_A_THREAD + 4).contains(&most), "{most}");
    }

    #[test]
    fn an_error_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let work = |number| {
            begun.fetch_add(1, Ordering::Relaxed);
            slowly(number)
        };
        let mut taken = Vec::new();
        let take = |number| {
            if number == 20 {
                return Err(Error::Cancelled);
            }
            taken.push(number);
            Ok(())
        };
        let result = ordered(&pool(2), 10_000, work, take);
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert!(taken.iter().copied().eq(0..20));
        assert!(begun.into_inner() < 100);
    }

    #[test]
    fn threads_of_the_pool_may_ask_for_it_too() {
        for threads in [1, 3] {
            let pool = pool(threads);
            let sum = |from: usize| {
                let mut sum = 0;
                let take = |number| {
                    sum += number;
                    Ok(())
                };
                ordered(&pool, 100, |number| slowly(number) + from, take).unwrap();
                sum
            };
            let (one, other) = pool.install(|| rayon::join(|| sum(0), || sum(1)));
            assert_eq!((one, other), (4950, 5050));
        }
    }

    #[test]
    fn a_panic_of_who_takes_is_handed_on() {
        let mut taken = 0;
        let take = |number: usize| {
            assert!(number != 5, "on purpose");
            taken += 1;
            Ok(())
        };
        let take = std::panic::AssertUnwindSafe(take);
        let caught = std::panic::catch_unwind(move || {
            let std::panic::AssertUnwindSafe(take) = { take };
            ordered(&pool(4), 1000, slowly, take)
        });
        assert!(caught.is_err());
    }

    #[test]
    fn a_panic_is_handed_on_and_nobody_waits_for_what_never_comes() {
        let work = |number| {
            assert!(number != 5, "on purpose");
            slowly(number)
        };
        let caught = std::panic::catch_unwind(|| ordered(&pool(4), 1000, work, |_| Ok(())));
        assert!(caught.is_err());
    }
}
