//! One chunk to fewer bytes and back: pure functions, no I/O.
//!
//! Owns the encodings and their tags; nobody outside knows what is inside an encoded chunk. An encoded chunk
//! begins with a format tag, so that new formats join without touching old ones. What the decoder cannot prove
//! to be well-formed is an error: it never guesses, and never reads or writes outside its buffers.
//!
//! ```text
//! 0 raw       the bytes
//! 1 same      nothing: the chunk is its base
//! 2 planes    width and transform, then blocks of byte planes, or of places in a palette
//! 3 delta16   blocks of changed-element bitmap, symbols and escapes, against the base
//! 4 zstd      a zstd frame, with the base as its dictionary if there is one
//! 5 float     blocks of floating-point numbers by themselves
//! 6 context16 blocks of changes and moves of 16-bit elements coded in context, against the base
//! 7 context32 blocks of differences of 32-bit floats coded in context, against the base
//! 8 scaled    integers of 8 bits and the scales of their blocks, of floats that were quantized
//! 9 rounded   what differs from the rounding of a base of 32-bit floats
//! ```

mod bitmap;
mod choice;
mod context16;
mod context32;
mod contexts;
mod delta16;
mod dispatch;
mod encode;
mod entropy;
mod float;
mod numeric;
mod options;
mod palette;
mod plane_block;
mod planes;
mod rans;
mod rounded;
mod scaled;
mod zstd_frame;

pub use dispatch::{Isa, isa, limit_isa};
pub use encode::{Input, encode, encode_context16, encode_context32, encode_quantized, encode_rounded};
pub use float::Grid;
pub use options::{Level, Options};
pub(crate) use rounded::roundings;

use zstd_frame::ZstdScratch;

/// Elements that are transformed at a time: their planes stay in the second-level cache, and a plane is the most
/// that one Huffman table covers.
const BLOCK_ELEMENTS: usize = 128 << 10;

/// What an encoding is longer than its chunk at most.
pub const EXPANSION_MAX_BYTES: usize = 16;

/// Format tags: the first byte of an encoded chunk.
mod tag {
    pub(super) const RAW: u8 = 0;
    pub(super) const SAME: u8 = 1;
    pub(super) const PLANES: u8 = 2;
    pub(super) const DELTA16: u8 = 3;
    pub(super) const ZSTD: u8 = 4;
    pub(super) const FLOAT: u8 = 5;
    pub(super) const CONTEXT16: u8 = 6;
    pub(super) const CONTEXT32: u8 = 7;
    pub(super) const SCALED: u8 = 8;
    pub(super) const ROUNDED: u8 = 9;
}

/// How a chunk is encoded, for people: what stands behind a format tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Format {
    /// The bytes as they are.
    Raw = tag::RAW,
    /// Nothing: the chunk is its base.
    Same = tag::SAME,
    /// Byte planes, alone or of differences, or places in a palette.
    Planes = tag::PLANES,
    /// 16-bit differences with a bitmap of the changed.
    Delta16 = tag::DELTA16,
    /// A zstd frame.
    Zstd = tag::ZSTD,
    /// Floating-point numbers by themselves.
    Float = tag::FLOAT,
    /// Changes and moves of 16-bit elements, coded in context.
    Context16 = tag::CONTEXT16,
    /// Differences of 32-bit floats, coded in context.
    Context32 = tag::CONTEXT32,
    /// Integers and scales of floats that were quantized.
    Scaled = tag::SCALED,
    /// What differs from the rounding of the base.
    Rounded = tag::ROUNDED,
}

impl Format {
    /// The format of an encoded chunk, of which the first byte is enough; `None` for one of a later version.
    pub fn of(encoded: &[u8]) -> Option<Self> {
        use Format::{Context16, Context32, Delta16, Float, Planes, Raw, Rounded, Same, Scaled, Zstd};
        let tag = *encoded.first()?;
        [Raw, Same, Planes, Delta16, Zstd, Float, Context16, Context32, Scaled, Rounded]
            .into_iter()
            .find(|format| *format as u8 == tag)
    }

    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Same => "same",
            Format::Planes => "planes",
            Format::Delta16 => "delta16",
            Format::Zstd => "zstd",
            Format::Float => "float",
            Format::Context16 => "context16",
            Format::Context32 => "context32",
            Format::Scaled => "scaled",
            Format::Rounded => "rounded",
        }
    }
}

