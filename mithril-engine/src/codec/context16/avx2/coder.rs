//! Steps of the coder.

use std::arch::x86_64::*;

use super::super::lanes::{Lanes, Reader, Row, State, Writer};
use super::super::model::{FIRST_RAW_CLASS, RAW_BITS};
use super::tables::{by_class, first_values, look_up, row, widen};
use super::{Avx2, Words, avx2, both, moves};

/// `2^bits`, to shift to the left by multiplying.
static LEFT: Row = powers(false);
/// `2^(16 - bits)`, to shift to the right by the upper half of a product; 0 for no bits.
static RIGHT: Row = powers(true);

#[allow(clippy::cast_possible_truncation, reason = "a constant: there are no conversions by traits")]
const fn powers(right: bool) -> Row {
    let mut words = [0; 16];
    let mut bits = 0;
    while bits < 16 {
        words[bits] = (1u32 << if right { 16 - bits } else { bits }) as u16;
        bits += 1;
    }
    row(&words)
}

/// Whether any of the classes has raw bits.
#[inline(always)]
fn any_raw(class: __m256i) -> bool {
    const { assert!(FIRST_RAW_CLASS == 8) };
    avx2!(_mm256_testz_si256(class, _mm256_set1_epi8(!7)) == 0)
}

#[inline(always)]
pub(super) fn step(state: &mut State<Words>, frequency: Words, offset: Words) {
    avx2!({
        for i in 0..2 {
            let low = _mm256_mullo_epi16(frequency[i], state.high[i]);
            let high = _mm256_mulhi_epu16(frequency[i], state.high[i]);
            let low = _mm256_add_epi16(low, offset[i]);
            // The sum is at least the offset unless it carries: then this is 0, and else -1.
            let no_carry = _mm256_cmpeq_epi16(_mm256_max_epu16(low, offset[i]), low);
            let high = _mm256_sub_epi16(high, _mm256_set1_epi16(-1));
            (state.low[i], state.high[i]) = (low, _mm256_add_epi16(high, no_carry));
        }
    });
}

#[inline(always)]
pub(super) fn refill(lanes: Avx2, state: &mut State<Words>, words: &mut Reader<'_>) -> Option<()> {
    let empty = lanes.equal(state.high, lanes.splat(0));
    let bytes = avx2!(_mm256_packs_epi16(empty[0], empty[1]));
    let [a, c, b, d] = avx2!(_mm256_movemask_epi8(bytes)).to_le_bytes();
    let marks = u32::from_le_bytes([a, b, c, d]);
    let next = words.take(marks.count_ones() as usize)?;
    let next = moves::expand(next, [a, b, c, d]);
    state.high = lanes.or(state.high, lanes.only(empty, state.low));
    state.low = lanes.select(empty, next, state.low);
    Some(())
}

#[inline(always)]
pub(super) fn take_raw(lanes: Avx2, state: &mut State<Words>, class: __m256i) -> Words {
    if !any_raw(class) {
        return widen(class, avx2!(_mm256_setzero_si256()));
    }
    let bits = by_class(&RAW_BITS, class);
    let (left, right) = (look_up(&LEFT, bits), look_up(&RIGHT, bits));
    let raw = lanes.and(state.low, lanes.sub(left, lanes.splat(1)));
    avx2!({
        for i in [0, 1] {
            let low = _mm256_or_si256(
                _mm256_mulhi_epu16(state.low[i], right[i]),
                _mm256_mullo_epi16(state.high[i], right[i]),
            );
            let high = _mm256_mulhi_epu16(state.high[i], right[i]);
            let none = _mm256_cmpeq_epi16(right[i], _mm256_setzero_si256());
            state.low[i] = _mm256_blendv_epi8(low, state.low[i], none);
            state.high[i] = _mm256_blendv_epi8(high, state.high[i], none);
        }
    });
    lanes.add(first_values(class), raw)
}

/// Writes the lower halves of the marked states and moves the upper ones down.
#[inline(always)]
fn emit(lanes: Avx2, state: &mut State<Words>, marked: Words, words: &mut Writer<'_>) -> Option<()> {
    let bits = lanes.bits(marked);
    moves::compress(state.low, bits, words.room()?);
    words.advance(bits.count_ones() as usize);
    state.low = lanes.select(marked, state.high, state.low);
    state.high = avx2!(both!(i => _mm256_andnot_si256(marked[i], state.high[i])));
    Some(())
}

