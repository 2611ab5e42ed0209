//! Appending to new packs.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};

use super::catalog::NewPack;
use super::directory::Unfinished;
use super::{Store, not_found};
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::pack::{self, BlobKind, Entry};
use crate::id::{ChunkId, ManifestId, PackId};
use crate::settings::{MAX_DELTA_DEPTH, PACK_TARGET_BYTES};

/// Bytes that are gathered for one write.
const WRITE_BYTES: usize = 1 << 20;

/// Level for manifests: names compress well, digests do not, and there is little of either.
const MANIFEST_ZSTD_LEVEL: i32 = 3;

/// Tells unfinished packs of one process apart.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Appends chunks and manifests to new packs. What was put is visible to readers, durably, after `finish`. Dropped
/// without it, it leaves nothing.
#[derive(Debug)]
pub struct PackWriter<'a> {
    store: &'a Store,
    current: Option<Open<'a>>,
    /// Full packs: written, not yet durable.
    full: Vec<(Unfinished<'a>, NewPack)>,
    /// Depth of the chunks that were put here.
    chunks: HashMap<ChunkId, u8>,
}

#[derive(Debug)]
struct Open<'a> {
    pack: Unfinished<'a>,
    entries: Vec<Entry>,
    buffer: Vec<u8>,
    /// Bytes of the pack that were handed to the system.
    written: u64,
}

impl std::fmt::Debug for NewPack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewPack({}, {} blobs)", self.id, self.entries.len())
    }
}

