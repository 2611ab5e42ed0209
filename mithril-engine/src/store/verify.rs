//! Reading everything and checking it.

use std::collections::HashSet;
use std::ops::ControlFlow;

use rayon::prelude::*;

use super::Store;
use super::directory;
use super::reader::{Proof, ReadScratch};
use crate::error::{Error, Result};
use crate::format::pack::{BlobKind, Entry};
use crate::id::{Checksum, ChunkId, ManifestId, PackId};

/// Blobs that are checked at once: bounds memory to some of the largest chunks a thread.
const BATCH_BLOBS: usize = 64;

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Packs read.
    pub packs: u64,
    /// Chunks decoded and compared with their names.
    pub chunks: u64,
    /// Manifests likewise.
    pub manifests: u64,
    /// Chunks and manifests that were passed over: a collection left them without the bases under them, or without
    /// their place in the catalog. A file that needs one is damaged; most often none does.
    pub left_over: u64,
    /// Everything that is wrong.
    pub errors: Vec<String>,
    /// Chunks that cannot be read.
    pub damaged_chunks: HashSet<ChunkId>,
    /// Manifests that cannot be read.
    pub damaged_manifests: HashSet<ManifestId>,
}

/// Whether a pack has the right checksum of a chunk, even if another copy of the chunk is read now.
fn agrees(entry: &Entry, plaintext: &[u8]) -> Result<()> {
    if entry.checksum.is_none_or(|checksum| checksum == Checksum::of(plaintext)) {
        return Ok(());
    }
    let id = ChunkId::from_bytes(entry.id);
    Err(Error::corrupt(format!("chunk {id}"), "one of its packs has the checksum of other bytes"))
}

impl Store {
    /// Reads every pack and decodes every blob. `progress` is told bytes of packs done and in all; `Break` ends it
    /// early, with what was found so far.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>) -> Verified {
        let _pin = self.pin();
        let packs: Vec<(PackId, u64)> = self.catalog().packs().collect();
        let total = packs.iter().map(|(_, len)| len).sum();
        let mut found = Verified::default();
        found
            .errors
            .extend(self.damaged_packs().iter().map(|(pack, reason)| format!("pack {pack}: {reason}")));
        let mut done = 0;
        for (id, len) in packs {
            if progress(done, total).is_break() {
                return found;
            }
            self.verify_pack(id, &mut found);
            done += len;
        }
        let _ = progress(done, total);
        found
    }

    fn verify_pack(&self, id: PackId, found: &mut Verified) {
        found.packs += 1;
        let summary = self.directory.open_pack(id).and_then(|file| directory::summarize(&file, id));
        let entries = match summary {
            Ok(summary) => summary.entries,
            Err(error) => {
                found.errors.push(error.to_string());
                return;
            }
        };
        let before = entries.len();
        let entries: Vec<Entry> = entries.into_iter().filter(|entry| self.can_be_had(entry)).collect();
        found.left_over += (before - entries.len()) as u64;
        for batch in entries.chunks(BATCH_BLOBS) {
            let results: Vec<_> = batch
                .par_iter()
                .map_init(<(ReadScratch, Vec<u8>)>::default, |(scratch, buffer), entry| match entry.kind {
                    BlobKind::Chunk | BlobKind::Delta { .. } => {
                        buffer.resize(entry.raw_len as usize, 0);
                        self.read_chunk(&ChunkId::from_bytes(entry.id), Proof::Name, scratch, buffer)
                            .and_then(|()| agrees(entry, buffer))
                    }
                    BlobKind::Manifest | BlobKind::ZstdManifest => {
                        self.read_manifest(&ManifestId::from_bytes(entry.id)).map(drop)
                    }
                })
                .collect();
            for (entry, result) in batch.iter().zip(results) {
                let is_chunk = matches!(entry.kind, BlobKind::Chunk | BlobKind::Delta { .. });
                found.chunks += u64::from(is_chunk);
                found.manifests += u64::from(!is_chunk);
                if let Err(error) = result {
                    found.errors.push(error.to_string());
                    if is_chunk {
                        found.damaged_chunks.insert(ChunkId::from_bytes(entry.id));
                    } else {
                        found.damaged_manifests.insert(ManifestId::from_bytes(entry.id));
                    }
                }
            }
        }
    }

    /// Whether the catalog has a blob and all that it takes to decode it.
    fn can_be_had(&self, entry: &Entry) -> bool {
        match entry.kind {
            BlobKind::Chunk | BlobKind::Delta { .. } => self.chunk(&ChunkId::from_bytes(entry.id)).is_some(),
            BlobKind::Manifest | BlobKind::ZstdManifest => {
                self.manifest_len(&ManifestId::from_bytes(entry.id)).is_some()
            }
        }
    }
}
