//! Encoding, from the last group to the first.

use std::arch::x86_64::*;

use super::super::contexts::{self, SYMBOLS};
use super::super::{Encoder, Group, LANES, join_states, part_states};
use super::ranks::{Found, SymbolWindow};
use super::{
    COMPRESS, Lanes, STEP, Wide, bits, lanes_of, lanes_of_bytes, load_all, load8, look_up, look_up_short,
    store_all,
};

/// Encodes a symbol in each of 16 lanes, and returns their new states. Before the last of these steps of a group, `start` is at least 64.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn put(
    state: __m256i,
    reciprocal: __m256i,
    frequency: __m256i,
    first: __m256i,
    stream: &mut [u8],
    start: &mut usize,
) -> __m256i {
    let low8 = _mm256_set1_epi16(0xff);
    let high = _mm256_srli_epi16::<8>(state);
    let shrinks = _mm256_cmpeq_epi16(_mm256_max_epu16(high, frequency), high);
    let low = _mm256_and_si256(state, low8);
    let low = _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
    let set = bits(shrinks);
    let upper = _mm_shuffle_epi8(_mm_srli_si128::<8>(low), load8(COMPRESS[set >> 8]));
    // SAFETY: at least 64 bytes are below `start` before a group; each step takes at most 16 of them, and
    // writes no more than those 8 that it may take.
    unsafe { _mm_storel_epi64(stream.as_mut_ptr().add(*start - 8).cast(), upper) };
    *start -= (set >> 8).count_ones() as usize;
    let lower = _mm_shuffle_epi8(low, load8(COMPRESS[set & 255]));
    // SAFETY: as above.
    unsafe { _mm_storel_epi64(stream.as_mut_ptr().add(*start - 8).cast(), lower) };
    *start -= (set & 255).count_ones() as usize;

    // A reciprocal that is rounded down: the quotient is right or one too small.
    let state = _mm256_blendv_epi8(state, high, shrinks);
    let quotient = _mm256_mulhi_epu16(state, reciprocal);
    let remainder = _mm256_sub_epi16(state, _mm256_mullo_epi16(quotient, frequency));
    let more = _mm256_cmpeq_epi16(_mm256_max_epu16(remainder, frequency), remainder);
    let quotient = _mm256_sub_epi16(quotient, more);
    let remainder = _mm256_sub_epi16(remainder, _mm256_and_si256(frequency, more));
    _mm256_add_epi16(_mm256_slli_epi16::<8>(quotient), _mm256_add_epi16(remainder, first))
}

/// Encodes `groups`.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(in super::super) fn encode(encoder: &mut Encoder<'_>, groups: &[Group], nonzero: Option<&[u64]>) {
    match encoder.window.take() {
        Some(window) => {
            encode_window(encoder, &window, groups, nonzero);
            encoder.window = Some(window);
        }
        None => encode_any(encoder, groups, nonzero),
    }
}

/// Encodes the groups that are not all zeros, each by `encode`: it is given the states, the group, the mask of its lanes that
/// are no zeros, and the stream with its start, and says which lanes are escapes.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn each_group(
    encoder: &mut Encoder<'_>,
    groups: &[Group],
    nonzero: Option<&[u64]>,
    mut encode: impl FnMut(&mut [__m256i; LANES / STEP], &Group, u64, &mut [u8], &mut usize) -> u64,
) {
    let mut states = load_all(&Lanes(join_states(&encoder.states)));
    let mut start = encoder.stream_start;
    for (index, group) in groups.iter().enumerate().rev() {
        let mask = nonzero.map_or(u64::MAX, |masks| masks[index]);
        if mask == 0 {
            continue;
        }
        let stream = &mut *encoder.stream;
        assert!(start >= LANES && start <= stream.len(), "the stream has room for every group");
        let escapes = encode(&mut states, group, mask, stream, &mut start);
        encoder.put_escapes(group, escapes);
    }
    encoder.stream_start = start;
    encoder.states = part_states(&store_all(&states).0);
}

/// Encodes `groups` of symbols that lie close to each other.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn encode_window(
    encoder: &mut Encoder<'_>,
    window: &SymbolWindow,
    groups: &[Group],
    nonzero: Option<&[u64]>,
) {
    let table = encoder.table;
    let [zero_reciprocal_low, zero_reciprocal_high, zero_frequency, zero_start] =
        table.code(table.zero_rank()).to_le_bytes().map(|byte| _mm256_set1_epi8(byte.cast_signed()));
    let escape_start = _mm256_set1_epi8(table.start[usize::from(table.symbols)].cast_signed());
    let nothing = _mm256_setzero_si256();
    each_group(encoder, groups, nonzero, |states, group, mask, stream, start| {
        let mut escapes = 0u64;
        let (halves, _) = group.as_chunks::<{ LANES / 2 }>();
        for (half, symbols) in halves.iter().enumerate().rev() {
            // SAFETY: the array has 32 bytes.
            let symbols = unsafe { _mm256_loadu_si256(symbols.as_ptr().cast()) };
            // Unpacking works within halves of vectors: so the middle quarters change places before it.
            let mut found = window.find(_mm256_permute4x64_epi64::<0xd8>(symbols));
            if nonzero.is_some() {
                let kept = _mm256_permute4x64_epi64::<0xd8>(lanes_of_bytes(
                    (mask >> (32 * half) & 0xffff_ffff) as u32,
                ));
                let or_zero = |zero, value| _mm256_blendv_epi8(zero, value, kept);
                found = Found {
                    reciprocal_low: or_zero(zero_reciprocal_low, found.reciprocal_low),
                    reciprocal_high: or_zero(zero_reciprocal_high, found.reciprocal_high),
                    frequency: or_zero(zero_frequency, found.frequency),
                    start: or_zero(zero_start, found.start),
                };
            }
            let are_escapes = _mm256_permute4x64_epi64::<0xd8>(_mm256_cmpeq_epi8(found.start, escape_start));
            escapes |= u64::from(_mm256_movemask_epi8(are_escapes).cast_unsigned()) << (32 * half);

            let Found { reciprocal_low, reciprocal_high, frequency, start: first } = found;
            let state = &mut states[2 * half + 1];
            *state = put(
                *state,
                _mm256_unpackhi_epi8(reciprocal_low, reciprocal_high),
                _mm256_unpackhi_epi8(frequency, nothing),
                _mm256_unpackhi_epi8(first, nothing),
                stream,
                start,
            );
            let state = &mut states[2 * half];
            *state = put(
                *state,
                _mm256_unpacklo_epi8(reciprocal_low, reciprocal_high),
                _mm256_unpacklo_epi8(frequency, nothing),
                _mm256_unpacklo_epi8(first, nothing),
                stream,
                start,
            );
        }
        escapes
    });
}

