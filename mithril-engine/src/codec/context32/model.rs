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
            half_octaves: tags.map(|tag| tag & 63),
            exponents: bytes(&exponents),
            down: tags.map(|tag| tag >> 7),
            flipped: tags.map(|tag| tag >> 6 & 1),
        }
    }
}

impl Differences {
    /// Whether all elements are as predicted.
    #[inline(always)]
    pub(super) fn are_none(&self) -> bool {
        let mut any = 0;
        for lane in 0..LANES {
            any |= self.half_octaves[lane] | self.flipped[lane];
        }
        any == 0
    }
}

/// The lowest bytes.
#[inline(always)]
fn bytes(words: &Words) -> Bytes {
    words.map(|word| word.to_le_bytes()[0])
}

/// What is coded of a group.
pub(super) struct Coded {
    pub(super) symbols: Bytes,
    /// How many bits of the values are raw.
    pub(super) widths: Bytes,
    pub(super) values: Words,
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
        exponents.map(|exponent| exponent.saturating_sub(lowest_exponent).min(LAST))
    }

    /// Classes differences whose bases have these offsets. `new` are the elements; `zeros` says whether those without a
    /// difference have the symbol of their own.
    #[inline(always)]
    pub(super) fn code(&self, differences: &Differences, offsets: &Bytes, new: &Words, zeros: bool) -> Coded {
        let (escape, zeros) = (self.escape(), u8::from(zeros));
        let Differences { half_octaves, down, flipped, .. } = differences;
        let mut values = differences.values;
        let (mut symbols, mut widths, mut escaped) = ([0; LANES], [0; LANES], [0; LANES]);
        for lane in 0..LANES {
            let (half_octave, offset) = (half_octaves[lane], offsets[lane]);
            let class = half_octave + offset;
            let above = class.saturating_sub(self.lowest_class);
            let twice = above.wrapping_add(above);
            let symbol = if self.flips { twice.wrapping_add(flipped[lane]).wrapping_mul(2) } else { twice };
            let symbol = symbol.wrapping_add(down[lane]).wrapping_add(1);
            let width = if above == 0 { self.lowest_width(offset) } else { raw_bits(half_octave) };
            let is_zero = half_octave == 0 && flipped[lane] < zeros;
            let (symbol, width) = if is_zero { (0, 0) } else { (symbol, width) };
            let is_escape = above >= self.classes || flipped[lane] > u8::from(self.flips);
            symbols[lane] = if is_escape { escape + flipped[lane] } else { symbol };
            widths[lane] = if is_escape { RAW_BITS } else { width };
            escaped[lane] = u8::from(is_escape);
        }
        if escaped != [0; LANES] {
            for lane in 0..LANES {
                values[lane] = if escaped[lane] != 0 { new[lane] } else { values[lane] };
            }
        }
        Coded { symbols, widths, values }
    }

    /// The raw bits of a difference in the lowest class.
    #[inline(always)]
    fn lowest_width(&self, offset: u8) -> u8 {
        (self.lowest_class.saturating_sub(offset) >> 1).min(RAW_BITS)
    }

    /// The leading bits of the differences of symbols, and the widths of the raw bits that follow.
    #[inline(always)]
    pub(super) fn parts(&self, symbols: &Bytes, offsets: &Bytes) -> (Bytes, Bytes) {
        let escape = self.escape();
        let (mut leads, mut widths) = ([0; LANES], [0; LANES]);
        for lane in 0..LANES {
            let symbol = symbols[lane];
            let above = symbol.saturating_sub(1) >> if self.flips { 2 } else { 1 };
            let half_octave = (above + self.lowest_class).saturating_sub(offsets[lane]).min(HALF_OCTAVES - 1);
            let in_lowest = above == 0;
            let lead = if in_lowest { 0 } else { leading(half_octave) };
            let width = if in_lowest { self.lowest_width(offsets[lane]) } else { raw_bits(half_octave) };
            let is_escape = symbol >= escape;
            leads[lane] = if is_escape { 0 } else { lead };
            let width = if is_escape { RAW_BITS } else { width };
            widths[lane] = if symbol == 0 { 0 } else { width };
        }
        (leads, widths)
    }

    /// The elements of symbols with these leading and raw bits.
    #[inline(always)]
    pub(super) fn elements(
        &self,
        symbols: &Bytes,
        (leads, widths): &(Bytes, Bytes),
        raw: &Words,
        predicted: &Words,
    ) -> Words {
        let escape = self.escape();
        let mut elements = [0; LANES];
        let mut last = 0;
        for lane in 0..LANES {
            let symbol = symbols[lane];
            last = last.max(symbol);
            let value = u32::from(leads[lane]) << (widths[lane] & 31) | raw[lane];
            // Odd symbols are up, but for 0, whose value is 0.
            let down = u32::from(!symbol & 1).wrapping_neg();
            let flip = if self.flips { u32::from(symbol.saturating_sub(1) >> 1 & 1) << 31 } else { 0 };
            elements[lane] = (predicted[lane] ^ flip).wrapping_add((value ^ down).wrapping_sub(down));
        }
        if last >= escape {
            for lane in 0..LANES {
                let flip = u32::from(symbols[lane].wrapping_sub(escape)) << 31;
                let exact = (predicted[lane] ^ flip) & w4::TOP | raw[lane];
                elements[lane] = if symbols[lane] >= escape { exact } else { elements[lane] };
            }
        }
        elements
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
