//! What a slot decodes to, and what encodes a symbol, looked up for 32 lanes at a time by shuffles of bytes.
//!
//! A table of 256 entries is more than shuffles can hold, but it repeats itself: the slots of a symbol lie side by side,
//! so a slot is told by how many symbols begin at or before it, its rank. The upper four bits of a slot give the rank of
//! the first of 16 slots, and each symbol that begins among these 16 is one comparison with the lower four bits.

use std::arch::x86_64::*;

use super::super::Table;

/// Ranks that there are tables for: most planes of floats have fewer, and what has more is looked up one by one.
pub(super) const RANKS: usize = 32;

/// Symbols that may begin among 16 slots, but at the first of them.
const STARTS: usize = 15;

/// No slot is after this one of its 16.
const NEVER: u8 = 15;

/// No rank.
const NO_RANK: u8 = 0xff;

/// A table by rank.
type ByRank = [[u8; 16]; RANKS / 16];

/// What slots decode to, by rank.
pub(in super::super) struct SlotRanks {
    /// The rank of the first of each 16 slots.
    first: [u8; 16],
    /// For each 16 slots, the lower bits of the slot before each start among them.
    before: [[u8; 16]; STARTS],
    /// How many of `before` are in use.
    pub(super) starts: usize,
    frequency: ByRank,
    start: ByRank,
    symbol: ByRank,
    escape: u8,
    zero: u8,
}

impl SlotRanks {
    /// What the slots of `table` decode to, if it has few enough ranks.
    pub(in super::super) fn of(table: &Table) -> Option<Self> {
        let mut ranks = Self {
            first: [0; 16],
            before: [[NEVER; 16]; STARTS],
            starts: 0,
            frequency: ByRank::default(),
            start: ByRank::default(),
            symbol: ByRank::default(),
            escape: NO_RANK,
            zero: NO_RANK,
        };
        let mut among = [0; 16];
        let mut start = 0usize;
        let mut next = 0u8;
        for (rank, &frequency) in (0u8..).zip(&table.frequency) {
            // Those without slots have no place here.
            if frequency == 0 {
                continue;
            }
            if usize::from(next) == RANKS {
                return None;
            }
            let (half, at) = (usize::from(next / 16), usize::from(next % 16));
            ranks.frequency[half][at] = frequency;
            ranks.start[half][at] = start.to_le_bytes()[0];
            ranks.symbol[half][at] = table.symbol[usize::from(rank)];
            if rank == table.symbols {
                ranks.escape = next;
            } else if rank > table.symbols {
                ranks.zero = next;
            }
            let (sixteen, place) = (start / 16, start % 16);
            if place > 0 {
                ranks.before[among[sixteen]][sixteen] = (place - 1).to_le_bytes()[0];
                among[sixteen] += 1;
                ranks.starts = ranks.starts.max(among[sixteen]);
            }
            let end = start + usize::from(frequency);
            ranks.first[start.div_ceil(16)..end.div_ceil(16)].fill(next);
            start = end;
            next += 1;
        }
        Some(ranks)
    }

