//! What stands at the end of a compressed checkpoint: which chunks it holds and how they make up the file.
//!
//! ```text
//! file      header, encoded chunks one after the other, footer, trailer
//! header    "MITHRMCP", version u8, 7 bytes 0
//! footer    zstd frame of: manifest length varint, manifest, digest of the file (32 bytes),
//!           reference u8 (0 none, 1: name length varint, name, length varint, digest), chunks varint, chunk records,
//!           lossy tensors varint, loss records
//! record    place varint (among the different chunks of the manifest, in the order in which it first names them),
//!           stored length varint, base u8 (0 none, 1: offset varint and length varint in the reference,
//!           2: offset varint and length varint in the file, 3: offset varint in the file)
//! loss      tensor varint, scheme u8, kind of bound u8 (0 absolute, 1 relative), bound f64, elements varint,
//!           exact elements varint, largest error f64, sum of errors f64
//! trailer   stored length of the footer u32, its plain length u32, BLAKE3 of the stored footer, "MITHRMCP"
//! ```

use std::collections::HashMap;

use super::bytes::{Reader, put_varint};
use super::manifest::{Extent, Manifest};
use crate::codec::EXPANSION_MAX_BYTES;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::quantize::{Bound, Report, Scheme};
use crate::range::ByteRange;
use crate::settings::CHUNK_MAX_BYTES;

pub(crate) const MAGIC: &[u8; 8] = b"MITHRMCP";
const VERSION: u8 = 1;
pub(crate) const HEADER_BYTES: usize = 16;
pub(crate) const TRAILER_BYTES: usize = 48;
pub(crate) const DIGEST_BYTES: usize = 32;

/// Longest footer, before and after compression: that of a file of some 4 TB.
const FOOTER_MAX_BYTES: usize = 256 << 20;

/// Level for footers: names compress well, digests do not.
const ZSTD_LEVEL: i32 = 3;

/// Bytes that a record takes at least.
const RECORD_LEAST_BYTES: usize = 3;

/// Bytes that a loss record takes at least.
const LOSS_LEAST_BYTES: usize = 29;

const WHAT: &str = "compressed checkpoint";

/// Which file a delta was made against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReferenceId {
    /// The last part of its path, as the bytes that the system knows it by.
    pub name: Vec<u8>,
    /// Its length in bytes.
    pub len: u64,
    /// The BLAKE3 of its bytes; of a compressed checkpoint, of the bytes that it holds.
    pub digest: [u8; DIGEST_BYTES],
}

/// What a chunk is encoded against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Base {
    None,
    /// Bytes of the reference.
    Reference(ByteRange),
    /// Bytes of the file itself, more than the chunk has: so no chunk is based on itself, however often one leads to
    /// another.
    Own(ByteRange),
    /// As many bytes of the file itself as the chunk has: second moments, which are based on nothing of the file.
    Moments(ByteRange),
}

/// An encoded chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) id: ChunkId,
    /// Bytes of its plaintext.
    pub(crate) raw_len: u32,
    /// Where its encoding is.
    pub(crate) stored: ByteRange,
    pub(crate) base: Base,
}

/// What was lost of a tensor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Loss {
    /// Which tensor: its place among those of the file.
    pub tensor: usize,
    /// What its elements became.
    pub scheme: Scheme,
    /// How far they may be from what they were.
    pub bound: Bound,
    /// How far they are.
    pub report: Report,
}

/// Everything behind the chunks.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Footer {
    pub(crate) manifest: Manifest,
    pub(crate) digest: [u8; DIGEST_BYTES],
    pub(crate) reference: Option<ReferenceId>,
    /// In the order of their encodings in the file, which lie one behind the other.
    pub(crate) records: Vec<Record>,
    /// By tensor; none for a file that is what it was.
    pub(crate) losses: Vec<Loss>,
}

pub(crate) fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()] = VERSION;
    header
}

