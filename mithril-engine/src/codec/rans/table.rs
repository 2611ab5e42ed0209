//! Frequencies of byte symbols, scaled to a sum of 256, and what coders look up in them.
//!
//! ```text
//! table     symbols u8 (at most 120), for each symbol in ascending order its frequency, with 00 and a gap before it
//!           if the symbol is that much more than the one before plus 1; frequency of the escape; with zeros apart,
//!           frequency of the zero. No frequency is 0, and their sum is 256.
//! ```

use super::contexts::SYMBOLS;
use super::{Codes, ESCAPE, Slots, ZERO};
use crate::codec::entropy::Histogram;
use crate::codec::{DecodeError, Decoded, take_u8};

/// The sum of all frequencies.
const TOTAL: u32 = 256;

/// Symbols with a code of their own; rarer ones are escapes.
const MAX_SYMBOLS: usize = 120;

/// A symbol rarer than one in this many is an escape: eight bits and its value are cheaper than a frequency that the
/// others lack.
const RARE: u32 = 450;

/// Ranks: the symbols in ascending order, then the escape, then the zero if the plane sets zeros apart.
const RANKS: usize = 128;

/// Which entries a table has beyond its symbols.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::codec) enum Zeros {
    /// A zero is a symbol like any other.
    Inline,
    /// Zeros have a rank of their own, and this many were counted.
    Apart(u32),
}

/// A frequency table.
#[derive(Clone)]
#[repr(align(64))]
pub(in crate::codec) struct Table {
    /// Frequency of a rank; 0 where there is none.
    pub(super) frequency: [u8; RANKS],
    /// Sum of the frequencies before it.
    pub(super) start: [u8; RANKS],
    /// `65535 / frequency`, low and high byte.
    pub(super) reciprocal_low: [u8; RANKS],
    pub(super) reciprocal_high: [u8; RANKS],
    /// The symbol of a rank; 0 for the escape and the zero.
    pub(super) symbol: [u8; RANKS],
    /// The rank of a symbol: the escape's where it has none.
    pub(super) rank: [u8; 256],
    /// The rank that a slot belongs to.
    pub(super) slot: [u8; 256],
    /// Symbols with a code: the rank of the escape.
    pub(super) symbols: u8,
    /// Whether the rank after the escape is the zero's.
    pub(super) zeros_apart: bool,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table of {} symbols", self.symbols)
    }
}

impl Table {
    /// Scales a histogram, which may be of a sample: what was not seen is an escape. The second result is what the
    /// counted symbols take, in bits.
    pub(in crate::codec) fn build(histogram: &Histogram, zeros: Zeros) -> (Self, f64) {
        let zero_count = if let Zeros::Apart(count) = zeros { count } else { 0 };
        let total: u32 = histogram.iter().sum::<u32>() + zero_count;
        let least = total / RARE + 1;
        let mut weights = Vec::with_capacity(RANKS);
        let mut symbols = Vec::with_capacity(MAX_SYMBOLS);
        let mut escapes = 0;
        for (symbol, &count) in (0..=u8::MAX).zip(histogram) {
            if count >= least && symbols.len() < MAX_SYMBOLS {
                symbols.push(symbol);
                weights.push(count);
            } else {
                escapes += count;
            }
        }
        if symbols.is_empty() {
            // Nothing was counted, and one rank alone cannot have all slots.
            symbols.push(0);
            weights.push(1);
        }
        weights.push(escapes + 1);
        let zeros_apart = matches!(zeros, Zeros::Apart(_));
        if zeros_apart {
            weights.push(zero_count + 1);
        }
        let frequencies = scale(&weights);
        let bits = weights
            .iter()
            .zip(&frequencies)
            .map(|(&weight, &frequency)| f64::from(weight) * (8.0 - f64::from(frequency).log2()))
            .sum::<f64>()
            + 8.0 * f64::from(escapes);
        (Self::of(&symbols, &frequencies, zeros_apart), bits)
    }

