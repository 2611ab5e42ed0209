//! The local content store: immutable packs, an index that can be rebuilt from them, garbage collection.
//!
//! Owns the `packs` directory and the `index` file. Everything is reached through the descriptor of the store's
//! directory, since a mount may cover its path. One process at a time may have a store open: its lock is the
//! caller's. Any number of threads read, write and collect.

mod catalog;
mod collect;
mod directory;
mod load;
mod log;
mod reader;
mod sync;
mod verify;
mod writer;

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use lru::LruCache;

use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::id::{Checksum, ChunkId, ManifestId, PackId, StoreId};
use crate::settings::CHUNK_MAX_BYTES;
use catalog::{Catalog, Location};
use directory::Directory;

pub use collect::{BrokenOff, Collected};
pub use reader::{Proof, ReadScratch};
pub use verify::Verified;
pub use writer::PackWriter;

/// Packs that are kept open for reading.
const OPEN_PACKS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The store of one directory. Shared by all threads.
#[derive(Debug)]
pub struct Store {
    id: StoreId,
    directory: Directory,
    catalog: RwLock<Catalog>,
    open_packs: Mutex<LruCache<PackId, Arc<std::fs::File>>>,
    /// Shared by everybody who relies on what no file refers to yet; exclusive for the collector.
    pins: RwLock<()>,
}

/// What a pack says of the plaintext of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its name.
    pub id: ChunkId,
    /// Its bytes.
    pub len: u32,
    /// What tells that they are still the same.
    pub checksum: Checksum,
}

impl Identity {
    /// The identity of these bytes.
    ///
    /// # Errors
    /// `Corrupt` if they are too long for a chunk.
    pub fn of(plaintext: &[u8]) -> Result<Self> {
        let len = u32::try_from(plaintext.len()).ok().filter(|&len| len as usize <= CHUNK_MAX_BYTES);
        let len = len.ok_or_else(|| Error::corrupt("piece", "too long for a chunk"))?;
        Ok(Self { id: ChunkId::of(plaintext), len, checksum: Checksum::of(plaintext) })
    }
}

/// What the index knows of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkStat {
    /// Plaintext bytes.
    pub raw_len: u32,
    /// Encoded bytes in its pack.
    pub stored_len: u32,
    /// The chunk it is a delta against.
    pub base: Option<ChunkId>,
    /// Bases under it: 0 if it stands alone.
    pub depth: u8,
    /// What its pack says of its plaintext.
    pub checksum: Option<Checksum>,
}

/// What a store takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Manifests.
    pub manifests: u64,
}

/// Keeps everything that is in the store now from being collected, until dropped. Whoever relies on a chunk
/// that no file refers to yet (a packer, from its first look-up until the stub is written) holds one.
#[derive(Debug)]
pub struct Pin<'a> {
    store: &'a Store,
    _guard: RwLockReadGuard<'a, ()>,
}

impl Store {
    /// Opens the store in the directory `dir` (the lower `.mithril`), creating what is missing. What unfinished
    /// writers left is removed; a missing or damaged index is rebuilt from the packs.
    ///
    /// # Errors
    /// `Io`; `Unsupported` for a store of a later version, of which nothing is touched; `Corrupt` if there is no index
    /// and the packs do not tell which store this is.
    pub fn open(dir: BorrowedFd<'_>) -> Result<Self> {
        let directory = Directory::open(dir)?;
        let (id, catalog) = load::load(&directory)?;
        Ok(Self {
            id,
            directory,
            catalog: RwLock::new(catalog),
            open_packs: Mutex::new(LruCache::new(OPEN_PACKS)),
            pins: RwLock::new(()),
        })
    }

    /// The store's name.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Keeps what is there from collection. Waits while a collection runs.
    pub fn pin(&self) -> Pin<'_> {
        Pin { store: self, _guard: self.pins.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// What the index knows of a chunk; `None` if it is not in the store, or a chunk under it is not.
    pub fn chunk(&self, id: &ChunkId) -> Option<ChunkStat> {
        let catalog = self.catalog();
        let (entry, depth) = catalog.whole_chunk(id)?;
        let Location { raw_len, stored_len, base, checksum, .. } = *entry;
        Some(ChunkStat { raw_len, stored_len, base, depth, checksum })
    }

    /// Reads a manifest and checks it against its name.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Io`.
    pub fn read_manifest(&self, id: &ManifestId) -> Result<Manifest> {
        reader::read_manifest(self, id)
    }

    /// Decodes a chunk into `out`, which has exactly its length, with the bases under it, and proves in that way that
    /// these are its bytes.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Io`; `out` then holds garbage.
    pub fn read_chunk(
        &self,
        id: &ChunkId,
        proof: Proof,
        scratch: &mut ReadScratch,
        out: &mut [u8],
    ) -> Result<()> {
        reader::read_chunk(self, id, proof, scratch, out)
    }

    /// Tells the system that these chunks will be read soon, with the bases under them. Chunks that are not there are
    /// passed over.
    pub fn will_need(&self, ids: impl IntoIterator<Item = ChunkId>) {
        reader::will_need(self, ids);
    }

    /// The names of all manifests.
    pub fn manifests(&self) -> Vec<ManifestId> {
        self.catalog().manifests().collect()
    }

    /// Bytes that a manifest takes in its pack; `None` if it is not in the store.
    pub fn manifest_len(&self, id: &ManifestId) -> Option<u32> {
        self.catalog().manifest(id).map(|entry| entry.stored_len)
    }

    /// What the store takes.
    pub fn usage(&self) -> Usage {
        self.catalog().usage()
    }

    /// Packs that cannot be used as they are (their header or footer is damaged, they were cut short, they are of
    /// another store), with the reason.
    pub fn damaged_packs(&self) -> Vec<(String, String)> {
        let catalog = self.catalog();
        catalog.damaged().iter().map(|(pack, reason)| (pack.to_string(), reason.clone())).collect()
    }

    /// Writes the index anew from the packs.
    ///
    /// # Errors
    /// `Io`.
    pub fn rebuild_index(&self) -> Result<()> {
        let _exclusive = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = load::rebuild(&self.directory, self.id, &self.catalog())?;
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Closes a pack that is gone, or is another file now.
    fn close_pack(&self, id: PackId) {
        self.open_packs.lock().unwrap_or_else(PoisonError::into_inner).pop(&id);
    }

    fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pack, open for reading.
    fn pack(&self, id: PackId) -> Result<Arc<std::fs::File>> {
        let mut open = self.open_packs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&id) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(self.directory.open_pack(id)?);
        open.put(id, Arc::clone(&file));
        Ok(file)
    }
}

impl<'a> Pin<'a> {
    /// Begins to write.
    ///
    /// # Errors
    /// None now; packs are begun with the first blob.
    pub fn writer(&'a self) -> Result<PackWriter<'a>> {
        Ok(PackWriter::new(self.store))
    }
}

/// An object that something refers to and that is not there.
fn not_found(what: impl std::fmt::Display) -> Error {
    Error::NotFound { what: what.to_string() }
}
