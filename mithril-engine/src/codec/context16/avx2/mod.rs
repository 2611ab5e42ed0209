//! The lanes in two registers of 256 bits.
//!
//! An index has the bytes of lanes 0 to 7, 16 to 23, 8 to 15, 24 to 31: so packing two registers of words into one of bytes,
//! and back, stays within halves of registers, which is all that AVX2 does at once.

mod coder;
mod moves;
mod tables;

use std::arch::x86_64::*;

use super::super::Decoded;
use super::frequencies::Frequencies;
use super::lanes::{Entries, Found, Lanes, Reader, Row, SLOTS, Slots, State, Writer};
use super::model::{GROUP_BYTES, Kind, LANES, Window};
use super::{BlockScratch, decode, encode};

/// Encodes a block.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn encode_block(
    raw: &[u8],
    base: &[u8],
    kind: Kind,
    scratch: &mut BlockScratch,
    out: &mut Vec<u8>,
) {
    encode::encode_block(Avx2(()), raw, base, kind, scratch, out);
}

/// Decodes a block.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn decode_block(
    body: &mut &[u8],
    base: &[u8],
    kind: Kind,
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Decoded<()> {
    decode::decode_block(Avx2(()), body, base, kind, scratch, out)
}

/// AVX2: it exists only inside the two functions above, and so only where the processor has it.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Lanes 0 to 15, and 16 to 31.
type Words = [__m256i; 2];

/// Uses intrinsics that need nothing but the instruction set.
macro_rules! avx2 {
    ($($body:tt)*) => {
        // SAFETY: an `Avx2` exists, so the processor has the instructions; none of these touches memory, or only
        // behind references to as many bytes as it moves.
        unsafe { $($body)* }
    };
}
use avx2;

/// The same for both registers. Not a closure: that would not be compiled for these instructions.
macro_rules! both {
    ($i:ident => $each:expr) => {
        [
            {
                let $i = 0;
                $each
            },
            {
                let $i = 1;
                $each
            },
        ]
    };
}
use both;

impl Lanes for Avx2 {
    type Words = Words;
    /// All ones or 0.
    type Mask = Words;
    type Index = __m256i;
    type Class = __m256i;
    type Search<'s> = &'s [u32; SLOTS];

    #[inline(always)]
    fn splat(self, word: u16) -> Words {
        avx2!([_mm256_set1_epi16(word.cast_signed()); 2])
    }

    #[inline(always)]
    fn load(self, from: &[u8; GROUP_BYTES]) -> Words {
        let halves = from.as_chunks::<32>().0;
        avx2!([_mm256_loadu_si256(halves[0].as_ptr().cast()), _mm256_loadu_si256(halves[1].as_ptr().cast())])
    }

    #[inline(always)]
    fn store(self, words: Words, to: &mut [u8; GROUP_BYTES]) {
        let halves = to.as_chunks_mut::<32>().0;
        avx2!({
            _mm256_storeu_si256(halves[0].as_mut_ptr().cast(), words[0]);
            _mm256_storeu_si256(halves[1].as_mut_ptr().cast(), words[1]);
        });
    }