#[inline(always)]
pub(super) fn encode(
    lanes: Avx2,
    state: &mut State<Words>,
    marked: Words,
    frequency: Words,
    start: Words,
    words: &mut Writer<'_>,
) -> Option<()> {
    let full = lanes.and(marked, lanes.at_least(state.high, frequency));
    emit(lanes, state, full, words)?;
    avx2!({
        let zero = _mm256_setzero_si256();
        let (mut high, mut low) = ([zero; 2], [zero; 2]);
        for i in 0..2 {
            let (q0, r0) = divide(
                _mm256_unpacklo_epi16(state.low[i], state.high[i]),
                _mm256_unpacklo_epi16(frequency[i], zero),
            );
            let (q1, r1) = divide(
                _mm256_unpackhi_epi16(state.low[i], state.high[i]),
                _mm256_unpackhi_epi16(frequency[i], zero),
            );
            high[i] = _mm256_packus_epi32(q0, q1);
            low[i] = _mm256_add_epi16(_mm256_packus_epi32(r0, r1), start[i]);
        }
        state.high = lanes.select(marked, high, state.high);
        state.low = lanes.select(marked, low, state.low);
    });
    Some(())
}

/// Quotients and remainders, exact where the quotient is below 2^16.
///
/// The quotient in floats is off by one at most, and put right: the reciprocal is good to 2^-21 after a step of Newton's;
/// x | 1 is taken for x, because only signed numbers convert, and half of it.
#[inline(always)]
fn divide(x: __m256i, by: __m256i) -> (__m256i, __m256i) {
    avx2!({
        let float = _mm256_cvtepi32_ps(by);
        let rough = _mm256_rcp_ps(float);
        let error = _mm256_mul_ps(_mm256_add_ps(float, float), rough);
        let twice_reciprocal = _mm256_mul_ps(rough, _mm256_sub_ps(_mm256_set1_ps(4.0), error));
        let half = _mm256_add_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32::<1>(x)), _mm256_set1_ps(0.5));
        let quotient = _mm256_cvttps_epi32(_mm256_mul_ps(half, twice_reciprocal));
        let rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, by));
        // -1 where it is too great.
        let negative = _mm256_srai_epi32::<31>(rest);
        let quotient = _mm256_add_epi32(quotient, negative);
        let rest = _mm256_add_epi32(rest, _mm256_and_si256(negative, by));
        // -1 where it is not too small.
        let below = _mm256_cmpgt_epi32(by, rest);
        let quotient = _mm256_add_epi32(_mm256_sub_epi32(quotient, _mm256_set1_epi32(-1)), below);
        (quotient, _mm256_sub_epi32(rest, _mm256_andnot_si256(below, by)))
    })
}

#[inline(always)]
pub(super) fn encode_raw(
    lanes: Avx2,
    state: &mut State<Words>,
    marked: Words,
    class: __m256i,
    values: Words,
    words: &mut Writer<'_>,
) -> Option<()> {
    if !any_raw(class) {
        return Some(());
    }
    let bits = by_class(&RAW_BITS, class);
    let (left, right) = (look_up(&LEFT, bits), look_up(&RIGHT, bits));
    let none = lanes.equal(right, lanes.splat(0));
    let overflows = avx2!(both!(i => _mm256_andnot_si256(none[i], marked[i])));
    let full = lanes.and(overflows, lanes.at_least(state.high, right));
    emit(lanes, state, full, words)?;
    let raw = lanes.sub(values, first_values(class));
    avx2!({
        for i in 0..2 {
            let high = _mm256_or_si256(
                _mm256_mullo_epi16(state.high[i], left[i]),
                _mm256_mulhi_epu16(state.low[i], left[i]),
            );
            let low = _mm256_or_si256(_mm256_mullo_epi16(state.low[i], left[i]), raw[i]);
            state.high[i] = _mm256_blendv_epi8(state.high[i], high, marked[i]);
            state.low[i] = _mm256_blendv_epi8(state.low[i], low, marked[i]);
        }
    });
    Some(())
}
