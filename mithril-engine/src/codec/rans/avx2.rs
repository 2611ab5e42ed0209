//! The coder with 256-bit vectors: tables are looked up one by one, the arithmetic is done for 16 lanes at a time.

use std::arch::x86_64::*;

use super::contexts::{self, SYMBOLS};
use super::{Decoder, Encoder, Group, LANES, UNFIT, join_states, part_states};
use crate::codec::Decoded;

/// Lanes of a vector.
const STEP: usize = 16;

/// A byte that makes a shuffle write 0.
const NONE: u8 = 0x80;

/// For each set of 8 lanes, a shuffle that gives them the next bytes in order.
pub(in crate::codec) static EXPAND: [[u8; 8]; 256] = expand();

const fn expand() -> [[u8; 8]; 256] {
    let mut table = [[NONE; 8]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut next) = (0, 0);
        while lane < 8 {
            if set >> lane & 1 == 1 {
                table[set][lane] = next;
                next += 1;
            }
            lane += 1;
        }
        set += 1;
    }
    table
}

/// For each set of 8 lanes, a shuffle that moves their bytes to the end, in order.
pub(in crate::codec) static COMPRESS: [[u8; 8]; 256] = compress();

const fn compress() -> [[u8; 8]; 256] {
    let mut table = [[NONE; 8]; 256];
    let mut set: usize = 0;
    while set < 256 {
        let (mut lane, mut next) = (0, 8 - set.count_ones() as usize);
        while lane < 8 {
            if set >> lane & 1 == 1 {
                table[set][next] = lane;
                next += 1;
            }
            lane += 1;
        }
        set += 1;
    }
    table
}

#[repr(align(64))]
struct Lanes([u16; LANES]);

#[inline]
#[target_feature(enable = "avx2")]
fn load_lanes(lanes: &Lanes, at: usize) -> __m256i {
    let part: &[u16; STEP] = lanes.0[at..].first_chunk().unwrap_or(&[0; STEP]);
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_loadu_si256(part.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_lanes(lanes: &mut Lanes, at: usize, value: __m256i) {
    if let Some(part) = lanes.0[at..].first_chunk_mut::<STEP>() {
        // SAFETY: the array has 32 bytes.
        unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), value) }
    }
}

/// All lanes in vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn load_all(lanes: &Lanes) -> [__m256i; LANES / STEP] {
    [load_lanes(lanes, 0), load_lanes(lanes, 16), load_lanes(lanes, 32), load_lanes(lanes, 48)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_all(vectors: &[__m256i; LANES / STEP]) -> Lanes {
    let mut lanes = Lanes([0; LANES]);
    for (vector, at) in vectors.iter().zip((0..LANES).step_by(STEP)) {
        store_lanes(&mut lanes, at, *vector);
    }
    lanes
}

/// Eight bytes as the lower half of a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn load8(bytes: [u8; 8]) -> __m128i {
    _mm_cvtsi64_si128(i64::from_le_bytes(bytes))
}

/// The lanes of a comparison as bits.
#[inline]
#[target_feature(enable = "avx2")]
fn bits(lanes: __m256i) -> usize {
    let bytes = _mm_packs_epi16(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
    _mm_movemask_epi8(bytes).cast_unsigned() as usize
}

/// A table with 32 bits an entry, and once more in the upper halves of 64 bits: two entries are joined by an `or`.
struct Wide<const ENTRIES: usize> {
    lower: [u32; ENTRIES],
    upper: [u64; ENTRIES],
}

impl<const ENTRIES: usize> Wide<ENTRIES> {
    fn of(table: &[u32; ENTRIES]) -> Self {
        Self { lower: *table, upper: table.map(|entry| u64::from(entry) << 32) }
    }

    /// The entries of two bytes, modulo their number.
    #[inline(always)]
    fn pair(&self, first: u8, second: u8) -> i64 {
        let (first, second) = (usize::from(first) % ENTRIES, usize::from(second) % ENTRIES);
        (u64::from(self.lower[first]) | self.upper[second]).cast_signed()
    }
}

/// Looks up 16 bytes. The first result has the lower halves of the entries, the second the upper halves.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up<const ENTRIES: usize>(table: &Wide<ENTRIES>, byte: impl Fn(usize) -> u8) -> (__m256i, __m256i) {
    let pair = |lane: usize| table.pair(byte(lane), byte(lane + 1));
    // Packing works within halves of vectors: so the second and the third four of 16 change places before.
    let a = _mm256_setr_epi64x(pair(0), pair(2), pair(8), pair(10));
    let b = _mm256_setr_epi64x(pair(4), pair(6), pair(12), pair(14));
    let low16 = _mm256_set1_epi32(0xffff);
    let lower = _mm256_packus_epi32(_mm256_and_si256(a, low16), _mm256_and_si256(b, low16));
    let upper = _mm256_packus_epi32(_mm256_srli_epi32::<16>(a), _mm256_srli_epi32::<16>(b));
    (lower, upper)
}

