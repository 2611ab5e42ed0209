//! Look-ups, classes and steps of the encoder.

use std::arch::x86_64::*;

use super::super::lanes::{Entries, Lanes, State, Writer};
use super::super::model::{FIRST_VALUE, RAW_BITS, VALUE_CLASSES, Window, value_class};
use super::{Avx512, LOWER_BYTES, avx512};

/// The value classes of small values and of multiples of 32.
#[allow(clippy::cast_possible_truncation, reason = "a constant: there are no conversions by traits")]
static SMALL_CLASSES: [[u8; 128]; 2] = {
    let mut classes = [[0; 128]; 2];
    let mut i = 0;
    while i < 128 {
        classes[0][i] = value_class(i as u16);
        classes[1][i] = value_class(32 * i as u16);
        i += 1;
    }
    classes
};

#[allow(clippy::cast_possible_truncation, reason = "a constant: there are no conversions by traits")]
static RAW_BITS_WORDS: [u16; VALUE_CLASSES] = {
    let mut words = [0; VALUE_CLASSES];
    let mut class = 0;
    while class < VALUE_CLASSES {
        words[class] = RAW_BITS[class] as u16;
        class += 1;
    }
    words
};

/// Bytes of a table at places below 128.
#[inline(always)]
fn by_place(table: &[u8; 128], place: __m512i) -> __m512i {
    let halves = table.as_chunks::<64>().0;
    avx512!({
        let low = _mm512_loadu_si512(halves[0].as_ptr().cast());
        let high = _mm512_loadu_si512(halves[1].as_ptr().cast());
        _mm512_maskz_permutex2var_epi8(LOWER_BYTES, low, place, high)
    })
}

/// Words of a table at value classes.
#[inline(always)]
fn by_class(table: &[u16; VALUE_CLASSES], class: __m512i) -> __m512i {
    avx512!(_mm512_permutexvar_epi16(class, _mm512_loadu_si512(table.as_ptr().cast())))
}

#[inline(always)]
pub(super) fn value_classes(values: __m512i) -> __m512i {
    avx512!({
        if _mm512_cmpge_epu16_mask(values, _mm512_set1_epi16(4096)) == 0 {
            // Usually: from 128 on, no class begins between multiples of 32.
            let small = by_place(&SMALL_CLASSES[0], values);
            let larger = by_place(&SMALL_CLASSES[1], _mm512_srli_epi16::<5>(values));
            let is_larger = _mm512_cmpge_epu16_mask(values, _mm512_set1_epi16(128));
            return _mm512_mask_mov_epi16(small, is_larger, larger);
        }
        let low = octave_classes(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(values)));
        let high = octave_classes(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(values)));
        let class = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        // The last two octaves are whole: 30, 31, 32, 33 become 30, 30, 31, 31.
        let last = _mm512_srli_epi16::<1>(_mm512_add_epi16(class, _mm512_set1_epi16(30)));
        let is_last = _mm512_cmpge_epu16_mask(values, _mm512_set1_epi16(16384));
        let class = _mm512_mask_mov_epi16(class, is_last, last);
        _mm512_mask_mov_epi16(class, _mm512_cmplt_epu16_mask(values, _mm512_set1_epi16(8)), values)
    })
}

/// Two classes an octave: the conversion to floats finds the octave (in the exponent) and the bit below it (at the top of
/// the fraction). An octave of 3 is an exponent of 130, and class 8.
#[inline(always)]
fn octave_classes(values: __m512i) -> __m256i {
    avx512!({
        let bits = _mm512_srli_epi32::<22>(_mm512_castps_si512(_mm512_cvtepi32_ps(values)));
        _mm512_cvtepi32_epi16(_mm512_sub_epi32(bits, _mm512_set1_epi32(252)))
    })
}

#[inline(always)]
pub(super) fn entries(entries: &Entries, context: __m512i, class: __m512i) -> (__m512i, __m512i) {
    // SAFETY: an `Avx512` exists. The places are below 512: contexts have 4 bits and classes 5.
    unsafe {
        let place = _mm512_or_si512(_mm512_slli_epi16::<5>(context), class);
        let place = _mm512_and_si512(place, _mm512_set1_epi16(511));
        let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(place));
        let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(place));
        let low = _mm512_i32gather_epi32::<4>(low, entries.as_ptr().cast());
        let high = _mm512_i32gather_epi32::<4>(high, entries.as_ptr().cast());
        let even = _mm512_loadu_si512(EVEN.as_ptr().cast());
        let odd = _mm512_add_epi16(even, _mm512_set1_epi16(1));
        let starts = _mm512_permutex2var_epi16(low, even, high);
        (_mm512_permutex2var_epi16(low, odd, high), starts)
    }
}