    /// The ranks of 32 slots.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn rank(&self, slots: __m256i) -> __m256i {
        let low4 = _mm256_set1_epi8(15);
        let sixteen = _mm256_and_si256(_mm256_srli_epi16::<4>(slots), low4);
        let place = _mm256_and_si256(slots, low4);
        let mut rank = _mm256_shuffle_epi8(load(&self.first), sixteen);
        for before in &self.before[..self.starts] {
            let is_after = _mm256_cmpgt_epi8(place, _mm256_shuffle_epi8(load(before), sixteen));
            rank = _mm256_sub_epi8(rank, is_after);
        }
        rank
    }

    /// The frequencies and starts of 32 ranks.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn frequency_and_start(&self, rank: __m256i) -> (__m256i, __m256i) {
        let upper = _mm256_slli_epi16::<3>(rank);
        (look_up(&self.frequency, rank, upper), look_up(&self.start, rank, upper))
    }

    /// The symbols of 32 ranks.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn symbol(&self, rank: __m256i) -> __m256i {
        look_up(&self.symbol, rank, _mm256_slli_epi16::<3>(rank))
    }

    /// Which of 32 ranks are escapes, and which are zeros that are apart.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn escapes_and_zeros(&self, rank: __m256i) -> (u32, u32) {
        let are = |what: u8| {
            let equal = _mm256_cmpeq_epi8(rank, _mm256_set1_epi8(what.cast_signed()));
            _mm256_movemask_epi8(equal).cast_unsigned()
        };
        (are(self.escape), are(self.zero))
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(table: &[u8; 16]) -> __m256i {
    // SAFETY: the array has 16 bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}

/// What a table has at each rank. `upper` has the fifth bits of the ranks as its signs.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(table: &ByRank, rank: __m256i, upper: __m256i) -> __m256i {
    let [low, high] = table;
    _mm256_blendv_epi8(_mm256_shuffle_epi8(load(low), rank), _mm256_shuffle_epi8(load(high), rank), upper)
}

/// What encodes a symbol: a byte each for 32 lanes.
pub(super) struct Found {
    pub(super) reciprocal_low: __m256i,
    pub(super) reciprocal_high: __m256i,
    pub(super) frequency: __m256i,
    pub(super) start: __m256i,
}

/// The last place of a window.
const LAST_PLACE: u8 = 31;

/// What encodes symbols that lie close to each other, by their distance from the least.
pub(in super::super) struct SymbolWindow {
    least: u8,
    /// In the order of the bytes of a code. The last place is what encodes an escape.
    tables: [ByRank; 4],
}

impl SymbolWindow {
    /// The same as the codes of `table`, if its symbols are close enough.
    pub(in super::super) fn of(table: &Table) -> Option<Self> {
        let symbols = &table.symbol[..usize::from(table.symbols)];
        let (&least, &most) = (symbols.first()?, symbols.last()?);
        if most - least >= LAST_PLACE {
            return None;
        }
        let mut window = Self { least, tables: Default::default() };
        for place in 0..=LAST_PLACE {
            // Beyond the greatest symbol there are escapes.
            let rank = if place < LAST_PLACE {
                table.rank[usize::from(least.wrapping_add(place))]
            } else {
                table.symbols
            };
            let code = table.code(rank);
            for (bytes, byte) in window.tables.iter_mut().zip(code.to_le_bytes()) {
                bytes[usize::from(place / 16)][usize::from(place % 16)] = byte;
            }
        }
        Some(window)
    }

