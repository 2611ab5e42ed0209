//! Where blobs are, as one process knows it, in the order of their use.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use lru::LruCache;

use super::segment::{RECORD_BYTES, Record, Segment};
use crate::id::Address;

/// Which segment, in this process.
pub(super) type SegmentNumber = u64;

/// Where a blob is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) segment: SegmentNumber,
    pub(super) record: Record,
}

impl Place {
    fn is_at(&self, other: &Self) -> bool {
        self.segment == other.segment && self.record.offset == other.record.offset
    }
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) segment: Arc<Segment>,
    /// Bytes of blobs in it that are not given up, headers included.
    pub(super) live: u64,
}

#[derive(Debug)]
pub(super) struct Index {
    /// In the order of use.
    pub(super) places: LruCache<Address, Place>,
    pub(super) segments: HashMap<SegmentNumber, Open>,
    pub(super) by_path: HashMap<PathBuf, SegmentNumber>,
    next: SegmentNumber,
    /// Other records of blobs that have a place: two processes may store one without knowing of each other.
    pub(super) others: HashMap<Address, Vec<Place>>,
    pub(super) live: u64,
}

impl Index {
    pub(super) fn empty() -> Self {
        Self {
            places: LruCache::unbounded(),
            segments: HashMap::new(),
            by_path: HashMap::new(),
            next: 0,
            others: HashMap::new(),
            live: 0,
        }
    }

    pub(super) fn add_segment(&mut self, segment: Segment) -> (SegmentNumber, Arc<Segment>) {
        let number = self.next;
        self.next += 1;
        self.by_path.insert(segment.path().to_owned(), number);
        let segment = Arc::new(segment);
        self.segments.insert(number, Open { segment: Arc::clone(&segment), live: 0 });
        (number, segment)
    }

    /// Counts the bytes of a place, or counts them off.
    fn count(&mut self, place: &Place, is_there: bool) {
        let bytes = place.record.len + RECORD_BYTES;
        let Some(open) = self.segments.get_mut(&place.segment) else { return };
        if is_there {
            open.live += bytes;
            self.live += bytes;
        } else {
            open.live -= bytes;
            self.live -= bytes;
        }
    }

    /// Notes where a blob is. One that had a place already keeps its turn to be given up.
    pub(super) fn insert(&mut self, segment: SegmentNumber, record: Record) {
        let place = Place { segment, record };
        if !self.segments.contains_key(&segment) {
            return;
        }
        match self.places.peek_mut(&record.address).map(|known| std::mem::replace(known, place)) {
            Some(known) if known.is_at(&place) => {}
            Some(known) => {
                self.count(&place, true);
                self.count(&known, false);
                let others = self.others.entry(record.address).or_default();
                others.retain(|other| !other.is_at(&place));
                others.push(known);
            }
            None => {
                self.count(&place, true);
                self.places.put(record.address, place);
            }
        }
    }

    /// Forgets a place, unless the blob is somewhere else by now.
    pub(super) fn forget(&mut self, place: &Place) {
        let address = &place.record.address;
        if self.places.peek(address).is_some_and(|now| now.is_at(place)) {
            self.places.pop(address);
            self.count(place, false);
            self.fall_back(address);
        }
    }

    /// Takes another record of a blob for its place, if there is one.
    fn fall_back(&mut self, address: &Address) {
        if let Some(others) = self.others.get_mut(address) {
            let other = others.pop();
            if others.is_empty() {
                self.others.remove(address);
            }
            if let Some(other) = other {
                self.count(&other, true);
                self.places.put(*address, other);
            }
        }
    }

    /// Forgets a blob; returns all the places that it was known to have.
    pub(super) fn remove(&mut self, address: &Address) -> Vec<Place> {
        let mut places = self.others.remove(address).unwrap_or_default();
        if let Some(place) = self.places.pop(address) {
            self.count(&place, false);
            places.push(place);
        }
        places
    }

    pub(super) fn forget_segment(&mut self, number: SegmentNumber) {
        self.others.retain(|_, others| {
            others.retain(|other| other.segment != number);
            !others.is_empty()
        });
        let gone = self.places_in(number);
        gone.iter().for_each(|place| self.forget(place));
        if let Some(open) = self.segments.remove(&number) {
            self.by_path.remove(open.segment.path());
        }
    }

    /// The places in a segment, those first that were used last.
    pub(super) fn places_in(&self, number: SegmentNumber) -> Vec<Place> {
        self.places.iter().map(|(_, place)| *place).filter(|place| place.segment == number).collect()
    }

    pub(super) fn segment(&self, number: SegmentNumber) -> Option<Arc<Segment>> {
        self.segments.get(&number).map(|open| Arc::clone(&open.segment))
    }
}
