//! What a difference becomes: a symbol and raw bits.
//!
//! Steps of training are of one size whatever the value they change, so that the half-octaves of differences are the
//! greater the smaller the exponent is. A block has an offset for each exponent that makes up for it: the *class* of a
//! difference is its half-octave and the offset of its base's exponent.
//!
//! ```text
//! symbol 0            no difference
//! symbols 1 to 2C     C classes from the lowest on, each for differences up and down; the lowest stands for all
//!                     below it, too. If signs flip: four symbols a class, the latter two for the other sign
//! the next two        escapes: the element as it is, with the sign of its base or the other
//! ```

use super::super::{DecodeError, Decoded, take_u8};
use super::groups::{Bytes, LANES, Words};
use super::number::{leading, raw_bits, w4};
use super::predict::Prediction;
use crate::codec::rans::SYMBOLS;

/// The greatest half-octave.
pub(super) const HALF_OCTAVES: u8 = 64;

/// Bits of an escape, and of any difference, at most.
const RAW_BITS: u8 = 31;

/// The greatest that the lowest class may be.
const MAX_LOWEST: u8 = 127;

/// Exponents that have an offset.
pub(super) const EXPONENTS: usize = LANES;

/// What the symbols of a block mean.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Model {
    pub(super) prediction: Prediction,
    /// Whether elements with another sign than their base have symbols.
    pub(super) flips: bool,
    /// The exponent of the first offset. Exponents below share it, those above the last one.
    pub(super) lowest_exponent: u8,
    /// Below [`HALF_OCTAVES`].
    pub(super) offsets: Bytes,
    pub(super) lowest_class: u8,
    /// From 1 to [`Model::most_classes`].
    pub(super) classes: u8,
}

/// The differences of a group from its predictions.
#[repr(align(64))]
pub(super) struct Differences {
    pub(super) values: Words,
    pub(super) half_octaves: Bytes,
    /// The exponents of the predictions.
    pub(super) exponents: Bytes,
    /// 1 for those below 0, as magnitudes.
    pub(super) down: Bytes,
    /// 1 for those with another sign.
    pub(super) flipped: Bytes,
}

impl Differences {
    #[inline(always)]
    pub(super) fn new(new: &Words, predicted: &Words) -> Self {
        let (mut values, mut exponents, mut tags) = ([0; LANES], [0; LANES], [0; LANES]);
        for lane in 0..LANES {
            let (x, b) = (new[lane], predicted[lane]);
            let difference = (x & !w4::TOP).wrapping_sub(b & !w4::TOP).cast_signed();
            let value = difference.unsigned_abs();
            values[lane] = value;
            exponents[lane] = w4::exponent(b);
            // Less than 64, and the signs above it.
            tags[lane] = w4::half_octave(value)
                | (difference.cast_unsigned() & w4::TOP) >> 24
                | ((x ^ b) & w4::TOP) >> 25;
        }
        let tags = bytes(&tags);
        Self {
            values,
            half_octaves: each(|lane| tags[lane] & 63),
            exponents: bytes(&exponents),
            down: each(|lane| tags[lane] >> 7),
            flipped: each(|lane| tags[lane] >> 6 & 1),
        }
    }

    /// Whether all elements are as predicted.
    #[inline(always)]
    pub(super) fn are_none(&self) -> bool {
        is_zero(&each(|lane| self.half_octaves[lane] | self.flipped[lane]))
    }
}

/// A byte for each lane. The loop is one that the compiler vectorises.
#[inline(always)]
fn each(of: impl Fn(usize) -> u8) -> Bytes {
    let mut bytes = [0; LANES];
    for (lane, byte) in bytes.iter_mut().enumerate() {
        *byte = of(lane);
    }
    bytes
}

/// All ones, or 0.
#[inline(always)]
fn mask(yes: bool) -> u8 {
    u8::from(yes).wrapping_neg()
}

/// One of two by a mask.
#[inline(always)]
fn select(mask: u8, yes: u8, no: u8) -> u8 {
    yes & mask | no & !mask
}

