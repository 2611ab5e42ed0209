//! Where every blob is, in memory; and the log on disk that it is loaded from.
//!
//! A chunk takes some 110 bytes of memory: 1 GB for 10 TB of packed plaintext in chunks of 1 MiB.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::FileExt;

use super::directory::{self, Directory};
use super::{Usage, not_found};
use crate::error::{Error, Result};
use crate::format::index::{self, Record};
use crate::format::pack::{self, BlobKind, Entry};
use crate::id::{ChunkId, ManifestId, PackId, StoreId};

/// Where a blob is, and what it takes to decode it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Location {
    /// Index into the catalog's packs.
    pack: u32,
    pub(super) offset: u64,
    pub(super) stored_len: u32,
    pub(super) raw_len: u32,
    pub(super) depth: u8,
    pub(super) base: Option<ChunkId>,
    /// Of a manifest: whether it is a zstd frame.
    pub(super) is_zstd: bool,
}

/// All blobs of a store.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// Ids of the packs by the index that locations use; `None` for one that is gone.
    packs: Vec<Option<(PackId, u64)>>,
    chunks: HashMap<ChunkId, Location>,
    manifests: HashMap<ManifestId, Location>,
    damaged: Vec<(String, String)>,
    index_bytes: u64,
    /// Records of packs that are gone: once they are most of the log, it is written anew.
    dead_records: usize,
}

/// What a pack adds to the catalog.
pub(super) struct NewPack {
    pub(super) id: PackId,
    pub(super) footer: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    pub(super) len: u64,
}

impl Catalog {
    /// Loads the index, and whatever of it is missing from the packs themselves.
    pub(super) fn load(directory: &Directory) -> Result<(StoreId, Self)> {
        let bytes = directory.read_index()?;
        let header = bytes.get(..index::HEADER_BYTES).map(index::decode_header);
        let id = match header {
            Some(Ok(id)) => id,
            // Written by a later version: hands off.
            Some(Err(error @ Error::Unsupported { .. })) => return Err(error),
            Some(Err(_)) | None => {
                let known = Self::store_of_packs(directory)?;
                if known.is_some() {
                    tracing::warn!("the index is missing or damaged; rebuilding it from the packs");
                }
                let id = known.map_or_else(new_store_id, Ok)?;
                return Ok((id, Self::rebuild(directory, id)?));
            }
        };
        let (records, end) = index::decode_records(&bytes);
        if end < bytes.len() {
            tracing::warn!(
                bytes = bytes.len() - end,
                "the index ends in a torn or damaged record; reading packs instead"
            );
        }
        let mut known: HashMap<PackId, Vec<Entry>> = HashMap::new();
        let mut dead_records = 0;
        for record in records {
            match record {
                Record::Added(pack, entries) => drop(known.insert(pack, entries)),
                Record::Removed(pack) => {
                    known.remove(&pack);
                    dead_records += 2;
                }
            }
        }
        let mut catalog = Self { dead_records, index_bytes: end as u64, ..Self::default() };
        let mut found = Vec::new();
        let mut lost = known.len();
        for name in directory.names()? {
            let Some(pack) = PackId::from_hex(&name) else { continue };
            match known.remove(&pack) {
                Some(entries) => {
                    lost -= 1;
                    let blobs: u64 = entries.iter().map(|entry| u64::from(entry.stored_len)).sum();
                    let footer_len = pack::encode_footer(&entries).len() as u64;
                    let frame = (pack::HEADER_BYTES + pack::TRAILER_BYTES) as u64;
                    catalog.enter(pack, &entries, blobs + footer_len + frame);
                }
                None => found.push(pack),
            }
        }
        if end < bytes.len() || lost > 0 || catalog.dead_records > 64 + catalog.packs.len() {
            return Ok((id, Self::rebuild(directory, id)?));
        }
        let packs = catalog.read_packs(directory, id, &found)?;
        catalog.append(directory, &packs, &[])?;
        Ok((id, catalog))
    }

    /// Reads every pack and writes the index anew.
    pub(super) fn rebuild(directory: &Directory, id: StoreId) -> Result<Self> {
        let mut catalog = Self::default();
        let names = directory.names()?;
        let ids: Vec<PackId> = names.iter().filter_map(|name| PackId::from_hex(name)).collect();
        let packs = catalog.read_packs(directory, id, &ids)?;
        let mut log = index::encode_header(id).to_vec();
        for pack in &packs {
            index::put_added(&mut log, pack.id, &pack.footer);
            catalog.enter(pack.id, &pack.entries, pack.len);
        }
        directory.replace_index(&log)?;
        catalog.index_bytes = log.len() as u64;
        Ok(catalog)
    }

