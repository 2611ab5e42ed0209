//! Giving back the space of what nothing needs.
//!
//! Marks from the roots, then deletes packs that are dead and copies the live part of those that are mostly so. New
//! packs are durable and known before old ones go, so a crash at any point leaves every live blob readable.

use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;

use super::Store;
use super::directory::{self, PackSummary};
use super::writer::PackWriter;
use crate::error::{Error, Result};
use crate::format::manifest::Extent;
use crate::format::pack::{self, BlobKind, Entry};
use crate::id::{ChunkId, ManifestId, PackId};

/// A pack is rewritten if this share of it is dead, and at least a block.
const REWRITE_SHARE: f64 = 0.1;
const REWRITE_LEAST_BYTES: u64 = 4096;

/// What a collection gave back, or would.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Chunks and manifests that nothing needs.
    pub dead_blobs: u64,
    /// Packs deleted whole.
    pub deleted_packs: u64,
    /// Packs whose live part was copied to a new one.
    pub rewritten_packs: u64,
    /// Bytes given back.
    pub freed_bytes: u64,
    /// Bytes that stay.
    pub kept_bytes: u64,
}

/// What is to be kept.
struct Live {
    chunks: HashSet<ChunkId>,
    manifests: HashSet<ManifestId>,
}

impl Live {
    fn keeps(&self, entry: &Entry) -> bool {
        match entry.kind {
            BlobKind::Chunk | BlobKind::Delta { .. } => self.chunks.contains(&ChunkId::from_bytes(entry.id)),
            BlobKind::Manifest | BlobKind::ZstdManifest => {
                self.manifests.contains(&ManifestId::from_bytes(entry.id))
            }
        }
    }
}

impl Store {
    /// Collects what the manifests of `roots` do not need. Waits for all pins; `roots` is called when there are none
    /// and none can be taken. With `dry_run`, only says what it would do.
    ///
    /// # Errors
    /// Those of `roots`, and of a root that cannot be read: nothing is deleted then. `Io`.
    pub fn collect(
        &self,
        roots: impl FnOnce() -> Result<Vec<ManifestId>>,
        dry_run: bool,
    ) -> Result<Collected> {
        let _exclusive = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        let live = self.mark(roots()?)?;
        let mut collected = Collected::default();
        let packs: Vec<(PackId, u64)> = self.catalog().packs().collect();
        let mut removed = Vec::new();
        let mut writer = PackWriter::new(self);
        for (id, len) in packs {
            let file = self.directory.open_pack(id)?;
            let summary = match directory::summarize(&file, id) {
                Ok(summary) => summary,
                Err(error) => {
                    tracing::warn!(pack = %id, %error, "a damaged pack is left alone");
                    collected.kept_bytes += len;
                    continue;
                }
            };
            let keeps = self.kept_of(id, &summary, &live);
            let kept: u64 = keeps.iter().map(|(_, entry)| u64::from(entry.stored_len)).sum();
            let all: u64 = summary.entries.iter().map(|entry| u64::from(entry.stored_len)).sum();
            let dead = all - kept;
            collected.dead_blobs += (summary.entries.len() - keeps.len()) as u64;
            let mostly_live = dead < REWRITE_LEAST_BYTES || (dead as f64) < all as f64 * REWRITE_SHARE;
            if mostly_live && !keeps.is_empty() {
                collected.kept_bytes += len;
                continue;
            }
            if keeps.is_empty() {
                collected.deleted_packs += 1;
            } else {
                collected.rewritten_packs += 1;
                if !dry_run {
                    copy(&mut writer, &file, &keeps)?;
                }
            }
            collected.kept_bytes += kept;
            collected.freed_bytes += len - kept;
            removed.push(id);
        }
        if !dry_run {
            writer.finish()?;
            self.forget(&removed)?;
        }
        Ok(collected)
    }

    /// Everything that the roots need.
    fn mark(&self, roots: Vec<ManifestId>) -> Result<Live> {
        let mut live = Live { chunks: HashSet::new(), manifests: HashSet::new() };
        for root in roots {
            if !live.manifests.insert(root) {
                continue;
            }
            let manifest = self.read_manifest(&root)?;
            for extent in &manifest.extents {
                if let Extent::Chunk { id, .. } = extent {
                    live.chunks.insert(*id);
                }
            }
        }
        self.catalog().close_over_bases(&mut live.chunks);
        Ok(live)
    }

    /// The blobs of a pack that must stay: live, and not to be had from another pack.
    fn kept_of(&self, id: PackId, summary: &PackSummary, live: &Live) -> Vec<(u64, Entry)> {
        let catalog = self.catalog();
        let mut offset = pack::HEADER_BYTES as u64;
        let mut kept = Vec::new();
        for entry in &summary.entries {
            if live.keeps(entry) && catalog.locates(id, offset, entry) {
                kept.push((offset, *entry));
            }
            offset += u64::from(entry.stored_len);
        }
        kept
    }

    /// Forgets packs, then removes them: a reader that looks up meanwhile finds the new place.
    fn forget(&self, removed: &[PackId]) -> Result<()> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner).append(&self.directory, &[], removed)?;
        for &id in removed {
            self.open_packs.lock().unwrap_or_else(PoisonError::into_inner).pop(&id);
            self.directory.remove_pack(id)?;
        }
        self.directory.sync_packs()
    }
}

/// Copies blobs as they are.
fn copy(writer: &mut PackWriter<'_>, file: &std::fs::File, blobs: &[(u64, Entry)]) -> Result<()> {
    let mut bytes = Vec::new();
    for (offset, entry) in blobs {
        bytes.resize(entry.stored_len as usize, 0);
        file.read_exact_at(&mut bytes, *offset).map_err(|e| Error::io("read", "a pack", e))?;
        writer.put_copy(entry, &bytes)?;
    }
    Ok(())
}
