//! What is done to a directory before the power is cut, and what is promised by then.
//!
//! Each step notes what its file may be from before its first call on, and, once the last sync has returned, that it is
//! that and nothing else. Packing, unpacking and collecting garbage are steps that note nothing: they change no byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::mapping::Mapping;
use super::promises::{Bytes, Promises, SECTOR_BYTES, State};
use crate::data::{Random, Weights};
use crate::mount::Mount;

/// Runs that write checkpoints, each a little different from the one before.
const SERIES: usize = 3;

/// Names for the checkpoints of a run: after that, they are written over.
const NAMES: u64 = 4;

/// A directory that is worked on.
pub struct Workload<'a> {
    directory: &'a Path,
    /// None on a directory without Mithril.
    mount: Option<&'a Mount>,
    position: &'a dyn Fn() -> u64,
    random: Random,
    series: Vec<Weights>,
    live: BTreeMap<String, Bytes>,
    /// Files that were never synced.
    unsynced: BTreeSet<String>,
    promises: Promises,
}

impl<'a> Workload<'a> {
    /// Nothing done yet. `position` tells how far the log of the disk has come.
    pub fn new(
        directory: &'a Path,
        mount: Option<&'a Mount>,
        position: &'a dyn Fn() -> u64,
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        let series = (0..SERIES as u64).map(|run| {
            let count = 40_000 + random.index(100_000);
            Weights::new(count, seed.wrapping_mul(31) + run)
        });
        let series = series.collect();
        let (live, unsynced, promises) = Default::default();
        Self { directory, mount, position, random, series, live, unsynced, promises }
    }

    /// Takes so many steps, and returns what is promised.
    pub fn run(mut self, steps: usize) -> Promises {
        for _ in 0..steps {
            self.step();
        }
        self.promises
    }

    fn step(&mut self) {
        match self.random.below(36) {
            0..8 => self.save(),
            8..11 => self.write(true),
            11..14 => self.write(false),
            14..24 => {
                let Some((name, old)) = self.pick() else { return self.save() };
                match self.random.below(10) {
                    0..2 => self.overwrite(&name, old),
                    2..4 => self.store_through_a_mapping(&name, old),
                    4..6 => self.cut(&name, old),
                    6 => self.append(&name, old),
                    7 => self.remove(&name, old),
                    _ => self.set_time(&name, old),
                }
            }
            24..29 => self.with_mount(|mount, _| drop(mount.sync())),
            29..34 => {
                let Some((name, _)) = self.pick() else { return };
                self.with_mount(|mount, _| drop(mount.run(&["unpack", &format!("./{name}")])));
            }
            _ => self.with_mount(|mount, _| drop(mount.run(&["gc", "."]))),
        }
    }

