//! The lanes in eight registers of 256 bits.

use std::arch::x86_64::*;

use super::super::Decoded;
use super::super::dispatch::Isa;
use super::super::rans::{COMPRESS, EXPAND, look_up_short};
use super::groups::{Bytes, GROUP_BYTES, LANES, Words};
use super::lanes::Lanes;
use super::stacks::{Stacks, WORD_BYTES};
use super::{Parts, decode, encode, model};

/// Encodes a block.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn encode_block(raw: &[u8], base: &[u8], scratch: &mut Parts<'_>, out: &mut Vec<u8>) {
    encode::encode_block(Avx2(()), Isa::Avx2, raw, base, scratch, out);
}

/// Decodes a block.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn decode_block(
    body: &mut &[u8],
    base: &[u8],
    scratch: &mut Parts<'_>,
    out: &mut [u8],
) -> Decoded<()> {
    decode::decode_block(Avx2(()), Isa::Avx2, body, base, scratch, out)
}

/// AVX2: it exists only inside the two functions above, and so only where the processor has it.
#[derive(Clone, Copy)]
struct Avx2(());

/// Lanes of a register.
const STEP: usize = 8;

/// Uses intrinsics that need nothing but the instruction set.
macro_rules! avx2 {
    ($($body:tt)*) => {
        // SAFETY: an `Avx2` exists, so the processor has the instructions; none of these touches memory, or only
        // behind references to as many bytes as it moves.
        unsafe { $($body)* }
    };
}

/// The places of words instead of those of bytes.
const fn widened(bytes: &[[u8; STEP]; 256]) -> [[u32; STEP]; 256] {
    let mut words = [[0; STEP]; 256];
    let mut place = 0;
    while place < 256 * STEP {
        words[place / STEP][place % STEP] = bytes[place / STEP][place % STEP] as u32;
        place += 1;
    }
    words
}

/// For each set of lanes, which of the next words each takes.
static WIDE_EXPAND: [[u32; STEP]; 256] = widened(&EXPAND);
/// For each set of lanes, how their words come to the end.
static WIDE_COMPRESS: [[u32; STEP]; 256] = widened(&COMPRESS);

/// Eight words.
#[inline(always)]
fn load(words: &[u32; STEP]) -> __m256i {
    avx2!(_mm256_loadu_si256(words.as_ptr().cast()))
}

/// Eight words from `at` on.
#[inline(always)]
fn load_words(words: &Words, at: usize) -> __m256i {
    load(words[at..].first_chunk().expect("eight lanes are left"))
}

/// Puts eight words from `at` on.
#[inline(always)]
fn store_words(words: &mut Words, at: usize, value: __m256i) {
    let part: &mut [u32; STEP] = words[at..].first_chunk_mut().expect("eight lanes are left");
    avx2!(_mm256_storeu_si256(part.as_mut_ptr().cast(), value));
}

/// Eight bytes from `at` on, in the lower half of a register.
#[inline(always)]
fn load_part(bytes: &Bytes, at: usize) -> __m128i {
    let part: &[u8; STEP] = bytes[at..].first_chunk().expect("eight lanes are left");
    avx2!(_mm_loadl_epi64(part.as_ptr().cast()))
}

/// Eight bytes from `at` on as words.
#[inline(always)]
fn load_bytes(bytes: &Bytes, at: usize) -> __m256i {
    avx2!(_mm256_cvtepu8_epi32(load_part(bytes, at)))
}

/// Eight signed bytes from `at` on as words.
#[inline(always)]
fn load_signs(bytes: &Bytes, at: usize) -> __m256i {
    avx2!(_mm256_cvtepi8_epi32(load_part(bytes, at)))
}

