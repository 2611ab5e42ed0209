//! Reading a packed file by range. One of the two hot paths.
//!
//! A read finds its extents by offset and takes their plaintext from the cache, which decodes what it does not
//! have. A reader that goes on where it stopped is a cursor: chunks ahead of it are decoded by the pool while
//! it consumes. Several cursors on one file do not disturb each other.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::cache::ChunkCache;
use crate::codec;
use crate::error::{Error, Result};
use crate::format::manifest::{Extent, Manifest};
use crate::id::ManifestId;
use crate::range::ByteRange;

/// Readers that are followed at once in one file.
const CURSORS: usize = 8;

/// How far a read may miss a cursor's position and still belong to it: the kernel sends the reads of one
/// read-ahead window in any order.
const CURSOR_SLACK_BYTES: u64 = 4 << 20;

/// How far behind a cursor chunks are kept: reads that come late still find theirs.
const BEHIND_BYTES: u64 = 4 << 20;

/// Reads in a row after which a cursor is believed.
const CURSOR_TRUST: u32 = 2;

/// How many times further ahead than it is decoded the store is read from its disk.
const DISK_AHEAD: u64 = 4;

thread_local! {
    /// Where a read that spans chunks is put together, kept by each thread that answers reads.
    static ASSEMBLED: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A packed file, open for reading. Shared by all its readers.
#[derive(Debug)]
pub struct PackedFile {
    id: ManifestId,
    manifest: Manifest,
    /// First byte of each extent, and the file's length at the end.
    offsets: Vec<u64>,
    cache: Arc<ChunkCache>,
    ahead: Option<ReadAhead>,
    cursors: Mutex<Vec<Cursor>>,
}

/// Who decodes ahead of sequential readers, and how far.
#[derive(Clone, Debug)]
pub struct ReadAhead {
    /// Threads that decode.
    pub pool: Arc<rayon::ThreadPool>,
    /// Bytes ahead of a cursor.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// Where the next read is expected.
    next: u64,
    /// Up to where chunks were asked for.
    scheduled: u64,
    /// Up to where chunks were given back.
    consumed: u64,
    hits: u32,
    used: u64,
}

/// What a cursor's move means.
struct Moved {
    /// To be decoded ahead.
    wanted: ByteRange,
    /// Read, and not needed any more.
    consumed: ByteRange,
}

impl PackedFile {
    /// Opens the file with this manifest.
    ///
    /// # Errors
    /// Those of reading the manifest.
    pub fn open(id: ManifestId, cache: Arc<ChunkCache>, ahead: Option<ReadAhead>) -> Result<Self> {
        let manifest = cache.store().read_manifest(&id)?;
        let mut offsets = Vec::with_capacity(manifest.extents.len() + 1);
        let mut position = 0;
        for extent in &manifest.extents {
            offsets.push(position);
            position += extent.len();
        }
        offsets.push(position);
        Ok(Self { id, manifest, offsets, cache, ahead, cursors: Mutex::default() })
    }

    /// Its manifest's name.
    pub fn id(&self) -> ManifestId {
        self.id
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads up to `len` bytes from `offset` and hands them to `sink` in one piece, shorter at the end of the file.
    /// Bytes that lie in one chunk are not copied.
    ///
    /// # Errors
    /// Those of the store; nothing was handed over then.
    pub fn read_with<T>(
        self: &Arc<Self>,
        offset: u64,
        len: usize,
        sink: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let end = offset.saturating_add(len as u64).min(self.len());
        if offset >= end {
            return Ok(sink(&[]));
        }
        self.look_ahead(offset, end);
        let extents = self.extents_in(offset, end);
        if let [only] = &self.manifest.extents[extents.clone()]
            && let Extent::Chunk { id, len, .. } = only
        {
            let plaintext = self.cache.get(id, *len as usize)?;
            let start = self.offsets[extents.start];
            return Ok(sink(slice(plaintext.bytes(), offset - start, end - start)?));
        }
        let len = to_usize(end - offset)?;
        ASSEMBLED.with_borrow_mut(|buffer| {
            let buffer = codec::sized(buffer, len);
            self.fill(extents, offset, buffer)?;
            Ok(sink(buffer))
        })
    }

    /// Fills `buffer` from `offset`; all of it must lie in the file.
    ///
    /// # Errors
    /// Those of the store; `NotFound` beyond the end.
    pub fn read_exact_at(self: &Arc<Self>, buffer: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.len() {
            return Err(Error::NotFound { what: format!("byte {end} of a file of {} bytes", self.len()) });
        }
        if !buffer.is_empty() {
            self.look_ahead(offset, end);
            self.fill(self.extents_in(offset, end), offset, buffer)?;
        }
        Ok(())
    }

    /// The data at or after `offset`, as `SEEK_DATA` and `SEEK_HOLE` see it: the first range that is no hole.
    pub fn next_data(&self, offset: u64) -> Option<ByteRange> {
        let first = self.offsets.partition_point(|&start| start <= offset).saturating_sub(1);
        let is_data = |i: &usize| matches!(self.manifest.extents[*i], Extent::Chunk { .. });
        let from =
            (first..self.manifest.extents.len()).find(|i| is_data(i) && self.offsets[i + 1] > offset)?;
        let to =
            (from..self.manifest.extents.len()).find(|i| !is_data(i)).unwrap_or(self.manifest.extents.len());
        let start = self.offsets[from].max(offset);
        Some(ByteRange { offset: start, len: self.offsets[to] - start })
    }

    fn extents_in(&self, offset: u64, end: u64) -> Range<usize> {
        let first = self.offsets.partition_point(|&start| start <= offset) - 1;
        let last = self.offsets.partition_point(|&start| start < end);
        first..last.min(self.manifest.extents.len())
    }

    fn fill(&self, extents: Range<usize>, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset + buffer.len() as u64;
        for index in extents {
            let start = self.offsets[index];
            let (from, to) = (start.max(offset), self.offsets[index + 1].min(end));
            let target = slice_mut(buffer, from - offset, to - offset)?;
            match self.manifest.extents[index] {
                Extent::Hole { .. } => target.fill(0),
                Extent::Chunk { id, len, .. } => {
                    let plaintext = self.cache.get(&id, len as usize)?;
                    target.copy_from_slice(slice(plaintext.bytes(), from - start, to - start)?);
                }
            }
        }
        Ok(())
    }

    /// Follows the reader and asks for what it will want next.
    fn look_ahead(self: &Arc<Self>, offset: u64, end: u64) {
        let Some(ahead) = &self.ahead else { return };
        let Some(Moved { wanted, consumed }) = self.follow(offset, end, ahead.bytes) else { return };
        // The kernel has cached what was read: its buffers serve the chunks to come, while they are still in the
        // processor's caches.
        for index in self.whole_extents_in(consumed) {
            if let Extent::Chunk { id, .. } = self.manifest.extents[index] {
                self.cache.give_back(&id);
            }
        }
        if wanted.is_empty() {
            return;
        }
        // Disks are asked further ahead than chunks are decoded.
        let far = wanted.end().saturating_add(ahead.bytes * (DISK_AHEAD - 1)).min(self.len());
        let from = if wanted.offset == end { wanted.offset } else { far.saturating_sub(wanted.len) };
        if from < far {
            self.cache.store().will_need(self.extents_in(from, far).filter_map(
                |i| match self.manifest.extents[i] {
                    Extent::Chunk { id, .. } if !self.cache.holds(&id) => Some(id),
                    _ => None,
                },
            ));
        }
        for index in self.extents_in(wanted.offset, wanted.end()) {
            let Extent::Chunk { id, len, .. } = self.manifest.extents[index] else { continue };
            if !self.cache.holds(&id) {
                let cache = Arc::clone(&self.cache);
                // An error here is met again by the reader itself, who can be told.
                ahead.pool.spawn_fifo(move || contained(|| drop(cache.get(&id, len as usize))));
            }
        }
    }

    /// The extents that end in a range.
    fn whole_extents_in(&self, range: ByteRange) -> Range<usize> {
        let ends_before = |position: u64| self.offsets[1..].partition_point(|&end| end <= position);
        ends_before(range.offset)..ends_before(range.end())
    }

    /// Moves the cursor that this read belongs to; returns what to ask for and what to give back, if it is believed.
    fn follow(&self, offset: u64, end: u64, ahead_bytes: u64) -> Option<Moved> {
        let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        let now = cursors.iter().map(|cursor| cursor.used).max().unwrap_or(0) + 1;
        let near = |cursor: &&mut Cursor| cursor.next.abs_diff(offset) <= CURSOR_SLACK_BYTES;
        let Some(cursor) = cursors.iter_mut().filter(near).min_by_key(|c| c.next.abs_diff(offset)) else {
            if cursors.len() == CURSORS
                && let Some(oldest) = (0..CURSORS).min_by_key(|&i| cursors[i].used)
            {
                cursors.swap_remove(oldest);
            }
            cursors.push(Cursor { next: end, scheduled: end, consumed: offset, hits: 1, used: now });
            return None;
        };
        cursor.hits = cursor.hits.saturating_add(1);
        cursor.used = now;
        cursor.next = cursor.next.max(end);
        if cursor.hits < CURSOR_TRUST {
            return None;
        }
        let target = cursor.next.saturating_add(ahead_bytes).min(self.len());
        let from = cursor.scheduled.max(cursor.next);
        let wanted = ByteRange { offset: from, len: target.saturating_sub(from) };
        cursor.scheduled = cursor.scheduled.max(target);
        let behind = cursor.next.saturating_sub(BEHIND_BYTES).max(cursor.consumed);
        let consumed = ByteRange { offset: cursor.consumed, len: behind - cursor.consumed };
        cursor.consumed = behind;
        Some(Moved { wanted, consumed })
    }
}

/// Runs work of a pool that nobody waits for. A panic in it would end the process: rayon has nobody to hand it to. The
/// reader meets the same one, and can be told.
fn contained(work: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
        tracing::error!("reading ahead panicked");
    }
}

fn to_usize(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::corrupt("range", "longer than the address space"))
}

fn slice(bytes: &[u8], from: u64, to: u64) -> Result<&[u8]> {
    bytes
        .get(to_usize(from)?..to_usize(to)?)
        .ok_or_else(|| Error::corrupt("chunk", "shorter than its manifest says"))
}

fn slice_mut(bytes: &mut [u8], from: u64, to: u64) -> Result<&mut [u8]> {
    bytes
        .get_mut(to_usize(from)?..to_usize(to)?)
        .ok_or_else(|| Error::corrupt("manifest", "its extents overlap"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ahead_of_a_reader_ends_nothing() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (done, wait) = std::sync::mpsc::channel();
        pool.spawn_fifo(|| contained(|| panic!("on purpose")));
        pool.spawn_fifo(move || done.send(()).unwrap());
        wait.recv().unwrap();
    }
}
