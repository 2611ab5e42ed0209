//! A pack: blobs back to back, then a footer that says what they are.
//!
//! ```text
//! header   32  magic "MITHRILP", version u32, 0 u32, store id u64, 0 u64
//! blobs        encoded chunks and manifests, back to back from byte 32
//! footer       entry count u32, then the entries in the order of the blobs
//! trailer  32  footer length u32, version u32, pack id 16, magic "MITHRILE"
//! ```
//!
//! The pack id is the beginning of the footer's BLAKE3, so it is also the footer's checksum. An entry has a checksum of its
//! chunk's plaintext, which is faster to compute than its name.

use super::bytes::Reader;
use crate::error::{Error, Result};
use crate::id::{Checksum, ChunkId, PackId, StoreId};
use crate::settings::{CHUNK_MAX_BYTES, MAX_DELTA_DEPTH, PACK_MAX_BLOBS};

/// Version of the layout.
const VERSION: u32 = 1;
const HEADER_MAGIC: [u8; 8] = *b"MITHRILP";
const TRAILER_MAGIC: [u8; 8] = *b"MITHRILE";
/// Bytes before the first blob.
pub const HEADER_BYTES: usize = 32;
/// Bytes after the footer.
pub const TRAILER_BYTES: usize = 32;
/// Longest footer: a pack of 4 GiB of the smallest sensible chunks. Nothing longer is read.
pub(crate) const FOOTER_MAX_BYTES: usize = 256 << 20;
/// Longest manifest before compression: some 20 TiB of file.
pub(crate) const MANIFEST_MAX_BYTES: usize = 1 << 30;
/// Bytes that an entry takes at least.
const ENTRY_LEAST_BYTES: usize = 41;
/// Bytes that it takes more for a delta.
const DELTA_BYTES: usize = 33;
/// Bytes that the entry of a delta with a checksum takes: the most that any does.
const ENTRY_MOST_BYTES: usize = ENTRY_LEAST_BYTES + DELTA_BYTES + Checksum::LEN;
/// What the kind of an entry has more if there is a checksum.
const CHECKSUMMED: u8 = 4;
/// What the encoding of a chunk may add to its plaintext.
const CHUNK_OVERHEAD_BYTES: u32 = 16;

// A writer that keeps to its own limits never makes a footer that no reader takes.
const _: () = assert!(4 + PACK_MAX_BLOBS * ENTRY_MOST_BYTES <= FOOTER_MAX_BYTES);

/// What a blob is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlobKind {
    /// A chunk that stands alone.
    Chunk,
    /// A chunk that is a delta.
    Delta {
        /// The chunk it is a delta against.
        base: ChunkId,
        /// Bases under it, at least 1.
        depth: u8,
    },
    /// A manifest as it is.
    Manifest,
    /// A manifest as a zstd frame.
    ZstdManifest,
}

/// A blob of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: BlobKind,
    /// The chunk's or the manifest's id.
    pub id: [u8; 32],
    /// Bytes in the pack.
    pub stored_len: u32,
    /// Bytes of plaintext.
    pub raw_len: u32,
    /// Of a chunk's plaintext. Manifests have none, and chunks that were packed before there were any.
    pub checksum: Option<Checksum>,
}

impl Entry {
    /// Whether the lengths are ones that a blob of this kind can have: what is read is allocated by them.
    pub fn has_possible_lengths(&self) -> bool {
        let (raw_len, stored_len) = (self.raw_len, self.stored_len);
        let (raw_limit, stored) = match self.kind {
            BlobKind::Chunk | BlobKind::Delta { .. } => {
                (CHUNK_MAX_BYTES, 1..=raw_len.saturating_add(CHUNK_OVERHEAD_BYTES))
            }
            BlobKind::Manifest => (MANIFEST_MAX_BYTES, raw_len..=raw_len),
            BlobKind::ZstdManifest => (MANIFEST_MAX_BYTES, 1..=raw_len),
        };
        raw_len > 0 && raw_len as usize <= raw_limit && stored.contains(&stored_len)
    }