/// All ones in the lanes whose bit is set, of the lowest 16.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes_of(set: u64) -> __m256i {
    let each =
        _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, i16::MIN);
    _mm256_cmpeq_epi16(
        _mm256_and_si256(
            _mm256_set1_epi64x((set & 0xffff).wrapping_mul(0x0001_0001_0001_0001).cast_signed()),
            each,
        ),
        each,
    )
}

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
pub(super) fn encode(encoder: &mut Encoder<'_>, groups: &[Group], nonzero: Option<&[u64]>) {
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
    let mut states = load_all(&Lanes(join_states(&encoder.states)));
    let stream = &mut *encoder.stream;
    let mut start = encoder.stream_start;
    for (index, group) in groups.iter().enumerate().rev() {
        let mask = nonzero.map_or(u64::MAX, |masks| masks[index]);
        if mask == 0 {
            continue;
        }
        assert!(start >= LANES && start <= stream.len(), "the stream has room for every group");
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
            *state = put(*state, reciprocal, frequency, first, stream, &mut start);
        }
        while escapes != 0 {
            let lane = 63 - escapes.leading_zeros() as usize;
            encoder.escapes_start -= 1;
            encoder.escapes[encoder.escapes_start] = group[lane];
            escapes &= !(1 << lane);
        }
    }
    encoder.stream_start = start;
    encoder.states = part_states(&store_all(&states).0);
}

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
    let stepped = _mm256_add_epi16(
        _mm256_mullo_epi16(_mm256_and_si256(code, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(state)),
        _mm256_srli_epi16::<8>(code),
    );
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
    (_mm256_blendv_epi8(stepped, filled, wants), symbol)
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
pub(super) fn decode(
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

/// What a table of 64 bytes has at each index; the upper two bits are ignored.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::codec) fn look_up_short(table: &[u8; 64], index: __m256i) -> __m256i {
    // Bits 4 and 5 choose between the quarters of the table: as the sign of the byte.
    let odd = _mm256_slli_epi16::<3>(index);
    let upper = _mm256_slli_epi16::<2>(index);
    let place = _mm256_and_si256(index, _mm256_set1_epi8(15));
    let quarters = table.as_chunks::<16>().0;
    let quarter = |quarter: usize| {
        // SAFETY: the array has 16 bytes.
        let part = unsafe { _mm_loadu_si128(quarters[quarter].as_ptr().cast()) };
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(part), place)
    };
    let lower_half = _mm256_blendv_epi8(quarter(0), quarter(1), odd);
    let upper_half = _mm256_blendv_epi8(quarter(2), quarter(3), odd);
    _mm256_blendv_epi8(lower_half, upper_half, upper)
}

/// Encodes `groups` in the contexts of their levels.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn encode_contexts(encoder: &mut contexts::Encoder<'_>, groups: &[Group], levels: &[u8]) {
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

/// Decodes all of `groups` in contexts.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn decode_contexts(decoder: &mut contexts::Decoder<'_>, groups: &mut [Group]) -> Decoded<()> {
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
