//! Appending to new packs.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::catalog::NewPack;
use super::directory::Unfinished;
use super::sync::Syncs;
use super::{Identity, Store, not_found};
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::pack::{self, BlobKind, Entry};
use crate::id::{Checksum, ChunkId, ManifestId, PackId};
use crate::settings::{MAX_DELTA_DEPTH, PACK_MAX_BLOBS, PACK_TARGET_BYTES};
use crate::step::{self, Step};

/// Bytes that are gathered for one write.
const WRITE_BYTES: usize = 1 << 20;

/// Level for manifests: names compress well, digests do not, and there is little of either.
const MANIFEST_ZSTD_LEVEL: i32 = 3;

/// Tells unfinished packs of one process apart.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Appends chunks and manifests to new packs. What was put is visible to readers, durably, after `finish`. Dropped
/// without it, it leaves nothing.
///
/// Full packs are made durable and closed while the next one is written; all of them get their names at the end. So
/// it takes a few descriptors, however much is put.
#[derive(Debug)]
pub struct PackWriter<'a> {
    store: &'a Store,
    pub(super) limits: Limits,
    current: Option<Open<'a>>,
    /// Full packs: written, and durable once `syncs` are done.
    full: Vec<(Unfinished<'a>, NewPack)>,
    syncs: Syncs,
    /// Depth of the chunks that were put here.
    chunks: HashMap<ChunkId, u8>,
}

/// When a pack is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) blobs: usize,
}

