//! Decoding, from the first group to the last.

use std::arch::x86_64::*;

use super::super::{Decoder, Group, LANES, UNFIT, contexts, join_states, part_states};
use super::ranks::SlotRanks;
use super::{EXPAND, Lanes, STEP, Wide, bits, load_all, load8, look_up, store_all};
use crate::codec::Decoded;

/// Decodes a symbol in each of 16 lanes. Returns their new states, and the upper halves of their entries: symbols and
/// flags. Before the first of these steps of a group, at least 64 bytes of the stream follow `next`.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn take(state: __m256i, slots: &Wide<256>, stream: &[u8], next: &mut usize) -> (__m256i, __m256i) {
    // From the register: what was just stored would not be there yet.
    let (lower, upper) = (_mm256_castsi256_si128(state), _mm256_extracti128_si256::<1>(state));
    let parts = [
        _mm_cvtsi128_si64(lower),
        _mm_extract_epi64::<1>(lower),
        _mm_cvtsi128_si64(upper),
        _mm_extract_epi64::<1>(upper),
    ];
    let (code, symbol) = look_up(slots, |lane| (parts[lane / 4] >> (16 * (lane % 4))).to_le_bytes()[0]);
    let frequency = _mm256_and_si256(code, _mm256_set1_epi16(0xff));
    (step(state, frequency, _mm256_srli_epi16::<8>(code), stream, next), symbol)
}

/// The states of 16 lanes after the symbols with these frequencies, and slots that far from their starts. As [`take`], it
/// takes at most 16 bytes of the stream.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn step(state: __m256i, frequency: __m256i, offset: __m256i, stream: &[u8], next: &mut usize) -> __m256i {
    let stepped = _mm256_add_epi16(_mm256_mullo_epi16(frequency, _mm256_srli_epi16::<8>(state)), offset);
    let wants = _mm256_cmpeq_epi16(_mm256_srli_epi16::<8>(stepped), _mm256_setzero_si256());
    let set = bits(wants);
    // SAFETY: at least 64 bytes follow `next` before a group; each step takes at most 16 of them, and reads no more
    // than those 8 that it may take.
    let bytes = unsafe { _mm_loadl_epi64(stream.as_ptr().add(*next).cast()) };
    let lower = _mm_shuffle_epi8(bytes, load8(EXPAND[set & 255]));
    *next += (set & 255).count_ones() as usize;
    // SAFETY: as above.
    let bytes = unsafe { _mm_loadl_epi64(stream.as_ptr().add(*next).cast()) };
    let upper = _mm_shuffle_epi8(bytes, load8(EXPAND[set >> 8]));
    *next += (set >> 8).count_ones() as usize;
    let bytes = _mm256_cvtepu8_epi16(_mm_unpacklo_epi64(lower, upper));
    let filled = _mm256_or_si256(_mm256_slli_epi16::<8>(stepped), bytes);
    _mm256_blendv_epi8(stepped, filled, wants)
}

/// Decodes a symbol in each of 32 lanes. Returns their ranks, and takes at most 32 bytes of the stream: at least 64 follow
/// `next` before the first half of a group.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn take_half(
    [first, second]: &mut [__m256i; 2],
    ranks: &SlotRanks,
    stream: &[u8],
    next: &mut usize,
) -> __m256i {
    let low8 = _mm256_set1_epi16(0xff);
    let nothing = _mm256_setzero_si256();
    // Packing and unpacking work within halves of vectors: one undoes what the other does.
    let slots = _mm256_packus_epi16(_mm256_and_si256(*first, low8), _mm256_and_si256(*second, low8));
    let rank = ranks.rank(slots);
    let (frequency, start) = ranks.frequency_and_start(rank);
    let offset = _mm256_sub_epi8(slots, start);
    *first = step(
        *first,
        _mm256_unpacklo_epi8(frequency, nothing),
        _mm256_unpacklo_epi8(offset, nothing),
        stream,
        next,
    );
    *second = step(
        *second,
        _mm256_unpackhi_epi8(frequency, nothing),
        _mm256_unpackhi_epi8(offset, nothing),
        stream,
        next,
    );
    _mm256_permute4x64_epi64::<0xd8>(rank)
}

