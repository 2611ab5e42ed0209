//! Whether names moved while the tree was walked: a file that was renamed from where the walk had not been to where
//! it had is missed by it, and a collector must miss none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// Walks that are tried before renames are held up.
const FREE_TRIES: u32 = 3;

/// Counts moves of names, and can hold them up.
#[derive(Debug, Default)]
pub(crate) struct TreeGuard {
    gate: RwLock<()>,
    started: AtomicU64,
    finished: AtomicU64,
}

impl TreeGuard {
    /// Runs a system call that moves or adds a name.
    pub(crate) fn name_moves<T>(&self, call: impl FnOnce() -> T) -> T {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        // Two counters, since calls overlap: one that counted both ends could not tell two calls from none.
        self.started.fetch_add(1, Ordering::SeqCst);
        let result = call();
        self.finished.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// Runs `walk` until no name moved meanwhile; in the end, with renames held up.
    pub(crate) fn undisturbed<T, E>(&self, mut walk: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        for _ in 0..FREE_TRIES {
            // In this order: if they are equal, all that had started by the second had finished by the first.
            let finished = self.finished.load(Ordering::SeqCst);
            let started = self.started.load(Ordering::SeqCst);
            let found = walk()?;
            if finished == started && self.started.load(Ordering::SeqCst) == started {
                return Ok(found);
            }
        }
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        walk()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_walk_that_a_rename_disturbed_is_repeated() {
        let guard = TreeGuard::default();
        let mut walks = 0;
        let found: Result<u32, ()> = guard.undisturbed(|| {
            walks += 1;
            if walks == 1 {
                guard.name_moves(|| ());
            }
            Ok(walks)
        });
        assert_eq!(found, Ok(2));
    }

    #[test]
    fn renames_under_way_are_waited_for_however_many_there_are() {
        for count in 1..=3 {
            let guard = TreeGuard::default();
            let (begun, end) = (Barrier::new(count + 1), Barrier::new(count + 1));
            std::thread::scope(|scope| {
                for _ in 0..count {
                    scope.spawn(|| {
                        guard.name_moves(|| {
                            begun.wait();
                            end.wait();
                        });
                    });
                }
                begun.wait();
                let mut walks = 0;
                let found: Result<u32, ()> = guard.undisturbed(|| {
                    walks += 1;
                    if walks == FREE_TRIES {
                        end.wait();
                    }
                    Ok(walks)
                });
                if walks < FREE_TRIES {
                    // They must end before the test can fail.
                    end.wait();
                }
                assert_eq!(found, Ok(FREE_TRIES + 1), "{count} renames");
            });
        }
    }

    #[test]
    fn endless_renames_do_not_keep_a_walk_from_ending() {
        let guard = TreeGuard::default();
        let mut walks = 0;
        let found: Result<u32, ()> = guard.undisturbed(|| {
            walks += 1;
            if walks <= FREE_TRIES {
                guard.name_moves(|| ());
            }
            Ok(walks)
        });
        assert_eq!(found, Ok(FREE_TRIES + 1));
    }
}