#[derive(Debug)]
struct Open<'a> {
    pack: Unfinished<'a>,
    file: File,
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
        Self {
            store,
            limits: Limits { bytes: PACK_TARGET_BYTES, blobs: PACK_MAX_BLOBS },
            current: None,
            full: Vec::new(),
            syncs: Syncs::default(),
            chunks: HashMap::new(),
        }
    }

    /// Whether the store or this writer has the chunk, and the bases under it.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.chunks.contains_key(id) || self.store.chunk(id).is_some()
    }

    /// Whether a chunk can be a delta against this one: it is there, and the chain would not be too long.
    pub fn takes_base(&self, base: &ChunkId) -> bool {
        self.depth(base).is_some_and(|depth| depth < MAX_DELTA_DEPTH)
    }

    fn depth(&self, id: &ChunkId) -> Option<u8> {
        self.chunks.get(id).copied().or_else(|| self.store.chunk(id).map(|stat| stat.depth))
    }

    /// Appends an encoded chunk, unless the store or this writer has it already. Returns the bytes added.
    /// `base` is the chunk that it is a delta against; it must be in the store or in this writer.
    ///
    /// # Errors
    /// `NotFound` for a base that is not there, `Corrupt` for a chain that would be too long; `Io`.
    pub fn put_chunk(&mut self, chunk: &Identity, encoded: &[u8], base: Option<ChunkId>) -> Result<u64> {
        let id = chunk.id;
        if self.contains(&id) {
            return Ok(0);
        }
        let (kind, depth) = match base {
            None => (BlobKind::Chunk, 0),
            Some(base) => {
                let below = self.depth(&base).ok_or_else(|| not_found(format!("base chunk {base}")))?;
                if below >= MAX_DELTA_DEPTH {
                    return Err(Error::corrupt(
                        format!("chunk {id}"),
                        "its chain of bases would be too long",
                    ));
                }
                (BlobKind::Delta { base, depth: below + 1 }, below + 1)
            }
        };
        self.put_entry(kind, chunk, encoded)?;
        self.chunks.insert(id, depth);
        Ok(encoded.len() as u64)
    }

    /// Appends a chunk whose copy in the store cannot be read, unless this writer has it already. Returns the bytes
    /// added. The new copy takes the place of the old one. It stands alone: what is in the store may be a delta
    /// against this very chunk, and would be its own base.
    ///
    /// # Errors
    /// `Io`.
    pub fn replace_chunk(&mut self, chunk: &Identity, encoded: &[u8]) -> Result<u64> {
        if self.chunks.contains_key(&chunk.id) {
            return Ok(0);
        }
        self.put_entry(BlobKind::Chunk, chunk, encoded)?;
        self.chunks.insert(chunk.id, 0);
        Ok(encoded.len() as u64)
    }

    /// Appends a manifest, unless the store has it and can read it. Returns its name and the bytes added.
    ///
    /// # Errors
    /// `Io`; `Corrupt` for one that would not be read again.
    pub fn put_manifest(&mut self, manifest: &Manifest) -> Result<(ManifestId, u64)> {
        let raw = manifest.encode();
        let id = ManifestId::of(&raw);
        if self.store.manifest_len(&id).is_some() {
            match self.store.read_manifest(&id) {
                Ok(_) => return Ok((id, 0)),
                Err(error) => tracing::warn!(%error, "a manifest cannot be read; writing it anew"),
            }
        }
        let raw_len = u32::try_from(raw.len()).ok().filter(|&len| len as usize <= pack::MANIFEST_MAX_BYTES);
        let raw_len =
            raw_len.ok_or_else(|| Error::corrupt("manifest", "the file has too many pieces to be packed"))?;
        let unreadable = |reason: String| Error::corrupt("a manifest just after encoding", reason);
        if Manifest::decode(&raw).map_err(|e| unreadable(e.to_string()))? != *manifest {
            return Err(unreadable("it decodes to another one".to_owned()));
        }
        let packed =
            zstd::bulk::compress(&raw, MANIFEST_ZSTD_LEVEL).ok().filter(|packed| packed.len() < raw.len());
        if let Some(packed) = &packed
            && zstd::bulk::decompress(packed, raw.len()).map_err(|e| unreadable(e.to_string()))? != raw
        {
            return Err(unreadable("it decompresses to other bytes".to_owned()));
        }
        let kind = if packed.is_some() { BlobKind::ZstdManifest } else { BlobKind::Manifest };
        let bytes = packed.unwrap_or(raw);
        self.put(kind, *id.as_bytes(), raw_len, None, &bytes)?;
        Ok((id, bytes.len() as u64))
    }

    /// Appends a blob of another pack as it is, for the collector.
    pub(super) fn put_copy(&mut self, entry: &Entry, bytes: &[u8]) -> Result<()> {
        self.put(entry.kind, entry.id, entry.raw_len, entry.checksum, bytes)
    }

    fn put_entry(&mut self, kind: BlobKind, chunk: &Identity, encoded: &[u8]) -> Result<()> {
        self.put(kind, *chunk.id.as_bytes(), chunk.len, Some(chunk.checksum), encoded)
    }

    fn put(
        &mut self,
        kind: BlobKind,
        id: [u8; 32],
        raw_len: u32,
        checksum: Option<Checksum>,
        bytes: &[u8],
    ) -> Result<()> {
        let stored_len =
            u32::try_from(bytes.len()).map_err(|_| Error::corrupt("blob", "too long for a pack"))?;
        let entry = Entry { kind, id, stored_len, raw_len, checksum };
        if !entry.has_possible_lengths() {
            return Err(Error::corrupt("blob", "no reader would take its length"));
        }
        let open = match &mut self.current {
            Some(open) => open,
            None => self.current.insert(Open::begin(self.store)?),
        };
        open.buffer.extend_from_slice(bytes);
        open.entries.push(entry);
        if open.buffer.len() >= WRITE_BYTES {
            open.flush()?;
        }
        let bytes = open.written + open.buffer.len() as u64;
        if bytes >= self.limits.bytes || open.entries.len() >= self.limits.blobs {
            self.close_current()?;
        }
        Ok(())
    }

    fn close_current(&mut self) -> Result<()> {
        if let Some(open) = self.current.take() {
            let (unfinished, file, pack) = open.close()?;
            step::reached(Step::PackWritten);
            self.full.push((unfinished, pack));
            self.syncs.begin(file)?;
        }
        Ok(())
    }

    /// Makes all of it durable, then visible.
    ///
    /// # Errors
    /// `Io`; what has its name by then is visible at the next opening, and collected if nothing needs it.
    pub fn finish(self) -> Result<()> {
        self.finish_packs().map(drop)
    }

    /// As `finish`. Returns the packs that were written: each may have taken the name, and the place, of one that was
    /// there, since a pack is named by what it lists.
    pub(super) fn finish_packs(mut self) -> Result<Vec<PackId>> {
        self.close_current()?;
        if self.full.is_empty() {
            return Ok(Vec::new());
        }
        self.syncs.wait()?;
        step::reached(Step::PacksSynced);
        let mut packs = Vec::with_capacity(self.full.len());
        for (unfinished, pack) in std::mem::take(&mut self.full) {
            unfinished.finish(pack.id)?;
            self.store.close_pack(pack.id);
            packs.push(pack);
        }
        self.store.directory.sync_packs()?;
        step::reached(Step::PackNamesSynced);
        let mut catalog = self.store.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.add(&self.store.directory, &packs);
        Ok(packs.iter().map(|pack| pack.id).collect())
    }
}

