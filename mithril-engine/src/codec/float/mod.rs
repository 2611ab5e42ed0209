//! Floating-point numbers by themselves: exponents are entropy-coded, what is as good as random is only packed.
//!
//! Blocks of up to 131072 elements are coded one by one, see [`block`]. In front of them, a chunk may have what
//! predicts its elements' exponents, see [`predict`].
//!
//! ```text
//! body      flags u8, side information of the grid if there is one, blocks, tail
//! flags     bits 0 and 1: log2 of the bytes of an element (1, 2, 3); 4 parts; 8 grid; 16 moments
//! tail      the bytes after the last whole element (or pair, with parts), as they are
//! ```
//!
//! With parts, the elements are pairs (complex numbers), and all first parts are coded before all second ones: for
//! where these are distributed in different ways.

mod block;
mod decode;
mod encode;
mod halves;
mod pack;
mod parts;
mod plan;
mod predict;
mod split;
mod survey;
mod zeros;

pub(super) use predict::Choice as Prediction;
pub use predict::Grid;

use super::dispatch::{Isa, isa};
use super::{BLOCK_ELEMENTS, DecodeError, Decoded, Scratch, take, take_u8};
use crate::tensor::Element;
use predict::Predictor;

/// Elements that are worked on at a time, so that what passes from one loop to the next stays in the first-level cache.
const TILE: usize = 4096;

const FLAG_PARTS: u8 = 4;
const FLAG_GRID: u8 = 8;
const FLAG_MOMENTS: u8 = 16;

/// How a type of numbers is taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    /// Bytes of an element; half of them for complex numbers.
    width: usize,
    /// Bits below the exponent among the upper 16, the sign being one of them.
    fraction_bits: u32,
    /// Whether elements come in pairs.
    pairs: bool,
}

impl Kind {
    /// The kind of an element type, if it is one of floating-point numbers of at least 16 bits.
    pub(super) fn of(element: Element) -> Option<Self> {
        let (width, fraction_bits, pairs) = match element {
            Element::Bf16 => (2, 8, false),
            Element::F16 => (2, 11, false),
            Element::F32 => (4, 8, false),
            Element::F64 => (8, 5, false),
            Element::Complex64 => (4, 8, true),
            Element::Complex128 => (8, 5, true),
            _ => return None,
        };
        Some(Self { width, fraction_bits, pairs })
    }
}

/// Buffers that are kept between calls.
#[derive(Debug, Default)]
pub(super) struct FloatScratch {
    block: block::BlockScratch,
    predict: predict::PredictScratch,
    parts: Vec<u8>,
}

/// Chooses what to predict by, where that pays. `grid` says how the elements lie in their tensor; `moments` are the second
/// moments of the same elements, of the type and length of `raw`.
pub(super) fn predict(raw: &[u8], kind: Kind, grid: Option<Grid>, moments: Option<&[u8]>) -> Prediction {
    let whole = raw.len() - raw.len() % kind.width;
    let grid = grid.filter(|_| !kind.pairs);
    survey::choose(&raw[..whole], kind, grid, usable(moments, raw, kind))
}

/// Appends the body of `raw`. Returns whether the moments, those that [`predict`] was given, are needed to decode. The result
/// is longer than `raw` by at most 8 bytes and one a block.
pub(super) fn encode(
    raw: &[u8],
    kind: Kind,
    prediction: Prediction,
    moments: Option<&[u8]>,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> bool {
    encode_for(isa(), raw, kind, prediction, moments, &mut scratch.float, out)
}

/// The second moments of the whole elements of `raw`, if they are that.
fn usable<'a>(moments: Option<&'a [u8]>, raw: &[u8], kind: Kind) -> Option<&'a [u8]> {
    let whole = raw.len() - raw.len() % kind.width;
    moments.filter(|moments| moments.len() == raw.len() && !kind.pairs).map(|moments| &moments[..whole])
}

