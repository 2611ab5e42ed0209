//! The lanes in one register of 512 bits. An index has 16 bits a lane.

mod coder;
mod tree;

use std::arch::x86_64::*;

use super::super::Decoded;
use super::frequencies::Frequencies;
use super::lanes::{Entries, Found, Lanes, Reader, Row, Slots, State, Writer};
use super::model::{GROUP_BYTES, Kind, LANES, Window};
use super::{BlockScratch, decode, encode};
use tree::Tree;

/// Encodes a block.
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt,lzcnt"
)]
pub(super) fn encode_block(
    raw: &[u8],
    base: &[u8],
    kind: Kind,
    scratch: &mut BlockScratch,
    out: &mut Vec<u8>,
) {
    encode::encode_block(Avx512(()), raw, base, kind, scratch, out);
}

/// Decodes a block.
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt,lzcnt"
)]
pub(super) fn decode_block(
    body: &mut &[u8],
    base: &[u8],
    kind: Kind,
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Decoded<()> {
    decode::decode_block(Avx512(()), body, base, kind, scratch, out)
}

/// AVX-512: it exists only inside the two functions above, and so only where the processor has it.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// Uses intrinsics that need nothing but the instruction set.
macro_rules! avx512 {
    ($($body:tt)*) => {
        // SAFETY: an `Avx512` exists, so the processor has the instructions; none of these touches memory, or only
        // behind references to as many bytes as it moves.
        unsafe { $($body)* }
    };
}
use avx512;

/// The lower byte of each word.
const LOWER_BYTES: __mmask64 = 0x5555_5555_5555_5555;

impl Lanes for Avx512 {
    type Words = __m512i;
    type Mask = __mmask32;
    type Index = __m512i;
    /// With its five bits in reverse: as the search tree has it.
    type Class = __m512i;
    type Search<'s> = Tree;

    #[inline(always)]
    fn splat(self, word: u16) -> __m512i {
        avx512!(_mm512_set1_epi16(word.cast_signed()))
    }

    #[inline(always)]
    fn load(self, from: &[u8; GROUP_BYTES]) -> __m512i {
        avx512!(_mm512_loadu_si512(from.as_ptr().cast()))
    }

    #[inline(always)]
    fn store(self, words: __m512i, to: &mut [u8; GROUP_BYTES]) {
        avx512!(_mm512_storeu_si512(to.as_mut_ptr().cast(), words));
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_and_si512(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_xor_si512(a, b))
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_add_epi16(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_sub_epi16(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_max_epu16(a, b))
    }

    #[inline(always)]
    fn sign(self, words: __m512i) -> __m512i {
        avx512!(_mm512_srai_epi16::<15>(words))
    }

    #[inline(always)]
    fn double(self, words: __m512i) -> __m512i {
        avx512!(_mm512_slli_epi16::<1>(words))
    }

    #[inline(always)]
    fn half(self, words: __m512i) -> __m512i {
        avx512!(_mm512_srli_epi16::<1>(words))
    }

    #[inline(always)]
    fn at_least(self, a: __m512i, b: __m512i) -> __mmask32 {
        avx512!(_mm512_cmpge_epu16_mask(a, b))
    }

    #[inline(always)]
    fn equal(self, a: __m512i, b: __m512i) -> __mmask32 {
        avx512!(_mm512_cmpeq_epi16_mask(a, b))
    }

    #[inline(always)]
    fn select(self, mask: __mmask32, yes: __m512i, no: __m512i) -> __m512i {
        avx512!(_mm512_mask_blend_epi16(mask, no, yes))
    }

    #[inline(always)]
    fn only(self, mask: __mmask32, words: __m512i) -> __m512i {
        avx512!(_mm512_maskz_mov_epi16(mask, words))
    }

    #[inline(always)]
    fn bits(self, mask: __mmask32) -> u32 {
        mask
    }

    #[inline(always)]
    fn mask(self, bits: u32) -> __mmask32 {
        bits
    }

    #[inline(always)]
    fn exponent_classes(self, base: __m512i, window: &Window) -> __m512i {
        coder::exponent_classes(base, window)
    }

    #[inline(always)]
    fn load_index(self, from: &[u8; LANES]) -> __m512i {
        avx512!(_mm512_cvtepu8_epi16(_mm256_loadu_si256(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn store_index(self, index: __m512i, to: &mut [u8; LANES]) {
        avx512!(_mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi16_epi8(index)));
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
    fn look_up(self, row: &Row, index: __m512i) -> __m512i {
        avx512!({
            let words = _mm512_castsi256_si512(_mm256_load_si256(row.0.as_ptr().cast()));
            _mm512_permutexvar_epi16(index, words)
        })
    }

    #[inline(always)]
    fn map(self, row: &[u8; 16], index: __m512i) -> __m512i {
        avx512!({
            let bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(row.as_ptr().cast()));
            _mm512_maskz_shuffle_epi8(LOWER_BYTES, bytes, index)
        })
    }

    #[inline(always)]
    fn count(self, index: __m512i, marked: u32, counts: &mut [[u32; 2]; 16]) {
        for (count, number) in counts.iter_mut().zip(0..) {
            let here = avx512!(_mm512_cmpeq_epi16_mask(index, _mm512_set1_epi16(number)));
            count[0] += here.count_ones();
            count[1] += (here & marked).count_ones();
        }
    }

    #[inline(always)]
    fn compress_index(self, index: __m512i, marked: u32, to: &mut [u8; LANES]) {
        avx512!({
            let bytes = _mm256_maskz_compress_epi8(marked, _mm512_cvtepi16_epi8(index));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes);
        });
    }

    #[inline(always)]
    fn compress(self, words: __m512i, marked: u32, to: &mut [u8; GROUP_BYTES]) {
        self.store(avx512!(_mm512_maskz_compress_epi16(marked, words)), to);
    }

    #[inline(always)]
    fn expand(self, from: &[u8; GROUP_BYTES], marked: u32) -> __m512i {
        avx512!(_mm512_maskz_expand_epi16(marked, self.load(from)))
    }

    #[inline(always)]
    fn value_classes(self, values: __m512i) -> __m512i {
        coder::value_classes(values)
    }

    #[inline(always)]
    fn entries(self, entries: &Entries, context: __m512i, class: __m512i) -> (__m512i, __m512i) {
        coder::entries(entries, context, class)
    }

    #[inline(always)]
    fn encode(
        self,
        state: &mut State<__m512i>,
        marked: __mmask32,
        frequency: __m512i,
        start: __m512i,
        words: &mut Writer<'_>,
    ) -> Option<()> {
        coder::encode(self, state, marked, frequency, start, words)
    }

    #[inline(always)]
    fn encode_raw(
        self,
        state: &mut State<__m512i>,
        marked: __mmask32,
        class: __m512i,
        values: __m512i,
        words: &mut Writer<'_>,
    ) -> Option<()> {
        coder::encode_raw(self, state, marked, class, values, words)
    }

    #[inline(always)]
    fn search(self, contexts: &[Frequencies], _: &mut Slots) -> Tree {
        Tree::new(contexts)
    }

    #[inline(always)]
    fn find(self, search: &Tree, context: __m512i, slot: __m512i) -> Found<Self> {
        search.find(context, slot)
    }

    #[inline(always)]
    fn step(self, state: &mut State<__m512i>, frequency: __m512i, offset: __m512i) {
        avx512!({
            let product = _mm512_mullo_epi16(frequency, state.high);
            let high = _mm512_mulhi_epu16(frequency, state.high);
            state.low = _mm512_add_epi16(product, offset);
            let carry = _mm512_cmplt_epu16_mask(state.low, offset);
            state.high = _mm512_mask_sub_epi16(high, carry, high, _mm512_set1_epi16(-1));
        });
    }

    #[inline(always)]
    fn take_raw(self, state: &mut State<__m512i>, class: __m512i) -> __m512i {
        tree::take_raw(state, class)
    }

    #[inline(always)]
    fn refill(self, state: &mut State<__m512i>, words: &mut Reader<'_>) -> Option<()> {
        let empty = avx512!(_mm512_testn_epi16_mask(state.high, state.high));
        let next = self.load(words.take(empty.count_ones() as usize)?);
        avx512!({
            state.high = _mm512_mask_mov_epi16(state.high, empty, state.low);
            state.low = _mm512_mask_expand_epi16(state.low, empty, next);
        });
        Some(())
    }
}
