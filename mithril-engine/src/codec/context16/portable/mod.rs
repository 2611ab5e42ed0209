//! The lanes in plain Rust.

mod coder;

use super::frequencies::Frequencies;
use super::lanes::{Entries, Found, Lanes, Reader, Row, SLOTS, Slots, State, Writer};
use super::model::{GROUP_BYTES, LANES, Window, value_class};

/// Plain Rust, for every processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

type Words = [u16; LANES];
type Bytes = [u8; LANES];

/// One lane after the other.
#[inline(always)]
fn each(a: Words, b: Words, f: impl Fn(u16, u16) -> u16) -> Words {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

impl Lanes for Portable {
    type Words = Words;
    /// All ones or 0.
    type Mask = Words;
    type Index = Bytes;
    type Class = Bytes;
    type Search<'s> = &'s [u32; SLOTS];

    #[inline(always)]
    fn splat(self, word: u16) -> Words {
        [word; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[u8; GROUP_BYTES]) -> Words {
        let mut words = [0; LANES];
        for (word, bytes) in words.iter_mut().zip(from.as_chunks::<2>().0) {
            *word = u16::from_le_bytes(*bytes);
        }
        words
    }

    #[inline(always)]
    fn store(self, words: Words, to: &mut [u8; GROUP_BYTES]) {
        for (bytes, word) in to.as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
    }

    #[inline(always)]
    fn and(self, a: Words, b: Words) -> Words {
        each(a, b, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, a: Words, b: Words) -> Words {
        each(a, b, |a, b| a | b)
    }

    #[inline(always)]
    fn xor(self, a: Words, b: Words) -> Words {
        each(a, b, |a, b| a ^ b)
    }

    #[inline(always)]
    fn add(self, a: Words, b: Words) -> Words {
        each(a, b, u16::wrapping_add)
    }

    #[inline(always)]
    fn sub(self, a: Words, b: Words) -> Words {
        each(a, b, u16::wrapping_sub)
    }

    #[inline(always)]
    fn max(self, a: Words, b: Words) -> Words {
        each(a, b, u16::max)
    }

    #[inline(always)]
    fn sign(self, words: Words) -> Words {
        each(words, words, |word, _| (word.cast_signed() >> 15).cast_unsigned())
    }

    #[inline(always)]
    fn double(self, words: Words) -> Words {
        each(words, words, |word, _| word << 1)
    }

    #[inline(always)]
    fn half(self, words: Words) -> Words {
        each(words, words, |word, _| word >> 1)
    }

    #[inline(always)]
    fn at_least(self, a: Words, b: Words) -> Words {
        each(a, b, |a, b| u16::from(a >= b).wrapping_neg())
    }

    #[inline(always)]
    fn equal(self, a: Words, b: Words) -> Words {
        each(a, b, |a, b| u16::from(a == b).wrapping_neg())
    }

    #[inline(always)]
    fn select(self, mask: Words, yes: Words, no: Words) -> Words {
        self.xor(no, self.and(mask, self.xor(yes, no)))
    }

    #[inline(always)]
    fn only(self, mask: Words, words: Words) -> Words {
        self.and(mask, words)
    }

    #[inline(always)]
    fn bits(self, mask: Words) -> u32 {
        let mut bits = 0;
        for (lane, word) in mask.iter().enumerate() {
            bits |= u32::from(word & 1) << lane;
        }
        bits
    }

    #[inline(always)]
    fn mask(self, bits: u32) -> Words {
        let mut mask = [0; LANES];
        for (lane, word) in mask.iter_mut().enumerate() {
            *word = if bits >> lane & 1 == 0 { 0 } else { u16::MAX };
        }
        mask
    }

    #[inline(always)]
    fn exponent_classes(self, base: Words, window: &Window) -> Bytes {
        let mut classes = [0; LANES];
        for (class, base) in classes.iter_mut().zip(base) {
            *class = window.class(base);
        }
        classes
    }

    #[inline(always)]
    fn load_index(self, from: &Bytes) -> Bytes {
        *from
    }

    #[inline(always)]
    fn store_index(self, index: Bytes, to: &mut Bytes) {
        *to = index;
    }

    #[inline(always)]
    fn row(self, words: &[u16; 16]) -> Row {
        let mut row = Row([0; 32]);
        for (bytes, word) in row.0.as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        row
    }

    #[inline(always)]
    fn look_up(self, row: &Row, index: Bytes) -> Words {
        let row = row.0.as_chunks::<2>().0;
        let mut words = [0; LANES];
        for (word, index) in words.iter_mut().zip(index) {
            *word = u16::from_le_bytes(row[usize::from(index & 15)]);
        }
        words
    }

    #[inline(always)]
    fn map(self, row: &[u8; 16], mut index: Bytes) -> Bytes {
        for index in &mut index {
            *index = row[usize::from(*index & 15)];
        }
        index
    }

    #[inline(always)]
    fn count(self, index: Bytes, marked: u32, counts: &mut [[u32; 2]; 16]) {
        for (lane, index) in index.iter().enumerate() {
            let count = &mut counts[usize::from(index & 15)];
            count[0] += 1;
            count[1] += marked >> lane & 1;
        }
    }

    #[inline(always)]
    fn compress_index(self, index: Bytes, mut marked: u32, to: &mut Bytes) {
        let mut places = to.iter_mut();
        while marked != 0 {
            if let Some(place) = places.next() {
                *place = index[marked.trailing_zeros() as usize];
            }
            marked &= marked - 1;
        }
    }

    #[inline(always)]
    fn compress(self, words: Words, mut marked: u32, to: &mut [u8; GROUP_BYTES]) {
        let mut places = to.as_chunks_mut::<2>().0.iter_mut();
        while marked != 0 {
            if let Some(place) = places.next() {
                *place = words[marked.trailing_zeros() as usize].to_le_bytes();
            }
            marked &= marked - 1;
        }
    }

    #[inline(always)]
    fn expand(self, from: &[u8; GROUP_BYTES], mut marked: u32) -> Words {
        let mut words = [0; LANES];
        let mut places = from.as_chunks::<2>().0.iter();
        while marked != 0 {
            if let Some(place) = places.next() {
                words[marked.trailing_zeros() as usize] = u16::from_le_bytes(*place);
            }
            marked &= marked - 1;
        }
        words
    }

    #[inline(always)]
    fn value_classes(self, values: Words) -> Bytes {
        let mut classes = [0; LANES];
        for (class, value) in classes.iter_mut().zip(values) {
            *class = value_class(value);
        }
        classes
    }

    #[inline(always)]
    fn entries(self, entries: &Entries, context: Bytes, class: Bytes) -> (Words, Words) {
        coder::entries(entries, context, class)
    }

    #[inline(always)]
    fn encode(
        self,
        state: &mut State<Words>,
        marked: Words,
        frequency: Words,
        start: Words,
        words: &mut Writer<'_>,
    ) -> Option<()> {
        coder::encode(self, state, marked, frequency, start, words)
    }

    #[inline(always)]
    fn encode_raw(
        self,
        state: &mut State<Words>,
        marked: Words,
        class: Bytes,
        values: Words,
        words: &mut Writer<'_>,
    ) -> Option<()> {
        coder::encode_raw(self, state, marked, class, values, words)
    }

    #[inline(always)]
    fn search<'s>(self, contexts: &[Frequencies], slots: &'s mut Slots) -> Self::Search<'s> {
        slots.fill(contexts)
    }

    #[inline(always)]
    fn find(self, search: &&[u32; SLOTS], context: Bytes, slot: Words) -> Found<Self> {
        coder::find(search, context, slot)
    }

    #[inline(always)]
    fn step(self, state: &mut State<Words>, frequency: Words, offset: Words) {
        coder::step(state, frequency, offset);
    }

    #[inline(always)]
    fn take_raw(self, state: &mut State<Words>, class: Bytes) -> Words {
        coder::take_raw(state, class)
    }

    #[inline(always)]
    fn refill(self, state: &mut State<Words>, words: &mut Reader<'_>) -> Option<()> {
        coder::refill(self, state, words)
    }
}
