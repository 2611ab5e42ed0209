//! Reading chunks and manifests.

use std::os::unix::fs::FileExt;

use super::catalog::Location;
use super::{Store, not_found};
use crate::codec::{self, Scratch};
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::id::{Checksum, ChunkId, ManifestId, PackId};
use crate::settings::MAX_DELTA_DEPTH;

/// Buffers of a reader, kept between calls; one a thread.
#[derive(Debug, Default)]
pub struct ReadScratch {
    codec: Scratch,
    encoded: Vec<u8>,
    /// The plaintext of a base, and of the base under it, in turn.
    bases: [Vec<u8>; 2],
}

/// What proves that the bytes of a chunk are the ones that were packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// Their digest, and the checksum if their pack has one, since others go by that: they are what the manifest names,
    /// whatever was done to the packs.
    Name,
    /// The checksum that their pack has of them: neither they, nor what they are decoded from, rotted. Where it has none,
    /// their digest.
    Checksum,
    /// The caller compares them with bytes that are known to have the name.
    Comparison,
}

/// Times that a blob is looked up again because the collector moved it.
const MOVES: u32 = 4;

/// A chunk and the pack it is in.
struct Link {
    id: ChunkId,
    location: Location,
    pack: PackId,
}

pub(super) fn read_chunk(
    store: &Store,
    id: &ChunkId,
    proof: Proof,
    scratch: &mut ReadScratch,
    out: &mut [u8],
) -> Result<()> {
    let mut tries = 0;
    loop {
        match read_chain(store, id, proof, scratch, out) {
            Err(Error::NotFound { .. }) if tries < MOVES && store.chunk(id).is_some() => tries += 1,
            other => return other,
        }
    }
}

/// Asks the system to read ahead; only a hint, so nothing of it is an error.
pub(super) fn will_need(store: &Store, ids: impl IntoIterator<Item = ChunkId>) {
    for id in ids {
        for Link { location, pack, .. } in chain_of(store, &id).unwrap_or_default() {
            if let Ok(file) = store.pack(pack) {
                let len = std::num::NonZeroU64::new(u64::from(location.stored_len));
                let _ = rustix::fs::fadvise(&*file, location.offset, len, rustix::fs::Advice::WillNeed);
            }
        }
    }
}

/// Decodes from the lowest base up. Nothing proves the bases: what proves the last of the chain covers them all.
fn read_chain(
    store: &Store,
    id: &ChunkId,
    proof: Proof,
    scratch: &mut ReadScratch,
    out: &mut [u8],
) -> Result<()> {
    let chain = chain_of(store, id)?;
    let ReadScratch { codec, encoded, bases: [below, current] } = scratch;
    let mut below_len = 0;
    for (position, link) in chain.iter().enumerate().rev() {
        let is_last = position == 0;
        let raw_len = link.location.raw_len as usize;
        let target: &mut [u8] = if is_last {
            if out.len() != raw_len {
                return Err(Error::corrupt(
                    format!("chunk {id}"),
                    "it has another length than its manifest says",
                ));
            }
            out
        } else {
            codec::sized(current, raw_len)
        };
        let encoded = read_blob(store, link.pack, &link.location, encoded)?;
        let base = link.location.base.is_some().then(|| &below[..below_len]);
        codec::decode(encoded, base, codec, target)
            .map_err(|e| Error::corrupt(format!("chunk {} in pack {}", link.id, link.pack), e.to_string()))?;
        if !is_last {
            std::mem::swap(below, current);
            below_len = raw_len;
        }
    }
    let Some(Link { location, pack, .. }) = chain.first() else {
        return Err(not_found(format!("chunk {id}")));
    };
    let Location { checksum, .. } = location;
    let mismatch = match proof {
        Proof::Comparison => None,
        Proof::Checksum if checksum.is_some() => differs(*checksum, out),
        _ if ChunkId::of(out) != *id => Some("name"),
        _ => differs(*checksum, out),
    };
    let Some(what) = mismatch else { return Ok(()) };
    let reason = format!("its plaintext does not match its {what}");
    Err(Error::corrupt(format!("chunk {id} in pack {pack}"), reason))
}

/// What says that these are not the bytes that had a checksum.
fn differs(checksum: Option<Checksum>, bytes: &[u8]) -> Option<&'static str> {
    checksum.filter(|checksum| *checksum != Checksum::of(bytes)).map(|_| "checksum")
}

/// The chunk and the bases under it, the lowest last.
fn chain_of(store: &Store, id: &ChunkId) -> Result<Vec<Link>> {
    let catalog = store.catalog();
    let mut chain = Vec::with_capacity(usize::from(MAX_DELTA_DEPTH) + 1);
    let mut next = Some(*id);
    while let Some(id) = next {
        if chain.len() > usize::from(MAX_DELTA_DEPTH) {
            return Err(Error::corrupt(format!("chunk {id}"), "its chain of bases has no end"));
        }
        let location = *catalog.chunk(&id).ok_or_else(|| not_found(format!("chunk {id}")))?;
        let pack = catalog.pack_of(&location)?;
        next = location.base;
        chain.push(Link { id, location, pack });
    }
    Ok(chain)
}

/// The bytes of a blob as they are in its pack.
fn read_blob<'a>(store: &Store, pack: PackId, location: &Location, out: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    let out = codec::sized(out, location.stored_len as usize);
    store.pack(pack)?.read_exact_at(out, location.offset).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::corrupt(format!("pack {pack}"), "it was cut short"),
        _ => Error::io("read", format!("packs/{pack}"), e),
    })?;
    Ok(out)
}

pub(super) fn read_manifest(store: &Store, id: &ManifestId) -> Result<Manifest> {
    let mut tries = 0;
    let (location, bytes) = loop {
        let (location, pack) = {
            let catalog = store.catalog();
            let location = *catalog.manifest(id).ok_or_else(|| not_found(format!("manifest {id}")))?;
            (location, catalog.pack_of(&location)?)
        };
        let mut bytes = Vec::new();
        match read_blob(store, pack, &location, &mut bytes).map(drop) {
            Ok(()) => break (location, bytes),
            Err(Error::NotFound { .. }) if tries < MOVES => tries += 1,
            Err(error) => return Err(error),
        }
    };
    let what = || format!("manifest {id}");
    let bytes = if location.is_zstd {
        zstd::bulk::decompress(&bytes, location.raw_len as usize)
            .map_err(|_| Error::corrupt(what(), "it does not decompress"))?
    } else {
        bytes
    };
    if bytes.len() != location.raw_len as usize || ManifestId::of(&bytes) != *id {
        return Err(Error::corrupt(what(), "its bytes do not match its name"));
    }
    Manifest::decode(&bytes)
}