/// Whether a file begins like a compressed checkpoint.
pub(crate) fn begins_like_one(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

pub(crate) fn check_header(header: &[u8; HEADER_BYTES]) -> Result<()> {
    if !begins_like_one(header) {
        return Err(Error::invalid(WHAT, "it does not begin like one"));
    }
    if header[MAGIC.len()] != VERSION {
        return Err(Error::Unsupported {
            what: WHAT.to_owned(),
            detail: format!("version {}", header[MAGIC.len()]),
        });
    }
    if header[MAGIC.len() + 1..].iter().any(|&byte| byte != 0) {
        return Err(Error::corrupt(WHAT, "its header has bytes that must be zero"));
    }
    Ok(())
}

/// The different chunks of a manifest, in the order in which it first names them.
struct Places {
    chunks: Vec<(ChunkId, u32)>,
    place_of: HashMap<ChunkId, usize>,
}

impl Places {
    fn of(manifest: &Manifest) -> Result<Self> {
        let mut places = Self { chunks: Vec::new(), place_of: HashMap::new() };
        for extent in &manifest.extents {
            if let Extent::Chunk { id, len, .. } = *extent {
                let place = *places.place_of.entry(id).or_insert_with(|| {
                    places.chunks.push((id, len));
                    places.chunks.len() - 1
                });
                if places.chunks[place].1 != len {
                    return Err(Error::corrupt(WHAT, "a chunk has two lengths"));
                }
            }
        }
        Ok(places)
    }
}

impl Footer {
    /// The footer and the trailer, as they are written behind the chunks.
    ///
    /// # Errors
    /// `Invalid` for a file with too many pieces.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let manifest = self.manifest.encode();
        let places = Places::of(&self.manifest)?;
        let mut raw = Vec::with_capacity(manifest.len() + self.records.len() * 8 + 128);
        put_varint(&mut raw, manifest.len() as u64);
        raw.extend_from_slice(&manifest);
        raw.extend_from_slice(&self.digest);
        match &self.reference {
            None => raw.push(0),
            Some(reference) => {
                raw.push(1);
                put_varint(&mut raw, reference.name.len() as u64);
                raw.extend_from_slice(&reference.name);
                put_varint(&mut raw, reference.len);
                raw.extend_from_slice(&reference.digest);
            }
        }
        put_varint(&mut raw, self.records.len() as u64);
        for record in &self.records {
            let place = places
                .place_of
                .get(&record.id)
                .ok_or_else(|| Error::corrupt(WHAT, "it holds a chunk that its manifest does not name"))?;
            put_varint(&mut raw, *place as u64);
            put_varint(&mut raw, record.stored.len);
            match record.base {
                Base::None => raw.push(0),
                Base::Reference(range) => {
                    raw.push(1);
                    put_varint(&mut raw, range.offset);
                    put_varint(&mut raw, range.len);
                }
                Base::Own(range) => {
                    raw.push(2);
                    put_varint(&mut raw, range.offset);
                    put_varint(&mut raw, range.len);
                }
                Base::Moments(range) => {
                    raw.push(3);
                    put_varint(&mut raw, range.offset);
                }
            }
        }
        put_varint(&mut raw, self.losses.len() as u64);
        self.losses.iter().for_each(|loss| put_loss(&mut raw, loss));
        let stored = zstd::bulk::compress(&raw, ZSTD_LEVEL)
            .map_err(|e| Error::io("compress", "the footer of a checkpoint", e))?;
        let too_long = || Error::invalid("file", "it has too many pieces for one compressed checkpoint");
        if raw.len().max(stored.len()) > FOOTER_MAX_BYTES {
            return Err(too_long());
        }
        let (stored_len, raw_len) = (u32::try_from(stored.len()), u32::try_from(raw.len()));
        let (stored_len, raw_len) = (stored_len.map_err(|_| too_long())?, raw_len.map_err(|_| too_long())?);
        let digest = *blake3::hash(&stored).as_bytes();
        let mut out = stored;
        out.extend_from_slice(&stored_len.to_le_bytes());
        out.extend_from_slice(&raw_len.to_le_bytes());
        out.extend_from_slice(&digest);
        out.extend_from_slice(MAGIC);
        Ok(out)
    }

    /// Reads what [`Footer::encode`] wrote. `stored` is the footer, whose lengths the trailer gave.
    ///
    /// # Errors
    /// `Corrupt` for anything that is not exactly that.
    pub(crate) fn decode(stored: &[u8], trailer: &Trailer) -> Result<Self> {
        if *blake3::hash(stored).as_bytes() != trailer.digest {
            return Err(Error::corrupt(WHAT, "its footer does not match its digest"));
        }
        let raw = zstd::bulk::decompress(stored, trailer.raw_len)
            .map_err(|_| Error::corrupt(WHAT, "its footer does not decompress"))?;
        if raw.len() != trailer.raw_len {
            return Err(Error::corrupt(WHAT, "its footer has another length than its trailer says"));
        }
        let mut reader = Reader::new(&raw, WHAT);
        let manifest_len = reader.count(1)?;
        let manifest = Manifest::decode(reader.take(manifest_len)?)?;
        let digest = reader.array()?;
        let reference = match reader.u8()? {
            0 => None,
            1 => {
                let name_len = reader.count(1)?;
                let name = reader.take(name_len)?.to_vec();
                Some(ReferenceId { name, len: reader.varint()?, digest: reader.array()? })
            }
            _ => return Err(reader.corrupt("unknown kind of reference")),
        };
        let Places { chunks, .. } = Places::of(&manifest)?;
        let count = reader.count(RECORD_LEAST_BYTES)?;
        if count != chunks.len() {
            return Err(reader.corrupt("it holds other chunks than its manifest names"));
        }
        let mut records: Vec<Record> = Vec::with_capacity(count);
        let mut seen = vec![false; count];
        let mut position = HEADER_BYTES as u64;
        for _ in 0..count {
            let place = usize::try_from(reader.varint()?).ok().filter(|&place| place < count);
            let place = place.ok_or_else(|| reader.corrupt("a record is of a chunk that there is not"))?;
            if std::mem::replace(&mut seen[place], true) {
                return Err(reader.corrupt("it holds a chunk twice"));
            }
            let (id, raw_len) = chunks[place];
            let len = reader.varint()?;
            if len == 0 || len > u64::from(raw_len) + EXPANSION_MAX_BYTES as u64 {
                return Err(reader.corrupt("a chunk has an impossible length"));
            }
            let stored = ByteRange::new(position, len)
                .ok_or_else(|| reader.corrupt("a chunk lies outside the file"))?;
            position = stored.end();
            let base = decode_base(&mut reader, reference.as_ref(), raw_len, manifest.file_len())?;
            records.push(Record { id, raw_len, stored, base });
        }
        let count = reader.count(LOSS_LEAST_BYTES)?;
        let mut losses: Vec<Loss> = Vec::with_capacity(count);
        for _ in 0..count {
            let loss = decode_loss(&mut reader, manifest.tensors.len())?;
            if losses.last().is_some_and(|last| last.tensor >= loss.tensor) {
                return Err(reader.corrupt("its lossy tensors are out of order"));
            }
            losses.push(loss);
        }
        reader.end()?;
        if position != trailer.footer_offset {
            return Err(Error::corrupt(WHAT, "its chunks end elsewhere than its footer begins"));
        }
        Ok(Self { manifest, digest, reference, records, losses })
    }
}

