//! Decoded chunks, kept for readers up to a budget of bytes.
//!
//! A chunk that several readers want at once is decoded once: the others wait for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lru::LruCache;

use crate::error::Result;
use crate::id::ChunkId;
use crate::store::{Proof, ReadScratch, Store};

/// A place for one chunk: empty while it is being decoded.
type Slot = Arc<OnceLock<Option<Vec<u8>>>>;

/// The plaintext of a chunk, kept alive by whoever holds it.
#[derive(Clone, Debug)]
pub struct Plaintext(Slot);

impl Plaintext {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.get().and_then(Option::as_deref).unwrap_or_default()
    }
}

#[derive(Debug)]
struct Entries {
    slots: LruCache<ChunkId, (Slot, usize)>,
    bytes: usize,
    /// Buffers of evicted chunks, so that a streaming reader does not fault in new pages for every chunk.
    spare: Vec<Vec<u8>>,
}

impl Entries {
    /// Keeps the buffer of a chunk that nobody reads any more.
    fn keep_buffer(&mut self, slot: Slot) {
        if self.spare.len() < SPARE_BUFFERS
            && let Some(Some(buffer)) = Arc::into_inner(slot).and_then(OnceLock::into_inner)
        {
            self.spare.push(buffer);
        }
    }
}

/// A cache of decoded chunks over one store. Shared by all threads.
#[derive(Debug)]
pub struct ChunkCache {
    store: Arc<Store>,
    budget_bytes: usize,
    entries: Mutex<Entries>,
    scratches: Mutex<Vec<ReadScratch>>,
    decoded_bytes: AtomicU64,
}

/// Evicted buffers that are kept for reuse.
const SPARE_BUFFERS: usize = 16;

impl ChunkCache {
    /// A cache that keeps up to `budget_bytes` of plaintext (one chunk is kept even if it is larger).
    pub fn new(store: Arc<Store>, budget_bytes: usize) -> Self {
        let entries = Entries { slots: LruCache::unbounded(), bytes: 0, spare: Vec::new() };
        Self {
            store,
            budget_bytes,
            entries: Mutex::new(entries),
            scratches: Mutex::new(Vec::new()),
            decoded_bytes: AtomicU64::new(0),
        }
    }

    /// Plaintext that was decoded so far to be read, without the bases that it needed.
    pub fn decoded_bytes(&self) -> u64 {
        self.decoded_bytes.load(Ordering::Relaxed)
    }

    /// The store below.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Whether the chunk is there or on its way.
    pub fn holds(&self, id: &ChunkId) -> bool {
        self.lock().slots.contains(id)
    }

    /// The plaintext of a chunk of `len` bytes, decoded now if need be.
    ///
    /// # Errors
    /// Those of [`Store::read_chunk`]. An error is not kept: the next call tries again.
    pub fn get(&self, id: &ChunkId, len: usize) -> Result<Plaintext> {
        loop {
            let slot = self.slot(id, len);
            let mut failure = None;
            let filled = slot.get_or_init(|| match self.decode(id, len) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    failure = Some(error);
                    None
                }
            });
            if filled.is_some() {
                return Ok(Plaintext(slot));
            }
            self.remove(id, &slot);
            if let Some(error) = failure {
                return Err(error);
            }
            // Another reader failed on this slot; try for ourselves, to have an error of our own.
        }
    }

    fn decode(&self, id: &ChunkId, len: usize) -> Result<Vec<u8>> {
        let mut bytes = self.lock().spare.pop().unwrap_or_default();
        bytes.resize(len, 0);
        let idle = self.scratches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = idle.unwrap_or_default();
        let result = self.store.read_chunk(id, Proof::Checksum, &mut scratch, &mut bytes);
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        self.decoded_bytes.fetch_add(len as u64, Ordering::Relaxed);
        result.map(|()| bytes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot of a chunk; a new one pushes out the ones that were used longest ago.
    fn slot(&self, id: &ChunkId, len: usize) -> Slot {
        let mut entries = self.lock();
        if let Some((slot, _)) = entries.slots.get(id) {
            return Arc::clone(slot);
        }
        let slot = Slot::default();
        entries.slots.put(*id, (Arc::clone(&slot), len));
        entries.bytes += len;
        while entries.bytes > self.budget_bytes && entries.slots.len() > 1 {
            let Some((_, (old, old_len))) = entries.slots.pop_lru() else { break };
            entries.bytes -= old_len;
            entries.keep_buffer(old);
        }
        slot
    }

    /// Drops a chunk that its reader is done with, and keeps its buffer for the next one.
    pub fn give_back(&self, id: &ChunkId) {
        let mut entries = self.lock();
        if let Some((slot, len)) = entries.slots.pop(id) {
            entries.bytes -= len;
            entries.keep_buffer(slot);
        }
    }

    fn remove(&self, id: &ChunkId, slot: &Slot) {
        let mut entries = self.lock();
        if entries.slots.peek(id).is_some_and(|(held, _)| Arc::ptr_eq(held, slot))
            && let Some((_, len)) = entries.slots.pop(id)
        {
            entries.bytes -= len;
        }
    }
}
