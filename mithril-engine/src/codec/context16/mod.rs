//! Deltas of 16-bit numbers in context: whether an element has changed, and how far, is predicted from its base and from
//! its neighbours, and coded close to the entropy.
//!
//! ```text
//! body    kind u8 (0 bf16, 1 f16, 2 integers), blocks of up to 1048576 elements, tail
//! block   raw:    0, the elements
//!         same:   1; they are those of the base
//!         sparse: 2, lowest exponent u8, probabilities, joined contexts, frequencies, words and states
//!         dense:  3, lowest exponent u8, context map, frequencies, words and states
//! tail    the byte after the last whole element, as it is
//! ```
//!
//! A block is cut in two halves of groups of 32 elements. Each half has 32 states (range asymmetric numeral systems), one
//! a lane; each step of the coder takes a group. All frequencies add up to 2^16 and the states are from 2^16 to 2^32: so
//! a state is two words of 16 bits, the lower of which is the slot, and the decoder's arithmetic is that of 16-bit lanes. The
//! encoder goes backwards and writes words forwards; the decoder reads them backwards. In the end all states must be
//! what the encoder began with.
//!
//! Sparse: first the changes of all elements, one bit each; their probability depends on the exponent of the base and on
//! how many of the 32 elements before have changed. Then the moves of the changed ones: a class in the context of the
//! exponent, and raw bits. Dense: a class and raw bits for every element, 0 for the unchanged.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod decode;
mod dense;
mod encode;
mod frequencies;
mod groups;
mod lanes;
mod model;
mod portable;
mod probabilities;
#[cfg(target_arch = "x86_64")]
mod shuffles;

use super::dispatch::Isa;
use super::{DecodeError, Decoded, Scratch, isa, take, take_u8};
use lanes::Slots;
pub(super) use model::Kind;
use portable::Portable;

/// Elements of a block: a chunk is usually one.
const BLOCK_ELEMENTS: usize = 1 << 20;

/// Bytes of the states of a block.
const STATES_BYTES: usize = 4 * 2 * model::LANES;

/// Kinds of blocks.
mod kind {
    pub(super) const RAW: u8 = 0;
    pub(super) const SAME: u8 = 1;
    pub(super) const SPARSE: u8 = 2;
    pub(super) const DENSE: u8 = 3;
}

/// Buffers that are kept between calls.
#[derive(Debug, Default)]
pub(super) struct BlockScratch {
    /// Which elements of each group have changed.
    changed: Vec<u32>,
    /// Exponent classes, or contexts.
    classes: Vec<u8>,
    value_classes: Vec<u8>,
    values: Vec<u8>,
    words: Vec<u8>,
    slots: Slots,
}

/// Encodes `raw` against `base` of the same length.
pub(super) fn encode(raw: &[u8], base: &[u8], kind: Kind, scratch: &mut Scratch, out: &mut Vec<u8>) {
    encode_with(isa(), raw, base, kind, &mut scratch.context16, out);
}

/// Decodes what [`encode`] wrote; `base` has the length of `out`.
pub(super) fn decode(body: &[u8], base: &[u8], scratch: &mut Scratch, out: &mut [u8]) -> Decoded<()> {
    decode_with(isa(), body, base, &mut scratch.context16, out)
}

fn encode_with(isa: Isa, raw: &[u8], base: &[u8], kind: Kind, scratch: &mut BlockScratch, out: &mut Vec<u8>) {
    out.push(kind as u8);
    let whole = raw.len() & !1;
    let blocks = raw[..whole].chunks(2 * BLOCK_ELEMENTS).zip(base[..whole].chunks(2 * BLOCK_ELEMENTS));
    for (raw, base) in blocks {
        match isa.supported() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `supported` says what the processor has.
            Isa::Avx512 => unsafe { avx512::encode_block(raw, base, kind, scratch, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::encode_block(raw, base, kind, scratch, out) },
            _ => encode::encode_block(Portable, raw, base, kind, scratch, out),
        }
    }
    out.extend_from_slice(&raw[whole..]);
}

fn decode_with(
    isa: Isa,
    mut body: &[u8],
    base: &[u8],
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Decoded<()> {
    if base.len() != out.len() {
        return Err(DecodeError::WrongBase);
    }
    let kind =
        Kind::from_code(take_u8(&mut body)?).ok_or(DecodeError::Malformed("unknown kind of elements"))?;
    let whole = out.len() & !1;
    let (elements, tail) = out.split_at_mut(whole);
    let blocks = elements.chunks_mut(2 * BLOCK_ELEMENTS).zip(base[..whole].chunks(2 * BLOCK_ELEMENTS));
    for (out, base) in blocks {
        match isa.supported() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `supported` says what the processor has.
            Isa::Avx512 => unsafe { avx512::decode_block(&mut body, base, kind, scratch, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::decode_block(&mut body, base, kind, scratch, out) },
            _ => decode::decode_block(Portable, &mut body, base, kind, scratch, out),
        }?;
    }
    tail.copy_from_slice(take(&mut body, tail.len())?);
    if body.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes are left over")) }
}

#[cfg(test)]
mod tests;