/// Encodes with an instruction set. Returns whether the moments are needed to decode.
fn encode_for(
    isa: Isa,
    raw: &[u8],
    kind: Kind,
    prediction: Prediction,
    moments: Option<&[u8]>,
    scratch: &mut FloatScratch,
    out: &mut Vec<u8>,
) -> bool {
    let width = kind.width;
    let width_code = width.trailing_zeros().to_le_bytes()[0];
    if kind.pairs && parts::differ(raw, kind) {
        out.push(width_code | FLAG_PARTS);
        let whole = raw.len() - raw.len() % (2 * width);
        parts::separate(&raw[..whole], width, &mut scratch.parts);
        encode_blocks(isa, &scratch.parts, kind, &Predictor::none(), &mut scratch.block, out);
        out.extend_from_slice(&raw[whole..]);
        return false;
    }
    let whole = raw.len() - raw.len() % width;
    let elements = &raw[..whole];
    let moments = usable(moments, raw, kind);
    out.push(width_code | prediction.flags());
    let predictor = prediction.predictor(
        isa,
        elements,
        kind,
        moments,
        &mut scratch.predict,
        &mut scratch.block.rans,
        out,
    );
    encode_blocks(isa, elements, kind, &predictor, &mut scratch.block, out);
    out.extend_from_slice(&raw[whole..]);
    prediction.flags() & FLAG_MOMENTS != 0
}

fn encode_blocks(
    isa: Isa,
    elements: &[u8],
    kind: Kind,
    predictor: &Predictor<'_>,
    scratch: &mut block::BlockScratch,
    out: &mut Vec<u8>,
) {
    for (index, raw) in elements.chunks(BLOCK_ELEMENTS * kind.width).enumerate() {
        encode::encode(isa, raw, kind, predictor, index * BLOCK_ELEMENTS, scratch, out);
    }
}

/// Decodes what `encode` wrote; `moments` are those that were given to it, if it needed them.
pub(super) fn decode(
    body: &[u8],
    moments: Option<&[u8]>,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Decoded<()> {
    decode_for(isa(), body, moments, &mut scratch.float, out)
}

fn decode_for(
    isa: Isa,
    mut body: &[u8],
    moments: Option<&[u8]>,
    scratch: &mut FloatScratch,
    out: &mut [u8],
) -> Decoded<()> {
    let flags = take_u8(&mut body)?;
    let width = 1usize << (flags & 3);
    if width == 1 || flags >= 2 * FLAG_MOMENTS {
        return Err(DecodeError::Malformed("unknown flags of numbers"));
    }
    let parts = flags & FLAG_PARTS != 0;
    if parts && flags & (FLAG_GRID | FLAG_MOMENTS) != 0 {
        return Err(DecodeError::Malformed("parts are not predicted"));
    }
    let unit = if parts { 2 * width } else { width };
    let whole = out.len() - out.len() % unit;
    let moments = match moments {
        _ if flags & FLAG_MOMENTS == 0 => None,
        Some(moments) if moments.len() == out.len() => Some(&moments[..whole]),
        _ => return Err(DecodeError::WrongBase),
    };
    let (elements, tail) = out.split_at_mut(whole);
    if parts {
        let target = super::sized(&mut scratch.parts, whole);
        decode_blocks(isa, &mut body, width, &Predictor::none(), &mut scratch.block, target)?;
        parts::unite(target, width, elements);
    } else {
        let has_grid = flags & FLAG_GRID != 0;
        let count = whole / width;
        let predictor = Predictor::read(
            isa,
            &mut body,
            has_grid,
            count,
            width,
            moments,
            &mut scratch.predict,
            &mut scratch.block.rans,
        )?;
        decode_blocks(isa, &mut body, width, &predictor, &mut scratch.block, elements)?;
    }
    tail.copy_from_slice(take(&mut body, tail.len())?);
    if body.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes are left over")) }
}

fn decode_blocks(
    isa: Isa,
    body: &mut &[u8],
    width: usize,
    predictor: &Predictor<'_>,
    scratch: &mut block::BlockScratch,
    elements: &mut [u8],
) -> Decoded<()> {
    for (index, out) in elements.chunks_mut(BLOCK_ELEMENTS * width).enumerate() {
        decode::decode(isa, body, width, predictor, index * BLOCK_ELEMENTS, scratch, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
