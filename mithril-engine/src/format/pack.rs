//! A pack: blobs back to back, then a footer that says what they are.
//!
//! ```text
//! header   32  magic "MITHRILP", version u32, 0 u32, store id u64, 0 u64
//! blobs        encoded chunks and manifests, back to back from byte 32
//! footer       entry count u32, then the entries in the order of the blobs
//! trailer  32  footer length u32, version u32, pack id 16, magic "MITHRILE"
//! ```
//!
//! The pack id is the beginning of the footer's BLAKE3, so it is also the footer's checksum. Blobs need none: a
//! plaintext is checked against its name.

use super::bytes::Reader;
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId, StoreId};
use crate::settings::{CHUNK_MAX_BYTES, MAX_DELTA_DEPTH};

/// Version of the layout.
const VERSION: u32 = 1;
const HEADER_MAGIC: [u8; 8] = *b"MITHRILP";
const TRAILER_MAGIC: [u8; 8] = *b"MITHRILE";
/// Bytes before the first blob.
pub(crate) const HEADER_BYTES: usize = 32;
/// Bytes after the footer.
pub(crate) const TRAILER_BYTES: usize = 32;
/// Longest footer: a pack of 4 GiB of the smallest sensible chunks. Nothing longer is read.
pub(crate) const FOOTER_MAX_BYTES: usize = 256 << 20;
/// Longest manifest before compression: some 20 TiB of file.
pub(crate) const MANIFEST_MAX_BYTES: usize = 1 << 30;
/// Bytes that an entry takes at least.
const ENTRY_LEAST_BYTES: usize = 41;

/// What a blob is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BlobKind {
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
pub(crate) struct Entry {
    pub(crate) kind: BlobKind,
    /// The chunk's or the manifest's id.
    pub(crate) id: [u8; 32],
    /// Bytes in the pack.
    pub(crate) stored_len: u32,
    /// Bytes of plaintext.
    pub(crate) raw_len: u32,
}

/// The header of a pack of this store.
pub(crate) fn encode_header(store: StoreId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&HEADER_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&store.get().to_le_bytes());
    header
}

/// The store that a pack belongs to.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<StoreId> {
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
pub(crate) fn encode_footer(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + entries.len() * (ENTRY_LEAST_BYTES + 33));
    out.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    for entry in entries {
        out.push(match entry.kind {
            BlobKind::Chunk => 0,
            BlobKind::Delta { .. } => 1,
            BlobKind::Manifest => 2,
            BlobKind::ZstdManifest => 3,
        });
        out.extend_from_slice(&entry.id);
        out.extend_from_slice(&entry.stored_len.to_le_bytes());
        out.extend_from_slice(&entry.raw_len.to_le_bytes());
        if let BlobKind::Delta { base, depth } = entry.kind {
            out.push(depth);
            out.extend_from_slice(base.as_bytes());
        }
    }
    out
}

/// Reads a footer whose digest was compared with the pack's id.
pub(crate) fn decode_footer(bytes: &[u8]) -> Result<Vec<Entry>> {
    let mut reader = Reader::new(bytes, "pack footer");
    let count = reader.u32()? as usize;
    if count > bytes.len() / ENTRY_LEAST_BYTES {
        return Err(reader.corrupt("it counts more than it holds"));
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = reader.u8()?;
        let id = reader.array()?;
        let stored_len = reader.u32()?;
        let raw_len = reader.u32()?;
        let (kind, limit) = match kind {
            0 => (BlobKind::Chunk, CHUNK_MAX_BYTES),
            1 => {
                let depth = reader.u8()?;
                if depth == 0 || depth > MAX_DELTA_DEPTH {
                    return Err(reader.corrupt("a chain of deltas is too long"));
                }
                (BlobKind::Delta { base: ChunkId::from_bytes(reader.array()?), depth }, CHUNK_MAX_BYTES)
            }
            2 => (BlobKind::Manifest, MANIFEST_MAX_BYTES),
            3 => (BlobKind::ZstdManifest, MANIFEST_MAX_BYTES),
            _ => return Err(reader.corrupt("unknown kind of blob")),
        };
        if raw_len == 0 || raw_len as usize > limit {
            return Err(reader.corrupt("a blob has an impossible length"));
        }
        entries.push(Entry { kind, id, stored_len, raw_len });
    }
    reader.end()?;
    Ok(entries)
}

/// The last bytes of a pack.
pub(crate) fn encode_trailer(footer: &[u8]) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..4].copy_from_slice(&u32::try_from(footer.len()).unwrap_or(u32::MAX).to_le_bytes());
    trailer[4..8].copy_from_slice(&VERSION.to_le_bytes());
    trailer[8..24].copy_from_slice(PackId::of(footer).as_bytes());
    trailer[24..].copy_from_slice(&TRAILER_MAGIC);
    trailer
}

/// The footer's length and the pack's id.
pub(crate) fn decode_trailer(bytes: &[u8]) -> Result<(usize, PackId)> {
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