    fn footer_len(&self) -> usize {
        let delta = if matches!(self.kind, BlobKind::Delta { .. }) { DELTA_BYTES } else { 0 };
        let checksum = if self.checksum_of_chunk().is_some() { Checksum::LEN } else { 0 };
        ENTRY_LEAST_BYTES + delta + checksum
    }

    fn checksum_of_chunk(&self) -> Option<Checksum> {
        self.checksum.filter(|_| self.is_chunk())
    }

    /// Whether it is a chunk.
    pub fn is_chunk(&self) -> bool {
        matches!(self.kind, BlobKind::Chunk | BlobKind::Delta { .. })
    }
}

/// Bytes of a pack with these entries.
pub fn pack_len(entries: &[Entry]) -> u64 {
    let frame = (HEADER_BYTES + 4 + TRAILER_BYTES) as u64;
    frame + entries.iter().map(|entry| u64::from(entry.stored_len) + entry.footer_len() as u64).sum::<u64>()
}

/// The header of a pack of this store.
pub fn encode_header(store: StoreId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&HEADER_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&store.get().to_le_bytes());
    header
}

/// The store that a pack belongs to.
///
/// # Errors
/// `Corrupt` if it is no header; `Unsupported` for a later version.
pub fn decode_header(bytes: &[u8]) -> Result<StoreId> {
    let mut reader = Reader::new(bytes, "pack header");
    if reader.array()? != HEADER_MAGIC {
        return Err(reader.corrupt("the magic number is wrong"));
    }
    check_version(reader.u32()?)?;
    if reader.u32()? != 0 {
        return Err(reader.corrupt("a reserved field is set"));
    }
    let store = reader.u64()?;
    if store >> StoreId::BITS != 0 || reader.u64()? != 0 {
        return Err(reader.corrupt("a reserved field is set"));
    }
    reader.end()?;
    Ok(StoreId::from_low_bits(store))
}

fn check_version(version: u32) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    Err(Error::Unsupported { what: "a pack".to_owned(), detail: format!("version {version}") })
}

/// The footer with these entries.
pub fn encode_footer(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + entries.iter().map(Entry::footer_len).sum::<usize>());
    out.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    for entry in entries {
        let kind = match entry.kind {
            BlobKind::Chunk => 0,
            BlobKind::Delta { .. } => 1,
            BlobKind::Manifest => 2,
            BlobKind::ZstdManifest => 3,
        };
        debug_assert!(entry.is_chunk() || entry.checksum.is_none(), "a manifest has no checksum");
        let checksum = entry.checksum_of_chunk();
        out.push(if checksum.is_some() { kind | CHECKSUMMED } else { kind });
        out.extend_from_slice(&entry.id);
        out.extend_from_slice(&entry.stored_len.to_le_bytes());
        out.extend_from_slice(&entry.raw_len.to_le_bytes());
        if let BlobKind::Delta { base, depth } = entry.kind {
            out.push(depth);
            out.extend_from_slice(base.as_bytes());
        }
        if let Some(checksum) = checksum {
            out.extend_from_slice(&checksum.bits().to_le_bytes());
        }
    }
    out
}

/// Reads a footer whose digest was compared with the pack's id.
///
/// # Errors
/// `Corrupt` for anything that is not exactly what [`encode_footer`] writes.
pub fn decode_footer(bytes: &[u8]) -> Result<Vec<Entry>> {
    let mut reader = Reader::new(bytes, "pack footer");
    let count = reader.u32()? as usize;
    if count > bytes.len() / ENTRY_LEAST_BYTES {
        return Err(reader.corrupt("it counts more than it holds"));
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let code = reader.u8()?;
        let id = reader.array()?;
        let stored_len = reader.u32()?;
        let raw_len = reader.u32()?;
        let (code, has_checksum) = match code {
            4 | 5 => (code - CHECKSUMMED, true),
            _ => (code, false),
        };
        let kind = match code {
            0 => BlobKind::Chunk,
            1 => {
                let depth = reader.u8()?;
                if depth == 0 || depth > MAX_DELTA_DEPTH {
                    return Err(reader.corrupt("a chain of deltas is too long"));
                }
                BlobKind::Delta { base: ChunkId::from_bytes(reader.array()?), depth }
            }
            2 => BlobKind::Manifest,
            3 => BlobKind::ZstdManifest,
            _ => return Err(reader.corrupt("unknown kind of blob")),
        };
        let checksum = if has_checksum { Some(Checksum::from_bits(reader.u64()?)) } else { None };
        let entry = Entry { kind, id, stored_len, raw_len, checksum };
        if !entry.has_possible_lengths() {
            return Err(reader.corrupt("a blob has an impossible length"));
        }
        entries.push(entry);
    }
    reader.end()?;
    Ok(entries)
}

