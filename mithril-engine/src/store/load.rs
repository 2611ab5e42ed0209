//! From a directory to a catalog: by the index where there is one, else by the packs themselves.
//!
//! Packs are entered in the order they were written, since a later copy of a blob stands in for one that could not be
//! read any more. The index has that order; without it, the modification times of the packs tell.

use std::collections::{HashMap, HashSet};
use std::io;

use super::catalog::{Catalog, NewPack};
use super::directory::{self, Directory, PackFile, PackSummary};
use super::log::Log;
use crate::error::{Error, Result};
use crate::format::index::{self, Record};
use crate::format::pack::{self, Entry};
use crate::id::{PackId, StoreId};

/// What became of reading the header and the footer of a pack.
type Reading = (PackId, Result<PackSummary>);

/// What the log says, record by record.
#[derive(Default)]
struct Known {
    /// Packs with their place in the log.
    packs: HashMap<PackId, (usize, Vec<Entry>)>,
    removed: HashSet<PackId>,
    /// Records that say nothing any more.
    dead_records: usize,
}

impl Known {
    fn by(records: Vec<Record>) -> Self {
        let mut known = Self::default();
        for (place, record) in records.into_iter().enumerate() {
            match record {
                Record::Added(pack, entries) => {
                    known.removed.remove(&pack);
                    let before = known.packs.insert(pack, (place, entries));
                    known.dead_records += usize::from(before.is_some());
                }
                Record::Removed(pack) => {
                    known.packs.remove(&pack);
                    known.removed.insert(pack);
                    known.dead_records += 2;
                }
            }
        }
        known
    }

    /// Sorts packs by age. One that was removed and is there again (a crash came between the record and the deed) has
    /// nothing that is not in a later one. One that the log does not have was written after it.
    fn sort(&self, packs: &mut [PackFile]) {
        packs.sort_by_key(|pack| match self.packs.get(&pack.id) {
            Some((place, _)) => place + 1,
            None if self.removed.contains(&pack.id) => 0,
            None => usize::MAX,
        });
    }
}

/// Loads the index, and whatever of it is missing from the packs.
pub(super) fn load(directory: &Directory) -> Result<(StoreId, Catalog)> {
    let bytes = directory.read_index()?;
    let mut packs = directory.packs()?;
    let id = match bytes.get(..index::HEADER_BYTES).map(index::decode_header) {
        Some(Ok(id)) => id,
        // Written by a later version: hands off.
        Some(Err(error @ Error::Unsupported { .. })) => return Err(error),
        Some(Err(_)) | None => return load_without_index(directory, &packs),
    };
    let (records, end) = index::decode_records(&bytes);
    let mut known = Known::by(records);
    known.sort(&mut packs);
    let is_torn = end < bytes.len();
    if is_torn {
        tracing::warn!(
            bytes = bytes.len() - end,
            "the index ends in a torn or damaged record; reading packs instead"
        );
    }
    let present = packs.iter().filter(|pack| known.packs.contains_key(&pack.id)).count();
    let has_lost = present < known.packs.len();
    let has_returned = packs.iter().any(|pack| known.removed.contains(&pack.id));
    let log = Log::resume(end, known.dead_records);
    if is_torn || has_lost || has_returned || log.is_mostly_dead(packs.len()) {
        let mut catalog = enter_all(read_all(directory, &packs)?, id);
        write_anew(&mut catalog, directory)?;
        return Ok((id, catalog));
    }
    let mut catalog = Catalog::with_log(log);
    let mut found = Vec::new();
    for pack in packs {
        match known.packs.remove(&pack.id) {
            Some((_, entries)) => enter_known(&mut catalog, pack, &entries),
            None => found.push(pack),
        }
    }
    for reading in read_all(directory, &found)? {
        enter_read(&mut catalog, reading, id);
    }
    catalog.log.try_flush(directory);
    Ok((id, catalog))
}

/// Makes the catalog anew from the packs, those that `before` has in its order, and writes the index.
pub(super) fn rebuild(directory: &Directory, id: StoreId, before: &Catalog) -> Result<Catalog> {
    let mut packs = directory.packs()?;
    let places: HashMap<PackId, usize> =
        before.packs().enumerate().map(|(place, (pack, _))| (pack, place)).collect();
    packs.sort_by_key(|pack| places.get(&pack.id).copied().unwrap_or(usize::MAX));
    let mut catalog = enter_all(read_all(directory, &packs)?, id);
    catalog.log.flush(directory)?;
    Ok(catalog)
}

fn load_without_index(directory: &Directory, packs: &[PackFile]) -> Result<(StoreId, Catalog)> {
    let readings = read_all(directory, packs)?;
    if readings.is_empty() {
        let id = new_store_id()?;
        let mut catalog = Catalog::with_log(Log::anew(id));
        catalog.log.flush(directory)?;
        return Ok((id, catalog));
    }
    tracing::warn!("the index is missing or damaged; rebuilding it from the packs");
    let id = store_of(&readings)?;
    let mut catalog = enter_all(readings, id);
    write_anew(&mut catalog, directory)?;
    Ok((id, catalog))
}

