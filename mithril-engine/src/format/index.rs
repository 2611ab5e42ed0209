//! The index: a log of which packs there are and what is in them. All of it can be had from the packs' footers; it
//! saves opening each.
//!
//! ```text
//! header  24  magic "MITHRILI", version u32, checksum u32, store id u64
//! record      length u32 (of kind and body), kind u8, body, first 8 bytes of the BLAKE3 of kind and body
//! kind 1      pack added: pack id 16, the pack's footer
//! kind 2      pack removed: pack id 16
//! ```

use super::bytes::Reader;
use super::pack::{self, FOOTER_MAX_BYTES};
use crate::error::{Error, Result};
use crate::id::{PackId, StoreId};

const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"MITHRILI";
/// Bytes before the first record.
pub const HEADER_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 8;
const ADDED: u8 = 1;
const REMOVED: u8 = 2;

/// A record of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A pack and its entries.
    Added(PackId, Vec<pack::Entry>),
    /// A pack is gone.
    Removed(PackId),
}

/// The header of this store's index.
pub fn encode_header(store: StoreId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&store.get().to_le_bytes());
    let checksum = header_checksum(&header);
    header[CHECKSUM_AT].copy_from_slice(&checksum);
    header
}

/// Where the header has its checksum.
const CHECKSUM_AT: std::ops::Range<usize> = 12..16;

/// The checksum of a header of this version: the start of the BLAKE3 of the rest.
fn header_checksum(header: &[u8; HEADER_BYTES]) -> [u8; 4] {
    let mut rest = [0; HEADER_BYTES - 4];
    rest[..8].copy_from_slice(&header[..8]);
    rest[8..12].copy_from_slice(&VERSION.to_le_bytes());
    rest[12..].copy_from_slice(&header[16..]);
    *blake3::hash(&rest).as_bytes().first_chunk().expect("a digest has 32 bytes")
}

/// The store that an index belongs to.
///
/// # Errors
/// `Corrupt` if it is no header; `Unsupported` for a later version.
pub fn decode_header(bytes: &[u8]) -> Result<StoreId> {
    let mut reader = Reader::new(bytes, "index header");
    let header: [u8; HEADER_BYTES] = reader.array()?;
    let checksum = header_checksum(&header);
    let mut reader = Reader::new(&header, "index header");
    if reader.array()? != MAGIC {
        return Err(reader.corrupt("the magic number is wrong"));
    }
    let version = reader.u32()?;
    // With the checksum of this version, it is one whose version rotted.
    if version != VERSION && header[CHECKSUM_AT] != checksum {
        return Err(Error::Unsupported {
            what: "the index".to_owned(),
            detail: format!("version {version}"),
        });
    }
    let (found, store): ([u8; 4], u64) = (reader.array()?, reader.u64()?);
    // The first indexes had none.
    if found != checksum && found != [0; 4] || version != VERSION {
        return Err(reader.corrupt("its checksum is wrong"));
    }
    if store >> StoreId::BITS != 0 {
        return Err(reader.corrupt("a reserved field is set"));
    }
    Ok(StoreId::from_low_bits(store))
}

/// Appends the record of a pack with these entries.
pub fn put_added(out: &mut Vec<u8>, id: PackId, entries: &[pack::Entry]) {
    put(out, ADDED, &[id.as_bytes(), &pack::encode_footer(entries)]);
}

/// Appends the record of a pack that is gone.
pub fn put_removed(out: &mut Vec<u8>, id: PackId) {
    put(out, REMOVED, &[id.as_bytes()]);
}

fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    let start = out.len();
    out.push(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    let digest = blake3::hash(&out[start..]);
    out.extend_from_slice(&digest.as_bytes()[..CHECKSUM_BYTES]);
}

/// The records after the header, up to the first that is not whole; and how many bytes they take with the header.
/// What follows them was torn by a crash, or is damaged: the packs' footers have it.
pub fn decode_records(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut end = HEADER_BYTES;
    while let Some((record, next)) = bytes.get(end..).and_then(decode_record) {
        records.push(record);
        end += next;
    }
    (records, end)
}

fn decode_record(bytes: &[u8]) -> Option<(Record, usize)> {
    let mut reader = Reader::new(bytes, "index record");
    let len = reader.u32().ok()? as usize;
    if len > FOOTER_MAX_BYTES + 17 {
        return None;
    }
    let body = reader.take(len).ok()?;
    let checksum: [u8; CHECKSUM_BYTES] = reader.array().ok()?;
    if blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] != checksum {
        return None;
    }
    let mut fields = Reader::new(body, "index record");
    let kind = fields.u8().ok()?;
    let id = PackId::from_bytes(fields.array().ok()?);
    let record = match kind {
        ADDED => Record::Added(id, pack::decode_footer(body.get(17..)?).ok()?),
        REMOVED => {
            fields.end().ok()?;
            Record::Removed(id)
        }
        _ => return None,
    };
    Some((record, 4 + len + CHECKSUM_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::{BlobKind, Entry};

    #[test]
    fn no_bit_of_a_header_is_mistaken() {
        let header = encode_header(StoreId::from_low_bits(0xbe_3d79_300d_fc37));
        assert_eq!(decode_header(&header).unwrap(), StoreId::from_low_bits(0xbe_3d79_300d_fc37));
        for bit in 0..8 * HEADER_BYTES {
            let mut damaged = header;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode_header(&damaged), Err(Error::Corrupt { .. })), "bit {bit}");
        }
        let mut later = header;
        later[8] = 2;
        later[CHECKSUM_AT].fill(7);
        assert!(matches!(decode_header(&later), Err(Error::Unsupported { .. })));
        // Those of the first stores have no checksum.
        let mut first = header;
        first[CHECKSUM_AT].fill(0);
        assert!(decode_header(&first).is_ok());
        // As in the example of FORMAT.md.
        assert_eq!(header[CHECKSUM_AT], [0x11, 0x02, 0x87, 0x9c]);
    }

    #[test]
    fn a_record_of_a_blob_with_an_impossible_length_ends_the_log() {
        let entry = Entry { kind: BlobKind::Chunk, id: [1; 32], stored_len: 10, raw_len: 10, checksum: None };
        let mut log = encode_header(StoreId::from_low_bits(1)).to_vec();
        put_added(&mut log, PackId::from_bytes([2; 16]), &[entry]);
        let good = log.len();
        put_added(&mut log, PackId::from_bytes([3; 16]), &[Entry { stored_len: u32::MAX, ..entry }]);
        put_removed(&mut log, PackId::from_bytes([2; 16]));
        let (records, end) = decode_records(&log);
        assert_eq!(records, [Record::Added(PackId::from_bytes([2; 16]), vec![entry])]);
        assert_eq!(end, good);
    }
}
