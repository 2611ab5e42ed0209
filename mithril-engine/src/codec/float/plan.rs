//! How a block is coded, as a sample of it suggests.

use super::super::entropy::{self, Histogram};
use super::super::rans::LANES;
use super::Kind;

/// One in this many groups is looked at, and of those one element in `STRIDE`. The distance of these groups is no
/// divisor or multiple of the usual lengths of rows, as that of all samples here: all columns are seen.
const GROUP_STRIDE: usize = 17;
const STRIDE: usize = 4;

/// A block with fewer elements is looked at as a whole.
const SMALL_ELEMENTS: usize = 4096;

/// A share of zeros from which they are coded apart.
const ZEROS_SHARE: usize = 64;

/// Octaves that a symbol of seven exponent bits tells apart, and those above the largest that is seen.
const WINDOW: u16 = 128;
const HEADROOM: u16 = 12;

/// How a block is taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// Whether zeros are apart.
    pub(super) zeros: bool,
    /// Bits of the rests.
    pub(super) shift: u32,
    /// What is subtracted from each element beside its prediction.
    pub(super) base: u16,
}

/// The upper 16 bits of an element, rotated.
pub(super) fn rotated(element: &[u8]) -> u16 {
    let upper = element.last_chunk().copied().unwrap_or_default();
    u16::from_le_bytes(upper).rotate_left(1)
}

impl Plan {
    /// A plan for a block. `predicted` is the base that goes with predictions, if there are any.
    pub(super) fn of(raw: &[u8], kind: Kind, predicted: Option<u16>) -> Self {
        let (mut seen, mut zeros, mut largest) = (0, 0, 0);
        let is_small = raw.len() < SMALL_ELEMENTS * kind.width;
        let (groups, elements) = if is_small { (1, 1) } else { (GROUP_STRIDE, STRIDE) };
        for group in raw.chunks(LANES * kind.width).step_by(groups) {
            for element in group.chunks_exact(kind.width).step_by(elements) {
                seen += 1;
                zeros += usize::from(element.iter().all(|&byte| byte == 0));
                largest = largest.max(rotated(element) >> kind.fraction_bits);
            }
        }
        // A symbol is seven exponent bits and the highest bit of the fraction; with five exponent bits, all of them and
        // three of the fraction.
        let shift = if kind.fraction_bits > 8 { 8 } else { kind.fraction_bits - 1 };
        let base = match predicted {
            Some(base) => base,
            None if shift == 8 || largest + HEADROOM < WINDOW + WINDOW / 16 => 0,
            None => (largest + HEADROOM - WINDOW) << kind.fraction_bits,
        };
        Self { zeros: zeros * ZEROS_SHARE > seen, shift, base }
    }
}

/// Bits a byte of some of `bytes`, spread over all.
pub(super) fn sampled_bits(bytes: impl Iterator<Item = u8>) -> f64 {
    let mut histogram: Histogram = [0; 256];
    let mut count = 0;
    for byte in bytes {
        histogram[usize::from(byte)] += 1;
        count += 1;
    }
    entropy::bits(&histogram) / f64::from(count.max(1))
}

/// Some of a slice: runs of 16, one in 61 of them.
pub(super) fn sampled<T: Copy>(values: &[T]) -> impl Iterator<Item = T> {
    values.chunks(16).step_by(if values.len() > 8192 { 61 } else { 1 }).flatten().copied()
}
