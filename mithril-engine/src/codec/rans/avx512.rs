//! The coder with 512-bit vectors: a group is two vectors of bytes, the low and the high bytes of its states. Tables
//! are looked up by permutations; bytes leave and enter the states by compression and expansion.

use std::arch::x86_64::*;

use super::{Decoder, Encoder, Group, LANES, UNFIT};
use crate::codec::Decoded;

/// The ternary function `a | (b & c)`.
const OR_AND: i32 = 0xf8;

/// The ternary function `a | (b & !c)`.
const OR_AND_NOT: i32 = 0xf4;

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store(bytes: &mut [u8; 64], value: __m512i) {
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}

/// A table of 128 bytes in registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_table<const VECTORS: usize>(table: &[u8]) -> [__m512i; VECTORS] {
    let mut vectors = [_mm512_setzero_si512(); VECTORS];
    for (vector, part) in vectors.iter_mut().zip(table.as_chunks::<64>().0) {
        *vector = load(part);
    }
    vectors
}

/// What a table of 128 bytes has at each index; the top bit is ignored.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn look_up(table: &[__m512i; 2], index: __m512i) -> __m512i {
    _mm512_permutex2var_epi8(table[0], index, table[1])
}

/// What a table of 256 bytes has at each index.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn look_up_long(table: &[__m512i; 4], index: __m512i) -> __m512i {
    let lower = _mm512_permutex2var_epi8(table[0], index, table[1]);
    let upper = _mm512_permutex2var_epi8(table[2], index, table[3]);
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), lower, upper)
}

/// The bytes of even lanes of `low` and `high` as 16-bit lanes, and those of odd lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn join(low: __m512i, high: __m512i) -> (__m512i, __m512i) {
    let low8 = _mm512_set1_epi16(0xff);
    let even = _mm512_ternarylogic_epi64::<OR_AND>(_mm512_slli_epi16::<8>(high), low, low8);
    let odd = _mm512_ternarylogic_epi64::<OR_AND_NOT>(_mm512_srli_epi16::<8>(low), high, low8);
    (even, odd)
}

/// The set bytes of `value` in order, at the end of the vector; what is before them is unspecified.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
fn compress_to_end(set: u64, value: __m512i, places: __m512i) -> __m512i {
    let count = set.count_ones().to_le_bytes()[0].cast_signed();
    let front = _mm512_maskz_compress_epi8(set, value);
    // Byte i comes from i + count: indices are modulo 64.
    _mm512_permutexvar_epi8(_mm512_add_epi8(places, _mm512_set1_epi8(count)), front)
}

/// Encodes `groups`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn encode(encoder: &mut Encoder<'_>, groups: &[Group], nonzero: Option<&[u64]>) {
    let table = encoder.table;
    let ranks: [__m512i; 4] = load_table(&table.rank);
    let frequencies = load_table(&table.frequency);
    let starts = load_table(&table.start);
    let reciprocals_low = load_table(&table.reciprocal_low);
    let reciprocals_high = load_table(&table.reciprocal_high);
    let escape_rank = _mm512_set1_epi8(table.symbols.cast_signed());
    let zero_rank = _mm512_set1_epi8(table.zero_rank().cast_signed());
    let (low8, one) = (_mm512_set1_epi16(0xff), _mm512_set1_epi16(1));
    let places = load(&std::array::from_fn(|place| place.to_le_bytes()[0]));
    let [mut low, mut high]: [__m512i; 2] = load_table(&encoder.states);
    let (stream, escapes) = (&mut *encoder.stream, &mut *encoder.escapes);
    let (mut stream_start, mut escapes_start) = (encoder.stream_start, encoder.escapes_start);
    for (index, group) in groups.iter().enumerate().rev() {
        let mask = nonzero.map_or(u64::MAX, |masks| masks[index]);
        if mask == 0 {
            continue;
        }
        let symbol = load(group);
        let rank = _mm512_mask_mov_epi8(zero_rank, mask, look_up_long(&ranks, symbol));
        let escaped = _mm512_cmpeq_epi8_mask(rank, escape_rank);
        // Whole vectors are written, downwards: what is below the new start is written again later.
        let target =
            escapes[..escapes_start].last_chunk_mut().expect("the escapes have room for every group");
        store(target, compress_to_end(escaped, symbol, places));
        escapes_start -= escaped.count_ones() as usize;

        let frequency = look_up(&frequencies, rank);
        let start = look_up(&starts, rank);
        let shrinks = _mm512_cmpge_epu8_mask(high, frequency);
        let target = stream[..stream_start].last_chunk_mut().expect("the stream has room for every group");
        store(target, compress_to_end(shrinks, low, places));
        stream_start -= shrinks.count_ones() as usize;
        low = _mm512_mask_mov_epi8(low, shrinks, high);
        high = _mm512_maskz_mov_epi8(!shrinks, high);

        // Divided by a reciprocal that is rounded down: the quotient is right or one too small.
        let (even, odd) = join(low, high);
        let (even_reciprocal, odd_reciprocal) =
            join(look_up(&reciprocals_low, rank), look_up(&reciprocals_high, rank));
        let (even_frequency, odd_frequency) =
            (_mm512_and_si512(frequency, low8), _mm512_srli_epi16::<8>(frequency));
        let even_quotient = _mm512_mulhi_epu16(even, even_reciprocal);
        let odd_quotient = _mm512_mulhi_epu16(odd, odd_reciprocal);
        let even_rest = _mm512_sub_epi16(even, _mm512_mullo_epi16(even_quotient, even_frequency));
        let odd_rest = _mm512_sub_epi16(odd, _mm512_mullo_epi16(odd_quotient, odd_frequency));
        let even_more = _mm512_cmpge_epu16_mask(even_rest, even_frequency);
        let odd_more = _mm512_cmpge_epu16_mask(odd_rest, odd_frequency);
        let even_quotient = _mm512_mask_add_epi16(even_quotient, even_more, even_quotient, one);
        let odd_quotient = _mm512_mask_add_epi16(odd_quotient, odd_more, odd_quotient, one);
        let even_rest = _mm512_mask_sub_epi16(even_rest, even_more, even_rest, even_frequency);
        let odd_rest = _mm512_mask_sub_epi16(odd_rest, odd_more, odd_rest, odd_frequency);
        high = _mm512_or_si512(even_quotient, _mm512_slli_epi16::<8>(odd_quotient));
        low = _mm512_add_epi8(_mm512_or_si512(even_rest, _mm512_slli_epi16::<8>(odd_rest)), start);
    }
    let (low_bytes, high_bytes) = encoder.states.split_at_mut(LANES);
    if let (Some(low_bytes), Some(high_bytes)) = (low_bytes.first_chunk_mut(), high_bytes.first_chunk_mut()) {
        store(low_bytes, low);
        store(high_bytes, high);
    }
    (encoder.stream_start, encoder.escapes_start) = (stream_start, escapes_start);
}