fn decode_base(
    reader: &mut Reader<'_>,
    reference: Option<&ReferenceId>,
    raw_len: u32,
    file_len: u64,
) -> Result<Base> {
    match reader.u8()? {
        0 => Ok(Base::None),
        1 => {
            let range = ByteRange::new(reader.varint()?, reader.varint()?);
            let fits = |range: &ByteRange| {
                range.len <= CHUNK_MAX_BYTES as u64
                    && reference.is_some_and(|reference| range.end() <= reference.len)
            };
            range
                .filter(fits)
                .map(Base::Reference)
                .ok_or_else(|| reader.corrupt("a base lies outside the reference"))
        }
        2 => {
            let range = ByteRange::new(reader.varint()?, reader.varint()?);
            let fits = |range: &ByteRange| {
                range.len <= CHUNK_MAX_BYTES as u64
                    && range.len > u64::from(raw_len)
                    && range.end() <= file_len
            };
            range.filter(fits).map(Base::Own).ok_or_else(|| reader.corrupt("a base is no part of the file"))
        }
        3 => ByteRange::new(reader.varint()?, u64::from(raw_len))
            .filter(|range| range.end() <= file_len)
            .map(Base::Moments)
            .ok_or_else(|| reader.corrupt("second moments are no part of the file")),
        _ => Err(reader.corrupt("unknown kind of base")),
    }
}