/// Whether all bytes are 0.
#[inline(always)]
fn is_zero(bytes: &Bytes) -> bool {
    let mut any = 0;
    for byte in bytes {
        any |= byte;
    }
    any == 0
}

/// The exponents.
#[inline(always)]
pub(super) fn exponents(words: &Words) -> Bytes {
    let mut exponents = *words;
    for exponent in &mut exponents {
        *exponent = w4::exponent(*exponent);
    }
    bytes(&exponents)
}

/// The lowest bytes.
#[inline(always)]
fn bytes(words: &Words) -> Bytes {
    each(|lane| words[lane].to_le_bytes()[0])
}

/// The raw bits of a difference in the lowest class.
#[inline(always)]
fn lowest_width(lowest_class: u8, offset: u8) -> u8 {
    (lowest_class.saturating_sub(offset) >> 1).min(RAW_BITS)
}

/// What is coded of a group.
pub(super) struct Coded<'a> {
    pub(super) symbols: &'a mut Bytes,
    /// How many bits of the values are raw.
    pub(super) widths: &'a mut Bytes,
    pub(super) values: &'a mut Words,
}

/// What the symbols of a group say of its differences.
#[repr(align(64))]
pub(super) struct Parts {
    /// 1 for those above 0 and for escapes, -1 for others.
    pub(super) signs: Bytes,
    /// The leading bits.
    pub(super) leads: Bytes,
    /// How many raw bits follow; less than 32.
    pub(super) widths: Bytes,
    pub(super) any_escaped: bool,
}

impl Model {
    /// The classes that there may be.
    pub(super) fn most_classes(flips: bool) -> u8 {
        if flips { 15 } else { 30 }
    }

    /// Symbols of a class.
    fn symbols_of_class(&self) -> u8 {
        if self.flips { 4 } else { 2 }
    }

    /// The first of the two escapes.
    fn escape(&self) -> u8 {
        1 + self.symbols_of_class() * self.classes
    }

    /// How many symbols there are.
    pub(super) fn symbols(&self) -> usize {
        usize::from(self.escape()) + 2
    }

    /// The places of the offsets of exponents.
    #[inline(always)]
    pub(super) fn places(lowest_exponent: u8, exponents: &Bytes) -> Bytes {
        const LAST: u8 = (EXPONENTS - 1).to_le_bytes()[0];
        each(|lane| exponents[lane].saturating_sub(lowest_exponent).min(LAST))
    }

    /// Classes differences whose bases have these offsets. `new` are the elements; `zeros` says whether those without a
    /// difference have the symbol of their own.
    #[inline(always)]
    pub(super) fn code(
        &self,
        differences: &Differences,
        offsets: &Bytes,
        new: &Words,
        zeros: bool,
        coded: &mut Coded<'_>,
    ) {
        let Differences { half_octaves, down, flipped, .. } = differences;
        let (lowest, classes, escape) = (self.lowest_class, self.classes, self.escape());
        let (flips, zeros) = (mask(self.flips), mask(zeros));
        let above = each(|lane| (half_octaves[lane] + offsets[lane]).saturating_sub(lowest));
        let is_zero_symbol = each(|lane| mask(half_octaves[lane] | flipped[lane] == 0) & zeros);
        let is_escape = each(|lane| mask(above[lane] >= classes) | mask(flipped[lane] & !flips != 0));
        *coded.symbols = each(|lane| {
            let twice = above[lane].wrapping_add(above[lane]);
            let four_times = (twice | flipped[lane]).wrapping_add(twice | flipped[lane]);
            let symbol =
                select(flips, four_times, twice).wrapping_add(down[lane] + 1) & !is_zero_symbol[lane];
            select(is_escape[lane], escape + flipped[lane], symbol)
        });
        *coded.widths = each(|lane| {
            let lowest_width = lowest_width(lowest, offsets[lane]);
            let width = select(mask(above[lane] == 0), lowest_width, raw_bits(half_octaves[lane]));
            select(is_escape[lane], RAW_BITS, width & !is_zero_symbol[lane])
        });
        *coded.values = differences.values;
        if !is_zero(&is_escape) {
            for lane in 0..LANES {
                let value = &mut coded.values[lane];
                *value = if is_escape[lane] != 0 { new[lane] } else { *value };
            }
        }
    }