/// Decodes `groups`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn decode(
    decoder: &mut Decoder<'_>,
    groups: &mut [Group],
    mut nonzero: Option<&mut [u64]>,
) -> Decoded<()> {
    let table = decoder.table;
    let slots: [__m512i; 4] = load_table(&table.slot);
    let frequencies = load_table(&table.frequency);
    let starts = load_table(&table.start);
    let symbols = load_table(&table.symbol);
    let escape_rank = _mm512_set1_epi8(table.symbols.cast_signed());
    let zero_rank = _mm512_set1_epi8(table.zero_rank().cast_signed());
    let low8 = _mm512_set1_epi16(0xff);
    let [mut low, mut high]: [__m512i; 2] = load_table(&decoder.states);
    let (mut next, mut next_escape) = (decoder.next, decoder.next_escape);
    for (index, group) in groups.iter_mut().enumerate() {
        if nonzero.as_deref().is_some_and(|masks| masks[index] == 0) {
            continue;
        }
        // As many as a group can want.
        let bytes: &Group = decoder.stream.get(next..).and_then(<[u8]>::first_chunk).ok_or(UNFIT)?;
        let more: &Group = decoder.escapes.get(next_escape..).and_then(<[u8]>::first_chunk).ok_or(UNFIT)?;
        let rank = look_up_long(&slots, low);
        let symbol = look_up(&symbols, rank);
        let escaped = _mm512_cmpeq_epi8_mask(rank, escape_rank);
        store(group, _mm512_mask_expand_epi8(symbol, escaped, load(more)));
        next_escape += escaped.count_ones() as usize;
        if let Some(masks) = nonzero.as_deref_mut() {
            masks[index] = _mm512_cmpneq_epi8_mask(rank, zero_rank);
        }

        let frequency = look_up(&frequencies, rank);
        let offset = _mm512_sub_epi8(low, look_up(&starts, rank));
        let even = _mm512_add_epi16(
            _mm512_mullo_epi16(_mm512_and_si512(frequency, low8), _mm512_and_si512(high, low8)),
            _mm512_and_si512(offset, low8),
        );
        let odd = _mm512_add_epi16(
            _mm512_mullo_epi16(_mm512_srli_epi16::<8>(frequency), _mm512_srli_epi16::<8>(high)),
            _mm512_srli_epi16::<8>(offset),
        );
        let new_high = _mm512_ternarylogic_epi64::<OR_AND_NOT>(_mm512_srli_epi16::<8>(even), odd, low8);
        let new_low = _mm512_ternarylogic_epi64::<OR_AND>(_mm512_slli_epi16::<8>(odd), even, low8);
        let wants = _mm512_testn_epi8_mask(new_high, new_high);
        high = _mm512_mask_mov_epi8(new_high, wants, new_low);
        low = _mm512_mask_expand_epi8(new_low, wants, load(bytes));
        next += wants.count_ones() as usize;
    }
    if next_escape > decoder.escape_count {
        return Err(UNFIT);
    }
    (decoder.next, decoder.next_escape) = (next, next_escape);
    let (low_bytes, high_bytes) = decoder.states.split_at_mut(LANES);
    if let (Some(low_bytes), Some(high_bytes)) = (low_bytes.first_chunk_mut(), high_bytes.first_chunk_mut()) {
        store(low_bytes, low);
        store(high_bytes, high);
    }
    Ok(())
}
