//! Byte planes of differences, for blocks where these are smaller than symbols and raw bits: if elements have hardly
//! anything to do with their bases.

use super::super::numeric::{Transform, w4};
use super::super::{Decoded, plane_block, planes, sized};
use super::groups::{GROUP_BYTES, LANES, Words, load, store};
use super::predict::Prediction;
use super::{BlockScratch, Parts, is_coded};
use crate::codec::entropy::{Histogram, LOG2_FRACTION, information};

/// What the planes of a sample take, in units of 2^-16 bits, if they are coded byte by byte. Huffman codes take a little
/// more.
#[inline(always)]
pub(super) fn cost(new: &[Words], base: &[Words], prediction: &Prediction) -> u64 {
    let mut planes: [Histogram; 4] = [[0; 256]; 4];
    for (new, base) in new.iter().zip(base) {
        let predicted = prediction.of(base);
        if *new == predicted {
            continue;
        }
        for (x, b) in new.iter().zip(&predicted) {
            let bytes = w4::forward::<{ Transform::OrderedDifference as u8 }>(*x, *b).to_le_bytes();
            for (plane, byte) in planes.iter_mut().zip(bytes) {
                plane[usize::from(byte)] += 1;
            }
        }
    }
    let all = planes[0].iter().sum();
    let cost = |plane: &Histogram| {
        let parts: u64 = plane.iter().map(|&count| information(count)).sum();
        let used = plane.iter().filter(|count| **count > 0).count() as u64;
        // A sample looks less random than what it is of, by half of log2(e) bits for each value but one (Miller).
        information(all).saturating_sub(parts) + (used.saturating_sub(1) << LOG2_FRACTION) * 72 / 100
    };
    planes.iter().map(cost).sum()
}

/// Appends the planes of the groups of a block that are not as predicted.
pub(super) fn encode(
    raw: &[u8],
    base: &[u8],
    prediction: &Prediction,
    scratch: &mut Parts<'_>,
    out: &mut Vec<u8>,
) {
    let groups = raw.len().div_ceil(GROUP_BYTES);
    let BlockScratch { coded, bytes, .. } = &mut *scratch.block;
    let coded = sized(coded, groups.div_ceil(8));
    coded.fill(0);
    let (new, predicted) = sized(bytes, 2 * groups * GROUP_BYTES).split_at_mut(groups * GROUP_BYTES);
    let mut count = 0;
    for group in 0..groups {
        let (elements, bases) = (load(raw, group), prediction.of(&load(base, group)));
        if elements != bases {
            store(&elements, new, count);
            store(&bases, predicted, count);
            coded[group / 8] |= 1 << (group % 8);
            count += 1;
        }
    }
    prediction.put(out);
    plane_block::encode(coded, scratch.planes, out);
    let bytes = count * GROUP_BYTES;
    let transform = Transform::OrderedDifference;
    let (new, predicted) = (&new[..bytes], &predicted[..bytes]);
    planes::encode_block(
        new,
        size_of::<w4::Word>(),
        transform,
        predicted,
        scratch.split,
        scratch.planes,
        out,
    );
}

/// Decodes what [`encode`] wrote.
pub(super) fn decode(body: &mut &[u8], base: &[u8], scratch: &mut Parts<'_>, out: &mut [u8]) -> Decoded<()> {
    let groups = out.len().div_ceil(GROUP_BYTES);
    let prediction = Prediction::take(body)?;
    let count = super::take_coded(body, groups, scratch)?;
    let BlockScratch { coded, bytes, .. } = &mut *scratch.block;
    let length = count * GROUP_BYTES;
    let (new, predicted) = sized(bytes, 2 * length).split_at_mut(length);
    for (place, group) in (0..groups).filter(|&group| is_coded(coded, group)).enumerate() {
        store(&prediction.of(&load(base, group)), predicted, place);
    }
    let transform = Transform::OrderedDifference;
    planes::decode_block(
        body,
        size_of::<w4::Word>(),
        transform,
        predicted,
        scratch.split,
        scratch.planes,
        new,
    )?;
    let mut next = 0;
    for group in 0..groups {
        if is_coded(coded, group) {
            store(&load(new, next), out, group);
            next += 1;
        } else {
            store(&prediction.of(&load(base, group)), out, group);
        }
    }
    Ok(())
}

const _: () = assert!(super::BLOCK_BYTES.is_multiple_of(LANES));