    /// What the symbols of differences say of these.
    #[inline(always)]
    pub(super) fn parts(&self, symbols: &Bytes, offsets: &Bytes) -> Parts {
        let (lowest, escape) = (self.lowest_class, self.escape());
        let halvings = if self.flips { 2 } else { 1 };
        let above = each(|lane| symbols[lane].saturating_sub(1) >> halvings);
        let half_octaves =
            each(|lane| (above[lane] + lowest).saturating_sub(offsets[lane]).min(HALF_OCTAVES - 1));
        let escaped = each(|lane| mask(symbols[lane] >= escape));
        // Nothing of a difference but raw bits: in the lowest class, and of escapes.
        let plain = each(|lane| mask(above[lane] == 0) | escaped[lane]);
        let leads = each(|lane| leading(half_octaves[lane]) & !plain[lane]);
        let widths = each(|lane| {
            let plain_width = select(escaped[lane], RAW_BITS, lowest_width(lowest, offsets[lane]));
            select(plain[lane], plain_width, raw_bits(half_octaves[lane])) & mask(symbols[lane] != 0)
        });
        // Odd symbols are up; escapes are, too.
        let signs = each(|lane| ((symbols[lane] | escaped[lane]) << 1 & 2).wrapping_sub(1));
        Parts { signs, leads, widths, any_escaped: !is_zero(&escaped) }
    }

    /// Gives predictions the signs of symbols.
    #[inline(always)]
    pub(super) fn flip(&self, symbols: &Bytes, predicted: &mut Words) {
        if self.flips {
            for lane in 0..LANES {
                predicted[lane] ^= w4::Word::from(symbols[lane].saturating_sub(1) >> 1 & 1) << 31;
            }
        }
    }

    /// The element of an escape, by its raw bits and what it was predicted to be; `None` for other symbols.
    #[inline(always)]
    pub(super) fn exact(&self, symbol: u8, raw: w4::Word, predicted: w4::Word) -> Option<w4::Word> {
        let flip = w4::Word::from(symbol.checked_sub(self.escape())?) << 31;
        Some((predicted ^ flip) & w4::TOP | raw)
    }

    /// Appends it.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        self.prediction.put(out);
        out.extend_from_slice(&[u8::from(self.flips), self.lowest_exponent, self.lowest_class, self.classes]);
        for same in self.offsets.chunk_by(|a, b| a == b) {
            for run in same.chunks(4) {
                out.push(run[0] | (run.len().to_le_bytes()[0] - 1) << 6);
            }
        }
    }

    /// Takes it from the front of `body`.
    pub(super) fn take(body: &mut &[u8]) -> Decoded<Self> {
        let prediction = Prediction::take(body)?;
        let flips = match take_u8(body)? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Malformed("signs neither flip nor not")),
        };
        let [lowest_exponent, lowest_class, classes] = [take_u8(body)?, take_u8(body)?, take_u8(body)?];
        if lowest_class > MAX_LOWEST || classes == 0 || classes > Self::most_classes(flips) {
            return Err(DecodeError::Malformed("the classes of differences are impossible"));
        }
        let (mut offsets, mut filled) = ([0; EXPONENTS], 0);
        while filled < EXPONENTS {
            let byte = take_u8(body)?;
            let run = usize::from(byte >> 6) + 1;
            let offsets = offsets[filled..].get_mut(..run);
            offsets.ok_or(DecodeError::Malformed("there are too many offsets"))?.fill(byte & 63);
            filled += run;
        }
        Ok(Self { prediction, flips, lowest_exponent, offsets, lowest_class, classes })
    }
}

const _: () = assert!(1 + 2 * 30 + 2 <= SYMBOLS, "without flips");
const _: () = assert!(1 + 4 * 15 + 2 <= SYMBOLS, "with flips");