    /// Reads the footers of packs; those that cannot be read are noted as damaged and left alone.
    fn read_packs(&mut self, directory: &Directory, id: StoreId, ids: &[PackId]) -> Result<Vec<NewPack>> {
        let mut packs = Vec::new();
        for &pack in ids {
            let summary = directory.open_pack(pack).and_then(|file| directory::summarize(&file, pack));
            match summary {
                Ok(summary) if summary.store == id => packs.push(NewPack {
                    id: pack,
                    footer: summary.footer,
                    entries: summary.entries,
                    len: summary.len,
                }),
                Ok(summary) => {
                    self.damaged.push((pack.to_string(), format!("it belongs to store {}", summary.store)));
                }
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                    tracing::error!(%pack, %error, "a pack cannot be used");
                    self.damaged.push((pack.to_string(), error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(packs)
    }

    /// The store that the first readable pack belongs to.
    fn store_of_packs(directory: &Directory) -> Result<Option<StoreId>> {
        for name in directory.names()? {
            let Some(pack) = PackId::from_hex(&name) else { continue };
            if let Ok(summary) = directory.open_pack(pack).and_then(|file| directory::summarize(&file, pack))
            {
                return Ok(Some(summary.store));
            }
        }
        Ok(None)
    }

    /// Notes packs in the log and in memory. The log need not be durable: the packs are, and they have it all.
    pub(super) fn append(
        &mut self,
        directory: &Directory,
        added: &[NewPack],
        removed: &[PackId],
    ) -> Result<()> {
        if added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let mut log = Vec::new();
        added.iter().for_each(|pack| index::put_added(&mut log, pack.id, &pack.footer));
        removed.iter().for_each(|&pack| index::put_removed(&mut log, pack));
        let file = directory.open_index()?;
        let end = self.index_bytes;
        file.write_all_at(&log, end).map_err(|e| {
            // What was written of it would be read as torn: take it back so that the log goes on from here.
            let _ = file.set_len(end);
            Error::io("write", "index", e)
        })?;
        self.index_bytes += log.len() as u64;
        for pack in added {
            self.enter(pack.id, &pack.entries, pack.len);
        }
        for &pack in removed {
            self.dead_records += 2;
            self.leave(pack);
        }
        Ok(())
    }

    fn enter(&mut self, id: PackId, entries: &[Entry], len: u64) {
        let pack = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.push(Some((id, len)));
        let mut offset = pack::HEADER_BYTES as u64;
        for entry in entries {
            let (base, depth) = match entry.kind {
                BlobKind::Delta { base, depth } => (Some(base), depth),
                _ => (None, 0),
            };
            let is_zstd = entry.kind == BlobKind::ZstdManifest;
            let location = Location {
                pack,
                offset,
                stored_len: entry.stored_len,
                raw_len: entry.raw_len,
                depth,
                base,
                is_zstd,
            };
            match entry.kind {
                BlobKind::Chunk | BlobKind::Delta { .. } => {
                    self.chunks.insert(ChunkId::from_bytes(entry.id), location);
                }
                BlobKind::Manifest | BlobKind::ZstdManifest => {
                    self.manifests.insert(ManifestId::from_bytes(entry.id), location);
                }
            }
            offset += u64::from(entry.stored_len);
        }
    }

    /// Drops a pack and whatever is still located in it. The collector enters the live blobs' new pack first.
    fn leave(&mut self, id: PackId) {
        let Some(gone) = self.packs.iter().position(|pack| pack.is_some_and(|(pack, _)| pack == id)) else {
            return;
        };
        self.packs[gone] = None;
        self.chunks.retain(|_, location| location.pack as usize != gone);
        self.manifests.retain(|_, location| location.pack as usize != gone);
    }

    pub(super) fn chunk(&self, id: &ChunkId) -> Option<&Location> {
        self.chunks.get(id)
    }

    pub(super) fn manifest(&self, id: &ManifestId) -> Option<&Location> {
        self.manifests.get(id)
    }

    pub(super) fn manifests(&self) -> impl Iterator<Item = ManifestId> + '_ {
        self.manifests.keys().copied()
    }

    /// The pack that a location is in.
    pub(super) fn pack_of(&self, location: &Location) -> Result<PackId> {
        let pack = self.packs.get(location.pack as usize).copied().flatten();
        pack.map(|(id, _)| id).ok_or_else(|| not_found("a pack that was removed"))
    }

    /// Ids and lengths of the packs.
    pub(super) fn packs(&self) -> impl Iterator<Item = (PackId, u64)> + '_ {
        self.packs.iter().flatten().copied()
    }

    pub(super) fn damaged(&self) -> &[(String, String)] {
        &self.damaged
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            packs: self.packs().count() as u64,
            pack_bytes: self.packs().map(|(_, len)| len).sum(),
            index_bytes: self.index_bytes,
            chunks: self.chunks.len() as u64,
            manifests: self.manifests.len() as u64,
        }
    }

    /// Whether a blob of a pack is where the catalog says that blob is: there may be another copy of it.
    pub(super) fn locates(&self, pack: PackId, offset: u64, entry: &Entry) -> bool {
        let location = match entry.kind {
            BlobKind::Chunk | BlobKind::Delta { .. } => self.chunks.get(&ChunkId::from_bytes(entry.id)),
            _ => self.manifests.get(&ManifestId::from_bytes(entry.id)),
        };
        location.is_some_and(|l| l.offset == offset && self.pack_of(l).is_ok_and(|id| id == pack))
    }

    /// Chunks that must be kept for these to be readable: themselves and the bases under them.
    pub(super) fn close_over_bases(&self, chunks: &mut HashSet<ChunkId>) {
        let mut todo: Vec<ChunkId> = chunks.iter().copied().collect();
        while let Some(id) = todo.pop() {
            if let Some(base) = self.chunks.get(&id).and_then(|location| location.base)
                && chunks.insert(base)
            {
                todo.push(base);
            }
        }
    }
}

/// A random name for a new store.
fn new_store_id() -> Result<StoreId> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::io("draw random bytes for", "a new store", e))?;
    debug_assert_eq!(filled, bytes.len());
    Ok(StoreId::from_low_bits(u64::from_le_bytes(bytes)))
}
