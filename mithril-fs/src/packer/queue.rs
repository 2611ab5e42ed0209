//! Files that wait to be packed.
//!
//! Owns the order and the times; never touches a file. A path is in the queue once. Renames carry it along.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::natural::NaturalKey;
use super::pause::Pause;
use super::policy::Asked;

/// Files that were not where they had been queued, and are remembered: a rename is told a moment after it is done.
const REMEMBERED_LOST: usize = 64;

/// A file that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Item {
    /// Below the mounted directory.
    pub(super) path: PathBuf,
    /// Its size when it was queued, for estimates.
    pub(super) size: u64,
    /// Not before.
    due: Instant,
    /// Times that it was put off already.
    pub(super) attempts: u32,
    /// Put off because somebody uses it: `sync` does not wait for it.
    pub(super) deferred: bool,
    /// Whether somebody asked for it.
    pub(super) asked: Asked,
}

impl Item {
    /// The same file where it is now.
    pub(super) fn at(&self, path: PathBuf) -> Self {
        Self { path, ..self.clone() }
    }
}

#[derive(Default)]
struct State {
    items: BTreeMap<NaturalKey, Item>,
    /// The file that is being packed, where it is now.
    active: Option<Item>,
    /// The latest files that were not where they had been queued.
    lost: VecDeque<Item>,
    stopped: bool,
    /// Why no file is begun.
    pause: Pause,
    /// Counts whenever something was taken or finished, for whoever waits.
    steps: u64,
}

