//! Work that may take as long as a file is big, beside the threads that answer the kernel.
//!
//! Whoever asked waits for the answer, so there is no more such work than there are callers. Its threads are limited
//! all the same: what comes beyond waits for one of them to end. That cannot deadlock, since such work waits only for
//! other such work that runs already (one unpacks, those that want to change the same file wait for it), never for
//! what is waiting here.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Threads at once.
const THREADS: usize = 256;

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    threads: usize,
    waiting: VecDeque<Work>,
}

/// Runs work on threads of its own.
#[derive(Clone, Default)]
pub(super) struct Aside(Arc<Mutex<State>>);

impl Aside {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on another thread. Where none can be had, and none runs that could do it later, it runs here.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        state.waiting.push_back(Box::new(work));
        if state.threads >= THREADS {
            return;
        }
        state.threads += 1;
        drop(state);
        let worker = self.clone();
        let spawned =
            std::thread::Builder::new().name("mithril-aside".to_owned()).spawn(move || worker.work());
        if spawned.is_err() {
            let mut state = self.lock();
            if state.threads > 1 {
                state.threads -= 1;
            } else {
                drop(state);
                self.work();
            }
        }
    }

    /// Does what waits until nothing does. The caller was counted as a thread.
    fn work(&self) {
        loop {
            let mut state = self.lock();
            let Some(work) = state.waiting.pop_front() else {
                state.threads -= 1;
                return;
            };
            drop(state);
            // Handlers catch their own panics; one that does not must not cost a thread.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn more_work_than_threads_is_all_done_and_threads_end() {
        let aside = Aside::default();
        let (done, finished) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for number in 0..2 * THREADS {
            let (done, gate) = (done.clone(), Arc::clone(&gate));
            aside.run(move || {
                // All of them are asked for before the first one may end.
                let _ = gate.lock().unwrap_or_else(PoisonError::into_inner).recv();
                done.send(number).unwrap();
                assert!(number % 7 != 0, "on purpose");
            });
        }
        assert_eq!(aside.lock().threads, THREADS);
        drop(open);
        let mut seen: Vec<usize> = (0..2 * THREADS)
            .map(|_| finished.recv_timeout(Duration::from_secs(30)).expect("it is done"))
            .collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..2 * THREADS));
        for _ in 0..3000 {
            if aside.lock().threads == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} threads did not end", aside.lock().threads);
    }
}