impl<'a> Open<'a> {
    fn begin(store: &'a Store) -> Result<Self> {
        let (pack, file) = store.directory.create_unfinished(SERIAL.fetch_add(1, Ordering::Relaxed))?;
        let buffer = pack::encode_header(store.id()).to_vec();
        Ok(Self { pack, file, entries: Vec::new(), buffer, written: 0 })
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all_at(&self.buffer, self.written).map_err(|e| Error::io("write", "a pack", e))?;
        start_writeback(&self.file, self.written, self.buffer.len() as u64);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn close(mut self) -> Result<(Unfinished<'a>, File, NewPack)> {
        let footer = pack::encode_footer(&self.entries);
        self.buffer.extend_from_slice(&footer);
        self.buffer.extend_from_slice(&pack::encode_trailer(&footer));
        self.flush()?;
        let new = NewPack { id: PackId::of(&footer), entries: self.entries, len: self.written };
        Ok((self.pack, self.file, new))
    }
}

/// Asks the system to begin writing, so that the sync at the end finds little left to do.
fn start_writeback(file: &File, offset: u64, len: u64) {
    use std::os::fd::AsRawFd;
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: the descriptor is open and no memory is passed. A refusal changes nothing.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use super::*;
    use crate::settings::PACK_SYNCS;
    use crate::store::{Proof, ReadScratch};

    /// A chunk of 1 KiB, encoded as it is.
    fn chunk(number: u8) -> (Identity, Vec<u8>, Vec<u8>) {
        let plaintext = vec![number; 1024];
        (Identity::of(&plaintext).unwrap(), [&[0], &plaintext[..]].concat(), plaintext)
    }

    /// Descriptors of this process on files below `dir`, except on `dir` and on its directories.
    fn open_packs(dir: &Path) -> usize {
        let is_pack = |target: &Path| target.starts_with(dir.join("packs")) && target != dir.join("packs");
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        descriptors
            .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| is_pack(&target)))
            .count()
    }

    fn open(dir: &Path) -> Store {
        Store::open(File::open(dir).unwrap().as_fd()).unwrap()
    }

    #[test]
    fn a_writer_of_many_packs_takes_few_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let store = open(&path);
        let pin = store.pin();
        let mut writer = pin.writer().unwrap();
        writer.limits.bytes = 1000;
        for number in 0..60 {
            let (id, encoded, _) = chunk(number);
            writer.put_chunk(&id, &encoded, None).unwrap();
            assert!(open_packs(&path) <= PACK_SYNCS + 1, "{} descriptors", open_packs(&path));
        }
        assert_eq!(std::fs::read_dir(path.join("packs")).unwrap().count(), 60);
        assert_eq!(store.usage().packs, 0, "visible before it is finished");
        writer.finish().unwrap();
        assert_eq!(store.usage().packs, 60);
        drop(pin);
        drop(store);
        let store = open(&path);
        for number in 0..60 {
            let (id, _, plaintext) = chunk(number);
            let mut read = vec![0; 1024];
            store.read_chunk(&id.id, Proof::Name, &mut ReadScratch::default(), &mut read).unwrap();
            assert_eq!(read, plaintext);
        }
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let store = open(&path);
        let pin = store.pin();
        let mut writer = pin.writer().unwrap();
        writer.limits.bytes = 3000;
        for number in 0..20 {
            let (id, encoded, _) = chunk(number);
            writer.put_chunk(&id, &encoded, None).unwrap();
        }
        drop(writer);
        assert_eq!(std::fs::read_dir(path.join("packs")).unwrap().count(), 0);
        assert_eq!(open_packs(&path), 0);
    }

    #[test]
    fn a_pack_of_many_small_blobs_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let pin = store.pin();
        let mut writer = pin.writer().unwrap();
        for number in 0..=PACK_MAX_BLOBS as u64 {
            let id = Identity { len: 1, ..Identity::of(&number.to_le_bytes()).unwrap() };
            writer.put_chunk(&id, &[0, 0], None).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(store.usage().packs, 2);
    }

    #[test]
    fn what_no_reader_takes_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let pin = store.pin();
        let mut writer = pin.writer().unwrap();
        let chunk = Identity::of(b"ten bytes.").unwrap();
        assert!(writer.put_chunk(&chunk, &[0; 27], None).is_err());
        assert!(writer.put_chunk(&chunk, &[], None).is_err());
        // A tensor that lies before the one it follows: encoded, it would lie elsewhere.
        let tensor = |offset| crate::tensor::Tensor {
            name: String::new(),
            element: crate::tensor::Element::Bf16,
            shape: vec![4],
            range: crate::range::ByteRange { offset, len: 8 },
        };
        let manifest = Manifest {
            container: crate::tensor::Container::Unknown,
            tensors: vec![tensor(32), tensor(0)],
            extents: vec![crate::format::manifest::Extent::Hole { len: 64 }],
        };
        assert!(matches!(writer.put_manifest(&manifest), Err(Error::Corrupt { .. })));
        writer.finish().unwrap();
        assert_eq!(store.usage().packs, 0);
    }
}