/// The queue. Shared by those who add and the one who packs.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file, due after `delay`. One that waits already is put off to then: it was written again.
    pub(super) fn add(&self, path: PathBuf, size: u64, delay: Duration, asked: Asked) {
        let mut item = Item { size, due: Instant::now() + delay, attempts: 0, deferred: false, asked, path };
        let mut state = self.lock();
        let key = NaturalKey::of(&item.path);
        // Whoever asked for it is still to get it.
        item.asked = state.items.get(&key).map_or(asked, |before| before.asked.max(asked));
        state.items.insert(key, item);
        self.changed.notify_all();
    }

    /// Adds a file that was found to be plain, due now, unless it waits already or is being packed.
    pub(super) fn found(&self, path: PathBuf, size: u64) {
        let mut state = self.lock();
        let key = NaturalKey::of(&path);
        let is_known =
            state.items.contains_key(&key) || state.active.as_ref().is_some_and(|active| active.path == path);
        if !is_known {
            let asked = Asked::No;
            let item = Item { size, due: Instant::now(), attempts: 0, deferred: false, asked, path };
            state.items.insert(key, item);
            self.changed.notify_all();
        }
    }

    /// The file that was taken is not at its path. If it was renamed, it waits at the other one from here on; also if
    /// that is only told later.
    pub(super) fn lost(&self, item: &Item) {
        let mut state = self.lock();
        match state.active.clone().filter(|active| active.path != item.path) {
            Some(renamed) => drop(state.items.insert(NaturalKey::of(&renamed.path), renamed)),
            None => {
                state.lost.truncate(REMEMBERED_LOST - 1);
                state.lost.push_front(item.clone());
            }
        }
        self.changed.notify_all();
    }

    /// Adds a file again that could not be packed. One that was added meanwhile stays as it is: it was closed since it
    /// was found to be open, say.
    pub(super) fn retry(&self, item: &Item, path: PathBuf, delay: Duration, deferred: bool) {
        let attempts = item.attempts.saturating_add(1);
        let (size, asked) = (item.size, item.asked);
        let again = Item { size, due: Instant::now() + delay, attempts, deferred, asked, path };
        let mut state = self.lock();
        state.items.entry(NaturalKey::of(&again.path)).or_insert(again);
        self.changed.notify_all();
    }

    /// Waits for the next due file and takes it; `None` once stopped. Of those that are due, the first by path.
    pub(super) fn take(&self) -> Option<Item> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let now = Instant::now();
            if let Some(wait) = state.pause.wait(now) {
                // For ever, if nobody says otherwise.
                let wait = wait.unwrap_or(Duration::from_secs(3600));
                state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let due = state.items.iter().find(|(_, item)| item.due <= now).map(|(key, _)| key.clone());
            if let Some(item) = due.and_then(|key| state.items.remove(&key)) {
                state.active = Some(item.clone());
                state.steps += 1;
                return Some(item);
            }
            let next = state.items.values().map(|item| item.due).min();
            state = match next {
                Some(due) => {
                    let wait = due.saturating_duration_since(now);
                    self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The file that was taken is done with, whatever became of it.
    pub(super) fn finished(&self) {
        let mut state = self.lock();
        state.active = None;
        state.steps += 1;
        self.changed.notify_all();
    }

    /// Changes why no file is begun.
    pub(super) fn pause(&self, change: impl FnOnce(&mut Pause)) {
        let mut state = self.lock();
        change(&mut state.pause);
        state.steps += 1;
        self.changed.notify_all();
    }

    /// Why no file is begun, if none is. With `on_trial`, also while it is tried whether one can be again.
    pub(super) fn paused(&self, on_trial: bool) -> Option<String> {
        let state = self.lock();
        // What is lacking keeps nobody waiting where nobody waits; whether it is there again was not looked for then.
        let is_told = state.pause.is_by_command() || state.active.is_some() || !state.items.is_empty();
        let is_told = is_told && (on_trial || state.pause.wait(Instant::now()).is_some());
        state.pause.reason().filter(|_| is_told)
    }

    /// Makes what waits, at or below `prefix`, due now. With `used_too`, also what was put off as in use.
    pub(super) fn hurry(&self, prefix: &Path, used_too: bool) {
        let mut state = self.lock();
        let now = Instant::now();
        for item in state.items.values_mut().filter(|item| item.path.starts_with(prefix)) {
            if used_too || !item.deferred {
                item.due = now;
                item.deferred = false;
            }
        }
        self.changed.notify_all();
    }

    /// Whether something at or below `prefix` waits (other than put off) or is being packed.
    pub(super) fn is_busy(&self, prefix: &Path) -> bool {
        let state = self.lock();
        let waits = state.items.values().any(|item| !item.deferred && item.path.starts_with(prefix));
        waits || state.active.as_ref().is_some_and(|item| item.path.starts_with(prefix))
    }

    /// Whether the file at `path` waits (other than put off) or is being packed.
    pub(super) fn is_due(&self, path: &Path) -> bool {
        let state = self.lock();
        let waits = state.items.get(&NaturalKey::of(path)).is_some_and(|item| !item.deferred);
        waits || state.active.as_ref().is_some_and(|item| item.path == path)
    }

    /// Waits for something to happen, or a moment.
    pub(super) fn wait_a_moment(&self) {
        let state = self.lock();
        let steps = state.steps;
        drop(
            self.changed
                .wait_timeout_while(state, Duration::from_millis(100), |state| {
                    state.steps == steps && !state.stopped
                })
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Carries renamed files and directories along.
    pub(super) fn renamed(&self, from: &Path, to: &Path, exchanged: bool) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let affected: Vec<NaturalKey> = state
            .items
            .iter()
            .filter(|(_, item)| item.path.starts_with(from) || item.path.starts_with(to))
            .map(|(key, _)| key.clone())
            .collect();
        let mut moved: Vec<Item> = affected.iter().filter_map(|key| state.items.remove(key)).collect();
        let is_lost = |item: &Item| item.path.starts_with(from) || (exchanged && item.path.starts_with(to));
        state.lost.retain(|item| {
            let found = is_lost(item);
            moved.extend(found.then(|| item.clone()));
            !found
        });
        for item in moved {
            // What was there before was replaced, if it has no other path now.
            if let Some(path) = path_after(&item.path, from, to, exchanged) {
                state.items.insert(NaturalKey::of(&path), item.at(path));
            }
        }
        if let Some(active) = &mut state.active
            && let Some(path) = path_after(&active.path, from, to, exchanged)
        {
            active.path = path;
        }
        self.changed.notify_all();
    }

    /// Stops: nothing is taken any more. Waits a while for what was taken, and returns it if it is not done then.
    pub(super) fn stop(&self, patience: Duration) -> Option<PathBuf> {
        let mut state = self.lock();
        state.stopped = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, patience, |state| state.active.is_some());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.active.as_ref().map(|item| item.path.clone())
    }

    /// Whether it was stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// What waits, and the one that is being packed, by path.
    pub(super) fn waiting(&self) -> Vec<Item> {
        let state = self.lock();
        state.active.iter().chain(state.items.values()).cloned().collect()
    }

    /// The file that was taken goes back to where it was, through no fault of its own.
    pub(super) fn put_back(&self, item: &Item, path: PathBuf) {
        let mut state = self.lock();
        let item = item.at(path);
        state.items.entry(NaturalKey::of(&item.path)).or_insert(item);
        self.changed.notify_all();
    }

    /// The file that is being packed.
    pub(super) fn active(&self) -> Option<PathBuf> {
        self.lock().active.as_ref().map(|item| item.path.clone())
    }
}

/// Where what was at `path`, at or below one of the two, is after a rename; `None` if it was replaced.
fn path_after(path: &Path, from: &Path, to: &Path, exchanged: bool) -> Option<PathBuf> {
    match (path.strip_prefix(from), path.strip_prefix(to)) {
        (Ok(rest), _) => Some(join(to, rest)),
        (_, Ok(rest)) if exchanged => Some(join(from, rest)),
        _ => None,
    }
}

/// `join` that adds no slash for an empty rest.
fn join(base: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { base.to_owned() } else { base.join(rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(paths: &[&str]) -> Queue {
        let queue = Queue::default();
        for path in paths {
            queue.add(path.into(), 1, Duration::ZERO, Asked::No);
        }
        queue
    }

    fn take_all(queue: &Queue) -> Vec<String> {
        let mut taken = Vec::new();
        while queue.is_busy(Path::new("")) {
            if let Some(item) = queue.take() {
                taken.push(item.path.display().to_string());
            }
            queue.finished();
        }
        taken
    }

    #[test]
    fn files_come_in_the_order_of_their_numbers_and_once() {
        let queue = queue(&["step_10.pt", "step_9.pt", "step_10.pt"]);
        assert_eq!(take_all(&queue), ["step_9.pt", "step_10.pt"]);
    }

    #[test]
    fn what_is_not_due_waits_unless_hurried() {
        let queue = Queue::default();
        queue.add("a".into(), 1, Duration::from_secs(3600), Asked::No);
        queue.add("b".into(), 1, Duration::ZERO, Asked::No);
        assert_eq!(queue.take().unwrap().path, Path::new("b"));
        queue.finished();
        queue.hurry(Path::new("a"), false);
        assert_eq!(queue.take().unwrap().path, Path::new("a"));
    }

    #[test]
    fn renames_carry_files_along_and_drop_what_they_replace() {
        let files = queue(&["tmp/a", "tmp/b", "final/a", "other"]);
        files.renamed(Path::new("tmp"), Path::new("done"), false);
        files.renamed(Path::new("other"), Path::new("final/a"), false);
        assert_eq!(take_all(&files), ["done/a", "done/b", "final/a"]);
        let exchanged = queue(&["x/1", "y/2"]);
        exchanged.renamed(Path::new("x"), Path::new("y"), true);
        assert_eq!(take_all(&exchanged), ["x/2", "y/1"]);
    }

    #[test]
    fn a_file_that_is_renamed_while_it_is_looked_for_is_not_lost() {
        // The rename is told before the file was looked for, or only after it was not found.
        for is_told_before in [true, false] {
            let queue = queue(&["tmp/a", "b"]);
            let first = queue.take().unwrap();
            let item = if first.path == Path::new("b") { queue.take().unwrap() } else { first };
            assert_eq!(item.path, Path::new("tmp/a"));
            let rename = || queue.renamed(Path::new("tmp"), Path::new("final"), false);
            if is_told_before {
                rename();
            }
            queue.lost(&item);
            queue.finished();
            if !is_told_before {
                assert!(!queue.waiting().iter().any(|item| item.path.ends_with("a")));
                rename();
            }
            let last = take_all(&queue).pop();
            assert_eq!(last.as_deref(), Some("final/a"), "told before: {is_told_before}");
        }
    }

    #[test]
    fn what_was_found_is_added_once_and_changes_nothing_that_waits() {
        let queue = Queue::default();
        queue.add("waits".into(), 1, Duration::from_secs(3600), Asked::No);
        queue.found("waits".into(), 1);
        queue.found("new".into(), 1);
        let active = queue.take().unwrap();
        assert_eq!(active.path, Path::new("new"));
        queue.found("new".into(), 1);
        queue.finished();
        let waiting = queue.waiting();
        assert_eq!(waiting.iter().map(|item| item.path.as_path()).collect::<Vec<_>>(), [Path::new("waits")]);
        assert!(waiting[0].due > Instant::now());
    }

    #[test]
    fn what_is_in_use_keeps_nobody_waiting() {
        let queue = queue(&["a"]);
        let item = queue.take().unwrap();
        queue.retry(&item, item.path.clone(), Duration::from_secs(60), true);
        queue.finished();
        assert!(!queue.is_busy(Path::new("")));
        assert_eq!(queue.waiting().len(), 1);
        assert_eq!(queue.stop(Duration::ZERO), None);
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn what_was_closed_while_it_was_found_open_is_not_put_off() {
        let queue = queue(&["a"]);
        let item = queue.take().unwrap();
        queue.add("a".into(), 1, Duration::ZERO, Asked::No);
        queue.retry(&item, item.path.clone(), Duration::from_secs(60), true);
        queue.finished();
        assert_eq!(take_all(&queue), ["a"]);
    }
}