impl<'a> PackWriter<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, current: None, full: Vec::new(), chunks: HashMap::new() }
    }

    /// Whether the store or this writer has the chunk.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.chunks.contains_key(id) || self.store.chunk(id).is_some()
    }

    /// Appends an encoded chunk, unless the store or this writer has it already. Returns the bytes added.
    /// `base` is the chunk that it is a delta against; it must be in the store or in this writer.
    ///
    /// # Errors
    /// `NotFound` for a base that is not there, `Corrupt` for a chain that would be too long; `Io`.
    pub fn put_chunk(
        &mut self,
        id: ChunkId,
        raw_len: u32,
        encoded: &[u8],
        base: Option<ChunkId>,
    ) -> Result<u64> {
        if self.contains(&id) {
            return Ok(0);
        }
        let (kind, depth) = match base {
            None => (BlobKind::Chunk, 0),
            Some(base) => {
                let below = self
                    .chunks
                    .get(&base)
                    .copied()
                    .or_else(|| self.store.chunk(&base).map(|stat| stat.depth));
                let below = below.ok_or_else(|| not_found(format!("base chunk {base}")))?;
                if below >= MAX_DELTA_DEPTH {
                    return Err(Error::corrupt(
                        format!("chunk {id}"),
                        "its chain of bases would be too long",
                    ));
                }
                (BlobKind::Delta { base, depth: below + 1 }, below + 1)
            }
        };
        self.put(kind, *id.as_bytes(), raw_len, encoded)?;
        self.chunks.insert(id, depth);
        Ok(encoded.len() as u64)
    }

    /// Appends a manifest, unless the store has it. Returns its name and the bytes added.
    ///
    /// # Errors
    /// `Io`.
    pub fn put_manifest(&mut self, manifest: &Manifest) -> Result<(ManifestId, u64)> {
        let raw = manifest.encode();
        let id = ManifestId::of(&raw);
        if self.store.manifest_len(&id).is_some() {
            return Ok((id, 0));
        }
        let raw_len = u32::try_from(raw.len()).ok().filter(|&len| len as usize <= pack::MANIFEST_MAX_BYTES);
        let raw_len =
            raw_len.ok_or_else(|| Error::corrupt("manifest", "the file has too many pieces to be packed"))?;
        let packed =
            zstd::bulk::compress(&raw, MANIFEST_ZSTD_LEVEL).ok().filter(|packed| packed.len() < raw.len());
        let kind = if packed.is_some() { BlobKind::ZstdManifest } else { BlobKind::Manifest };
        let bytes = packed.unwrap_or(raw);
        self.put(kind, *id.as_bytes(), raw_len, &bytes)?;
        Ok((id, bytes.len() as u64))
    }

    /// Appends a blob of another pack as it is, for the collector.
    pub(super) fn put_copy(&mut self, entry: &Entry, bytes: &[u8]) -> Result<()> {
        self.put(entry.kind, entry.id, entry.raw_len, bytes)
    }

    fn put(&mut self, kind: BlobKind, id: [u8; 32], raw_len: u32, bytes: &[u8]) -> Result<()> {
        let stored_len =
            u32::try_from(bytes.len()).map_err(|_| Error::corrupt("blob", "too long for a pack"))?;
        let open = match &mut self.current {
            Some(open) => open,
            None => self.current.insert(Open::begin(self.store)?),
        };
        open.buffer.extend_from_slice(bytes);
        open.entries.push(Entry { kind, id, stored_len, raw_len });
        if open.buffer.len() >= WRITE_BYTES {
            open.flush()?;
        }
        if open.written + open.buffer.len() as u64 >= PACK_TARGET_BYTES {
            self.close_current()?;
        }
        Ok(())
    }

    fn close_current(&mut self) -> Result<()> {
        if let Some(open) = self.current.take() {
            self.full.push(open.close()?);
        }
        Ok(())
    }

    /// Makes all of it durable, then visible.
    ///
    /// # Errors
    /// `Io`; what is durable by then is visible or will be at the next opening, and collected if nothing needs it.
    pub fn finish(mut self) -> Result<()> {
        self.close_current()?;
        let full = std::mem::take(&mut self.full);
        if full.is_empty() {
            return Ok(());
        }
        // The system writes several files back better than one after the other.
        let packs: Result<Vec<NewPack>> = thread::scope(|scope| {
            let syncs: Vec<ScopedJoinHandle<'_, Result<NewPack>>> = full
                .into_iter()
                .map(|(unfinished, pack)| scope.spawn(move || unfinished.finish(pack.id).map(|()| pack)))
                .collect();
            syncs
                .into_iter()
                .map(|sync| {
                    sync.join().unwrap_or_else(|_| Err(Error::corrupt("pack", "syncing it panicked")))
                })
                .collect()
        });
        let packs = packs?;
        self.store.directory.sync_packs()?;
        let mut catalog = self.store.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.append(&self.store.directory, &packs, &[])
    }
}

impl<'a> Open<'a> {
    fn begin(store: &'a Store) -> Result<Self> {
        let pack = store.directory.create_unfinished(SERIAL.fetch_add(1, Ordering::Relaxed))?;
        let buffer = pack::encode_header(store.id()).to_vec();
        Ok(Self { pack, entries: Vec::new(), buffer, written: 0 })
    }

    fn flush(&mut self) -> Result<()> {
        self.pack
            .file
            .write_all_at(&self.buffer, self.written)
            .map_err(|e| Error::io("write", "a pack", e))?;
        start_writeback(&self.pack.file, self.written, self.buffer.len() as u64);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn close(mut self) -> Result<(Unfinished<'a>, NewPack)> {
        let footer = pack::encode_footer(&self.entries);
        self.buffer.extend_from_slice(&footer);
        self.buffer.extend_from_slice(&pack::encode_trailer(&footer));
        self.flush()?;
        let new = NewPack { id: PackId::of(&footer), footer, entries: self.entries, len: self.written };
        Ok((self.pack, new))
    }
}

/// Asks the system to begin writing, so that the sync at the end finds little left to do.
fn start_writeback(file: &std::fs::File, offset: u64, len: u64) {
    use std::os::fd::AsRawFd;
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: the descriptor is open and no memory is passed. A refusal changes nothing.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}
