//! Symbols below 64 whose frequencies depend on the groups before.
//!
//! ```text
//! contexts  count u8 (1 to 8), the greatest level of each context but the last u8 (ascending), frequencies of each
//! coded     stream length u24, stream, states, as without contexts
//! ```
//!
//! The level of a group is a running mean of the symbols before the one before it, from 0 to 252: see [`Mean`]. Levels that follow each
//! other share a context. The frequencies of a context are those of the symbols from 0 on, until their sum is 256: 0 is
//! followed by a byte that says for how many symbols it is.

use super::super::contexts::merge;
use super::super::dispatch::{Isa, multiversion_for};
use super::super::{DecodeError, Decoded, put_u24, sized, take, take_u8, take_u24};
#[cfg(target_arch = "x86_64")]
use super::avx2;
use super::table::{Table, scale};
use super::{Group, LANES, LEAST_STATE, Slots, States, UNFIT, part_states, portable};

/// Symbols are less than this.
pub(in crate::codec) const SYMBOLS: usize = 64;

/// Contexts, at most.
const CONTEXTS: usize = 8;

/// What a frequency takes where it is stored, about.
const BITS_A_FREQUENCY: u64 = 9;

const WRONG: DecodeError = DecodeError::Malformed("the contexts of symbols are wrong");

/// A running mean of the sums of groups: each counts half of what the next one does. The last one is left out of it: so
/// its context is known before it is decoded.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Mean {
    all: u32,
    but_one: u32,
}

impl Mean {
    /// What chooses the context of the next group.
    #[inline(always)]
    pub(super) fn level(self) -> u8 {
        (self.but_one >> 4).to_le_bytes()[0]
    }

    /// Adds the sum of a group.
    #[inline(always)]
    pub(super) fn add(&mut self, sum: u32) {
        self.but_one = self.all;
        self.all = (self.all + sum) >> 1;
    }
}

/// What is in a group.
#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    /// A bit for each symbol that occurs.
    symbols: u64,
    sum: u32,
}

/// Buffers that are kept between calls.
#[derive(Debug, Default)]
pub(in crate::codec) struct ContextScratch {
    /// Of each group.
    levels: Vec<u8>,
    seen: Vec<Seen>,
    stream: Vec<u8>,
}

multiversion_for! {
    /// Looks at groups.
    fn look(groups: &[Group], seen: &mut [Seen]) {
        for (group, seen) in groups.iter().zip(seen) {
            let mut symbols = 0;
            for symbol in group {
                symbols |= 1u64 << (symbol & 63);
            }
            *seen = Seen { symbols, sum: sum(group) };
        }
    }
}

/// How often each symbol occurs in each part, at least 1 if it does. Of many groups only some are counted.
fn count(
    groups: &[Group],
    levels: &[u8],
    seen: &[Seen],
    part_of: impl Fn(u8) -> usize,
) -> [[u32; SYMBOLS]; CONTEXTS] {
    /// No divisor of the groups that a row of a tensor has.
    const ONE_IN: u8 = 5;
    const FEW: usize = 1024;
    let stride = if groups.len() < FEW { 1 } else { ONE_IN };
    // Several counters for each, since equal neighbours would wait for each other.
    let mut counters = [[[0u32; SYMBOLS]; 4]; CONTEXTS];
    for (group, &level) in groups.iter().zip(levels).step_by(stride.into()) {
        let [a, b, c, d] = &mut counters[part_of(level)];
        for four in group.as_chunks::<4>().0 {
            a[usize::from(four[0]) % SYMBOLS] += 1;
            b[usize::from(four[1]) % SYMBOLS] += 1;
            c[usize::from(four[2]) % SYMBOLS] += 1;
            d[usize::from(four[3]) % SYMBOLS] += 1;
        }
    }
    let mut symbols = [0; CONTEXTS];
    for (seen, &level) in seen.iter().zip(levels) {
        symbols[part_of(level)] |= seen.symbols;
    }
    std::array::from_fn(|part| {
        let [a, b, c, d] = &counters[part];
        std::array::from_fn(|symbol| {
            let counted = a[symbol] + b[symbol] + c[symbol] + d[symbol];
            (counted * u32::from(stride)).max(u32::from(symbols[part] >> symbol & 1 != 0))
        })
    })
}

