//! Deltas of 32-bit floats in context: each element is predicted by its base, and of the difference, in units in the last
//! place, the size is coded by how large the others around it are, and the other bits are kept as they are.
//!
//! ```text
//! body    kind u8 (0 f32), blocks of up to 131072 elements, tail
//! block   raw:    0, the elements
//!         same:   1; they are those of the base
//!         planes: 2, prediction, bitmap of the groups, four byte planes of ordered differences
//!         coded:  3, prediction, classes, bitmap of the groups, contexts, words and stacks, symbols
//! tail    the bytes after the last whole element, as they are
//! ```
//!
//! Elements are in groups of 64, one a lane. A group that is as predicted is only a bit of the bitmap, a plane block.
//! Of the others, first all symbols are decoded (`rans`, in the context of the symbols before), then the elements: their
//! symbols and bases say how many raw bits each takes from the stack of bits of its lane.
//!
//! Beside the loops over lanes, which the compiler vectorises, an instruction set has code of its own for what it cannot:
//! looking up small tables, and moving words between lanes and memory.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod decay;
mod decode;
mod differences;
mod encode;
mod groups;
mod lanes;
mod model;
mod number;
mod predict;
mod stacks;
mod survey;
mod tally;

use super::dispatch::Isa;
use super::{BLOCK_ELEMENTS, DecodeError, Decoded, Scratch, isa, plane_block, rans, sized, take, take_u8};
use groups::{Bytes, LANES, Words};
use lanes::Portable;

/// Bytes of an element.
const WIDTH: usize = 4;

/// Bytes of a block.
const BLOCK_BYTES: usize = WIDTH * BLOCK_ELEMENTS;

/// Kinds of elements.
const KIND_F32: u8 = 0;

/// Kinds of blocks.
mod kind {
    pub(super) const RAW: u8 = 0;
    pub(super) const SAME: u8 = 1;
    pub(super) const PLANES: u8 = 2;
    pub(super) const CODED: u8 = 3;
}

/// Buffers that are kept between calls.
#[derive(Debug, Default)]
pub(super) struct BlockScratch {
    /// A bit for each group that has differences.
    coded: Vec<u8>,
    symbols: Vec<Bytes>,
    widths: Vec<Bytes>,
    values: Vec<Words>,
    rans: rans::ContextScratch,
    bytes: Vec<u8>,
    survey: survey::SurveyScratch,
}

/// The first `groups` of a buffer that only grows.
fn sized_groups<T: Copy + From<u8>>(buffer: &mut Vec<[T; LANES]>, groups: usize) -> &mut [[T; LANES]] {
    if buffer.len() < groups {
        buffer.resize(groups, [T::from(0); LANES]);
    }
    &mut buffer[..groups]
}

/// Whether a group of a block has differences, by the bitmap of those.
#[inline(always)]
fn is_coded(coded: &[u8], group: usize) -> bool {
    coded[group / 8] >> (group % 8) & 1 != 0
}

/// Takes the bitmap of the groups that have differences. Returns how many they are.
fn take_coded(body: &mut &[u8], groups: usize, scratch: &mut Parts<'_>) -> Decoded<usize> {
    let coded = sized(&mut scratch.block.coded, groups.div_ceil(8));
    plane_block::decode(body, coded, scratch.planes)?;
    if !groups.is_multiple_of(8) && coded.last().is_some_and(|last| last >> (groups % 8) != 0) {
        return Err(DecodeError::Malformed("a group behind the last one is coded"));
    }
    Ok(coded.iter().map(|byte| byte.count_ones() as usize).sum())
}

/// What is needed of a scratch.
struct Parts<'a> {
    block: &'a mut BlockScratch,
    planes: &'a mut plane_block::BlockScratch,
    /// For the planes themselves.
    split: &'a mut Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(scratch: &'a mut Scratch) -> Self {
        Self { block: &mut scratch.context32, planes: &mut scratch.blocks, split: &mut scratch.planes }
    }
}

/// Encodes `raw` against `base` of the same length.
pub(super) fn encode(raw: &[u8], base: &[u8], scratch: &mut Scratch, out: &mut Vec<u8>) {
    encode_with(isa(), raw, base, &mut Parts::of(scratch), out);
}

/// Decodes what [`encode`] wrote; `base` has the length of `out`.
pub(super) fn decode(body: &[u8], base: &[u8], scratch: &mut Scratch, out: &mut [u8]) -> Decoded<()> {
    decode_with(isa(), body, base, &mut Parts::of(scratch), out)
}

fn encode_with(isa: Isa, raw: &[u8], base: &[u8], scratch: &mut Parts<'_>, out: &mut Vec<u8>) {
    out.push(KIND_F32);
    let whole = raw.len() - raw.len() % WIDTH;
    let blocks = raw[..whole].chunks(BLOCK_BYTES).zip(base[..whole].chunks(BLOCK_BYTES));
    for (raw, base) in blocks {
        match isa.supported() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `supported` says what the processor has.
            Isa::Avx512 | Isa::Avx2 => unsafe { avx2::encode_block(raw, base, scratch, out) },
            _ => encode::encode_block(Portable, isa, raw, base, scratch, out),
        }
    }
    out.extend_from_slice(&raw[whole..]);
}

fn decode_with(
    isa: Isa,
    mut body: &[u8],
    base: &[u8],
    scratch: &mut Parts<'_>,
    out: &mut [u8],
) -> Decoded<()> {
    if base.len() != out.len() {
        return Err(DecodeError::WrongBase);
    }
    if take_u8(&mut body)? != KIND_F32 {
        return Err(DecodeError::Malformed("unknown kind of elements"));
    }
    let whole = out.len() - out.len() % WIDTH;
    let (elements, tail) = out.split_at_mut(whole);
    let blocks = elements.chunks_mut(BLOCK_BYTES).zip(base[..whole].chunks(BLOCK_BYTES));
    for (out, base) in blocks {
        match isa.supported() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 | Isa::Avx2 => unsafe { avx2::decode_block(&mut body, base, scratch, out) },
            _ => decode::decode_block(Portable, isa, &mut body, base, scratch, out),
        }?;
    }
    tail.copy_from_slice(take(&mut body, tail.len())?);
    if body.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes are left over")) }
}

#[cfg(test)]
mod tests;
