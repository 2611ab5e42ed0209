//! Pairs of numbers: first and second parts one after the other, where that is smaller than pairs as they are.

use super::super::entropy::{self, Histogram};
use super::Kind;
use super::plan::rotated;

/// What telling the parts apart must gain, of the bits of the exponents.
const GAIN: f64 = 0.98;

/// Pairs that are looked at in a row, and how many times that from one run to the next in a long chunk. Neither is a
/// divisor of the usual lengths of rows.
const RUN: usize = 101;
const STRIDE: usize = 19;

/// Whether the parts of a sample take less if each has its own frequencies.
pub(super) fn differ(raw: &[u8], kind: Kind) -> bool {
    let pair = 2 * kind.width;
    let stride = if raw.len() > RUN * STRIDE * pair { STRIDE } else { 1 };
    let mut histograms: [Histogram; 2] = [[0; 256]; 2];
    for pair in raw.chunks(RUN * pair).step_by(stride).flat_map(|run| run.chunks_exact(pair)) {
        for (histogram, element) in histograms.iter_mut().zip(pair.chunks_exact(kind.width)) {
            // The exponent, or its lower eight bits.
            let exponent = (rotated(element) >> kind.fraction_bits.min(8)).to_le_bytes()[0];
            histogram[usize::from(exponent)] += 1;
        }
    }
    let together: Histogram = std::array::from_fn(|i| histograms[0][i] + histograms[1][i]);
    let apart: f64 = histograms.iter().map(entropy::bits).sum();
    apart < entropy::bits(&together) * GAIN
}

/// All first parts, then all second ones.
pub(super) fn separate(raw: &[u8], width: usize, out: &mut Vec<u8>) {
    out.clear();
    out.resize(raw.len(), 0);
    let (first, second) = out.split_at_mut(raw.len() / 2);
    match width {
        4 => separate_of::<4>(raw, first, second),
        _ => separate_of::<8>(raw, first, second),
    }
}

fn separate_of<const WIDTH: usize>(raw: &[u8], first: &mut [u8], second: &mut [u8]) {
    let (first, second) = (first.as_chunks_mut::<WIDTH>().0, second.as_chunks_mut::<WIDTH>().0);
    let pairs = raw.as_chunks::<WIDTH>().0.as_chunks::<2>().0;
    for ((pair, first), second) in pairs.iter().zip(first).zip(second) {
        [*first, *second] = *pair;
    }
}

/// Pairs of their parts, which have any width.
pub(super) fn unite(parts: &[u8], width: usize, out: &mut [u8]) {
    match width {
        2 => unite_of::<2>(parts, out),
        4 => unite_of::<4>(parts, out),
        _ => unite_of::<8>(parts, out),
    }
}

fn unite_of<const WIDTH: usize>(parts: &[u8], out: &mut [u8]) {
    let (first, second) = parts.split_at(parts.len() / 2);
    let (first, second) = (first.as_chunks::<WIDTH>().0, second.as_chunks::<WIDTH>().0);
    let pairs = out.as_chunks_mut::<WIDTH>().0.as_chunks_mut::<2>().0;
    for ((pair, first), second) in pairs.iter_mut().zip(first).zip(second) {
        *pair = [*first, *second];
    }
}