/// The sum of a group.
#[inline(always)]
pub(super) fn sum(group: &Group) -> u32 {
    group.iter().map(|&symbol| u32::from(symbol)).sum()
}

/// Frequencies of all contexts.
#[derive(Debug)]
pub(in crate::codec) struct Contexts {
    /// The greatest level of each context but the last.
    greatest: Vec<u8>,
    tables: Vec<Table>,
    /// The context of each level.
    pub(super) of_level: [u8; 256],
}

impl Contexts {
    /// Contexts for these groups; the levels of `scratch` become theirs.
    pub(in crate::codec) fn choose(isa: Isa, groups: &[Group], scratch: &mut ContextScratch) -> Self {
        let ContextScratch { levels, seen, .. } = scratch;
        seen.resize(groups.len(), Seen::default());
        look(isa, groups, seen);
        let mut counts = [0u32; 256];
        let mut mean = Mean::default();
        levels.clear();
        levels.extend(seen.iter().map(|seen| {
            let level = mean.level();
            counts[usize::from(level)] += 1;
            mean.add(seen.sum);
            level
        }));
        // As many groups in each, about; then joined where that is cheaper.
        let (mut parts, mut counted) = ([0u8; 256], 0);
        for (part, count) in parts.iter_mut().zip(counts) {
            // By those below and half of its own.
            let middle = 2 * counted + u64::from(count);
            *part = (middle * CONTEXTS as u64 / (2 * groups.len() as u64 + 1)).to_le_bytes()[0];
            counted += u64::from(count);
        }
        let part_of = |level: u8| usize::from(parts[usize::from(level)]) % CONTEXTS;
        let counts = count(groups, levels, seen, part_of);
        let (group_of, counts) = merge(&counts, BITS_A_FREQUENCY);
        let of_level = parts.map(|part| group_of[usize::from(part) % CONTEXTS]);
        let greatest = (0..u8::MAX)
            .filter(|&level| of_level[usize::from(level)] != of_level[usize::from(level) + 1])
            .collect();
        Self::new(greatest, counts.iter().map(|counts| Table::of_symbols(&rounded(counts))).collect())
    }

    fn new(greatest: Vec<u8>, tables: Vec<Table>) -> Self {
        let (mut of_level, mut context) = ([0; 256], 0);
        for (level, of) in (0..=u8::MAX).zip(&mut of_level) {
            *of = context;
            context += u8::from(greatest.get(usize::from(context)) == Some(&level));
        }
        Self { greatest, tables, of_level }
    }

    /// Appends them.
    pub(in crate::codec) fn put(&self, out: &mut Vec<u8>) {
        out.push(self.tables.len().to_le_bytes()[0]);
        out.extend_from_slice(&self.greatest);
        for table in &self.tables {
            let (mut symbol, mut sum) = (0, 0);
            while sum < 256 {
                let frequency = table.frequency[symbol];
                out.push(frequency);
                sum += usize::from(frequency);
                symbol += 1;
                if frequency == 0 {
                    let more = table.frequency[symbol..].iter().take_while(|&&next| next == 0).count();
                    out.push((more + 1).to_le_bytes()[0]);
                    symbol += more;
                }
            }
        }
    }

    /// Takes the contexts of symbols below `symbols` from the front of `body`.
    pub(in crate::codec) fn take(body: &mut &[u8], symbols: usize) -> Decoded<Self> {
        let count = usize::from(take_u8(body)?);
        if count == 0 || count > CONTEXTS {
            return Err(WRONG);
        }
        let greatest = take(body, count - 1)?.to_vec();
        if !greatest.is_sorted_by(|a, b| a < b) {
            return Err(WRONG);
        }
        let tables = (0..count).map(|_| take_frequencies(body, symbols)).collect::<Decoded<_>>()?;
        Ok(Self::new(greatest, tables))
    }

