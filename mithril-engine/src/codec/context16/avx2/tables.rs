//! Look-ups and classes.

use std::arch::x86_64::*;

use super::super::lanes::{Entries, Found, Row, SLOTS};
use super::super::model::{FIRST_VALUE, LANES, VALUE_CLASSES, Window};
use super::{Avx2, Words, avx2, both};

/// The first values of the classes: their lower bytes, and their upper ones.
const FIRST_VALUE_BYTES: [[u8; VALUE_CLASSES]; 2] = {
    let mut bytes = [[0; VALUE_CLASSES]; 2];
    let mut class = 0;
    while class < VALUE_CLASSES {
        [bytes[0][class], bytes[1][class]] = FIRST_VALUE[class].to_le_bytes();
        class += 1;
    }
    bytes
};

/// A row: the lower bytes of its words, then the upper ones.
pub(super) const fn row(words: &[u16; 16]) -> Row {
    let mut row = [0; 32];
    let mut i = 0;
    while i < 16 {
        [row[i], row[16 + i]] = words[i].to_le_bytes();
        i += 1;
    }
    Row(row)
}

/// 16 bytes in both halves of a register.
#[inline(always)]
pub(super) fn twice(bytes: &[u8; 16]) -> __m256i {
    avx2!(_mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast())))
}

/// The words whose lower and upper bytes these are.
#[inline(always)]
pub(super) fn widen(low: __m256i, high: __m256i) -> Words {
    avx2!([_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)])
}

#[inline(always)]
pub(super) fn look_up(row: &Row, index: __m256i) -> Words {
    let halves = row.0.as_chunks::<16>().0;
    let (low, high) = (twice(&halves[0]), twice(&halves[1]));
    widen(avx2!(_mm256_shuffle_epi8(low, index)), avx2!(_mm256_shuffle_epi8(high, index)))
}

/// The bytes of a table at value classes.
#[inline(always)]
pub(super) fn by_class(table: &[u8; VALUE_CLASSES], class: __m256i) -> __m256i {
    let halves = table.as_chunks::<16>().0;
    avx2!({
        let low = _mm256_shuffle_epi8(twice(&halves[0]), class);
        let high = _mm256_shuffle_epi8(twice(&halves[1]), class);
        // Bit 4 of the class, moved to where the blend looks.
        _mm256_blendv_epi8(low, high, _mm256_slli_epi16::<3>(class))
    })
}

#[inline(always)]
pub(super) fn first_values(class: __m256i) -> Words {
    let [low, high] = &FIRST_VALUE_BYTES;
    widen(by_class(low, class), by_class(high, class))
}

#[inline(always)]
pub(super) fn value_classes(values: Words) -> __m256i {
    let classes = both!(i => value_classes_of_16(values[i]));
    avx2!(_mm256_packus_epi16(classes[0], classes[1]))
}

/// The conversion to floats finds the octave (in the exponent) and the bit below it (at the top of the fraction).
#[inline(always)]
fn value_classes_of_16(values: __m256i) -> __m256i {
    avx2!({
        let zero = _mm256_setzero_si256();
        let low = _mm256_cvtepi32_ps(_mm256_unpacklo_epi16(values, zero));
        let high = _mm256_cvtepi32_ps(_mm256_unpackhi_epi16(values, zero));
        let low = _mm256_srli_epi32::<22>(_mm256_castps_si256(low));
        let high = _mm256_srli_epi32::<22>(_mm256_castps_si256(high));
        // An octave of 3 is an exponent of 130, and class 8.
        let class = _mm256_sub_epi16(_mm256_packus_epi32(low, high), _mm256_set1_epi16(252));
        // The last two octaves are whole: 30, 31, 32, 33 become 30, 30, 31, 31.
        let last = _mm256_srli_epi16::<1>(_mm256_add_epi16(class, _mm256_set1_epi16(30)));
        let class = _mm256_blendv_epi8(class, last, _mm256_cmpgt_epi16(class, _mm256_set1_epi16(29)));
        let first = _mm256_cmpeq_epi16(_mm256_min_epu16(values, _mm256_set1_epi16(7)), values);
        _mm256_blendv_epi8(class, values, first)
    })
}

/// Places in a table.
#[repr(align(32))]
struct Places([u16; LANES]);

impl Places {
    #[inline(always)]
    fn new(words: Words) -> Self {
        let mut places = Self([0; LANES]);
        let target: *mut __m256i = places.0.as_mut_ptr().cast();
        // SAFETY: 32 words are two registers, and aligned as such; AVX2 is there, where there are `Words`.
        unsafe {
            _mm256_store_si256(target, words[0]);
            _mm256_store_si256(target.add(1), words[1]);
        }
        places
    }

