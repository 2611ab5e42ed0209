//! Blobs on the local disk, up to a budget of bytes, shared by processes.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use lru::LruCache;
use rustix::fs::FlockOperation;

use super::segment::{PREFIX, RECORD_BYTES, Record, Segment};
use crate::error::{Error, Result};
use crate::id::Address;

/// A segment is closed, and the next one begun, at this part of the budget, but no more and no less than these.
const SEGMENT_PART: u64 = 64;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=256 << 20;

/// How old a note of use may get, in seconds: a blob that is read all the time is not written to all the time.
const USED_SLACK: u64 = 60;

/// What is held by the one process that evicts.
const LOCK: &str = "lock";

/// Which segment, in this process.
type SegmentNumber = u64;

/// Where a blob is.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: SegmentNumber,
    record: Record,
}

#[derive(Debug)]
struct Open {
    segment: Arc<Segment>,
    /// Bytes of blobs in it that are not given up, headers included.
    live: u64,
}

#[derive(Debug)]
struct Index {
    /// In the order of use.
    places: LruCache<Address, Place>,
    segments: HashMap<SegmentNumber, Open>,
    by_path: HashMap<PathBuf, SegmentNumber>,
    next: SegmentNumber,
    live: u64,
}

impl Index {
    fn add_segment(&mut self, segment: Segment) -> SegmentNumber {
        let number = self.next;
        self.next += 1;
        self.by_path.insert(segment.path().to_owned(), number);
        self.segments.insert(number, Open { segment: Arc::new(segment), live: 0 });
        number
    }

    fn insert(&mut self, segment: SegmentNumber, record: Record) {
        self.remove(&record.address);
        let bytes = record.len + RECORD_BYTES;
        if let Some(open) = self.segments.get_mut(&segment) {
            open.live += bytes;
            self.live += bytes;
            self.places.put(record.address, Place { segment, record });
        }
    }

    fn remove(&mut self, address: &Address) -> Option<Place> {
        let place = self.places.pop(address)?;
        let bytes = place.record.len + RECORD_BYTES;
        self.live -= bytes;
        if let Some(open) = self.segments.get_mut(&place.segment) {
            open.live -= bytes;
        }
        Some(place)
    }

    /// Forgets a place, unless the blob is somewhere else by now.
    fn forget(&mut self, place: &Place) {
        let now = self.places.peek(&place.record.address);
        if now.is_some_and(|now| now.segment == place.segment && now.record.offset == place.record.offset) {
            self.remove(&place.record.address);
        }
    }

    fn forget_segment(&mut self, number: SegmentNumber) {
        let Some(open) = self.segments.get(&number) else { return };
        self.by_path.remove(open.segment.path());
        let gone: Vec<Address> = self
            .places
            .iter()
            .filter(|(_, place)| place.segment == number)
            .map(|(address, _)| *address)
            .collect();
        for address in &gone {
            self.remove(address);
        }
        self.segments.remove(&number);
    }
}

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

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    damaged: AtomicU64,
}

