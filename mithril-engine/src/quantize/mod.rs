//! Lossy coding of floats, with a bound that holds for every element.
//!
//! Pure functions. Each element becomes one of few values; where that would be further away than the bound allows, it
//! is kept exactly, and so are NaN and infinities, bit for bit. Nothing here is ever applied unless it is asked for, and
//! never to integers.
//!
//! Blocks of elements share a scale. INT8 multiplies a code from -127 to 127 with the block's scale (symmetric, as in
//! Dettmers et al., *LLM.int8()*, arXiv:2208.07339); FP8 rounds to the grid of OCP's 8-bit floats
//! (Micikevicius et al., *FP8 Formats for Deep Learning*, arXiv:2209.05433) after a power of two has moved the block's
//! maximum to the top of its range; FP16 and BF16 round to the nearest, ties to even.

mod grid;
mod value;

use crate::error::{Error, Result};
use crate::tensor::Element;
use grid::Grid;
use value::Float;

/// Elements that share a scale, if nothing else is said.
pub const DEFAULT_BLOCK_ELEMENTS: usize = 128;

/// The largest code of INT8.
const CODE_MAX: f64 = 127.0;

/// What elements become.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Scheme {
    /// Codes of 8 bits times a scale.
    Int8 = 0,
    /// 8-bit floats with 3 bits of mantissa.
    Fp8E4M3 = 1,
    /// 8-bit floats with 2 bits of mantissa.
    Fp8E5M2 = 2,
    /// IEEE 754 binary16.
    Fp16 = 3,
    /// bfloat16.
    Bf16 = 4,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Scheme; 5] = [Scheme::Int8, Scheme::Fp8E4M3, Scheme::Fp8E5M2, Scheme::Fp16, Scheme::Bf16];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Scheme::Int8 => "int8",
            Scheme::Fp8E4M3 => "fp8-e4m3",
            Scheme::Fp8E5M2 => "fp8-e5m2",
            Scheme::Fp16 => "fp16",
            Scheme::Bf16 => "bf16",
        }
    }

    /// The scheme with this number on disk.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| *scheme as u8 == code)
    }
}

impl std::fmt::Display for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Scheme {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|scheme| scheme.name() == name)
            .ok_or_else(|| format!("unknown scheme {name:?}: use int8, fp8-e4m3, fp8-e5m2, fp16 or bf16"))
    }
}

/// How far an element may be from what it was.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    /// In the unit of the elements.
    Absolute(f64),
    /// As a share of the largest magnitude among the elements of its block.
    Relative(f64),
}

impl Bound {
    fn check(self) -> Result<Self> {
        let (Bound::Absolute(value) | Bound::Relative(value)) = self;
        if value.is_finite() && value >= 0.0 {
            return Ok(self);
        }
        Err(Error::invalid("error bound", format!("{value} is none: use a number that is not negative")))
    }

    fn of_block(self, largest: f64) -> f64 {
        match self {
            Bound::Absolute(error) => error,
            Bound::Relative(share) => share * largest,
        }
    }
}

/// What is done to a tensor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quantization {
    /// What elements become.
    pub scheme: Scheme,
    /// How far they may be from what they were.
    pub bound: Bound,
    /// Elements that share a scale, at least 1: a fixed number, or a row of the tensor for scales per channel.
    pub block_elements: usize,
}

/// What became of the elements.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Report {
    /// Elements in all.
    pub elements: u64,
    /// Those that are kept exactly because of the bound, or because they are NaN or infinite.
    pub exact: u64,
    /// The largest distance from what an element was.
    pub max_error: f64,
    /// The sum of all distances; NaN and infinities count nothing.
    pub error_sum: f64,
}

impl Report {
    /// The mean distance from what an element was.
    pub fn mean_error(&self) -> f64 {
        if self.elements == 0 { 0.0 } else { self.error_sum / self.elements as f64 }
    }

    /// Adds another part of the same tensor.
    pub fn add(&mut self, other: &Report) {
        self.elements += other.elements;
        self.exact += other.exact;
        self.max_error = self.max_error.max(other.max_error);
        self.error_sum += other.error_sum;
    }
}

/// Quantized elements.
#[derive(Clone, PartialEq, Debug)]
pub struct Quantized {
    /// The bytes that stand for the elements from now on, of the same type and length.
    pub bytes: Vec<u8>,
    /// How to get at `bytes` from less; `None` where they are compressed as they are.
    pub(crate) codes: Option<Codes>,
    /// How far they are from what they were.
    pub report: Report,
}

/// INT8 codes, and what has none.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Codes {
    /// Elements of a block.
    pub(crate) block_elements: usize,
    /// Elements of the first block, which may be the end of one.
    pub(crate) first_elements: usize,
    /// One for each block.
    pub(crate) scales: Vec<f32>,
    pub(crate) codes: Vec<i8>,
    /// Places of the elements that are kept exactly, ascending.
    pub(crate) exact: Vec<usize>,
}

/// Whether elements can be quantized.
pub const fn applies_to(element: Element) -> bool {
    matches!(element, Element::F16 | Element::Bf16 | Element::F32 | Element::F64)
}

/// Quantizes the elements of `raw`. `phase` is how many elements of the first block lie before it: 0 at the start of a
/// tensor.
///
/// # Errors
/// `Invalid` for elements that are no floats, parts of an element, a block of no elements, or a bound that is none.
pub fn quantize(raw: &[u8], element: Element, phase: usize, how: &Quantization) -> Result<Quantized> {
    how.bound.check()?;
    if how.block_elements == 0 {
        return Err(Error::invalid("block", "it has no elements: use 1 at least"));
    }
    if !raw.len().is_multiple_of(element.width()) {
        return Err(Error::invalid("elements", "the last one is cut off"));
    }
    match element {
        Element::F32 => Ok(run::<f32, 4>(raw, phase, how)),
        Element::F64 => Ok(run::<f64, 8>(raw, phase, how)),
        Element::F16 => Ok(run::<half::f16, 2>(raw, phase, how)),
        Element::Bf16 => Ok(run::<half::bf16, 2>(raw, phase, how)),
        _ => Err(Error::invalid(
            "elements",
            format!("{element:?} is no float: only floats are coded with loss"),
        )),
    }
}

