//! Moving marked lanes together and apart, 8 at a time.

use std::arch::x86_64::*;

use super::super::model::{GROUP_BYTES, LANES};
use super::super::shuffles::{COMPRESS_BYTES, COMPRESS_WORDS, EXPAND_WORDS, Shuffles};
use super::{Words, avx2};

/// How many are marked before each part of 8 lanes.
#[inline(always)]
fn marked_before(marks: [u8; 4]) -> [usize; 4] {
    let first = marks[0].count_ones() as usize;
    let second = first + marks[1].count_ones() as usize;
    [0, first, second, second + marks[2].count_ones() as usize]
}

/// The shuffles of two parts.
#[inline(always)]
fn shuffles(of: &Shuffles<16>, low: u8, high: u8) -> __m256i {
    let (low, high) = (&of.0[usize::from(low)], &of.0[usize::from(high)]);
    avx2!(_mm256_loadu2_m128i(high.as_ptr().cast(), low.as_ptr().cast()))
}

/// See [`Lanes::expand`](super::super::lanes::Lanes::expand).
#[inline(always)]
pub(super) fn expand(from: &[u8; GROUP_BYTES], marks: [u8; 4]) -> Words {
    let before = marked_before(marks);
    let from = from.as_ptr();
    // SAFETY: at most 8 words a part come before the next, so 8 words can be read of the 32 that there are; AVX2 is there,
    // because this is called for an `Avx2`.
    unsafe {
        let low = _mm256_loadu2_m128i(from.add(2 * before[1]).cast(), from.cast());
        let high = _mm256_loadu2_m128i(from.add(2 * before[3]).cast(), from.add(2 * before[2]).cast());
        [
            _mm256_shuffle_epi8(low, shuffles(&EXPAND_WORDS, marks[0], marks[1])),
            _mm256_shuffle_epi8(high, shuffles(&EXPAND_WORDS, marks[2], marks[3])),
        ]
    }
}

/// See [`Lanes::compress`](super::super::lanes::Lanes::compress).
#[inline(always)]
pub(super) fn compress(words: Words, marked: u32, to: &mut [u8; GROUP_BYTES]) {
    let marks = marked.to_le_bytes();
    let before = marked_before(marks);
    let target = to.as_mut_ptr();
    // SAFETY: at most 8 words a part come before the next, so 8 words can be written to the 32 that there are; AVX2 is
    // there, because this is called for an `Avx2`.
    unsafe {
        let low = _mm256_shuffle_epi8(words[0], shuffles(&COMPRESS_WORDS, marks[0], marks[1]));
        let high = _mm256_shuffle_epi8(words[1], shuffles(&COMPRESS_WORDS, marks[2], marks[3]));
        _mm_storeu_si128(target.cast(), _mm256_castsi256_si128(low));
        _mm_storeu_si128(target.add(2 * before[1]).cast(), _mm256_extracti128_si256::<1>(low));
        _mm_storeu_si128(target.add(2 * before[2]).cast(), _mm256_castsi256_si128(high));
        _mm_storeu_si128(target.add(2 * before[3]).cast(), _mm256_extracti128_si256::<1>(high));
    }
}

/// See [`Lanes::compress_index`](super::super::lanes::Lanes::compress_index).
#[inline(always)]
pub(super) fn compress_index(index: __m256i, marked: u32, to: &mut [u8; LANES]) {
    let marks = marked.to_le_bytes();
    let before = marked_before(marks);
    let parts = avx2!({
        // Lanes 0 to 7 and 16 to 23; 8 to 15 and 24 to 31.
        let even = _mm256_castsi256_si128(index);
        let odd = _mm256_extracti128_si256::<1>(index);
        [even, odd, _mm_unpackhi_epi64(even, even), _mm_unpackhi_epi64(odd, odd)]
    });
    for part in 0..4 {
        // SAFETY: at most 8 bytes a part come before the next, so 8 bytes can be written to the 32 that there are; the
        // table has 8 bytes at each place; AVX2 is there, where there is an index.
        unsafe {
            let shuffle = _mm_loadl_epi64(COMPRESS_BYTES.0[usize::from(marks[part])].as_ptr().cast());
            let bytes = _mm_shuffle_epi8(parts[part], shuffle);
            _mm_storel_epi64(to.as_mut_ptr().add(before[part]).cast(), bytes);
        }
    }
}