/// The even words of two registers.
#[allow(clippy::cast_possible_truncation, reason = "a constant: there are no conversions by traits")]
static EVEN: [u16; 32] = {
    let mut words = [0; 32];
    let mut i = 0;
    while i < 32 {
        words[i] = 2 * i as u16;
        i += 1;
    }
    words
};

/// Writes the lower halves of the marked states and moves the upper ones down.
#[inline(always)]
fn emit(lanes: Avx512, state: &mut State<__m512i>, marked: __mmask32, words: &mut Writer<'_>) -> Option<()> {
    lanes.compress(state.low, marked, words.room()?);
    words.advance(marked.count_ones() as usize);
    avx512!({
        state.low = _mm512_mask_mov_epi16(state.low, marked, state.high);
        state.high = _mm512_maskz_mov_epi16(!marked, state.high);
    });
    Some(())
}

#[inline(always)]
pub(super) fn encode(
    lanes: Avx512,
    state: &mut State<__m512i>,
    marked: __mmask32,
    frequency: __m512i,
    start: __m512i,
    words: &mut Writer<'_>,
) -> Option<()> {
    let full = avx512!(_mm512_mask_cmpge_epu16_mask(marked, state.high, frequency));
    emit(lanes, state, full, words)?;
    avx512!({
        let zero = _mm512_setzero_si512();
        let (q0, r0) =
            divide(_mm512_unpacklo_epi16(state.low, state.high), _mm512_unpacklo_epi16(frequency, zero));
        let (q1, r1) =
            divide(_mm512_unpackhi_epi16(state.low, state.high), _mm512_unpackhi_epi16(frequency, zero));
        let rest = _mm512_add_epi16(_mm512_packus_epi32(r0, r1), start);
        state.high = _mm512_mask_mov_epi16(state.high, marked, _mm512_packus_epi32(q0, q1));
        state.low = _mm512_mask_mov_epi16(state.low, marked, rest);
    });
    Some(())
}

/// Quotients and remainders, exact where the quotient is below 2^16: in floats it is off by one at most (the reciprocal is
/// good to 2^-21 after a step of Newton's), and put right.
#[inline(always)]
fn divide(x: __m512i, by: __m512i) -> (__m512i, __m512i) {
    avx512!({
        let float = _mm512_cvtepi32_ps(by);
        let rough = _mm512_rcp14_ps(float);
        let reciprocal = _mm512_mul_ps(rough, _mm512_fnmadd_ps(float, rough, _mm512_set1_ps(2.0)));
        let quotient = _mm512_cvttps_epu32(_mm512_mul_ps(_mm512_cvtepu32_ps(x), reciprocal));
        let rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, by));
        let one = _mm512_set1_epi32(1);
        let too_great = _mm512_movepi32_mask(rest);
        let quotient = _mm512_mask_sub_epi32(quotient, too_great, quotient, one);
        let rest = _mm512_mask_add_epi32(rest, too_great, rest, by);
        let too_small = _mm512_cmpge_epi32_mask(rest, by);
        let quotient = _mm512_mask_add_epi32(quotient, too_small, quotient, one);
        (quotient, _mm512_mask_sub_epi32(rest, too_small, rest, by))
    })
}

#[inline(always)]
pub(super) fn encode_raw(
    lanes: Avx512,
    state: &mut State<__m512i>,
    marked: __mmask32,
    class: __m512i,
    values: __m512i,
    words: &mut Writer<'_>,
) -> Option<()> {
    let bits = by_class(&RAW_BITS_WORDS, class);
    let marked = avx512!(_mm512_mask_test_epi16_mask(marked, bits, bits));
    if marked == 0 {
        return Some(());
    }
    // Shifts by 16 give 0: no bits, no overflow.
    let overflow = avx512!(_mm512_srlv_epi16(state.high, _mm512_sub_epi16(_mm512_set1_epi16(16), bits)));
    emit(lanes, state, avx512!(_mm512_mask_test_epi16_mask(marked, overflow, overflow)), words)?;
    avx512!({
        let raw = _mm512_sub_epi16(values, by_class(&FIRST_VALUE, class));
        let low = _mm512_or_si512(_mm512_sllv_epi16(state.low, bits), raw);
        state.high =
            _mm512_mask_mov_epi16(state.high, marked, _mm512_shldv_epi16(state.high, state.low, bits));
        state.low = _mm512_mask_mov_epi16(state.low, marked, low);
    });
    Some(())
}

#[inline(always)]
pub(super) fn exponent_classes(base: __m512i, window: &Window) -> __m512i {
    avx512!({
        let shifted = _mm512_srl_epi16(base, _mm_cvtsi32_si128(window.shift.cast_signed()));
        let exponent = _mm512_and_si512(shifted, _mm512_set1_epi16(window.mask.cast_signed()));
        let lowest = _mm512_set1_epi16(i16::from(window.lowest));
        _mm512_min_epu16(_mm512_subs_epu16(exponent, lowest), _mm512_set1_epi16(15))
    })
}