    /// Appends the code of the groups that they were chosen for, with `scratch`.
    pub(in crate::codec) fn encode(
        &self,
        isa: Isa,
        groups: &[Group],
        scratch: &mut ContextScratch,
        out: &mut Vec<u8>,
    ) {
        let ContextScratch { levels, stream, .. } = scratch;
        // A group adds at most a byte a lane; vectors are written below what is filled.
        let room = (groups.len() + 2) * LANES;
        let mut encoder = Encoder {
            contexts: self,
            states: part_states(&[LEAST_STATE; LANES]),
            stream: sized(stream, room),
            start: room,
        };
        match isa.supported() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `supported` says what the processor has.
            Isa::Avx512 | Isa::Avx2 => unsafe { avx2::encode_contexts(&mut encoder, groups, levels) },
            _ => portable::encode_contexts(&mut encoder, groups, levels),
        }
        let stream = &encoder.stream[encoder.start..];
        put_u24(out, stream.len());
        out.extend_from_slice(stream);
        out.extend_from_slice(&encoder.states);
    }

    /// Decodes all of `groups` from the front of `body`.
    pub(in crate::codec) fn decode(&self, isa: Isa, body: &mut &[u8], groups: &mut [Group]) -> Decoded<()> {
        let length = take_u24(body)?;
        let stream = take(body, length + 2 * LANES)?;
        let mut states = [0; 2 * LANES];
        states.copy_from_slice(&stream[length..]);
        if states[LANES..].contains(&0) {
            return Err(DecodeError::Malformed("a state is too small"));
        }
        let mut decoder = Decoder { contexts: self, states, stream, next: 0 };
        match isa.supported() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 | Isa::Avx2 => unsafe { avx2::decode_contexts(&mut decoder, groups) },
            _ => portable::decode_contexts(&mut decoder, groups),
        }?;
        let ended = decoder.states == part_states(&[LEAST_STATE; LANES]) && decoder.next == length;
        if ended { Ok(()) } else { Err(UNFIT) }
    }

    /// The tables of the contexts.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// What encoders look up, by context and symbol.
    pub(super) fn codes(&self) -> Vec<[u32; SYMBOLS]> {
        let codes = self.tables.iter().map(|table| table.codes().0);
        codes.map(|codes| *codes.first_chunk().unwrap_or(&[0; SYMBOLS])).collect()
    }

    /// What decoders look up, by context and slot.
    pub(super) fn slots(&self) -> Vec<Slots> {
        self.tables.iter().map(Table::slots).collect()
    }
}

/// Encodes from the last group to the first.
pub(super) struct Encoder<'a> {
    pub(super) contexts: &'a Contexts,
    pub(super) states: States,
    /// Filled downwards.
    pub(super) stream: &'a mut [u8],
    pub(super) start: usize,
}

/// Decodes from the first group to the last.
pub(super) struct Decoder<'a> {
    pub(super) contexts: &'a Contexts,
    pub(super) states: States,
    /// The stream and, behind it, the states: a whole vector may be read anywhere before them.
    pub(super) stream: &'a [u8],
    pub(super) next: usize,
}

/// Frequencies in proportion to counts: what was counted has one, and they are at least two.
fn rounded(counts: &[u32; SYMBOLS]) -> [u8; SYMBOLS] {
    let mut used: Vec<usize> = (0..SYMBOLS).filter(|&symbol| counts[symbol] > 0).collect();
    // One alone cannot have all slots.
    for other in 0..SYMBOLS {
        if used.len() < 2 && !used.contains(&other) {
            used.push(other);
        }
    }
    let weights: Vec<u32> = used.iter().map(|&symbol| counts[symbol]).collect();
    let mut frequencies = [0; SYMBOLS];
    for (symbol, frequency) in used.into_iter().zip(scale(&weights)) {
        frequencies[symbol] = frequency;
    }
    frequencies
}