    fn with_mount(&self, work: impl FnOnce(&Mount, &Self)) {
        if let Some(mount) = self.mount {
            work(mount, self);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn sync_directory(&self) {
        File::open(self.directory)
            .and_then(|directory| directory.sync_all())
            .expect("a directory can be synced");
    }

    fn note(&mut self, name: &str, states: Vec<State>) {
        self.promises.note(name, (self.position)(), states, None);
    }

    /// What it is, once everything was synced.
    fn keep(&mut self, name: &str, bytes: Bytes) {
        self.note(name, vec![State::Exactly(Arc::clone(&bytes))]);
        self.live.insert(name.to_owned(), bytes);
    }

    /// The next checkpoint of a run, and its name.
    fn checkpoint(&mut self) -> (String, Bytes) {
        let run = self.random.index(SERIES);
        self.series[run].step(1e-4);
        let bytes = if run == 0 { self.series[run].fp32_file() } else { self.series[run].bf16_file() };
        (format!("run{run}_step_{}.safetensors", self.random.below(NAMES)), Arc::new(bytes))
    }

    /// A file that is there, and durable.
    fn pick(&mut self) -> Option<(String, Bytes)> {
        let at = self.random.index(self.live.len());
        let (name, bytes) = self.live.iter().nth(at)?;
        let (name, bytes) = (name.clone(), Arc::clone(bytes));
        self.settle(&name);
        Some((name, bytes))
    }

    /// Syncs a file that never was.
    fn settle(&mut self, name: &str) {
        if self.unsynced.remove(name) {
            File::open(self.path(name)).and_then(|file| file.sync_all()).expect("a file can be synced");
            self.sync_directory();
            let bytes = Arc::clone(&self.live[name]);
            self.note(name, vec![State::Exactly(bytes)]);
        }
    }

    /// What the name stands for, for a disk that has not heard of its end.
    fn before(&mut self, name: &str) -> State {
        self.settle(name);
        self.live.get(name).map_or(State::Absent, |bytes| State::Exactly(Arc::clone(bytes)))
    }

    /// As `torch.save` to a temporary name, and a rename.
    fn save(&mut self) {
        let (name, bytes) = self.checkpoint();
        let old = self.before(&name);
        let temporary = format!("{name}.tmp");
        self.note(&temporary, vec![State::Absent, State::Begun(Arc::clone(&bytes))]);
        let mut file = File::create_new(self.path(&temporary)).expect("a file can be made");
        bytes.chunks(100_000).for_each(|part| file.write_all(part).expect("it can be written"));
        file.sync_all().expect("it can be synced");
        drop(file);
        self.note(&temporary, vec![State::Absent, State::Exactly(Arc::clone(&bytes))]);
        self.note(&name, vec![old, State::Exactly(Arc::clone(&bytes))]);
        fs::rename(self.path(&temporary), self.path(&name)).expect("it can be renamed");
        self.sync_directory();
        self.note(&temporary, vec![State::Absent]);
        self.keep(&name, bytes);
    }

    /// A file under its own name, in the place of what was there; synced, or not until somebody picks it.
    fn write(&mut self, synced: bool) {
        let (name, bytes) = self.checkpoint();
        let old = self.before(&name);
        // From nothing to something, or by nothing from one to another.
        let states = match old {
            State::Absent => vec![State::Absent, State::Begun(Arc::clone(&bytes))],
            old => vec![old, State::Begun(Arc::clone(&bytes))],
        };
        self.note(&name, states);
        let mut file = File::create(self.path(&name)).expect("a file can be made");
        file.write_all(&bytes).expect("it can be written");
        if synced {
            file.sync_all().expect("it can be synced");
            self.sync_directory();
            self.keep(&name, bytes);
        } else {
            self.unsynced.insert(name.clone());
            self.live.insert(name, bytes);
        }
    }

    /// A few changes to a file of these bytes.
    fn changes(&mut self, old: &Bytes) -> Vec<(usize, Vec<u8>)> {
        let count = 1 + self.random.below(5);
        let mut change = |_| {
            let at = self.random.index(old.len());
            let len = (1 + self.random.index(20_000)).min(old.len() - at);
            (at, self.random.bytes(len))
        };
        (0..count).filter(|_| !old.is_empty()).map(&mut change).collect()
    }

    /// In place.
    fn overwrite(&mut self, name: &str, old: Bytes) {
        let changes = self.changes(&old);
        let new = Arc::new(changed(&old, &changes));
        self.note(name, vec![State::Between { old, new: Arc::clone(&new), grain: SECTOR_BYTES }]);
        let file = OpenOptions::new().write(true).open(self.path(name)).expect("it can be opened");
        changes.iter().for_each(|(at, bytes)| {
            file.write_all_at(bytes, *at as u64).expect("it can be written");
        });
        file.sync_all().expect("it can be synced");
        self.keep(name, new);
    }

    /// As in place, but nobody calls `write`, and `msync` alone makes it durable.
    fn store_through_a_mapping(&mut self, name: &str, old: Bytes) {
        if old.is_empty() {
            return;
        }
        let changes = self.changes(&old);
        let new = Arc::new(changed(&old, &changes));
        let len = old.len();
        self.note(name, vec![State::Between { old, new: Arc::clone(&new), grain: 1 }]);
        let file = OpenOptions::new().read(true).write(true).open(self.path(name)).expect("it can be opened");
        let mapping = Mapping::new(&file, len);
        drop(file);
        changes.iter().for_each(|(at, bytes)| mapping.store(*at, bytes));
        mapping.sync();
        drop(mapping);
        self.keep(name, new);
    }

    /// Makes it another length: often shorter, sometimes nothing, sometimes longer.
    fn cut(&mut self, name: &str, old: Bytes) {
        let len = match self.random.below(5) {
            0 => 0,
            1 => old.len() + self.random.index(50_000),
            _ => self.random.index(old.len()),
        };
        let mut new = old.to_vec();
        new.resize(len, 0);
        let new = Arc::new(new);
        self.note(name, vec![State::Between { old, new: Arc::clone(&new), grain: SECTOR_BYTES }]);
        let file = OpenOptions::new().write(true).open(self.path(name)).expect("it can be opened");
        file.set_len(len as u64).expect("it can be cut");
        file.sync_all().expect("it can be synced");
        self.keep(name, new);
    }

    fn append(&mut self, name: &str, old: Bytes) {
        let len = 1 + self.random.index(40_000);
        let more = self.random.bytes(len);
        let new = Arc::new([&old[..], &more].concat());
        self.note(name, vec![State::Between { old, new: Arc::clone(&new), grain: SECTOR_BYTES }]);
        let mut file = OpenOptions::new().append(true).open(self.path(name)).expect("it can be opened");
        file.write_all(&more).expect("it can be written");
        file.sync_all().expect("it can be synced");
        self.keep(name, new);
    }

    fn remove(&mut self, name: &str, old: Bytes) {
        self.note(name, vec![State::Exactly(old), State::Absent]);
        fs::remove_file(self.path(name)).expect("it can be removed");
        self.sync_directory();
        self.live.remove(name);
        self.note(name, vec![State::Absent]);
    }

    fn set_time(&mut self, name: &str, old: Bytes) {
        let (seconds, nanoseconds) =
            (1_000_000_000 + self.random.below(1 << 29), self.random.below(1_000_000_000));
        self.note(name, vec![State::Exactly(Arc::clone(&old))]);
        let file = File::open(self.path(name)).expect("it can be opened");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds))
            .expect("it is ours");
        file.sync_all().expect("it can be synced");
        let time = Some((seconds.cast_signed(), nanoseconds.cast_signed()));
        self.promises.note(name, (self.position)(), vec![State::Exactly(old)], time);
    }
}

fn changed(old: &Bytes, changes: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut new = old.to_vec();
    changes.iter().for_each(|(at, bytes)| new[*at..*at + bytes.len()].copy_from_slice(bytes));
    new
}