/// Stores the symbols of a group.
#[inline]
#[target_feature(enable = "avx2")]
fn store_symbols(values: &[__m256i; LANES / STEP], group: &mut Group) {
    let low8 = _mm256_set1_epi16(0xff);
    let [v0, v1, v2, v3] = *values;
    let first = _mm256_packus_epi16(_mm256_and_si256(v0, low8), _mm256_and_si256(v1, low8));
    let second = _mm256_packus_epi16(_mm256_and_si256(v2, low8), _mm256_and_si256(v3, low8));
    let (lower, upper) = group.split_at_mut(LANES / 2);
    // SAFETY: each half of a group has 32 bytes.
    unsafe {
        _mm256_storeu_si256(lower.as_mut_ptr().cast(), _mm256_permute4x64_epi64::<0xd8>(first));
        _mm256_storeu_si256(upper.as_mut_ptr().cast(), _mm256_permute4x64_epi64::<0xd8>(second));
    }
}

/// Decodes `groups`.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(in super::super) fn decode(
    decoder: &mut Decoder<'_>,
    groups: &mut [Group],
    nonzero: Option<&mut [u64]>,
) -> Decoded<()> {
    match decoder.ranks.take() {
        Some(ranks) => {
            let result = decode_ranks(decoder, &ranks, groups, nonzero);
            decoder.ranks = Some(ranks);
            result
        }
        None => decode_any(decoder, groups, nonzero),
    }
}

/// Decodes `groups` of few ranks.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn decode_ranks(
    decoder: &mut Decoder<'_>,
    ranks: &SlotRanks,
    groups: &mut [Group],
    mut nonzero: Option<&mut [u64]>,
) -> Decoded<()> {
    let stream = decoder.stream;
    let mut next = decoder.next;
    let [s0, s1, s2, s3] = load_all(&Lanes(join_states(&decoder.states)));
    let (mut lower, mut upper) = ([s0, s1], [s2, s3]);
    for (index, group) in groups.iter_mut().enumerate() {
        if nonzero.as_deref().is_some_and(|masks| masks[index] == 0) {
            continue;
        }
        // As many as a group can want.
        if stream.len() < LANES || next > stream.len() - LANES {
            return Err(UNFIT);
        }
        let first = take_half(&mut lower, ranks, stream, &mut next);
        let second = take_half(&mut upper, ranks, stream, &mut next);
        let (left, right) = group.split_at_mut(LANES / 2);
        // SAFETY: each half of a group has 32 bytes.
        unsafe {
            _mm256_storeu_si256(left.as_mut_ptr().cast(), ranks.symbol(first));
            _mm256_storeu_si256(right.as_mut_ptr().cast(), ranks.symbol(second));
        }
        let (first, second) = (ranks.escapes_and_zeros(first), ranks.escapes_and_zeros(second));
        let join = |lower: u32, upper: u32| u64::from(lower) | u64::from(upper) << 32;
        decoder.put_escapes(group, join(first.0, second.0))?;
        if let Some(masks) = nonzero.as_deref_mut() {
            masks[index] = !join(first.1, second.1);
        }
    }
    decoder.next = next;
    decoder.states = part_states(&store_all(&[lower[0], lower[1], upper[0], upper[1]]).0);
    Ok(())
}

/// Decodes `groups` of any ranks.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn decode_any(
    decoder: &mut Decoder<'_>,
    groups: &mut [Group],
    mut nonzero: Option<&mut [u64]>,
) -> Decoded<()> {
    let slots = Wide::of(&decoder.slots);
    let stream = decoder.stream;
    let mut next = decoder.next;
    let mut states = load_all(&Lanes(join_states(&decoder.states)));
    for (index, group) in groups.iter_mut().enumerate() {
        if nonzero.as_deref().is_some_and(|masks| masks[index] == 0) {
            continue;
        }
        // As many as a group can want.
        if stream.len() < LANES || next > stream.len() - LANES {
            return Err(UNFIT);
        }
        let mut values = [_mm256_setzero_si256(); LANES / STEP];
        for (value, state) in values.iter_mut().zip(&mut states) {
            (*state, *value) = take(*state, &slots, stream, &mut next);
        }
        store_symbols(&values, group);
        let [v0, v1, v2, v3] = values;
        let any = _mm256_or_si256(_mm256_or_si256(v0, v1), _mm256_or_si256(v2, v3));
        let mut zeros = 0;
        if _mm256_testz_si256(any, _mm256_set1_epi16(0x0300)) == 0 {
            let mut escapes = 0;
            for (value, step) in values.iter().zip((0..LANES).step_by(STEP)) {
                // The flag is moved to the sign, which saturated packing keeps.
                escapes |= (bits(_mm256_slli_epi16::<7>(*value)) as u64) << step;
                zeros |= (bits(_mm256_slli_epi16::<6>(*value)) as u64) << step;
            }
            decoder.put_escapes(group, escapes)?;
        }
        if let Some(masks) = nonzero.as_deref_mut() {
            masks[index] = !zeros;
        }
    }
    decoder.next = next;
    decoder.states = part_states(&store_all(&states).0);
    Ok(())
}