fn take_frequencies(body: &mut &[u8], symbols: usize) -> Decoded<Table> {
    let mut frequencies = [0; SYMBOLS];
    let (mut symbol, mut sum) = (0, 0);
    while sum < 256 {
        let frequency = take_u8(body)?;
        if frequency == 0 {
            let zeros = usize::from(take_u8(body)?);
            symbol += zeros;
            if zeros == 0 {
                return Err(WRONG);
            }
            continue;
        }
        if symbol >= symbols.min(SYMBOLS) {
            return Err(WRONG);
        }
        frequencies[symbol] = frequency;
        sum += usize::from(frequency);
        symbol += 1;
    }
    if sum > 256 {
        return Err(WRONG);
    }
    Ok(Table::of_symbols(&frequencies))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::Random;

    /// Symbols that are large for a while, and small for a while.
    fn symbols(count: usize, seed: u64) -> Vec<Group> {
        let mut random = Random(seed);
        let mut symbol = |group: usize| {
            let draw = random.next();
            // More than are looked up by shuffles, in every fourth case.
            let many = if seed.is_multiple_of(4) { (draw >> 32) % 40 } else { 0 };
            let size = draw.trailing_zeros().min(15) + if (group / 60).is_multiple_of(2) { 0 } else { 40 };
            (u64::from(size) + many).min(63).to_le_bytes()[0]
        };
        (0..count).map(|group| std::array::from_fn(|_| symbol(group))).collect()
    }

    fn encoded(isa: Isa, groups: &[Group]) -> Vec<u8> {
        let (mut scratch, mut out) = (ContextScratch::default(), Vec::new());
        let contexts = Contexts::choose(isa, groups, &mut scratch);
        contexts.put(&mut out);
        contexts.encode(isa, groups, &mut scratch, &mut out);
        out
    }

    fn decoded(isa: Isa, mut body: &[u8], count: usize) -> Decoded<Vec<Group>> {
        let mut groups = vec![[0; LANES]; count];
        Contexts::take(&mut body, SYMBOLS)?.decode(isa, &mut body, &mut groups)?;
        if body.is_empty() { Ok(groups) } else { Err(UNFIT) }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bytes_and_reads_the_others() {
        for (count, seed) in [(0, 1), (1, 2), (2, 3), (59, 4), (61, 5), (130, 6), (1500, 7), (300, 8)] {
            let groups = symbols(count, seed);
            let expected = encoded(Isa::Portable, &groups);
            for isa in Isa::available() {
                assert!(encoded(isa, &groups) == expected, "{count} {isa:?}");
                assert!(decoded(isa, &expected, count).unwrap() == groups, "{count} {isa:?}");
            }
        }
        for symbol in [0, 1, 63] {
            let groups = vec![[symbol; LANES]; 40];
            let bytes = encoded(Isa::Portable, &groups);
            // The states, and less than a hundredth of a bit for each symbol.
            assert!(bytes.len() < 160, "{}", bytes.len());
            assert!(decoded(Isa::Portable, &bytes, 40).unwrap() == groups);
        }
    }

    #[test]
    fn contexts_tell_what_is_large_from_what_is_small() {
        let groups = symbols(2000, 9);
        let bytes = encoded(Isa::Portable, &groups);
        // Two bits a symbol, one less than by itself: which of the two sizes it has is known from the groups before, but
        // for two groups in sixty, where symbols take 8 bits or more.
        assert!(bytes.len() < 2000 * LANES * 24 / 80, "{}", bytes.len());
    }

    #[test]
    fn truncations_are_errors_and_damage_means_the_same_everywhere() {
        for seed in [11, 12] {
            let groups = symbols(75, seed);
            let bytes = encoded(Isa::Portable, &groups);
            for isa in Isa::available() {
                for len in 0..bytes.len() {
                    assert!(decoded(isa, &bytes[..len], groups.len()).is_err(), "{len} {isa:?}");
                }
            }
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let expected = decoded(Isa::Portable, &damaged, groups.len());
                for isa in Isa::available() {
                    assert!(decoded(isa, &damaged, groups.len()) == expected, "{bit} {isa:?}");
                }
            }
        }
    }

    #[test]
    fn impossible_contexts_are_refused() {
        let wrong: [&[u8]; 9] = [
            &[0],                               // none
            &[9],                               // too many
            &[3, 5, 5, 255, 1, 255, 1, 255, 1], // not ascending
            &[1, 0, 0, 255, 1],                 // no zeros
            &[1, 255, 2],                       // too great a sum
            &[1, 0, 63, 255, 1],                // a symbol of 64
            &[1, 255, 0, 200, 1],               // far behind the last one
            &[1, 255],                          // no end
            &[2, 9, 255, 1],                    // one is missing
        ];
        for bytes in wrong {
            assert!(Contexts::take(&mut &bytes[..], SYMBOLS).is_err(), "{bytes:?}");
        }
        assert!(Contexts::take(&mut &[1, 0, 5, 255, 1][..], 7).is_ok());
        assert!(Contexts::take(&mut &[1, 0, 5, 255, 1][..], 6).is_err());
    }
}
