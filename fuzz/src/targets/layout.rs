//! What packs, indexes and manifests look like: each has one spelling only.

use std::time::Duration;

use mithril_engine::format::index::{self, Record};
use mithril_engine::format::manifest::{Extent, Manifest};
use mithril_engine::format::pack::{self, BlobKind, Entry};
use mithril_engine::id::{Checksum, ChunkId, PackId, StoreId};
use mithril_engine::range::ByteRange;
use mithril_engine::settings::{CHUNK_MAX_BYTES, MAX_DELTA_DEPTH};
use mithril_engine::tensor::{Container, Element, Tensor};

use super::made;
use crate::case::Case;
use crate::random::Random;
use crate::target::{Checked, Ground, Outcome, Target, as_it_is};

pub(crate) fn targets() -> Vec<Target> {
    let target = |name, what, seeds, check| Target {
        name,
        what,
        seeds,
        tokens: &[],
        repair: as_it_is,
        heap_limit,
        time_limit: Duration::from_millis(100),
        check,
    };
    vec![
        target("manifest", "Manifest::decode", manifests, manifest),
        target("pack", "headers, footers and trailers of packs", packs, pack_parts),
        Target {
            repair: make_checksums_right,
            tokens: &[b"MITHRILI"],
            ..target("index", "the log of packs", indexes, index)
        },
    ]
}

/// An extent of two bytes takes 40 in memory, a dimension of one takes 8; and everything is encoded again.
fn heap_limit(case: &Case) -> usize {
    64 * case.input.len() + (8 << 10)
}

fn manifest(case: &Case, ground: &mut Ground) -> Checked {
    let bytes = ground.input.hold(&case.input, crate::guarded::Edge::of(case.choice));
    let Ok(manifest) = Manifest::decode(bytes) else { return Ok(Outcome::Refused) };
    if manifest.encode() != case.input {
        return Err("a manifest has two spellings".to_owned());
    }
    let chunks_fit = manifest.extents.iter().all(|extent| match extent {
        Extent::Chunk { len, .. } => *len > 0 && *len as usize <= CHUNK_MAX_BYTES,
        Extent::Hole { len } => *len > 0,
    });
    if !chunks_fit || i64::try_from(manifest.file_len()).is_err() {
        return Err("an extent has an impossible length".to_owned());
    }
    let mut end = 0;
    for tensor in &manifest.tensors {
        if tensor.range.offset < end || tensor.range.end() > manifest.file_len() {
            return Err(format!("tensor {:?} is out of order or outside of the file", tensor.name));
        }
        end = tensor.range.end();
    }
    Ok(Outcome::Accepted)
}

fn manifests() -> Vec<Case> {
    let mut random = Random::new(1, "manifests");
    let mut cases = Vec::new();
    for count in [0, 1, 2, 5, 30] {
        let (mut tensors, mut extents, mut position) = (Vec::new(), Vec::new(), 0);
        for index in 0..count {
            let element = *random.pick(&Element::ALL);
            let len = 1 + random.below(CHUNK_MAX_BYTES) as u64;
            let range = ByteRange { offset: position, len: len / 2 };
            let shape = (0..random.below(5)).map(|_| random.next() >> random.below(64)).collect();
            tensors.push(Tensor { name: format!("layers.{index}.weight"), element, shape, range });
            extents.push(if random.one_in(4) {
                Extent::Hole { len }
            } else {
                let id = ChunkId::of(&[u8::try_from(index % 7).unwrap_or(0)]);
                Extent::Chunk { id, len: u32::try_from(len).unwrap_or(1), element }
            });
            position += len;
        }
        for container in [Container::Unknown, Container::Safetensors, Container::Npz] {
            let manifest = Manifest { container, tensors: tensors.clone(), extents: extents.clone() };
            cases.push(Case::of(manifest.encode()));
        }
    }
    cases
}

fn entries(count: usize, random: &mut Random) -> Vec<Entry> {
    let entry = |random: &mut Random| {
        let raw_len = 1 + u32::try_from(random.below(CHUNK_MAX_BYTES)).unwrap_or(0);
        let stored_len = 1 + u32::try_from(random.below(raw_len as usize)).unwrap_or(0);
        let (kind, stored_len) = match random.below(4) {
            0 => {
                let depth = 1 + random.byte() % MAX_DELTA_DEPTH;
                (BlobKind::Delta { base: ChunkId::of(&[depth]), depth }, stored_len)
            }
            1 => (BlobKind::Manifest, raw_len),
            2 => (BlobKind::ZstdManifest, stored_len),
            _ => (BlobKind::Chunk, stored_len),
        };
        let is_chunk = matches!(kind, BlobKind::Chunk | BlobKind::Delta { .. });
        let checksum = (is_chunk && random.below(4) > 0).then(|| Checksum::of(&random.bytes(4)));
        Entry { kind, id: *ChunkId::of(&random.bytes(4)).as_bytes(), stored_len, raw_len, checksum }
    };
    (0..count).map(|_| entry(random)).collect()
}

/// Whether it is the header of this store's index; the first ones had no checksum.
fn is_header_of(header: &[u8], store: StoreId) -> bool {
    let mut first = index::encode_header(store);
    let with_checksum = first[..] == *header;
    first[12..16].fill(0);
    with_checksum || first[..] == *header
}