    /// What encodes 32 symbols.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn find(&self, symbols: __m256i) -> Found {
        let distance = _mm256_sub_epi8(symbols, _mm256_set1_epi8(self.least.cast_signed()));
        let place = _mm256_min_epu8(distance, _mm256_set1_epi8(LAST_PLACE.cast_signed()));
        let upper = _mm256_slli_epi16::<3>(place);
        let [reciprocal_low, reciprocal_high, frequency, start] = &self.tables;
        Found {
            reciprocal_low: look_up(reciprocal_low, place, upper),
            reciprocal_high: look_up(reciprocal_high, place, upper),
            frequency: look_up(frequency, place, upper),
            start: look_up(start, place, upper),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{ESCAPE, ZERO, Zeros};
    use super::*;
    use crate::codec::tests::Random;

    #[target_feature(enable = "avx2")]
    fn all(ranks: &SlotRanks) -> Vec<(u8, u8, u8, bool, bool)> {
        let mut found = Vec::new();
        for first in (0..=u8::MAX).step_by(32) {
            let slots: [u8; 32] = std::array::from_fn(|lane| first + lane.to_le_bytes()[0]);
            // SAFETY: the array has 32 bytes.
            let slots = unsafe { _mm256_loadu_si256(slots.as_ptr().cast()) };
            let rank = ranks.rank(slots);
            let (frequency, start) = ranks.frequency_and_start(rank);
            let (escapes, zeros) = ranks.escapes_and_zeros(rank);
            let bytes = [frequency, _mm256_sub_epi8(slots, start), ranks.symbol(rank)].map(|vector| {
                let mut bytes = [0u8; 32];
                // SAFETY: as above.
                unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) };
                bytes
            });
            for lane in 0..32 {
                let [frequency, offset, symbol] = bytes.map(|bytes| bytes[lane]);
                found.push((frequency, offset, symbol, escapes >> lane & 1 != 0, zeros >> lane & 1 != 0));
            }
        }
        found
    }

    #[test]
    fn slots_of_few_ranks_are_found_as_by_a_table() {
        if !std::arch::is_x86_feature_detected!("avx2") {
            return;
        }
        let mut random = Random(3);
        let mut fitting = 0;
        for round in 0..400 {
            let mut histogram = [0; 256];
            for _ in 0..1 + round % 40 {
                let symbol = random.next().to_le_bytes()[0];
                histogram[usize::from(symbol)] =
                    1 + (random.next() & 0xffff_ffff) as u32 % (1 << (round % 20));
            }
            let zeros = if round % 3 == 0 { Zeros::Apart(1 + round % 7) } else { Zeros::Inline };
            let (table, _) = Table::build(&histogram, zeros);
            let ranks = SlotRanks::of(&table);
            assert_eq!(ranks.is_some(), table.ranks() <= RANKS);
            let Some(ranks) = ranks else { continue };
            fitting += 1;
            let expected: Vec<_> = table
                .slots()
                .iter()
                .map(|entry| {
                    let [frequency, offset, symbol, _] = entry.to_le_bytes();
                    (frequency, offset, symbol, entry & ESCAPE != 0, entry & ZERO != 0)
                })
                .collect();
            // SAFETY: the processor has it.
            assert_eq!(unsafe { all(&ranks) }, expected, "{round}");
        }
        assert!((200..400).contains(&fitting), "{fitting}");
    }

    #[target_feature(enable = "avx2")]
    fn codes(window: &SymbolWindow, symbols: &[u8; 32]) -> [u32; 32] {
        // SAFETY: the array has 32 bytes.
        let found = window.find(unsafe { _mm256_loadu_si256(symbols.as_ptr().cast()) });
        let parts =
            [found.reciprocal_low, found.reciprocal_high, found.frequency, found.start].map(|vector| {
                let mut bytes = [0u8; 32];
                // SAFETY: as above.
                unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) };
                bytes
            });
        std::array::from_fn(|lane| u32::from_le_bytes(parts.map(|part| part[lane])))
    }

    #[test]
    fn symbols_of_a_window_are_found_as_by_a_table() {
        if !std::arch::is_x86_feature_detected!("avx2") {
            return;
        }
        // Windows at either end and in the middle, of all widths about the greatest, with gaps.
        for least in [0u8, 1, 100, 220, 225, 250] {
            for width in [0u8, 1, 5, 29, 30, 31, 32] {
                let Some(most) = least.checked_add(width) else { continue };
                let mut histogram = [0; 256];
                for symbol in (least..=most).step_by(3).chain([most]) {
                    histogram[usize::from(symbol)] = 100;
                }
                let (table, _) = Table::build(&histogram, Zeros::Inline);
                let window = SymbolWindow::of(&table);
                assert_eq!(window.is_some(), width <= 30, "{least} {width}");
                let Some(window) = window else { continue };
                let expected = table.codes().0;
                for first in (0..=u8::MAX).step_by(32) {
                    let symbols: [u8; 32] = std::array::from_fn(|lane| first + lane.to_le_bytes()[0]);
                    // SAFETY: the processor has it.
                    let found = unsafe { codes(&window, &symbols) };
                    for (symbol, code) in symbols.into_iter().zip(found) {
                        assert_eq!(code, expected[usize::from(symbol)], "{symbol} of {least} to {most}");
                    }
                }
            }
        }
    }
}