/// The store that the packs belong to. A name that is guessed wrong would have every stub refused, and the next packs
/// written for a store that is not there.
fn store_of(readings: &[Reading]) -> Result<StoreId> {
    let mut counts: HashMap<StoreId, usize> = HashMap::new();
    for (_, summary) in readings {
        if let Ok(summary) = summary {
            *counts.entry(summary.store).or_default() += 1;
        }
    }
    let mut stores: Vec<(StoreId, usize)> = counts.into_iter().collect();
    stores.sort_by_key(|(store, count)| (std::cmp::Reverse(*count), store.get()));
    match stores[..] {
        [(only, _)] => Ok(only),
        [] => {
            let later = readings.iter().find_map(|(_, summary)| match summary {
                Err(Error::Unsupported { what, detail }) => Some((what, detail)),
                _ => None,
            });
            if let Some((what, detail)) = later {
                return Err(Error::Unsupported { what: what.clone(), detail: detail.clone() });
            }
            let first = readings.iter().find_map(|(_, summary)| summary.as_ref().err());
            let first = first.map(ToString::to_string).unwrap_or_default();
            Err(Error::corrupt(
                "the store",
                format!(
                    "it has no index, and none of its {} packs can be read ({first}); restore .mithril/index or \
                     a pack from a copy",
                    readings.len()
                ),
            ))
        }
        _ => {
            let stores: Vec<String> =
                stores.iter().map(|(store, count)| format!("{count} of store {store}")).collect();
            Err(Error::corrupt(
                "the store",
                format!(
                    "it has no index, and its packs are of several stores ({}); restore .mithril/index from a \
                     copy, or move the packs of other stores out of .mithril/packs",
                    stores.join(", ")
                ),
            ))
        }
    }
}

/// Reads headers and footers. A pack that is not what it should be is no error of the whole.
fn read_all(directory: &Directory, packs: &[PackFile]) -> Result<Vec<Reading>> {
    let read = |pack: &PackFile| {
        let summary = directory.open_pack(pack.id).and_then(|file| directory::summarize(&file, pack.id));
        match summary {
            Ok(_) | Err(Error::Corrupt { .. } | Error::Unsupported { .. }) => Ok((pack.id, summary)),
            Err(error) => Err(error),
        }
    };
    packs.iter().map(read).collect()
}

/// A catalog of these packs, with a log to be written anew.
fn enter_all(readings: Vec<Reading>, id: StoreId) -> Catalog {
    let mut catalog = Catalog::with_log(Log::anew(id));
    for reading in readings {
        enter_read(&mut catalog, reading, id);
    }
    catalog
}

/// Enters a pack that was read; one that cannot be used is noted and left alone.
fn enter_read(catalog: &mut Catalog, (pack, summary): Reading, id: StoreId) {
    match summary {
        Ok(PackSummary { store, entries, len }) if store == id => {
            catalog.add_unwritten(&NewPack { id: pack, entries, len });
        }
        Ok(summary) => catalog.note_damage(pack, format!("it belongs to store {}", summary.store)),
        Err(error) => catalog.note_damage(pack, error.to_string()),
    }
}

/// Enters a pack as the log has it. Of one that is not as long as it should be, what lies inside it.
fn enter_known(catalog: &mut Catalog, pack: PackFile, entries: &[Entry]) {
    if pack.len == pack::pack_len(entries) {
        catalog.enter(pack.id, entries, pack.len);
        return;
    }
    let mut end = pack::HEADER_BYTES as u64;
    let inside = entries.iter().take_while(|entry| {
        end += u64::from(entry.stored_len);
        end <= pack.len
    });
    let inside = inside.count();
    catalog.enter(pack.id, &entries[..inside], pack.len);
    catalog.note_damage(pack.id, "it has another length than the index says".to_owned());
}

/// Writes an index that is not in step. A full disk must not keep a store from being opened: whoever makes room opens
/// it first.
fn write_anew(catalog: &mut Catalog, directory: &Directory) -> Result<()> {
    match catalog.log.flush(directory) {
        Err(Error::Io { source, .. }) if is_full(&source) => {
            tracing::warn!("the disk is full; the index is written once there is room");
            Ok(())
        }
        result => result,
    }
}

/// Whether it failed for want of space.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A random name for a new store.
fn new_store_id() -> Result<StoreId> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::io("draw random bytes for", "a new store", e))?;
    debug_assert_eq!(filled, bytes.len());
    Ok(StoreId::from_low_bits(u64::from_le_bytes(bytes)))
}
