//! The bits that classes leave open: a stack of bits for each lane, which spill into one sequence of words.
//!
//! A stack holds 1 to 32 bits. The encoder goes backwards: it pushes the bits of an element at the low end, and where
//! that makes more than 32, the oldest 32 leave as a word. Words are written from the end of their buffer to its start, so
//! the decoder, which goes forwards, finds the word that it needs next where the last one ended.

use super::super::{DecodeError, Decoded, take, take_u8, take_u24};
use super::groups::{Bytes, GROUP_BYTES, LANES, Words};
use super::number::w4;

/// Bits that say how many bits of a stack count, less one.
const COUNT_BITS: u32 = w4::Word::BITS.ilog2();

/// Bytes of a word.
pub(super) const WORD_BYTES: usize = size_of::<w4::Word>();

/// A stack for each lane.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Stacks {
    /// The newest bit is the lowest. The encoder leaves anything above those that count, the decoder 0.
    pub(super) bits: Words,
    /// From 1 to 32.
    pub(super) counts: Words,
}

impl Stacks {
    /// What the encoder begins with, and the decoder ends with: one bit that is 0.
    pub(super) const EMPTY: Self = Self { bits: [0; LANES], counts: [1; LANES] };

    /// Appends them, as bits without gaps, the lowest first: for each, how many count, less one, and then these.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let (mut bits, mut held) = (0u64, 0);
        for (stack, count) in self.bits.iter().zip(&self.counts) {
            bits |= (u64::from(stack & mask_of(*count)) << COUNT_BITS | u64::from(count - 1)) << held;
            held += COUNT_BITS + count;
            while held >= 8 {
                out.push(bits.to_le_bytes()[0]);
                (bits, held) = (bits >> 8, held - 8);
            }
        }
        if held > 0 {
            out.push(bits.to_le_bytes()[0]);
        }
    }

    /// Takes words, and the stacks behind them.
    pub(super) fn take<'a>(body: &mut &'a [u8]) -> Decoded<(Self, Reader<'a>)> {
        let length = WORD_BYTES * take_u24(body)?;
        let words = take(body, length)?;
        let (mut bits, mut held) = (0u64, 0);
        let mut take_bits = |count: u32| -> Decoded<w4::Word> {
            while held < count {
                bits |= u64::from(take_u8(body)?) << held;
                held += 8;
            }
            let taken = low(bits) & mask_of(count);
            (bits, held) = (bits >> count, held - count);
            Ok(taken)
        };
        let mut stacks = Self::EMPTY;
        for (stack, count) in stacks.bits.iter_mut().zip(&mut stacks.counts) {
            *count = take_bits(COUNT_BITS)? + 1;
            *stack = take_bits(*count)?;
        }
        if bits != 0 {
            return Err(DecodeError::Malformed("bits are left over behind the stacks"));
        }
        Ok((stacks, Reader { words, next: 0 }))
    }

    /// In the end all words are taken, and the stacks are what the encoder began with.
    pub(super) fn check(&self, words: &Reader<'_>) -> Decoded<()> {
        if self.bits != Self::EMPTY.bits || self.counts != Self::EMPTY.counts {
            return Err(DecodeError::Malformed("the stacks of bits do not end where they began"));
        }
        if words.next == words.words.len() {
            Ok(())
        } else {
            Err(DecodeError::Malformed("words of bits are left over"))
        }
    }
}

/// The lowest bits, 1 to 32.
fn mask_of(count: w4::Word) -> w4::Word {
    w4::Word::MAX >> (w4::Word::BITS - count)
}

/// Words that are read from the first to the last.
pub(super) struct Reader<'a> {
    words: &'a [u8],
    next: usize,
}

impl<'a> Reader<'a> {
    /// The next words: as many as a group can want. Behind the last one they are 0, in `padded`.
    #[inline(always)]
    pub(super) fn group<'p>(&self, padded: &'p mut [u8; GROUP_BYTES]) -> &'p [u8; GROUP_BYTES]
    where
        'a: 'p,
    {
        let rest = self.words.get(self.next..).unwrap_or_default();
        match rest.first_chunk() {
            Some(whole) => whole,
            None => {
                padded[..rest.len()].copy_from_slice(rest);
                padded
            }
        }
    }

    /// Says how many were taken of those.
    #[inline(always)]
    pub(super) fn advance(&mut self, words: usize) {
        self.next += WORD_BYTES * words;
    }
}

/// Words that are written from the last to the first.
pub(super) struct Writer<'a> {
    bytes: &'a mut [u8],
    start: usize,
}

impl<'a> Writer<'a> {
    /// Bytes that the words of so many groups can take.
    pub(super) fn room(groups: usize) -> usize {
        groups * GROUP_BYTES
    }

    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        let start = bytes.len();
        Self { bytes, start }
    }

    /// Where the next words go, at the end of it: as many as a group can write.
    #[inline(always)]
    pub(super) fn group(&mut self) -> Option<&mut [u8; GROUP_BYTES]> {
        self.bytes[..self.start].last_chunk_mut()
    }

    /// Says how many were written there.
    #[inline(always)]
    pub(super) fn advance(&mut self, words: usize) {
        self.start -= WORD_BYTES * words;
    }

    /// All words.
    pub(super) fn into_bytes(self) -> &'a [u8] {
        &self.bytes[self.start..]
    }
}