/// One of the three parts of a pack, whichever the bytes are.
fn pack_parts(case: &Case, ground: &mut Ground) -> Checked {
    let bytes = ground.input.hold(&case.input, crate::guarded::Edge::of(case.choice));
    let mut outcome = Outcome::Refused;
    if let Ok(store) = pack::decode_header(bytes) {
        outcome = Outcome::Accepted;
        if pack::encode_header(store)[..] != *bytes {
            return Err("a header has two spellings".to_owned());
        }
    }
    if pack::decode_trailer(bytes).is_ok() {
        outcome = Outcome::Accepted;
        if bytes.len() != pack::TRAILER_BYTES {
            return Err("a trailer of another length is taken".to_owned());
        }
    }
    if let Ok(entries) = pack::decode_footer(bytes) {
        outcome = Outcome::Accepted;
        if pack::encode_footer(&entries) != bytes {
            return Err("a footer has two spellings".to_owned());
        }
        let stored: u64 = entries.iter().map(|entry| u64::from(entry.stored_len)).sum();
        let around = (pack::HEADER_BYTES + bytes.len() + pack::TRAILER_BYTES) as u64;
        if pack::pack_len(&entries) != stored + around || !entries.iter().all(Entry::has_possible_lengths) {
            return Err("the lengths of a footer do not fit".to_owned());
        }
    }
    Ok(outcome)
}

fn packs() -> Vec<Case> {
    let mut random = Random::new(1, "packs");
    let footers: Vec<Vec<u8>> =
        [0, 1, 2, 3, 40].map(|count| pack::encode_footer(&entries(count, &mut random))).to_vec();
    let mut parts = vec![pack::encode_header(StoreId::from_low_bits(random.next())).to_vec()];
    parts.extend(footers.iter().map(|footer| pack::encode_trailer(footer).to_vec()));
    parts.extend(footers);
    for name in ["32ee651ecb3e59178c88a7046dbd188c", "568bde40777f4ae41180a1fd76f4da81"] {
        let pack = made::fixture(&format!("fixtures/store/packs/{name}"));
        let (rest, trailer) = pack.split_at(pack.len() - pack::TRAILER_BYTES);
        let footer_len = pack::decode_trailer(trailer).map_or(0, |(len, _)| len);
        parts.extend([pack[..pack::HEADER_BYTES].to_vec(), trailer.to_vec()]);
        parts.push(rest[rest.len() - footer_len..].to_vec());
    }
    parts.into_iter().map(Case::of).collect()
}

fn index(case: &Case, ground: &mut Ground) -> Checked {
    let bytes = ground.input.hold(&case.input, crate::guarded::Edge::of(case.choice));
    let header = index::decode_header(bytes);
    let (records, end) = index::decode_records(bytes);
    if end > bytes.len() {
        // Shorter than a header: nothing may be found there.
        let is_nothing = records.is_empty() && end == index::HEADER_BYTES;
        return if is_nothing { Ok(Outcome::Refused) } else { Err("records beyond the end".to_owned()) };
    }
    let mut again = bytes[..index::HEADER_BYTES].to_vec();
    for record in &records {
        match record {
            Record::Added(id, entries) => index::put_added(&mut again, *id, entries),
            Record::Removed(id) => index::put_removed(&mut again, *id),
        }
    }
    if again != bytes[..end] {
        return Err("a record has two spellings".to_owned());
    }
    match header {
        Ok(store) if !is_header_of(&bytes[..index::HEADER_BYTES], store) => {
            Err("a header has two spellings".to_owned())
        }
        Ok(_) if end == bytes.len() => Ok(Outcome::Accepted),
        _ => Ok(Outcome::Refused),
    }
}

fn indexes() -> Vec<Case> {
    let mut random = Random::new(1, "indexes");
    let mut cases = vec![Case::of(made::fixture("fixtures/store/index"))];
    for counts in [&[][..], &[0], &[1, 3], &[12, 0, 5]] {
        let mut log = index::encode_header(StoreId::from_low_bits(random.next())).to_vec();
        for &count in counts {
            let entries = entries(count, &mut random);
            let id = PackId::of(&pack::encode_footer(&entries));
            index::put_added(&mut log, id, &entries);
            if random.one_in(3) {
                index::put_removed(&mut log, id);
            }
        }
        cases.push(Case::of(log));
    }
    cases
}

/// Makes the checksums of all records right again whose lengths fit.
fn make_checksums_right(case: &mut Case, random: &mut Random) {
    if random.one_in(4) {
        return;
    }
    let mut at = index::HEADER_BYTES;
    while let Some(field) = case.input.get(at..at + 4) {
        let len = u32::from_le_bytes(std::array::from_fn(|i| field[i])) as usize;
        let Some(record) = case.input.get_mut(at + 4..).and_then(|rest| rest.get_mut(..len + 8)) else {
            return;
        };
        let digest = blake3::hash(&record[..len]);
        record[len..].copy_from_slice(&digest.as_bytes()[..8]);
        at += 4 + len + 8;
    }
}