fn put_loss(out: &mut Vec<u8>, loss: &Loss) {
    let (kind, bound) = match loss.bound {
        Bound::Absolute(error) => (0, error),
        Bound::Relative(share) => (1, share),
    };
    put_varint(out, loss.tensor as u64);
    out.extend_from_slice(&[loss.scheme as u8, kind]);
    out.extend_from_slice(&bound.to_le_bytes());
    put_varint(out, loss.report.elements);
    put_varint(out, loss.report.exact);
    out.extend_from_slice(&loss.report.max_error.to_le_bytes());
    out.extend_from_slice(&loss.report.error_sum.to_le_bytes());
}

fn decode_loss(reader: &mut Reader<'_>, tensors: usize) -> Result<Loss> {
    let tensor = usize::try_from(reader.varint()?).ok().filter(|&tensor| tensor < tensors);
    let tensor = tensor.ok_or_else(|| reader.corrupt("a lossy tensor is not there"))?;
    let scheme = Scheme::from_code(reader.u8()?).ok_or_else(|| reader.corrupt("unknown scheme"))?;
    let kind = reader.u8()?;
    let mut float = || reader.u64().map(f64::from_bits);
    let value = float()?;
    let bound = match kind {
        0 => Bound::Absolute(value),
        1 => Bound::Relative(value),
        _ => return Err(reader.corrupt("unknown kind of bound")),
    };
    let (elements, exact) = (reader.varint()?, reader.varint()?);
    let mut float = || reader.u64().map(f64::from_bits);
    let report = Report { elements, exact, max_error: float()?, error_sum: float()? };
    Ok(Loss { tensor, scheme, bound, report })
}

/// The end of a compressed checkpoint.
pub(crate) struct Trailer {
    pub(crate) footer_offset: u64,
    pub(crate) stored_len: usize,
    raw_len: usize,
    digest: [u8; DIGEST_BYTES],
}

impl Trailer {
    /// Reads the last bytes of a file of `file_len` bytes.
    ///
    /// # Errors
    /// `Corrupt` for anything that is no trailer; nothing of a size that it claims was allocated.
    pub(crate) fn decode(bytes: &[u8; TRAILER_BYTES], file_len: u64) -> Result<Self> {
        let mut reader = Reader::new(bytes, WHAT);
        let (stored_len, raw_len) = (reader.u32()? as usize, reader.u32()? as usize);
        let digest = reader.array()?;
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(reader.corrupt("it does not end like one: it was cut short, or something follows it"));
        }
        let room = file_len.saturating_sub((HEADER_BYTES + TRAILER_BYTES) as u64);
        if stored_len.max(raw_len) > FOOTER_MAX_BYTES || stored_len as u64 > room {
            return Err(reader.corrupt("its footer has an impossible length"));
        }
        let footer_offset = file_len - (TRAILER_BYTES + stored_len) as u64;
        Ok(Self { footer_offset, stored_len, raw_len, digest })
    }
}