    /// A table of the symbols from 0 on that have a frequency, each being its own rank, without an escape. The
    /// frequencies add up to [`TOTAL`].
    pub(super) fn of_symbols(frequencies: &[u8; SYMBOLS]) -> Self {
        let mut table = Self::of(&[], frequencies, false);
        // No slot has this rank.
        table.symbols = SYMBOLS.to_le_bytes()[0];
        for symbol in (0..).take(SYMBOLS) {
            table.symbol[usize::from(symbol)] = symbol;
            table.rank[usize::from(symbol)] = symbol;
        }
        table
    }

    /// Fills in what follows from the symbols and frequencies. These are valid: their sum is [`TOTAL`].
    fn of(symbols: &[u8], frequencies: &[u8], zeros_apart: bool) -> Self {
        let escape = u8::try_from(symbols.len()).unwrap_or(0);
        let mut table = Self {
            frequency: [0; RANKS],
            start: [0; RANKS],
            reciprocal_low: [0; RANKS],
            reciprocal_high: [0; RANKS],
            symbol: [0; RANKS],
            rank: [escape; 256],
            slot: [0; 256],
            symbols: escape,
            zeros_apart,
        };
        let mut start = 0usize;
        for (rank, &frequency) in (0u8..).zip(frequencies) {
            let place = usize::from(rank);
            let width = usize::from(frequency);
            table.frequency[place] = frequency;
            table.start[place] = start.to_le_bytes()[0];
            [table.reciprocal_low[place], table.reciprocal_high[place]] =
                65535u16.checked_div(u16::from(frequency)).unwrap_or(0).to_le_bytes();
            table.slot[start..start + width].fill(rank);
            start += width;
        }
        for (rank, &symbol) in (0u8..).zip(symbols) {
            table.symbol[usize::from(rank)] = symbol;
            table.rank[usize::from(symbol)] = rank;
        }
        table
    }

    /// What an encoder looks up for a symbol, and the same for a zero that is apart.
    pub(super) fn codes(&self) -> (Codes, u32) {
        (self.rank.map(|rank| self.code(rank)), self.code(self.zero_rank()))
    }

    /// What encodes a rank.
    pub(super) fn code(&self, rank: u8) -> u32 {
        let rank = usize::from(rank);
        u32::from_le_bytes([
            self.reciprocal_low[rank],
            self.reciprocal_high[rank],
            self.frequency[rank],
            self.start[rank],
        ])
    }

    /// What a decoder looks up for a slot.
    pub(super) fn slots(&self) -> Slots {
        std::array::from_fn(|slot| {
            let rank = self.slot[slot];
            let place = usize::from(rank);
            let offset = slot.to_le_bytes()[0].wrapping_sub(self.start[place]);
            let entry = u32::from_le_bytes([self.frequency[place], offset, self.symbol[place], 0]);
            match rank {
                _ if rank == self.symbols => entry | ESCAPE,
                _ if rank > self.symbols => entry | ZERO,
                _ => entry,
            }
        })
    }

    /// The cheapest symbol, to fill a group with.
    pub(in crate::codec) fn filler(&self) -> u8 {
        let symbols = usize::from(self.symbols);
        let cheapest = (0..symbols).max_by_key(|&rank| self.frequency[rank]);
        cheapest.map_or(0, |rank| self.symbol[rank])
    }

    /// Ranks in use.
    pub(super) fn ranks(&self) -> usize {
        usize::from(self.symbols) + 1 + usize::from(self.zeros_apart)
    }

    /// The rank of the zero, if zeros are apart.
    pub(super) fn zero_rank(&self) -> u8 {
        self.symbols + 1
    }

