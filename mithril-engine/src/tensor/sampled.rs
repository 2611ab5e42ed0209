//! Files of no known format: what their bytes look like.

use std::io;

use super::{Element, Tensor, read};
use crate::range::ByteRange;
use crate::source::Source;

/// Slices that are looked at, and bytes of each.
const SLICES: u64 = 16;
const SLICE_BYTES: usize = 8192;

/// Smaller files have too little to look at.
const LEAST_BYTES: u64 = 16 << 10;

/// Bits a byte that splitting into planes must save, on average, to be believed.
const GAIN_BITS: f64 = 0.25;

/// Share of what planes would take below which repetitions are what the file is made of.
const REPEATS_SHARE: f64 = 0.8;

/// Widths that are tried, with the element that fits the width best: what the codec does with floats does no harm to
/// integers of the same width.
const CANDIDATES: [(usize, Element); 3] = [(2, Element::Bf16), (4, Element::F32), (8, Element::F64)];

/// One pseudo-tensor over the file, if its bytes are numbers of one width; else none.
pub(super) fn guess(source: &dyn Source) -> io::Result<Vec<Tensor>> {
    let size = source.size();
    if size < LEAST_BYTES {
        return Ok(Vec::new());
    }
    let mut slices = Vec::new();
    for index in 0..SLICES {
        // At multiples of the widest element, so that a plane is the same one in every slice.
        let offset = (size - SLICE_BYTES as u64) / SLICES * index / 8 * 8;
        slices.extend(read(source, offset, SLICE_BYTES)?.unwrap_or_default());
    }
    let together = entropy(&slices, 1);
    let best = CANDIDATES
        .iter()
        .map(|&(width, element)| (entropy(&slices, width), element))
        .min_by(|(a, _), (b, _)| a.total_cmp(b));
    let Some((bits, element)) = best.filter(|(bits, _)| together - bits >= GAIN_BITS) else {
        return Ok(Vec::new());
    };
    // Text of regular lines has planes too, but repeats itself more.
    let repeats = zstd::bulk::compress(&slices, 1)
        .map_or(8.0, |packed| packed.len() as f64 * 8.0 / slices.len() as f64);
    if repeats < bits * REPEATS_SHARE {
        return Ok(Vec::new());
    }
    // A wider split never looks worse: the narrowest that is nearly as good is what the file has.
    let element = CANDIDATES
        .iter()
        .find(|&&(width, _)| entropy(&slices, width) <= bits + 0.1)
        .map_or(element, |&(_, element)| element);
    let width = element.width() as u64;
    let len = size / width * width;
    let range = ByteRange { offset: 0, len };
    Ok(vec![Tensor { name: String::new(), element, shape: vec![len / width], range }])
}

/// Mean entropy of a byte in bits, if each of `width` planes has a code of its own.
fn entropy(bytes: &[u8], width: usize) -> f64 {
    let mut bits = 0.0;
    for plane in 0..width {
        let mut counts = [0u32; 256];
        bytes.iter().skip(plane).step_by(width).for_each(|&byte| counts[usize::from(byte)] += 1);
        let total: f64 = counts.iter().map(|&count| f64::from(count)).sum();
        let seen = counts.iter().filter(|&&count| count > 0).map(|&count| f64::from(count));
        bits += seen.map(|count| count * (total / count).log2()).sum::<f64>();
        // What a table for the plane costs: small samples look better than they are.
        bits += 0.5 * counts.iter().filter(|&&count| count > 0).count() as f64 * total.log2().max(1.0);
    }
    bits / bytes.len() as f64
}
