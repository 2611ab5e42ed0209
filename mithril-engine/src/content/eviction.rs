//! Keeping the budget: which blobs are given up, and what becomes of the segments that held them.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::FlockOperation;

use super::index::SegmentNumber;
use super::local::{Current, LocalStore, SEGMENT_PART, lock};
use super::segment::Segment;
use crate::error::{Error, Result};
use crate::id::Address;

/// What is held by the one process that evicts.
const LOCK: &str = "lock";

impl LocalStore {
    /// Gives up what was used longest ago, until `need` more bytes keep the budget.
    pub(super) fn evict(&self, current: &mut Current, need: u64) -> Result<()> {
        let path = self.directory.join(LOCK);
        let held = File::options().create(true).truncate(false).write(true).open(&path);
        let held = held.map_err(|error| Error::io("open", &path, error))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&held, FlockOperation::LockExclusive))
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
                oldest.and_then(|place| Some((place, index.segment(place.segment)?)))
            };
            let Some((place, segment)) = oldest else { break };
            match segment.reread(&place.record) {
                // Another process used it meanwhile.
                Some(now) if !now.dead && now.used > place.record.used => {
                    let mut index = lock(&self.index);
                    index.insert(place.segment, now);
                    index.places.promote(&now.address);
                }
                Some(now) if !now.dead => {
                    self.give_up(&place.record.address)?;
                    self.counters.evictions.fetch_add(1, Ordering::Relaxed);
                }
                _ => lock(&self.index).forget(&place),
            }
        }
        self.compact(current)
    }

    /// Removes segments that are mostly given up, and keeps what is left of them elsewhere.
    fn compact(&self, current: &mut Current) -> Result<()> {
        let sparse: Vec<(SegmentNumber, Arc<Segment>)> = lock(&self.index)
            .segments
            .iter()
            .filter(|(_, open)| open.live * 2 <= open.segment.len())
            .map(|(number, open)| (*number, Arc::clone(&open.segment)))
            .collect();
        for (number, segment) in sparse {
            // What is appended here goes to a segment of its own, never to one that was chosen to go.
            let is_current = current.segment.as_ref().is_some_and(|(current, _)| *current == number);
            if is_current || !segment.lock() {
                continue;
            }
            let removed = self.empty_out(current, number, &segment);
            if removed.is_err() {
                segment.unlock();
            }
            removed?;
        }
        Ok(())
    }

    /// Moves what is left of a locked segment elsewhere, and removes it.
    fn empty_out(&self, current: &mut Current, number: SegmentNumber, segment: &Segment) -> Result<()> {
        for record in segment.read_new()? {
            if !record.dead {
                lock(&self.index).insert(number, record);
            }
        }
        let left = lock(&self.index).places_in(number);
        let mut moved = None;
        for place in left {
            let record = place.record;
            match segment.read(&record) {
                Ok(Some((now, bytes))) if Address::of(&bytes) == record.address => {
                    let (copy, target) = self.append(current, false, record.address, &bytes, now.used)?;
                    if segment.reread(&record).is_none_or(|now| now.dead) {
                        // Somebody removed it meanwhile.
                        target.kill(&copy)?;
                    }
                    moved = Some(target);
                }
                Err(error @ Error::Io { .. }) => return Err(error),
                _ => lock(&self.index).forget(&place),
            }
        }
        // Who made it durable is to find it after a power cut, here or there.
        if moved.is_some() {
            self.sync()?;
        }
        std::fs::remove_file(segment.path()).map_err(|error| Error::io("remove", segment.path(), error))?;
        // Those who have it open look elsewhere from now on. What it holds is copied: no failure loses anything.
        segment.read_all()?.iter().try_for_each(|record| segment.kill(record))?;
        lock(&self.index).forget_segment(number);
        Ok(())
    }
}