/// Encodes `groups` of any symbols.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn encode_any(encoder: &mut Encoder<'_>, groups: &[Group], nonzero: Option<&[u64]>) {
    let table = encoder.table;
    let (codes, zero_code) = table.codes();
    let codes = Wide::of(&codes);
    let zero_reciprocal =
        _mm256_and_si256(_mm256_set1_epi32(zero_code.cast_signed()), _mm256_set1_epi32(0xffff));
    let zero_reciprocal = _mm256_packus_epi32(zero_reciprocal, zero_reciprocal);
    let zero_code = _mm256_srli_epi32::<16>(_mm256_set1_epi32(zero_code.cast_signed()));
    let zero_code = _mm256_packus_epi32(zero_code, zero_code);
    let escape_start = _mm256_set1_epi16(i16::from(table.start[usize::from(table.symbols)]));
    let low8 = _mm256_set1_epi16(0xff);
    each_group(encoder, groups, nonzero, |states, group, mask, stream, start| {
        let mut escapes = 0u64;
        for step in (0..LANES).step_by(STEP).rev() {
            let (mut reciprocal, mut code) = look_up(&codes, |lane| group[step + lane]);
            if nonzero.is_some() {
                let kept = lanes_of(mask >> step);
                reciprocal = _mm256_blendv_epi8(zero_reciprocal, reciprocal, kept);
                code = _mm256_blendv_epi8(zero_code, code, kept);
            }
            let (frequency, first) = (_mm256_and_si256(code, low8), _mm256_srli_epi16::<8>(code));
            escapes |= (bits(_mm256_cmpeq_epi16(first, escape_start)) as u64) << step;

            let state = &mut states[step / STEP];
            *state = put(*state, reciprocal, frequency, first, stream, start);
        }
        escapes
    });
}

/// What encoders look up for symbols below 64: in the order of the bytes of a code.
struct SymbolTables([[u8; SYMBOLS]; 4]);

impl SymbolTables {
    fn of(codes: &[u32; SYMBOLS]) -> Self {
        let mut tables = [[0; SYMBOLS]; 4];
        for (symbol, code) in codes.iter().enumerate() {
            for (table, byte) in tables.iter_mut().zip(code.to_le_bytes()) {
                table[symbol] = byte;
            }
        }
        Self(tables)
    }
}

/// Encodes `groups` in the contexts of their levels.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(in super::super) fn encode_contexts(
    encoder: &mut contexts::Encoder<'_>,
    groups: &[Group],
    levels: &[u8],
) {
    let tables: Vec<SymbolTables> = encoder.contexts.codes().iter().map(SymbolTables::of).collect();
    let mut states = load_all(&Lanes(join_states(&encoder.states)));
    let stream = &mut *encoder.stream;
    let mut start = encoder.start;
    for (group, &level) in groups.iter().zip(levels).rev() {
        let tables = &tables[usize::from(encoder.contexts.of_level[usize::from(level)])];
        assert!(start >= LANES && start <= stream.len(), "the stream has room for every group");
        for half in [1, 0] {
            let symbols: &[u8; LANES / 2] = group[half * LANES / 2..].first_chunk().unwrap_or(&[0; 32]);
            // SAFETY: the array has 32 bytes.
            let symbols = unsafe { _mm256_loadu_si256(symbols.as_ptr().cast()) };
            let [a, b, c, d] = &tables.0;
            let found = [a, b, c, d].map(|table| look_up_short(table, symbols));
            let upper = found.map(|bytes| _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(bytes)));
            let lower = found.map(|bytes| _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes)));
            for (part, [reciprocal_low, reciprocal_high, frequency, first]) in [(1, upper), (0, lower)] {
                let reciprocal = _mm256_or_si256(reciprocal_low, _mm256_slli_epi16::<8>(reciprocal_high));
                let state = &mut states[2 * half + part];
                *state = put(*state, reciprocal, frequency, first, stream, &mut start);
            }
        }
    }
    encoder.start = start;
    encoder.states = part_states(&store_all(&states).0);
}
