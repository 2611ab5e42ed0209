//! A buffer of numbers as one compressed frame.
//!
//! ```text
//! magic     "MCF" and the version, 1
//! flags     u8: 1 if some piece needs the previous buffer
//! element   u8, see the element codes
//! length    varint: bytes of the buffer
//! digest    16 bytes: the first half of the BLAKE3 of the buffer
//! pieces    for each 1 MiB of the buffer: varint length, encoded chunk; the lowest bit of the length says whether the
//!           piece of the previous buffer is its base
//! ```

use rayon::prelude::*;

use crate::codec::{self, Against, EXPANSION_MAX_BYTES, Input, Options, Scratch};
use crate::error::{Error, Result};
use crate::format::bytes::{Reader, put_varint};
use crate::settings::CHUNK_TARGET_BYTES;
use crate::tensor::Element;

const MAGIC: &[u8; 3] = b"MCF";
const VERSION: u8 = 1;
const FLAG_DELTA: u8 = 1;
const DIGEST_BYTES: usize = 16;
const WHAT: &str = "compressed buffer";

/// A length and a tag.
const PIECE_LEAST_BYTES: u64 = 2;

/// What a frame says of itself.
pub(super) struct Header {
    pub(super) element: Element,
    pub(super) raw_len: u64,
    pub(super) is_delta: bool,
    digest: [u8; DIGEST_BYTES],
}

/// Compresses `raw` with the threads of the current pool.
pub(super) fn encode(raw: &[u8], element: Element, previous: Option<&[u8]>, options: Options) -> Vec<u8> {
    // Deltas pair pieces by their place; buffers of other lengths only resemble each other as bytes.
    let pieces: Vec<(Against, Vec<u8>)> = raw
        .par_chunks(CHUNK_TARGET_BYTES)
        .enumerate()
        .map_init(Scratch::default, |scratch, (index, piece)| {
            let base = previous.and_then(|previous| previous.chunks(CHUNK_TARGET_BYTES).nth(index));
            let mut out = Vec::with_capacity(piece.len() / 2 + EXPANSION_MAX_BYTES);
            let against =
                codec::encode(&Input::new(piece, element).against(base), options, scratch, &mut out);
            (against, out)
        })
        .collect();
    let is_delta = pieces.iter().any(|(against, _)| *against == Against::Base);
    let mut out = Vec::with_capacity(pieces.iter().map(|(_, bytes)| bytes.len() + 4).sum::<usize>() + 48);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, u8::from(is_delta) * FLAG_DELTA, element.code()]);
    put_varint(&mut out, raw.len() as u64);
    out.extend_from_slice(&digest_of(raw));
    for (against, bytes) in &pieces {
        put_varint(&mut out, (bytes.len() as u64) << 1 | u64::from(*against == Against::Base));
        out.extend_from_slice(bytes);
    }
    out
}

fn digest_of(raw: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut hasher = blake3::Hasher::new();
    if raw.len() > CHUNK_TARGET_BYTES {
        hasher.update_rayon(raw)
    } else {
        hasher.update(raw)
    };
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..DIGEST_BYTES]);
    digest
}

/// Reads the header and returns the pieces behind it.
pub(super) fn header(bytes: &[u8]) -> Result<(Header, Reader<'_>)> {
    let mut reader = Reader::new(bytes, WHAT);
    if &reader.array::<3>()? != MAGIC {
        return Err(reader.corrupt("it does not begin like one"));
    }
    let version = reader.u8()?;
    if version != VERSION {
        return Err(Error::Unsupported { what: WHAT.to_owned(), detail: format!("version {version}") });
    }
    let flags = reader.u8()?;
    if flags & !FLAG_DELTA != 0 {
        return Err(Error::Unsupported { what: WHAT.to_owned(), detail: format!("flags {flags:#x}") });
    }
    let element = Element::from_code(reader.u8()?).ok_or_else(|| reader.corrupt("unknown element"))?;
    let raw_len = reader.varint()?;
    let digest = reader.array()?;
    // Each piece takes two bytes at least: what claims more is not given the memory that it claims.
    let pieces = reader.len() as u64 / PIECE_LEAST_BYTES;
    if raw_len.div_ceil(CHUNK_TARGET_BYTES as u64) > pieces {
        return Err(reader.corrupt("it ends too early"));
    }
    Ok((Header { element, raw_len, is_delta: flags & FLAG_DELTA != 0, digest }, reader))
}

/// Decodes into a buffer of exactly the frame's length.
pub(super) fn decode(
    header: &Header,
    mut reader: Reader<'_>,
    previous: Option<&[u8]>,
    out: &mut [u8],
) -> Result<()> {
    let mut pieces = Vec::with_capacity(out.len() / CHUNK_TARGET_BYTES + 1);
    for piece in out.chunks_mut(CHUNK_TARGET_BYTES) {
        let field = reader.varint()?;
        let len = usize::try_from(field >> 1).map_err(|_| reader.corrupt("a piece is too long"))?;
        pieces.push((reader.take(len)?, field & 1 == 1, piece));
    }
    reader.end()?;
    pieces.into_par_iter().enumerate().try_for_each_init(
        Scratch::default,
        |scratch, (index, (bytes, is_delta, piece))| {
            let base = previous
                .filter(|_| is_delta)
                .and_then(|previous| previous.chunks(CHUNK_TARGET_BYTES).nth(index));
            if is_delta && base.is_none() {
                return Err(Error::invalid(
                    WHAT,
                    "it is a delta: give the previous buffer that it was made from",
                ));
            }
            codec::decode(bytes, base, scratch, piece).map_err(|e| Error::corrupt(WHAT, e.to_string()))
        },
    )?;
    if digest_of(out) == header.digest {
        return Ok(());
    }
    Err(if header.is_delta {
        Error::corrupt(
            WHAT,
            "its digest does not match: it is damaged, or the previous buffer is another one",
        )
    } else {
        Error::corrupt(WHAT, "its digest does not match")
    })
}