    /// The number of a table at the place of a lane. The table has a power of two of them, more than any place.
    #[inline(always)]
    fn at<const N: usize>(&self, lane: usize, table: &[u32; N]) -> i32 {
        table[usize::from(self.0[lane]) & (N - 1)].cast_signed()
    }

    /// Numbers of 8 lanes: 4 from `lane` on, and the 4 after the next 4. So packing brings them into the order of the
    /// lanes.
    #[inline(always)]
    fn gather<const N: usize>(&self, lane: usize, table: &[u32; N]) -> __m256i {
        avx2!(_mm256_setr_epi32(
            self.at(lane, table),
            self.at(lane + 1, table),
            self.at(lane + 2, table),
            self.at(lane + 3, table),
            self.at(lane + 8, table),
            self.at(lane + 9, table),
            self.at(lane + 10, table),
            self.at(lane + 11, table),
        ))
    }

    /// The lower and the upper halves of the numbers of a table.
    #[inline(always)]
    fn look_up<const N: usize>(&self, table: &[u32; N]) -> (Words, Words) {
        let a = both!(i => self.gather(16 * i, table));
        let b = both!(i => self.gather(16 * i + 4, table));
        avx2!({
            let mask = _mm256_set1_epi32(0xffff);
            let low =
                both!(i => _mm256_packus_epi32(_mm256_and_si256(a[i], mask), _mm256_and_si256(b[i], mask)));
            let high =
                both!(i => _mm256_packus_epi32(_mm256_srli_epi32::<16>(a[i]), _mm256_srli_epi32::<16>(b[i])));
            (low, high)
        })
    }
}

#[inline(always)]
pub(super) fn entries(entries: &Entries, context: __m256i, class: __m256i) -> (Words, Words) {
    let pairs = widen(class, context);
    // class + 32 * context
    let places = avx2!(both!(i => _mm256_maddubs_epi16(pairs[i], _mm256_set1_epi16(0x2001))));
    let (start, frequency) = Places::new(places).look_up(entries);
    (frequency, start)
}

#[inline(always)]
pub(super) fn find(search: &[u32; SLOTS], context: __m256i, slot: Words) -> Found<Avx2> {
    let context = widen(context, avx2!(_mm256_setzero_si256()));
    let places = avx2!(both!(i => {
        _mm256_or_si256(_mm256_slli_epi16::<12>(context[i]), _mm256_srli_epi16::<4>(slot[i]))
    }));
    let (low, high) = Places::new(places).look_up(search);
    avx2!({
        let numbers = _mm256_set1_epi16(!15);
        let classes = both!(i => {
            let top = _mm256_slli_epi16::<4>(_mm256_and_si256(low[i], _mm256_set1_epi16(1)));
            _mm256_or_si256(_mm256_andnot_si256(numbers, high[i]), top)
        });
        let class = _mm256_packus_epi16(classes[0], classes[1]);
        let unchanged = _mm256_movemask_epi8(_mm256_cmpeq_epi8(class, _mm256_setzero_si256()));
        Found {
            class,
            frequency: both!(i => _mm256_and_si256(high[i], numbers)),
            offset: both!(i => _mm256_sub_epi16(slot[i], _mm256_and_si256(low[i], numbers))),
            changes: unchanged.count_zeros() as usize,
        }
    })
}

#[inline(always)]
pub(super) fn exponent_classes(base: Words, window: &Window) -> __m256i {
    avx2!({
        let shift = _mm_cvtsi32_si128(window.shift.cast_signed());
        let mask = _mm256_set1_epi16(window.mask.cast_signed());
        let low = _mm256_and_si256(_mm256_srl_epi16(base[0], shift), mask);
        let high = _mm256_and_si256(_mm256_srl_epi16(base[1], shift), mask);
        let exponent = _mm256_packus_epi16(low, high);
        let class = _mm256_subs_epu8(exponent, _mm256_set1_epi8(window.lowest.cast_signed()));
        _mm256_min_epu8(class, _mm256_set1_epi8(15))
    })
}

#[inline(always)]
pub(super) fn mask(bits: u32) -> Words {
    let [a, b, c, d] = bits.to_le_bytes();
    let (low, high) = (i16::from_le_bytes([a, b]), i16::from_le_bytes([c, d]));
    avx2!({
        let lane =
            _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
        let parts = [_mm256_set1_epi16(low), _mm256_set1_epi16(high)];
        both!(i => _mm256_cmpeq_epi16(_mm256_and_si256(parts[i], lane), lane))
    })
}
