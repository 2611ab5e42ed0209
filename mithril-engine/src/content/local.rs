//! Blobs on the local disk, up to a budget of bytes, shared by processes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::index::{Index, Place, SegmentNumber};
use super::segment::{BLOB_MAX_BYTES, PREFIX, RECORD_BYTES, Record, Segment};
use crate::error::{Error, Result};
use crate::id::Address;

/// A segment is closed, and the next one begun, at this part of the budget, but at no less than this: each costs a
/// descriptor.
pub(super) const SEGMENT_PART: u64 = 64;
const SEGMENT_MIN_BYTES: u64 = 64 << 10;
/// And at this if there is no budget.
const SEGMENT_BYTES: u64 = 4 << 30;

/// How old a note of use may get, in seconds: a blob that is read all the time is not written to all the time.
const USED_SLACK: u64 = 60;

/// What a store did and has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ContentStats {
    /// Blobs on the local disk.
    pub entries: u64,
    /// Their bytes, with what each takes beside them.
    pub bytes: u64,
    /// Blobs that were asked for and were there.
    pub hits: u64,
    /// Blobs that were asked for and were not.
    pub misses: u64,
    /// Blobs that were given up to keep the budget.
    pub evictions: u64,
    /// Blobs of which the bytes were not those that had the address.
    pub damaged: u64,
}

/// Where a process appends.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) segment: Option<(SegmentNumber, Arc<Segment>)>,
    /// Which process: a child has all of this from its parent, and with it a lock that is the parent's.
    process: u32,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    pub(super) evictions: AtomicU64,
    damaged: AtomicU64,
}

/// Blobs on a disk.
#[derive(Debug)]
pub(super) struct LocalStore {
    pub(super) directory: PathBuf,
    pub(super) budget: u64,
    segment_bytes: u64,
    pub(super) index: Mutex<Index>,
    /// Where this process appends. Locked before the index.
    current: Mutex<Current>,
    pub(super) counters: Counters,
}