/// Eight widths from `at` on as words. They are less than 32; the compiler does not know, and would take care of others.
#[inline(always)]
fn load_widths(widths: &Bytes, at: usize) -> __m256i {
    avx2!(_mm256_and_si256(load_bytes(widths, at), _mm256_set1_epi32(31)))
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn look_up(self, table: &Bytes, index: &Bytes) -> Bytes {
        let mut found = [0; LANES];
        for (found, index) in found.as_chunks_mut::<32>().0.iter_mut().zip(index.as_chunks::<32>().0) {
            avx2!({
                let index = _mm256_loadu_si256(index.as_ptr().cast());
                _mm256_storeu_si256(found.as_mut_ptr().cast(), look_up_short(table, index));
            });
        }
        found
    }

    #[inline(always)]
    fn push(
        self,
        stacks: &mut Stacks,
        values: &Words,
        widths: &Bytes,
        room: &mut [u8; GROUP_BYTES],
    ) -> usize {
        let mut end = GROUP_BYTES;
        avx2!({
            let all = _mm256_set1_epi32(32);
            for at in (0..LANES).step_by(STEP).rev() {
                let (bits, count) = (load_words(&stacks.bits, at), load_words(&stacks.counts, at));
                let width = load_widths(widths, at);
                let rest = _mm256_sub_epi32(all, width);
                // The new bits at the top of a word.
                let new = _mm256_sllv_epi32(load_words(values, at), rest);
                let longer = _mm256_add_epi32(count, width);
                let full = _mm256_cmpgt_epi32(longer, all);
                let oldest = _mm256_or_si256(
                    _mm256_sllv_epi32(bits, _mm256_sub_epi32(all, count)),
                    _mm256_srlv_epi32(new, count),
                );
                let marks = _mm256_movemask_ps(_mm256_castsi256_ps(full)).cast_unsigned() as usize;
                let leaving = _mm256_permutevar8x32_epi32(oldest, load(&WIDE_COMPRESS[marks]));
                // At most eight words are written before each of the steps that are left.
                _mm256_storeu_si256(
                    room[..end].last_chunk_mut::<32>().expect("room for eight").as_mut_ptr().cast(),
                    leaving,
                );
                end -= WORD_BYTES * marks.count_ones() as usize;
                let bits = _mm256_or_si256(_mm256_sllv_epi32(bits, width), _mm256_srlv_epi32(new, rest));
                store_words(&mut stacks.bits, at, bits);
                store_words(&mut stacks.counts, at, _mm256_sub_epi32(longer, _mm256_and_si256(full, all)));
            }
        });
        (GROUP_BYTES - end) / WORD_BYTES
    }

    #[inline(always)]
    fn add_differences(
        self,
        parts: &model::Parts,
        stacks: &mut Stacks,
        words: &[u8; GROUP_BYTES],
        elements: &mut Words,
    ) -> usize {
        let mut next = 0;
        avx2!({
            let all = _mm256_set1_epi32(32);
            for at in (0..LANES).step_by(STEP) {
                let (bits, count) = (load_words(&stacks.bits, at), load_words(&stacks.counts, at));
                let width = load_widths(&parts.widths, at);
                let long = _mm256_cmpgt_epi32(count, width);
                let marks = _mm256_movemask_ps(_mm256_castsi256_ps(long)).cast_unsigned() as usize ^ 255;
                let word: &[u8; 4 * STEP] = words[next..].first_chunk().expect("eight words are left");
                let word = _mm256_loadu_si256(word.as_ptr().cast());
                let word = _mm256_permutevar8x32_epi32(word, load(&WIDE_EXPAND[marks]));
                next += WORD_BYTES * marks.count_ones() as usize;
                // Lanes that take no word have one all the same: above the bits that count.
                let joined = _mm256_or_si256(bits, _mm256_sllv_epi32(word, count));
                let raw = _mm256_andnot_si256(_mm256_sllv_epi32(_mm256_set1_epi32(-1), width), joined);
                // Shifts by more than 31, as of lanes that take no word, give 0.
                let rest = _mm256_or_si256(
                    _mm256_srlv_epi32(bits, width),
                    _mm256_srlv_epi32(word, _mm256_sub_epi32(width, count)),
                );
                store_words(&mut stacks.bits, at, rest);
                let more = _mm256_andnot_si256(long, all);
                store_words(&mut stacks.counts, at, _mm256_add_epi32(_mm256_sub_epi32(count, width), more));

                let value = _mm256_or_si256(_mm256_sllv_epi32(load_bytes(&parts.leads, at), width), raw);
                let difference = _mm256_sign_epi32(value, load_signs(&parts.signs, at));
                store_words(elements, at, _mm256_add_epi32(load_words(elements, at), difference));
            }
        });
        next / WORD_BYTES
    }
}