    #[inline(always)]
    fn and(self, a: Words, b: Words) -> Words {
        avx2!([_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])])
    }

    #[inline(always)]
    fn or(self, a: Words, b: Words) -> Words {
        avx2!([_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])])
    }

    #[inline(always)]
    fn xor(self, a: Words, b: Words) -> Words {
        avx2!([_mm256_xor_si256(a[0], b[0]), _mm256_xor_si256(a[1], b[1])])
    }

    #[inline(always)]
    fn add(self, a: Words, b: Words) -> Words {
        avx2!([_mm256_add_epi16(a[0], b[0]), _mm256_add_epi16(a[1], b[1])])
    }

    #[inline(always)]
    fn sub(self, a: Words, b: Words) -> Words {
        avx2!([_mm256_sub_epi16(a[0], b[0]), _mm256_sub_epi16(a[1], b[1])])
    }

    #[inline(always)]
    fn max(self, a: Words, b: Words) -> Words {
        avx2!([_mm256_max_epu16(a[0], b[0]), _mm256_max_epu16(a[1], b[1])])
    }

    #[inline(always)]
    fn sign(self, words: Words) -> Words {
        avx2!([_mm256_srai_epi16::<15>(words[0]), _mm256_srai_epi16::<15>(words[1])])
    }

    #[inline(always)]
    fn double(self, words: Words) -> Words {
        self.add(words, words)
    }

    #[inline(always)]
    fn half(self, words: Words) -> Words {
        avx2!([_mm256_srli_epi16::<1>(words[0]), _mm256_srli_epi16::<1>(words[1])])
    }

    #[inline(always)]
    fn at_least(self, a: Words, b: Words) -> Words {
        self.equal(self.max(a, b), a)
    }

    #[inline(always)]
    fn equal(self, a: Words, b: Words) -> Words {
        avx2!([_mm256_cmpeq_epi16(a[0], b[0]), _mm256_cmpeq_epi16(a[1], b[1])])
    }

    #[inline(always)]
    fn select(self, mask: Words, yes: Words, no: Words) -> Words {
        avx2!([_mm256_blendv_epi8(no[0], yes[0], mask[0]), _mm256_blendv_epi8(no[1], yes[1], mask[1])])
    }

    #[inline(always)]
    fn only(self, mask: Words, words: Words) -> Words {
        self.and(mask, words)
    }

    #[inline(always)]
    fn bits(self, mask: Words) -> u32 {
        let bytes = avx2!(_mm256_packs_epi16(mask[0], mask[1]));
        avx2!(_mm256_movemask_epi8(in_order(bytes))).cast_unsigned()
    }

    #[inline(always)]
    fn mask(self, bits: u32) -> Words {
        tables::mask(bits)
    }

    #[inline(always)]
    fn exponent_classes(self, base: Words, window: &Window) -> __m256i {
        tables::exponent_classes(base, window)
    }

    #[inline(always)]
    fn load_index(self, from: &[u8; LANES]) -> __m256i {
        in_order(avx2!(_mm256_loadu_si256(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn store_index(self, index: __m256i, to: &mut [u8; LANES]) {
        avx2!(_mm256_storeu_si256(to.as_mut_ptr().cast(), in_order(index)));
    }

    #[inline(always)]
    fn row(self, words: &[u16; 16]) -> Row {
        tables::row(words)
    }

    #[inline(always)]
    fn look_up(self, row: &Row, index: __m256i) -> Words {
        tables::look_up(row, index)
    }

    #[inline(always)]
    fn map(self, row: &[u8; 16], index: __m256i) -> __m256i {
        avx2!(_mm256_shuffle_epi8(tables::twice(row), index))
    }

    #[inline(always)]
    fn count(self, index: __m256i, marked: u32, counts: &mut [[u32; 2]; 16]) {
        let index = in_order(index);
        for (count, number) in counts.iter_mut().zip(0..) {
            let here = avx2!(_mm256_movemask_epi8(_mm256_cmpeq_epi8(index, _mm256_set1_epi8(number))));
            count[0] += here.count_ones();
            count[1] += (here.cast_unsigned() & marked).count_ones();
        }
    }

    #[inline(always)]
    fn compress_index(self, index: __m256i, marked: u32, to: &mut [u8; LANES]) {
        moves::compress_index(index, marked, to);
    }

    #[inline(always)]
    fn compress(self, words: Words, marked: u32, to: &mut [u8; GROUP_BYTES]) {
        moves::compress(words, marked, to);
    }

    #[inline(always)]
    fn expand(self, from: &[u8; GROUP_BYTES], marked: u32) -> Words {
        moves::expand(from, marked.to_le_bytes())
    }

    #[inline(always)]
    fn value_classes(self, values: Words) -> __m256i {
        tables::value_classes(values)
    }

    #[inline(always)]
    fn entries(self, entries: &Entries, context: __m256i, class: __m256i) -> (Words, Words) {
        tables::entries(entries, context, class)
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
        class: __m256i,
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
    fn find(self, search: &&[u32; SLOTS], context: __m256i, slot: Words) -> Found<Self> {
        tables::find(search, context, slot)
    }

    #[inline(always)]
    fn step(self, state: &mut State<Words>, frequency: Words, offset: Words) {
        coder::step(state, frequency, offset);
    }

    #[inline(always)]
    fn take_raw(self, state: &mut State<Words>, class: __m256i) -> Words {
        coder::take_raw(self, state, class)
    }

    #[inline(always)]
    fn refill(self, state: &mut State<Words>, words: &mut Reader<'_>) -> Option<()> {
        coder::refill(self, state, words)
    }
}

/// The bytes of an index in the order of the lanes, or back.
#[inline(always)]
fn in_order(index: __m256i) -> __m256i {
    avx2!(_mm256_permute4x64_epi64::<0b11_01_10_00>(index))
}