/// Whether a file is called as segments are.
fn is_segment(name: &OsStr) -> bool {
    let digits = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
    digits.is_some_and(|digits| {
        digits.len() == 32 && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalStore {
    /// The store in `directory`, made if it is not there, which keeps at most `budget` bytes.
    pub(super) fn open(directory: &Path, budget: u64) -> Result<Self> {
        let fail = |error| Error::io("open", directory, error);
        let mut made = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut made, 0o700);
        made.recursive(true).create(directory).map_err(fail)?;
        let store = Self {
            directory: directory.to_owned(),
            budget,
            segment_bytes: if budget == u64::MAX {
                SEGMENT_BYTES
            } else {
                (budget / SEGMENT_PART).max(SEGMENT_MIN_BYTES)
            },
            index: Mutex::new(Index::empty()),
            current: Mutex::new(Current { segment: None, process: std::process::id() }),
            counters: Counters::default(),
        };
        store.refresh()?;
        Ok(store)
    }

    /// Looks for what other processes stored, and gave up.
    pub(super) fn refresh(&self) -> Result<()> {
        let fail = |error| Error::io("list", &self.directory, error);
        // Locked before the directory is listed, or a segment that is made meanwhile would be taken for one that is gone.
        let mut index = lock(&self.index);
        let mut there = HashSet::new();
        for entry in std::fs::read_dir(&self.directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if is_segment(&entry.file_name()) {
                there.insert(entry.path());
            }
        }
        let gone: Vec<SegmentNumber> = index
            .by_path
            .iter()
            .filter(|(path, _)| !there.contains(*path))
            .map(|(_, number)| *number)
            .collect();
        gone.into_iter().for_each(|number| index.forget_segment(number));
        for path in there {
            if index.by_path.contains_key(&path) {
                continue;
            }
            match Segment::open(path) {
                Ok(Some(segment)) => drop(index.add_segment(segment)),
                Ok(None) => {}
                Err(error @ Error::Io { .. }) => return Err(error),
                // It is a store of copies: what cannot be used is done without.
                Err(error) => tracing::warn!(%error, "a segment is not used"),
            }
        }
        let mut new = Vec::new();
        for (number, open) in &index.segments {
            new.extend(open.segment.read_new()?.into_iter().map(|record| (*number, record)));
        }
        new.sort_by_key(|(_, record)| record.used);
        for (number, record) in new {
            if !record.dead {
                index.insert(number, record);
            }
        }
        Ok(())
    }

    /// Where a blob is, as far as is known here; it is used now.
    fn known(&self, address: &Address) -> Option<(Place, Arc<Segment>)> {
        let mut index = lock(&self.index);
        let place = *index.places.get(address)?;
        Some((place, index.segment(place.segment)?))
    }

    /// Where a blob is; looks for it in what others stored, too.
    fn find(&self, address: &Address) -> Result<Option<(Place, Arc<Segment>)>> {
        if let Some(found) = self.known(address) {
            return Ok(Some(found));
        }
        self.refresh()?;
        Ok(self.known(address))
    }

    /// Where a blob is that nobody gave up.
    fn find_live(&self, address: &Address) -> Result<Option<(Place, Arc<Segment>)>> {
        while let Some((place, segment)) = self.find(address)? {
            if segment.reread(&place.record).is_some_and(|now| !now.dead) {
                return Ok(Some((place, segment)));
            }
            lock(&self.index).forget(&place);
        }
        Ok(None)
    }

    /// The bytes of a blob. `None`: it is not here.
    ///
    /// Bytes that do not have the address are an error, and given up.
    pub(super) fn get(&self, address: &Address) -> Result<Option<Vec<u8>>> {
        while let Some((place, segment)) = self.find(address)? {
            let read = segment.read(&place.record);
            match &read {
                Ok(Some((now, bytes))) if Address::of(bytes) == *address => {
                    self.note_use(&place, now, &segment);
                    self.counters.hits.fetch_add(1, Ordering::Relaxed);
                    return read.map(|read| read.map(|(_, bytes)| bytes));
                }
                // The blob may be well.
                Err(Error::Io { .. }) => return read.map(|_| None),
                _ => {}
            }
            // Another process may have given it up just now, and may have moved it: one more look at what there is.
            let is_live = segment.reread(&place.record).is_some_and(|now| !now.dead);
            lock(&self.index).forget(&place);
            if is_live {
                self.counters.damaged.fetch_add(1, Ordering::Relaxed);
                // Nobody is to come here again.
                segment.kill(&place.record)?;
                read?;
                let reason = format!("its bytes in {} have another address", segment.path().display());
                return Err(Error::corrupt(format!("blob {address}"), reason));
            }
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    }

    fn note_use(&self, place: &Place, found: &Record, segment: &Segment) {
        let used = now();
        if used.saturating_sub(found.used) < USED_SLACK {
            return;
        }
        segment.touch(&place.record, used);
        if let Some(known) = lock(&self.index).places.peek_mut(&place.record.address) {
            known.record.used = used;
        }
    }

    /// Whether a blob is here.
    pub(super) fn contains(&self, address: &Address) -> Result<bool> {
        Ok(self.find_live(address)?.is_some())
    }

    /// Keeps a blob.
    pub(super) fn put(&self, address: Address, bytes: &[u8]) -> Result<()> {
        let need = bytes.len() as u64 + RECORD_BYTES;
        let most = self.budget.min(BLOB_MAX_BYTES);
        if need > most {
            let reason = format!("{} bytes are more than the store may keep: {most}", bytes.len());
            return Err(Error::invalid(format!("blob {address}"), reason));
        }
        if self.is_known_live(&address) {
            return Ok(());
        }
        let mut current = self.current();
        if self.is_known_live(&address) {
            return Ok(());
        }
        if lock(&self.index).live + need > self.budget {
            self.evict(&mut current, need)?;
        }
        self.append(&mut current, true, address, bytes, now()).map(drop)
    }

    /// Whether a blob is where it is thought to be. What others stored meanwhile is not looked for.
    fn is_known_live(&self, address: &Address) -> bool {
        self.known(address).is_some_and(|(place, segment)| {
            let is_live = segment.reread(&place.record).is_some_and(|now| !now.dead);
            if !is_live {
                lock(&self.index).forget(&place);
            }
            is_live
        })
    }

    /// Where this process appends.
    fn current(&self) -> MutexGuard<'_, Current> {
        let mut current = lock(&self.current);
        let process = std::process::id();
        if current.process != process {
            // A fork: the segment and its lock are the parent's, who goes on with them. All files are opened anew.
            *current = Current { segment: None, process };
            *lock(&self.index) = Index::empty();
        }
        current
    }

    pub(super) fn append(
        &self,
        current: &mut Current,
        adopts: bool,
        address: Address,
        bytes: &[u8],
        used: u64,
    ) -> Result<(Record, Arc<Segment>)> {
        let (number, segment) = self.segment_to_append(current, adopts)?;
        let record = segment.append(address, bytes, used)?;
        lock(&self.index).insert(number, record);
        Ok((record, segment))
    }

    /// The segment to append to: another one where that is full, or none was begun.
    fn segment_to_append(
        &self,
        current: &mut Current,
        adopts: bool,
    ) -> Result<(SegmentNumber, Arc<Segment>)> {
        if let Some((number, segment)) = &current.segment
            && segment.len() < self.segment_bytes
        {
            return Ok((*number, Arc::clone(segment)));
        }
        if let Some((_, full)) = current.segment.take() {
            full.unlock();
        }
        // How much others have stored counts against the budget too.
        self.refresh()?;
        let adopted = if adopts { self.adopt()? } else { None };
        let (number, segment) = match adopted {
            Some(adopted) => adopted,
            None => {
                let mut index = lock(&self.index);
                index.add_segment(Segment::create(&self.directory)?)
            }
        };
        current.segment = Some((number, Arc::clone(&segment)));
        Ok((number, segment))
    }

    /// A segment with room that nobody appends to any more, so that processes that store little leave few segments.
    fn adopt(&self) -> Result<Option<(SegmentNumber, Arc<Segment>)>> {
        let candidates: Vec<(SegmentNumber, Arc<Segment>)> = lock(&self.index)
            .segments
            .iter()
            .filter(|(_, open)| open.segment.len() < self.segment_bytes / 2)
            .map(|(number, open)| (*number, Arc::clone(&open.segment)))
            .collect();
        for (number, segment) in candidates {
            if segment.lock() {
                let records = segment.take_over().inspect_err(|_| segment.unlock())?;
                let mut index = lock(&self.index);
                records
                    .into_iter()
                    .filter(|record| !record.dead)
                    .for_each(|record| index.insert(number, record));
                return Ok(Some((number, segment)));
            }
        }
        Ok(None)
    }

    /// Gives up all records of a blob that are known.
    pub(super) fn give_up(&self, address: &Address) -> Result<()> {
        let places: Vec<(Place, Option<Arc<Segment>>)> = {
            let mut index = lock(&self.index);
            let places = index.remove(address);
            places.into_iter().map(|place| (place, index.segment(place.segment))).collect()
        };
        for (place, segment) in places {
            if let Some(segment) = segment {
                segment.kill(&place.record)?;
            }
        }
        Ok(())
    }

    /// Gives a blob up, wherever it is.
    pub(super) fn delete(&self, address: &Address) -> Result<()> {
        self.refresh()?;
        while lock(&self.index).places.contains(address) {
            self.give_up(address)?;
            self.refresh()?;
        }
        Ok(())
    }

    /// The addresses of all blobs that are here, in order.
    pub(super) fn list(&self) -> Result<Vec<Address>> {
        self.refresh()?;
        let mut addresses: Vec<Address> =
            lock(&self.index).places.iter().map(|(address, _)| *address).collect();
        addresses.sort_unstable();
        Ok(addresses)
    }

    /// What it did and has.
    pub(super) fn stats(&self) -> ContentStats {
        let index = lock(&self.index);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ContentStats {
            entries: index.places.len() as u64,
            bytes: index.live,
            hits: count(&self.counters.hits),
            misses: count(&self.counters.misses),
            evictions: count(&self.counters.evictions),
            damaged: count(&self.counters.damaged),
        }
    }

    /// Makes what this process stored durable.
    pub(super) fn sync(&self) -> Result<()> {
        let segments: Vec<Arc<Segment>> =
            lock(&self.index).segments.values().map(|open| Arc::clone(&open.segment)).collect();
        segments.iter().try_for_each(|segment| segment.sync())?;
        let above = self.directory.parent().filter(|above| !above.as_os_str().is_empty());
        for directory in [Some(self.directory.as_path()), above].into_iter().flatten() {
            let synced = File::open(directory).and_then(|opened| opened.sync_all());
            synced.map_err(|error| Error::io("sync", directory, error))?;
        }
        Ok(())
    }
}
