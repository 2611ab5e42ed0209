//! Giving back the space of what nothing needs.
//!
//! Marks from the roots, then deletes the packs that are dead, then copies the live part of those that are partly so, a
//! pack's worth at a time. New packs are durable and known before old ones go, so a crash at any point leaves every
//! live blob readable. Dead packs go first and old ones as soon as they are copied, so that a full disk is no
//! obstacle.
//!
//! It is all or nothing before the first deletion: while anything is missing, nobody knows what else it needs.

use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;

use super::Store;
use super::directory::{self, PackSummary};
use super::load::is_full;
use super::writer::PackWriter;
use crate::error::{Error, Result};
use crate::format::manifest::Extent;
use crate::format::pack::{self, BlobKind, Entry};
use crate::id::{ChunkId, ManifestId, PackId};
use crate::settings::PACK_TARGET_BYTES;
use crate::step::{self, Step};

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

/// A collection that an error ended. What was deleted by then was not needed, and what was not is collected by the next
/// one.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct BrokenOff {
    /// What was done by then. Nothing, unless the error is `Io`.
    pub done: Collected,
    /// What ended it.
    #[source]
    pub error: Error,
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

/// What a collection is going to do.
#[derive(Default)]
struct Plan {
    dead: Vec<Doomed>,
    partly_dead: Vec<Doomed>,
    collected: Collected,
}

/// A pack that is to go.
struct Doomed {
    id: PackId,
    len: u64,
    /// What must stay of it: 0 if nothing.
    kept_bytes: u64,
    dead_blobs: u64,
}

impl Collected {
    /// Counts a pack that is gone.
    fn count(&mut self, gone: &Doomed) {
        self.dead_blobs += gone.dead_blobs;
        self.freed_bytes += gone.len - gone.kept_bytes;
        if gone.kept_bytes == 0 {
            self.deleted_packs += 1;
        } else {
            self.rewritten_packs += 1;
        }
    }
}

impl Store {
    /// Collects what the manifests of `roots` do not need. Waits for all pins; `roots` is called when there are none
    /// and none can be taken. With `dry_run`, only says what it would do.
    ///
    /// # Errors
    /// Those of `roots`; `Corrupt` while a pack is damaged or anything that a root needs is not there: nothing is
    /// deleted then. `Io` also after some of it was done.
    pub fn collect(
        &self,
        roots: impl FnOnce() -> Result<Vec<ManifestId>>,
        dry_run: bool,
    ) -> Result<Collected, BrokenOff> {
        let _exclusive = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        let mut done = Collected::default();
        self.try_to_collect(roots, dry_run, &mut done).map_err(|error| {
            done.kept_bytes = self.usage().pack_bytes;
            BrokenOff { done, error }
        })
    }

    fn try_to_collect(
        &self,
        roots: impl FnOnce() -> Result<Vec<ManifestId>>,
        dry_run: bool,
        done: &mut Collected,
    ) -> Result<Collected> {
        if let Some((pack, reason)) = self.catalog().damaged().first() {
            return Err(damaged_pack(*pack, reason));
        }
        let live = self.mark(roots()?)?;
        let plan = self.plan(&live)?;
        if !dry_run {
            // What a killed process renamed may not be durable yet, and dead packs are dead because of it.
            self.directory.sync_packs()?;
            self.forget(&plan.dead, done)?;
            self.rewrite(plan.partly_dead, &live, done)?;
        }
        Ok(plan.collected)
    }

