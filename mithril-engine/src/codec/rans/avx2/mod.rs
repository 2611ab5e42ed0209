//! The coder with 256-bit vectors: the arithmetic is done for 16 lanes at a time. Tables are looked up by shuffles for 32
//! lanes at a time where they are short, as those of floats are, and one by one where not.

mod decode;
mod encode;
mod ranks;

use std::arch::x86_64::*;

pub(super) use decode::{decode, decode_contexts};
pub(super) use encode::{encode, encode_contexts};
pub(super) use ranks::{SlotRanks, SymbolWindow};

use super::LANES;

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

/// All ones in the bytes whose bit is set.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes_of_bytes(set: u32) -> __m256i {
    let each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let byte = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(set.cast_signed()), byte);
    _mm256_cmpeq_epi8(_mm256_and_si256(spread, each), each)
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