/// Pushes the low `widths` bits (at most 31) of `values`. Returns how many words left, to the end of `room`.
#[inline(always)]
pub(super) fn push(
    stacks: &mut Stacks,
    values: &Words,
    widths: &Bytes,
    room: &mut [u8; GROUP_BYTES],
) -> usize {
    let room = room.as_chunks_mut::<WORD_BYTES>().0;
    let mut start = LANES;
    for lane in (0..LANES).rev() {
        let width = u32::from(widths[lane]);
        let value = u64::from(values[lane]) & ((1 << width) - 1);
        let bits = u64::from(stacks.bits[lane]) << width | value;
        let count = stacks.counts[lane] + width;
        let full = count > w4::Word::BITS;
        // Without a branch: it could not be predicted. What is no word is written over by the next one.
        room[(start - 1) % LANES] = low(bits >> (count.wrapping_sub(w4::Word::BITS) & 63)).to_le_bytes();
        start -= usize::from(full);
        stacks.counts[lane] = count - if full { w4::Word::BITS } else { 0 };
        stacks.bits[lane] = low(bits);
    }
    LANES - start
}

/// Pops `widths` bits (at most 31). Returns them, and how many of `words` were taken.
#[inline(always)]
pub(super) fn pop(stacks: &mut Stacks, widths: &Bytes, words: &[u8; GROUP_BYTES]) -> (Words, usize) {
    let words = words.as_chunks().0;
    let (mut values, mut next) = ([0; LANES], 0);
    for lane in 0..LANES {
        let (width, count) = (u32::from(widths[lane]), stacks.counts[lane]);
        let word = u64::from(w4::Word::from_le_bytes(words[next % LANES]));
        // The word is taken only if the stack would be empty. Else its bits are above those that count.
        let short = count <= width;
        let bits = u64::from(stacks.bits[lane]) | word << count;
        values[lane] = low(bits & ((1 << width) - 1));
        stacks.bits[lane] = if short { low(bits >> width) } else { stacks.bits[lane] >> width };
        stacks.counts[lane] = count + if short { w4::Word::BITS } else { 0 } - width;
        next += usize::from(short);
    }
    (values, next)
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
#[inline(always)]
fn low(bits: u64) -> w4::Word {
    bits as w4::Word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_in_the_order_of_the_groups() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 1
        };
        let groups: Vec<(Words, Bytes)> = (0..200)
            .map(|group| {
                let width = |lane: usize, next: u32| match group % 4 {
                    0 => 31,
                    1 => 0,
                    2 => (lane % 32).to_le_bytes()[0],
                    _ => (next >> 26).to_le_bytes()[0],
                };
                let widths = std::array::from_fn(|lane| width(lane, next()));
                (std::array::from_fn(|_| next()), widths)
            })
            .collect();
        let mut buffer = vec![0; Writer::room(groups.len())];
        let (mut stacks, mut writer) = (Stacks::EMPTY, Writer::new(&mut buffer));
        for (values, widths) in groups.iter().rev() {
            let written = push(&mut stacks, values, widths, writer.group().unwrap());
            writer.advance(written);
        }
        let words = writer.into_bytes();
        let mut bytes = (words.len() / WORD_BYTES).to_le_bytes()[..3].to_vec();
        bytes.extend_from_slice(words);
        stacks.put(&mut bytes);
        let mut body = &bytes[..];
        let (mut stacks, mut reader) = Stacks::take(&mut body).unwrap();
        assert!(body.is_empty());
        for (values, widths) in &groups {
            let (popped, taken) = pop(&mut stacks, widths, reader.group(&mut [0; GROUP_BYTES]));
            reader.advance(taken);
            for lane in 0..LANES {
                assert_eq!(popped[lane], values[lane] & ((1 << widths[lane]) - 1));
            }
        }
        stacks.check(&reader).unwrap();
    }

    #[test]
    fn stacks_end_with_zeros() {
        let mut bytes = vec![0; 3];
        let mut stacks = Stacks::EMPTY;
        (stacks.counts[7], stacks.bits[7]) = (32, 0xdead_beef);
        (stacks.counts[8], stacks.bits[8]) = (3, 0xffff_ffff);
        stacks.put(&mut bytes);
        assert_eq!(bytes.len(), 3 + (64 * 6 + 31 + 2usize).div_ceil(8));
        let (back, reader) = Stacks::take(&mut &bytes[..]).unwrap();
        assert_eq!((back.counts, back.bits[7], back.bits[8]), (stacks.counts, 0xdead_beef, 7));
        assert!(back.check(&reader).is_err());
        for len in 0..bytes.len() {
            assert!(Stacks::take(&mut &bytes[..len]).is_err());
        }
        *bytes.last_mut().unwrap() |= 0x80;
        assert!(Stacks::take(&mut &bytes[..]).is_err());
    }
}