/// The last bytes of a pack.
pub fn encode_trailer(footer: &[u8]) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..4].copy_from_slice(&u32::try_from(footer.len()).unwrap_or(u32::MAX).to_le_bytes());
    trailer[4..8].copy_from_slice(&VERSION.to_le_bytes());
    trailer[8..24].copy_from_slice(PackId::of(footer).as_bytes());
    trailer[24..].copy_from_slice(&TRAILER_MAGIC);
    trailer
}

/// The footer's length in bytes and the pack's id.
///
/// # Errors
/// `Corrupt` if it is no trailer; `Unsupported` for a later version.
pub fn decode_trailer(bytes: &[u8]) -> Result<(usize, PackId)> {
    let mut reader = Reader::new(bytes, "pack trailer");
    let footer_len = reader.u32()? as usize;
    check_version(reader.u32()?)?;
    let id = PackId::from_bytes(reader.array()?);
    if reader.array()? != TRAILER_MAGIC || footer_len > FOOTER_MAX_BYTES {
        return Err(reader.corrupt("the magic number or the length is wrong"));
    }
    reader.end()?;
    Ok((footer_len, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: BlobKind, raw_len: u32, stored_len: u32) -> Entry {
        Entry { kind, id: [7; 32], stored_len, raw_len, checksum: None }
    }

    #[test]
    fn a_footer_survives_and_says_how_long_its_pack_is() {
        let delta = BlobKind::Delta { base: ChunkId::from_bytes([1; 32]), depth: 8 };
        let entries = [
            entry(BlobKind::Chunk, 100, 116),
            entry(delta, 1 << 20, 1),
            entry(BlobKind::Manifest, 84, 84),
            entry(BlobKind::ZstdManifest, 84, 40),
        ];
        let checksum = Some(Checksum::from_bits(0x1234_5678_9abc_def0));
        let entries = [
            Entry { checksum, ..entries[0] },
            Entry { checksum, ..entries[1] },
            entries[0],
            entries[1],
            entries[2],
            entries[3],
        ];
        let footer = encode_footer(&entries);
        assert_eq!(decode_footer(&footer).unwrap(), entries);
        let blobs = 2 * (116 + 1) + 84 + 40;
        assert_eq!(pack_len(&entries), (HEADER_BYTES + blobs + footer.len() + TRAILER_BYTES) as u64);
    }

    #[test]
    fn lengths_that_no_blob_has_are_refused() {
        let delta = BlobKind::Delta { base: ChunkId::from_bytes([1; 32]), depth: 1 };
        for (kind, raw_len, stored_len) in [
            (BlobKind::Chunk, 100, u32::MAX),
            (BlobKind::Chunk, 100, 117),
            (BlobKind::Chunk, 100, 0),
            (BlobKind::Chunk, 0, 1),
            (BlobKind::Chunk, (4 << 20) + 1, 1),
            (delta, 100, 117),
            (BlobKind::Manifest, 84, 85),
            (BlobKind::Manifest, 84, 83),
            (BlobKind::ZstdManifest, 84, 85),
            (BlobKind::ZstdManifest, (1 << 30) + 1, 1),
        ] {
            let footer = encode_footer(&[entry(kind, raw_len, stored_len)]);
            assert!(decode_footer(&footer).is_err(), "{kind:?} {raw_len} {stored_len}");
        }
    }
}