/// Buffers that are kept between calls; one a thread.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Planes of a block, each `BLOCK_ELEMENTS` long.
    planes: Vec<u8>,
    /// Elements of a block after the transform.
    elements: Vec<u16>,
    /// Places of a block that have an escape.
    escapes: Vec<usize>,
    blocks: plane_block::BlockScratch,
    zstd: ZstdScratch,
    float: float::FloatScratch,
    context16: context16::BlockScratch,
    context32: context32::BlockScratch,
}

/// What [`encode`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Against {
    /// The chunk stands alone.
    Nothing,
    /// The chunk is a delta: decoding needs the same base again.
    Base,
    /// The second moments take the place of the base: decoding needs them.
    Moments,
}

/// Why bytes cannot be decoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are no valid encoding of a chunk of this length.
    #[error("malformed chunk: {0}")]
    Malformed(&'static str),
    /// The format tag is of a later version.
    #[error("unknown chunk format {0}")]
    UnknownFormat(u8),
    /// A delta without its base, or with one of another length.
    #[error("the base of a delta is missing or has another length")]
    WrongBase,
}

type Decoded<T> = Result<T, DecodeError>;

/// Decodes a chunk of exactly `out.len()` bytes.
///
/// # Errors
/// [`DecodeError`]; `out` then holds garbage.
pub fn decode(
    encoded: &[u8],
    base: Option<&[u8]>,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Result<(), DecodeError> {
    let (&format, body) = encoded.split_first().ok_or(DecodeError::Malformed("it is empty"))?;
    let same_length = |base: Option<&[u8]>| base.is_some_and(|base| base.len() == out.len());
    match format {
        tag::RAW => {
            if body.len() != out.len() {
                return Err(DecodeError::Malformed("a raw chunk has another length"));
            }
            out.copy_from_slice(body);
            Ok(())
        }
        tag::SAME => {
            let base = base.filter(|base| base.len() == out.len()).ok_or(DecodeError::WrongBase)?;
            if !body.is_empty() {
                return Err(DecodeError::Malformed("bytes are left over"));
            }
            out.copy_from_slice(base);
            Ok(())
        }
        tag::PLANES => planes::decode(body, base, scratch, out),
        tag::DELTA16 if same_length(base) => delta16::decode(body, base.unwrap_or_default(), scratch, out),
        tag::DELTA16 => Err(DecodeError::WrongBase),
        tag::ZSTD => scratch.zstd.decompress(body, base, out),
        tag::FLOAT => float::decode(body, base, scratch, out),
        tag::CONTEXT16 if same_length(base) => {
            context16::decode(body, base.unwrap_or_default(), scratch, out)
        }
        tag::CONTEXT16 => Err(DecodeError::WrongBase),
        tag::CONTEXT32 if same_length(base) => {
            context32::decode(body, base.unwrap_or_default(), scratch, out)
        }
        tag::CONTEXT32 => Err(DecodeError::WrongBase),
        tag::SCALED => scaled::decode(body, scratch, out),
        tag::ROUNDED => rounded::decode(body, base.unwrap_or_default(), out),
        other => Err(DecodeError::UnknownFormat(other)),
    }
}

/// The first `len` bytes of a buffer that only grows: clearing what is overwritten anyway would cost a tenth of the
/// time.
pub(crate) fn sized(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

/// Takes the next `len` bytes of an encoding.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Decoded<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len).ok_or(DecodeError::Malformed("it ends too early"))?;
    *bytes = rest;
    Ok(head)
}

/// Takes a byte of an encoding.
fn take_u8(bytes: &mut &[u8]) -> Decoded<u8> {
    Ok(take(bytes, 1)?[0])
}

/// Takes a 24-bit length of an encoding.
fn take_u24(bytes: &mut &[u8]) -> Decoded<usize> {
    let field = take(bytes, 3)?;
    Ok(usize::from(field[0]) | usize::from(field[1]) << 8 | usize::from(field[2]) << 16)
}

/// Appends a 24-bit length.
fn put_u24(out: &mut Vec<u8>, value: usize) {
    debug_assert!(value < 1 << 24);
    out.extend_from_slice(&value.to_le_bytes()[..3]);
}

#[cfg(test)]
mod tests;