/// The lengths of the blocks of `count` elements.
pub(crate) fn blocks(count: usize, first: usize, block: usize) -> impl Iterator<Item = usize> {
    let mut left = count;
    let mut next = first;
    std::iter::from_fn(move || {
        let len = next.min(left);
        next = block;
        left -= len;
        (len > 0).then_some(len)
    })
}

fn run<F: Float, const WIDTH: usize>(raw: &[u8], phase: usize, how: &Quantization) -> Quantized {
    let elements: Vec<F> = raw.as_chunks::<WIDTH>().0.iter().map(|bytes| F::load(bytes)).collect();
    let first = how.block_elements - phase % how.block_elements;
    let mut bytes = raw.to_vec();
    let mut report = Report { elements: elements.len() as u64, ..Report::default() };
    let mut codes = (how.scheme == Scheme::Int8).then(|| Codes {
        block_elements: how.block_elements,
        first_elements: first,
        scales: Vec::new(),
        codes: Vec::with_capacity(elements.len()),
        exact: Vec::new(),
    });
    let mut start = 0;
    for len in blocks(elements.len(), first, how.block_elements) {
        let block = &elements[start..start + len];
        let finite = block.iter().map(|x| x.to_f64()).filter(|x| x.is_finite());
        let largest = finite.fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let bound = how.bound.of_block(largest);
        let rounding = Rounding::of(how.scheme, largest);
        if let Some(codes) = &mut codes {
            codes.scales.push(rounding.scale());
        }
        for (at, &x) in (start..).zip(block) {
            let (code, rounded) = rounding.round(x);
            let error = (rounded.to_f64() - x.to_f64()).abs();
            // Not `error > bound`: what is no number keeps to no bound.
            let keeps = x.to_f64().is_finite() && rounded.to_f64().is_finite() && error <= bound;
            if keeps {
                rounded.store(&mut bytes[at * WIDTH..(at + 1) * WIDTH]);
                report.max_error = report.max_error.max(error);
                report.error_sum += error;
            } else {
                report.exact += 1;
            }
            if let Some(codes) = &mut codes {
                codes.codes.push(if keeps { code } else { 0 });
                if !keeps {
                    codes.exact.push(at);
                }
            }
        }
        start += len;
    }
    Quantized { bytes, codes, report }
}

/// How a block is rounded.
enum Rounding {
    Scaled { scale: f32 },
    Grid { grid: Grid, shift: i32 },
    Half,
    Brain,
}

impl Rounding {
    fn of(scheme: Scheme, largest: f64) -> Self {
        match scheme {
            // The scale is stored as a float of 32 bits, and codes are chosen with what is stored.
            #[expect(clippy::cast_possible_truncation, reason = "that is what is stored")]
            Scheme::Int8 => Self::Scaled { scale: (largest / CODE_MAX) as f32 },
            Scheme::Fp8E4M3 => Self::Grid { grid: grid::E4M3, shift: grid::E4M3.shift_for(largest) },
            Scheme::Fp8E5M2 => Self::Grid { grid: grid::E5M2, shift: grid::E5M2.shift_for(largest) },
            Scheme::Fp16 => Self::Half,
            Scheme::Bf16 => Self::Brain,
        }
    }

    fn scale(&self) -> f32 {
        if let Self::Scaled { scale } = self { *scale } else { 1.0 }
    }

    /// The code, where there is one, and the value that stands for the element.
    fn round<F: Float>(&self, x: F) -> (i8, F) {
        match self {
            Self::Scaled { scale } => {
                let quotient = (x.to_f64() / f64::from(*scale)).round_ties_even().clamp(-CODE_MAX, CODE_MAX);
                #[expect(clippy::cast_possible_truncation, reason = "it was clamped; NaN becomes 0")]
                let code = quotient as i8;
                (code, F::scaled(code, *scale))
            }
            Self::Grid { grid, shift } => (0, F::from_f64(grid.round(x.to_f64(), *shift))),
            Self::Half => (0, F::from_f64(half::f16::from_f64(x.to_f64()).to_f64())),
            Self::Brain => (0, F::from_f64(half::bf16::from_f64(x.to_f64()).to_f64())),
        }
    }
}

/// The bytes that INT8 codes stand for; those of the elements that are kept exactly stay as they are in `out`.
pub(crate) fn dequantize(codes: &Codes, element: Element, out: &mut [u8]) {
    match element {
        Element::F64 => scale_all::<f64, 8>(codes, out),
        Element::F16 => scale_all::<half::f16, 2>(codes, out),
        Element::Bf16 => scale_all::<half::bf16, 2>(codes, out),
        _ => scale_all::<f32, 4>(codes, out),
    }
}

fn scale_all<F: Float, const WIDTH: usize>(codes: &Codes, out: &mut [u8]) {
    let mut exact = codes.exact.iter().copied().peekable();
    let lens = blocks(codes.codes.len(), codes.first_elements, codes.block_elements);
    let mut at = 0;
    let targets = out.as_chunks_mut::<WIDTH>().0;
    for (len, &scale) in lens.zip(&codes.scales) {
        for (&code, target) in codes.codes[at..at + len].iter().zip(&mut targets[at..at + len]) {
            if exact.next_if_eq(&at).is_none() {
                F::scaled(code, scale).store(target);
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests;
