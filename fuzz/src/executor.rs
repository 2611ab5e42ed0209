//! Executes the cases of one target, one after the other, in a process that may die of them.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use crate::allocations;
use crate::case::Case;
use crate::coverage::Coverage;
use crate::mutation;
use crate::random::Random;
use crate::slot::Slot;
use crate::target::{Checked, Ground, Outcome, Target};

/// A stack as small as the smallest that decoders run on in production: that of any thread of Rust's library.
const STACK_BYTES: usize = 2 << 20;

/// Cases longer than this are executed seldom.
const LONG_BYTES: usize = 48 << 10;
const LONG_ONE_IN: usize = 48;

/// Cases that are kept because they reached something new.
const KEPT_MAX: usize = 4096;

/// What became of all executions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) executions: u64,
    pub(crate) accepted: u64,
    pub(crate) heap_peak: usize,
    pub(crate) slowest: Duration,
    pub(crate) elapsed: Duration,
    /// Branches taken, in a build that counts them.
    pub(crate) branches: Option<usize>,
}

thread_local! {
    /// Where the last panic was, and its message.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work` as executions are run: on a small stack, with a pool of threads that is this one thread, so that
/// whatever is allocated or taken of time is counted, and with panics kept for their reports.
pub(crate) fn prepared<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    panic::set_hook(Box::new(|panic| {
        PANIC.with(|last| *last.borrow_mut() = format!("panic: {panic}").replace('\n', " "));
    }));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
            // It has to outlive what runs in it.
            let _pool = pool.expect("a pool of the current thread needs nothing");
            work()
        });
        thread.expect("a thread can be started").join().expect("panics of executions are caught")
    })
}

/// Executes one case, within the target's limits.
pub(crate) fn execute(target: &Target, case: &Case, ground: &mut Ground) -> (Checked, usize, Duration) {
    let (mut checked, mut heap, mut time) = measure(target, case, ground);
    let limit = (target.heap_limit)(case);
    // What took long because it was the first to touch memory, or because the machine was busy, does not again.
    for _ in 0..3 {
        if time > target.time_limit && checked.is_ok() {
            let (again, heap_again, time_again) = measure(target, case, ground);
            checked = again;
            heap = heap.max(heap_again);
            time = time.min(time_again);
        }
    }
    if checked.is_ok() && heap > limit {
        checked = Err(format!("it has {heap} bytes on the heap; the limit is {limit}"));
    }
    if checked.is_ok() && time > target.time_limit {
        checked = Err(format!("it takes {time:?}; the limit is {:?}", target.time_limit));
    }
    (checked, heap, time)
}

fn measure(target: &Target, case: &Case, ground: &mut Ground) -> (Checked, usize, Duration) {
    let begun = processor_time();
    let (checked, heap) = allocations::watch(|| {
        panic::catch_unwind(AssertUnwindSafe(|| (target.check)(case, ground)))
            .unwrap_or_else(|_| Err(PANIC.with(|last| last.borrow().clone())))
    });
    (checked, heap, processor_time().saturating_sub(begun))
}

/// What this thread has run: other processes do not count.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock that there is, and a place for its time.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let part = |value: libc::c_long| u64::try_from(value).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// Executes the seeds, then changed ones, until there were so many executions, or one has failed: its case is then in
/// the slot, and the error says how.
pub(crate) fn run(target: &Target, executions: u64, seed: u64, slot: &Slot) -> Result<Summary, String> {
    let begun = Instant::now();
    let mut random = Random::new(seed, target.name);
    let mut ground = Ground::new();
    let mut cases = (target.seeds)();
    let seeds = cases.len();
    let mut coverage = Coverage::new();
    let mut summary = Summary::default();
    while summary.executions < executions.max(seeds as u64) {
        let index = usize::try_from(summary.executions).unwrap_or(usize::MAX);
        let case = if index < seeds { cases[index].clone() } else { changed(target, &cases, &mut random) };
        slot.put(&case.to_file(target.name));
        if let Some(coverage) = &coverage {
            coverage.begin();
        }
        let (mut checked, heap, time) = execute(target, &case, &mut ground);
        let is_new = coverage.as_mut().is_some_and(Coverage::add);
        if index < seeds && checked == Ok(Outcome::Refused) {
            checked = Err("a valid encoding is refused".to_owned());
        }
        summary.executions += 1;
        summary.heap_peak = summary.heap_peak.max(heap);
        summary.slowest = summary.slowest.max(time);
        match checked {
            Ok(outcome) => summary.accepted += u64::from(outcome == Outcome::Accepted),
            Err(reason) => return Err(reason),
        }
        if is_new && index >= seeds && cases.len() < KEPT_MAX {
            cases.push(case);
        }
    }
    summary.elapsed = begun.elapsed();
    summary.branches = coverage.as_ref().map(Coverage::branches);
    Ok(summary)
}

/// A case that was changed.
fn changed(target: &Target, cases: &[Case], random: &mut Random) -> Case {
    let is_long = |case: &Case| case.input.len().max(case.len) > LONG_BYTES;
    let mut picked = random.pick(cases);
    for _ in 0..8 {
        if !is_long(picked) || random.one_in(LONG_ONE_IN) {
            break;
        }
        picked = random.pick(cases);
    }
    let mut case = picked.clone();
    case.choice = if random.one_in(2) { case.choice } else { random.next() };
    mutation::change(&mut case, cases, target.tokens, random);
    (target.repair)(&mut case, random);
    case
}