    /// Appends the table.
    pub(in crate::codec) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.symbols);
        let count = usize::from(self.symbols);
        let mut next = 0u8;
        for (&symbol, &frequency) in self.symbol[..count].iter().zip(&self.frequency) {
            let gap = symbol - next;
            if gap > 0 {
                out.extend_from_slice(&[0, gap]);
            }
            out.push(frequency);
            next = symbol.wrapping_add(1);
        }
        out.extend_from_slice(&self.frequency[count..self.ranks()]);
    }

    /// Reads a table.
    pub(in crate::codec) fn read(body: &mut &[u8], zeros_apart: bool) -> Decoded<Self> {
        let malformed = DecodeError::Malformed("a frequency table is impossible");
        let count = usize::from(take_u8(body)?);
        if count > MAX_SYMBOLS {
            return Err(malformed);
        }
        let mut symbols = Vec::with_capacity(count);
        let mut frequencies = Vec::with_capacity(count + 2);
        let (mut next, mut after_gap) = (0u32, false);
        while symbols.len() < count {
            let frequency = take_u8(body)?;
            if frequency == 0 {
                let gap = take_u8(body)?;
                if gap == 0 || after_gap {
                    return Err(malformed);
                }
                next += u32::from(gap);
                after_gap = true;
                continue;
            }
            symbols.push(u8::try_from(next).map_err(|_| malformed.clone())?);
            frequencies.push(frequency);
            next += 1;
            after_gap = false;
        }
        for _ in 0..1 + usize::from(zeros_apart) {
            frequencies.push(take_u8(body)?);
        }
        let sum: u32 = frequencies.iter().map(|&frequency| u32::from(frequency)).sum();
        if sum != TOTAL || frequencies.contains(&0) {
            return Err(malformed);
        }
        Ok(Self::of(&symbols, &frequencies, zeros_apart))
    }
}

/// Scales weights to frequencies of at least 1 with a sum of [`TOTAL`], moving what rounding left over to where it
/// costs least.
pub(super) fn scale(weights: &[u32]) -> Vec<u8> {
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    // The cast saturates.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 255")]
    let mut frequencies: Vec<u8> = weights
        .iter()
        .map(|&weight| (f64::from(weight) * f64::from(TOTAL) / total).round().clamp(1.0, 255.0) as u8)
        .collect();
    let mut sum: u32 = frequencies.iter().map(|&frequency| u32::from(frequency)).sum();
    while sum > TOTAL {
        let cost = |i: usize| f64::from(weights[i]) / (f64::from(frequencies[i]) - 0.5);
        let cheapest = (0..weights.len())
            .filter(|&i| frequencies[i] > 1)
            .min_by(|&a, &b| cost(a).total_cmp(&cost(b)))
            .unwrap_or(0);
        frequencies[cheapest] -= 1;
        sum -= 1;
    }
    while sum < TOTAL {
        let gain = |i: usize| f64::from(weights[i]) / (f64::from(frequencies[i]) + 0.5);
        let best = (0..weights.len())
            .filter(|&i| frequencies[i] < u8::MAX)
            .max_by(|&a, &b| gain(a).total_cmp(&gain(b)))
            .unwrap_or(0);
        frequencies[best] += 1;
        sum += 1;
    }
    frequencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_back() {
        for (seed, zeros) in [(1u32, Zeros::Inline), (7, Zeros::Apart(40)), (1000, Zeros::Apart(0))] {
            for spread in [1, 3, 20, 200, 256] {
                let mut histogram = [0; 256];
                for i in 0..spread {
                    histogram[(i * 7 + 3) % 256] = seed * 1000 / (1 + u32::try_from(i).unwrap());
                }
                let (table, _) = Table::build(&histogram, zeros);
                let mut bytes = Vec::new();
                table.write(&mut bytes);
                let mut body = &bytes[..];
                let read = Table::read(&mut body, matches!(zeros, Zeros::Apart(_))).unwrap();
                assert!(body.is_empty());
                assert_eq!((read.symbol, read.frequency), (table.symbol, table.frequency));
                assert_eq!((read.slot, read.rank), (table.slot, table.rank));
                for len in 0..bytes.len() {
                    assert!(Table::read(&mut &bytes[..len], matches!(zeros, Zeros::Apart(_))).is_err());
                }
            }
        }
    }

    #[test]
    fn an_impossible_table_is_refused() {
        assert!(Table::read(&mut &[1, 0, 255, 0, 1, 255, 1][..], false).is_err());
        assert!(Table::read(&mut &[1, 100, 100][..], false).is_err());
        assert!(Table::read(&mut &[121][..], false).is_err());
    }
}
