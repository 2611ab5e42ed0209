//! Quantized floats: the bound holds for every element, and what is encoded of them comes back.

use std::time::Duration;

use mithril_engine::codec::{self, Isa};
use mithril_engine::quantize::{self, Bound, Quantization, Scheme};
use mithril_engine::tensor::Element;

use super::made;
use crate::case::Case;
use crate::guarded::Edge;
use crate::random::Random;
use crate::target::{Checked, Ground, Outcome, Target, as_it_is};

const FLOATS: [Element; 4] = [Element::F16, Element::Bf16, Element::F32, Element::F64];

pub(crate) fn targets() -> Vec<Target> {
    vec![Target {
        name: "quantize",
        what: "quantize, and codec::decode of what it made",
        seeds,
        tokens: &[
            &[0; 8],
            &[0xff; 8],
            &[0, 0, 0x80, 0x7f],
            &[1, 0, 0, 0],
            &[0xff, 0xff, 0x7f, 0x7f],
            &[0, 0x7c],
            &[0x80, 0x7f],
        ],
        repair: as_it_is,
        // As floats of 64 bits, as words for places, as bytes some times; and the codec's buffers.
        heap_limit: |case| 64 * case.input.len() + (16 << 20),
        time_limit: Duration::from_secs(1),
        check: quantize,
    }]
}

/// The value of an element.
fn value(element: Element, bytes: &[u8]) -> f64 {
    let word = bytes.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    let low = || u32::try_from(word).unwrap_or(0);
    match element {
        Element::Bf16 => f64::from(f32::from_bits(low() << 16)),
        Element::F32 => f64::from(f32::from_bits(low())),
        Element::F64 => f64::from_bits(word),
        _ => half(low()),
    }
}

/// The value of a binary16, by its definition.
fn half(bits: u32) -> f64 {
    let (exponent, fraction) = (bits >> 10 & 31, f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction / 16_777_216.0,
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * f64::from(exponent.cast_signed() - 15).exp2(),
    };
    if bits >> 15 & 1 == 1 { -magnitude } else { magnitude }
}

fn quantize(case: &Case, ground: &mut Ground) -> Checked {
    let byte = |index: u32| usize::from((case.choice >> (8 * index)).to_le_bytes()[0]);
    let element = FLOATS[byte(1) % FLOATS.len()];
    let exponent = i32::try_from(byte(2)).unwrap_or(0) % 40 - 30;
    let size = if byte(2) == 0 { 0.0 } else { f64::from(exponent).exp2() };
    let how = Quantization {
        scheme: Scheme::ALL[byte(3) % Scheme::ALL.len()],
        bound: if byte(4) & 1 == 0 { Bound::Absolute(size) } else { Bound::Relative(size) },
        block_elements: [0, 1, 2, 7, 64, 128, 1000, usize::MAX][byte(5) % 8],
    };
    let width = element.width();
    let phase = byte(6) * byte(7);
    let Ok(quantized) = quantize::quantize(&case.input, element, phase, &how) else {
        let is_wrong = how.block_elements > 0 && case.input.len().is_multiple_of(width);
        return if is_wrong {
            Err("what can be quantized is refused".to_owned())
        } else {
            Ok(Outcome::Refused)
        };
    };
    let count = (case.input.len() / width) as u64;
    if quantized.bytes.len() != case.input.len() || quantized.report.elements != count {
        return Err("elements got lost".to_owned());
    }
    check_bound(case, element, phase, &how, &quantized.bytes)?;
    let mut encoded = Vec::new();
    codec::limit_isa(Isa::Avx512);
    codec::encode_quantized(&quantized, element, &mut ground.scratch[0], &mut encoded);
    if encoded.len() > case.input.len() + 16 {
        return Err(format!("{} bytes become {}", case.input.len(), encoded.len()));
    }
    let out = ground.out.buffer(case.input.len(), 0xa5, Edge::of(case.choice));
    codec::decode(&encoded, None, &mut ground.scratch[0], out).map_err(|error| error.to_string())?;
    if *out != quantized.bytes || !ground.out.is_intact() {
        return Err("what was quantized decodes to something else".to_owned());
    }
    Ok(Outcome::Accepted)
}

/// No element may be further away than the bound; what is no number must be what it was, bit for bit.
fn check_bound(
    case: &Case,
    element: Element,
    phase: usize,
    how: &Quantization,
    bytes: &[u8],
) -> Result<(), String> {
    let width = element.width();
    let old: Vec<&[u8]> = case.input.chunks_exact(width).collect();
    let new: Vec<&[u8]> = bytes.chunks_exact(width).collect();
    let mut start = 0;
    let mut len = how.block_elements - phase % how.block_elements;
    while start < old.len() {
        let block = start..start.saturating_add(len).min(old.len());
        let finite = old[block.clone()].iter().map(|bytes| value(element, bytes)).filter(|x| x.is_finite());
        let largest = finite.fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let bound = match how.bound {
            Bound::Absolute(error) => error,
            Bound::Relative(share) => share * largest,
        };
        for place in block {
            let (before, after) = (value(element, old[place]), value(element, new[place]));
            let is_near = before.is_finite() && (after - before).abs() <= bound;
            if !is_near && old[place] != new[place] {
                return Err(format!("element {place}: {before} becomes {after}, the bound is {bound}"));
            }
        }
        start = start.saturating_add(len);
        len = how.block_elements;
    }
    Ok(())
}

fn seeds() -> Vec<Case> {
    let mut random = Random::new(1, "floats");
    let mut cases = Vec::new();
    for (code, element) in (0u64..).zip(FLOATS) {
        for count in [0, 1, 5, 127, 129, 1500] {
            for scheme in 0..Scheme::ALL.len() as u64 {
                let input = made::elements(element, count, &mut random);
                // Blocks of 64; bounds from 2^-29 to 2^9.
                let choice =
                    code << 8 | (1 + random.next() % 39) << 16 | scheme << 24 | 1 << 32 | 4 << 40 | 1;
                cases.push(Case { input, choice, ..Case::default() });
            }
        }
    }
    cases
}