    /// Looks at every pack.
    fn plan(&self, live: &Live) -> Result<Plan> {
        let mut plan = Plan::default();
        let packs: Vec<(PackId, u64)> = self.catalog().packs().collect();
        for (id, len) in packs {
            let summary = self.directory.open_pack(id).and_then(|file| directory::summarize(&file, id));
            let summary = summary.map_err(|error| match error {
                Error::Corrupt { reason, .. } => damaged_pack(id, &reason),
                other => other,
            })?;
            let keeps = self.kept_of(id, &summary, live);
            let kept: u64 = keeps.iter().map(|(_, entry)| u64::from(entry.stored_len)).sum();
            let all: u64 = summary.entries.iter().map(|entry| u64::from(entry.stored_len)).sum();
            let dead = all - kept;
            let collected = &mut plan.collected;
            let dead_blobs = (summary.entries.len() - keeps.len()) as u64;
            let mostly_live = dead < REWRITE_LEAST_BYTES || (dead as f64) < all as f64 * REWRITE_SHARE;
            if mostly_live && !keeps.is_empty() {
                collected.dead_blobs += dead_blobs;
                collected.kept_bytes += len;
                continue;
            }
            let doomed = Doomed { id, len, kept_bytes: kept, dead_blobs };
            collected.count(&doomed);
            collected.kept_bytes += kept;
            if keeps.is_empty() {
                plan.dead.push(doomed);
            } else {
                plan.partly_dead.push(doomed);
            }
        }
        Ok(plan)
    }

    /// Copies what must stay of these packs to new ones. Each batch takes the room of one pack and gives back more
    /// than that; on a disk that has not even that much, the packs go one by one, those first that need the least.
    fn rewrite(&self, mut packs: Vec<Doomed>, live: &Live, done: &mut Collected) -> Result<()> {
        let mut limit = PACK_TARGET_BYTES;
        let mut position = 0;
        while position < packs.len() {
            let batch = &packs[position..position + batch_len(&packs[position..], limit)];
            match self.rewrite_batch(batch, live, done) {
                Ok(()) => position += batch.len(),
                Err(Error::Io { source, .. }) if is_full(&source) && limit > 0 => {
                    limit = 0;
                    packs[position..].sort_by_key(|pack| pack.kept_bytes);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn rewrite_batch(&self, batch: &[Doomed], live: &Live, done: &mut Collected) -> Result<()> {
        let mut writer = PackWriter::new(self);
        for pack in batch {
            let file = self.directory.open_pack(pack.id)?;
            let summary = directory::summarize(&file, pack.id)?;
            copy(&mut writer, &file, &self.kept_of(pack.id, &summary, live))?;
        }
        let written = writer.finish_packs()?;
        // A pack that lists the same as an old one has its name, and is it now.
        self.forget(batch.iter().filter(|pack| !written.contains(&pack.id)), done)
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
        self.catalog().close_over_bases(&mut live.chunks).map_err(|missing| {
            Error::corrupt(
                "the store",
                format!(
                    "chunk {missing}, which a file needs, is missing; restore the pack that had it from a copy and run \
                     mithril-fs verify --repair-index, or remove the files that verify names"
                ),
            )
        })?;
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
    fn forget<'a>(&self, removed: impl IntoIterator<Item = &'a Doomed>, done: &mut Collected) -> Result<()> {
        let removed: Vec<&Doomed> = removed.into_iter().collect();
        if removed.is_empty() {
            return Ok(());
        }
        let ids: Vec<PackId> = removed.iter().map(|pack| pack.id).collect();
        self.catalog.write().unwrap_or_else(PoisonError::into_inner).remove(&self.directory, &ids);
        step::reached(Step::PacksForgotten);
        let mut result = Ok(());
        for pack in removed {
            self.close_pack(pack.id);
            match self.directory.remove_pack(pack.id) {
                Ok(()) => done.count(pack),
                // One that cannot be removed keeps none of the others.
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.and(self.directory.sync_packs())?;
        step::reached(Step::RemovalsSynced);
        Ok(())
    }
}

/// Packs that are rewritten together: as many as fill a new one, at least one.
fn batch_len(packs: &[Doomed], limit: u64) -> usize {
    let mut bytes = 0;
    let fit = packs.iter().take_while(|pack| {
        bytes += pack.kept_bytes;
        bytes <= limit
    });
    fit.count().max(1)
}

/// Why nothing may be collected: what is in this pack says what else is needed.
fn damaged_pack(pack: PackId, reason: &str) -> Error {
    Error::corrupt(
        format!("pack {pack}"),
        format!(
            "{reason}; restore it from a copy, or move it out of .mithril/packs and remove the files that verify \
             names then; after that run mithril-fs verify --repair-index"
        ),
    )
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