/// Blobs on a disk.
#[derive(Debug)]
pub(super) struct LocalStore {
    directory: PathBuf,
    budget: u64,
    segment_bytes: u64,
    index: Mutex<Index>,
    /// The segment that is appended to. Locked before the index.
    current: Mutex<Option<SegmentNumber>>,
    counters: Counters,
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalStore {
    /// The store in `directory`, made if it is not there, which keeps at most `budget` bytes.
    pub(super) fn open(directory: &Path, budget: u64) -> Result<Self> {
        let fail = |error| Error::io("open", directory, error);
        let mut made = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut made, 0o700);
        made.recursive(true).create(directory).map_err(fail)?;
        let index = Index {
            places: LruCache::unbounded(),
            segments: HashMap::new(),
            by_path: HashMap::new(),
            next: 0,
            live: 0,
        };
        let store = Self {
            directory: directory.to_owned(),
            budget,
            segment_bytes: (budget / SEGMENT_PART).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()),
            index: Mutex::new(index),
            current: Mutex::default(),
            counters: Counters::default(),
        };
        store.refresh()?;
        Ok(store)
    }

    /// Looks for what other processes stored, and gave up.
    fn refresh(&self) -> Result<()> {
        let fail = |error| Error::io("list", &self.directory, error);
        let mut there = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                there.push(entry.path());
            }
        }
        let mut index = lock(&self.index);
        let gone: Vec<SegmentNumber> = index
            .by_path
            .iter()
            .filter(|(path, _)| !there.contains(path))
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
                // It is a store of copies: what cannot be used is done without.
                Err(error) => tracing::warn!(%error, "a segment is not used"),
            }
        }
        let mut new = Vec::new();
        for (number, open) in &index.segments {
            match open.segment.read_new() {
                Ok(records) => new.extend(records.into_iter().map(|record| (*number, record))),
                Err(error) => tracing::warn!(%error, "a segment is not read"),
            }
        }
        new.sort_by_key(|(_, record)| record.used);
        for (number, record) in new {
            if !record.dead {
                index.insert(number, record);
            }
        }
        Ok(())
    }

    /// Where a blob is; looks for it in what others stored, too.
    fn find(&self, address: &Address) -> Result<Option<(Place, Arc<Segment>)>> {
        let look = || {
            let mut index = lock(&self.index);
            let place = *index.places.get(address)?;
            let open = index.segments.get(&place.segment)?;
            Some((place, Arc::clone(&open.segment)))
        };
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        self.refresh()?;
        Ok(look())
    }

    /// The bytes of a blob. `None`: it is not here.
    ///
    /// Bytes that do not have the address are an error, and given up.
    pub(super) fn get(&self, address: &Address) -> Result<Option<Vec<u8>>> {
        let mut again = true;
        while let Some((place, segment)) = self.find(address)? {
            let read = segment.read(&place.record);
            if let Ok(Some((now, bytes))) = &read
                && Address::of(bytes) == *address
            {
                self.note_use(&place, now, &segment);
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                return read.map(|read| read.map(|(_, bytes)| bytes));
            }
            lock(&self.index).forget(&place);
            if !matches!(read, Ok(None)) {
                self.counters.damaged.fetch_add(1, Ordering::Relaxed);
                // Nobody is to come here again.
                segment.kill(&place.record)?;
                read?;
                let reason = format!("its bytes in {} have another address", segment.path().display());
                return Err(Error::corrupt(format!("blob {address}"), reason));
            }
            // Another process gave it up, and may have moved it: one more look at what there is.
            if !std::mem::take(&mut again) {
                break;
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
        Ok(self.find(address)?.is_some())
    }

    /// Keeps a blob.
    pub(super) fn put(&self, address: Address, bytes: &[u8]) -> Result<()> {
        let need = bytes.len() as u64 + RECORD_BYTES;
        if need > self.budget {
            let reason = format!("{} bytes are more than the store may keep: {}", bytes.len(), self.budget);
            return Err(Error::invalid(format!("blob {address}"), reason));
        }
        if lock(&self.index).places.get(&address).is_some() {
            return Ok(());
        }
        let mut current = lock(&self.current);
        if lock(&self.index).places.contains(&address) {
            return Ok(());
        }
        if lock(&self.index).live + need > self.budget {
            self.evict(&mut current, need)?;
        }
        self.append(&mut current, true, address, bytes, now())
    }

    fn append(
        &self,
        current: &mut Option<SegmentNumber>,
        adopts: bool,
        address: Address,
        bytes: &[u8],
        used: u64,
    ) -> Result<()> {
        let (number, segment) = self.current(current, adopts)?;
        let record = segment.append(address, bytes, used)?;
        lock(&self.index).insert(number, record);
        Ok(())
    }

    /// The segment to append to: a new one where that is full, or none was begun.
    fn current(
        &self,
        current: &mut Option<SegmentNumber>,
        adopts: bool,
    ) -> Result<(SegmentNumber, Arc<Segment>)> {
        if let Some(number) = *current
            && let Some(open) = lock(&self.index).segments.get(&number)
            && open.segment.len() < self.segment_bytes
        {
            return Ok((number, Arc::clone(&open.segment)));
        }
        if let Some(full) = current.take().and_then(|number| self.segment(number)) {
            full.unlock();
        }
        let adopted = if adopts { self.adopt()? } else { None };
        let (number, segment) = match adopted {
            Some(adopted) => adopted,
            None => {
                let number = lock(&self.index).add_segment(Segment::create(&self.directory)?);
                (number, self.segment(number).ok_or(Error::Cancelled)?)
            }
        };
        *current = Some(number);
        Ok((number, segment))
    }

    fn segment(&self, number: SegmentNumber) -> Option<Arc<Segment>> {
        lock(&self.index).segments.get(&number).map(|open| Arc::clone(&open.segment))
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
                self.read_new(number, &segment)?;
                segment.own();
                return Ok(Some((number, segment)));
            }
        }
        Ok(None)
    }

    fn read_new(&self, number: SegmentNumber, segment: &Segment) -> Result<()> {
        let records = segment.read_new()?;
        let mut index = lock(&self.index);
        records.into_iter().filter(|record| !record.dead).for_each(|record| index.insert(number, record));
        Ok(())
    }

    /// Gives up what was used longest ago, until `need` more bytes keep the budget.
    fn evict(&self, current: &mut Option<SegmentNumber>, need: u64) -> Result<()> {
        let path = self.directory.join(LOCK);
        let held = File::options().create(true).truncate(false).write(true).open(&path);
        let held = held.map_err(|error| Error::io("open", &path, error))?;
        rustix::fs::flock(&held, FlockOperation::LockExclusive)
            .map_err(|error| Error::io("lock", &path, error))?;
        self.refresh()?;
        // Some more than is needed, so that not every blob has to look for room.
        let goal = self.budget - need.max(self.budget / SEGMENT_PART).min(self.budget);
        loop {
            let oldest = {
                let index = lock(&self.index);
                if index.live <= goal {
                    break;
                }
                let oldest = index.places.peek_lru().map(|(_, place)| *place);
                oldest
                    .and_then(|place| Some((place, Arc::clone(&index.segments.get(&place.segment)?.segment))))
            };
            let Some((place, segment)) = oldest else { break };
            match segment.reread(&place.record) {
                // Another process used it meanwhile.
                Some(now) if !now.dead && now.used > place.record.used => {
                    lock(&self.index).insert(place.segment, now);
                }
                Some(now) if !now.dead => {
                    segment.kill(&place.record)?;
                    lock(&self.index).forget(&place);
                    self.counters.evictions.fetch_add(1, Ordering::Relaxed);
                }
                _ => lock(&self.index).forget(&place),
            }
        }
        self.compact(current)
    }

    /// Removes segments that are mostly given up, and keeps what is left of them elsewhere.
    fn compact(&self, current: &mut Option<SegmentNumber>) -> Result<()> {
        let sparse: Vec<(SegmentNumber, Arc<Segment>)> = lock(&self.index)
            .segments
            .iter()
            .filter(|(number, open)| Some(**number) != *current && open.live * 2 <= open.segment.len())
            .map(|(number, open)| (*number, Arc::clone(&open.segment)))
            .collect();
        for (number, segment) in sparse {
            // What is appended here goes to a segment that was not chosen before.
            if Some(number) == *current || !segment.lock() {
                continue;
            }
            self.read_new(number, &segment)?;
            let left: Vec<Record> = lock(&self.index)
                .places
                .iter()
                .filter(|(_, place)| place.segment == number)
                .map(|(_, place)| place.record)
                .collect();
            for record in left {
                match segment.read(&record) {
                    Ok(Some((now, bytes))) if Address::of(&bytes) == record.address => {
                        self.append(current, false, record.address, &bytes, now.used)?;
                    }
                    _ => {
                        lock(&self.index).remove(&record.address);
                    }
                }
            }
            std::fs::remove_file(segment.path())
                .map_err(|error| Error::io("remove", segment.path(), error))?;
            lock(&self.index).forget_segment(number);
        }
        Ok(())
    }

    /// Gives a blob up. Whether it was here.
    pub(super) fn delete(&self, address: &Address) -> Result<bool> {
        let Some((place, segment)) = self.find(address)? else { return Ok(false) };
        segment.kill(&place.record)?;
        lock(&self.index).forget(&place);
        Ok(true)
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
        let directory = File::open(&self.directory).and_then(|directory| directory.sync_all());
        directory.map_err(|error| Error::io("sync", &self.directory, error))
    }
}