/// Decodes all of `groups` in contexts.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(in super::super) fn decode_contexts(
    decoder: &mut contexts::Decoder<'_>,
    groups: &mut [Group],
) -> Decoded<()> {
    match decoder.contexts.tables().iter().map(SlotRanks::of).collect::<Option<Vec<_>>>() {
        Some(ranks) => decode_contexts_of_ranks(decoder, ranks, groups),
        None => decode_any_contexts(decoder, groups),
    }
}

/// Decodes all of `groups` in contexts of few ranks.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn decode_contexts_of_ranks(
    decoder: &mut contexts::Decoder<'_>,
    mut ranks: Vec<SlotRanks>,
    groups: &mut [Group],
) -> Decoded<()> {
    // All take as many steps: which context comes next is not to be foreseen.
    let starts = ranks.iter().map(|ranks| ranks.starts).max().unwrap_or(0);
    ranks.iter_mut().for_each(|ranks| ranks.starts = starts);
    let stream = decoder.stream;
    let mut next = decoder.next;
    let [s0, s1, s2, s3] = load_all(&Lanes(join_states(&decoder.states)));
    let (mut lower, mut upper) = ([s0, s1], [s2, s3]);
    let mut mean = contexts::Mean::default();
    for group in groups {
        let ranks = &ranks[usize::from(decoder.contexts.of_level[usize::from(mean.level())])];
        // As many as a group can want.
        if stream.len() < LANES || next > stream.len() - LANES {
            return Err(UNFIT);
        }
        let first = ranks.symbol(take_half(&mut lower, ranks, stream, &mut next));
        let second = ranks.symbol(take_half(&mut upper, ranks, stream, &mut next));
        let (left, right) = group.split_at_mut(LANES / 2);
        // SAFETY: each half of a group has 32 bytes.
        unsafe {
            _mm256_storeu_si256(left.as_mut_ptr().cast(), first);
            _mm256_storeu_si256(right.as_mut_ptr().cast(), second);
        }
        // Symbols are below 64: four of them fit a byte.
        let sums = _mm256_sad_epu8(_mm256_add_epi8(first, second), _mm256_setzero_si256());
        let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
        mean.add(_mm_cvtsi128_si32(sums).cast_unsigned());
    }
    decoder.next = next;
    decoder.states = part_states(&store_all(&[lower[0], lower[1], upper[0], upper[1]]).0);
    Ok(())
}

/// Decodes all of `groups` in contexts of any ranks.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn decode_any_contexts(decoder: &mut contexts::Decoder<'_>, groups: &mut [Group]) -> Decoded<()> {
    let slots: Vec<Wide<256>> = decoder.contexts.slots().iter().map(Wide::of).collect();
    let stream = decoder.stream;
    let mut next = decoder.next;
    let mut states = load_all(&Lanes(join_states(&decoder.states)));
    let mut mean = contexts::Mean::default();
    for group in groups {
        let slots = &slots[usize::from(decoder.contexts.of_level[usize::from(mean.level())])];
        // As many as a group can want.
        if stream.len() < LANES || next > stream.len() - LANES {
            return Err(UNFIT);
        }
        let mut values = [_mm256_setzero_si256(); LANES / STEP];
        for (value, state) in values.iter_mut().zip(&mut states) {
            (*state, *value) = take(*state, slots, stream, &mut next);
        }
        store_symbols(&values, group);
        let [a, b, c, d] = values;
        let sums = _mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d));
        let sums = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
        let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
        let sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<1>(sums));
        mean.add(_mm_cvtsi128_si32(sums).cast_unsigned());
    }
    decoder.next = next;
    decoder.states = part_states(&store_all(&states).0);
    Ok(())
}
