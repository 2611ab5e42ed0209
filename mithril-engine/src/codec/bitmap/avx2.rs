//! Eight elements at a time, moved by a byte shuffle that a table gives for their marks. Where nothing is marked, which is
//! most of a model from one step to the next, 32 elements are passed over at once.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi16, _mm_and_si128, _mm_loadu_si128, _mm_or_si128, _mm_set1_epi16,
    _mm_setzero_si128, _mm_shuffle_epi8, _mm_srai_epi16, _mm_srli_epi16, _mm_storeu_si128, _mm_sub_epi16,
    _mm_xor_si128, _mm256_cmpeq_epi16, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_packs_epi16,
    _mm256_permute4x64_epi64, _mm256_set1_epi16,
};

/// Elements that one word of the bitmap marks.
const GROUP: usize = 32;
/// Elements of a shuffle.
const LANES: usize = 8;

/// For the marks of eight elements, the shuffle that brings the marked ones together.
static TOGETHER: [[u8; 16]; 256] = shuffles(true);
/// And the one that brings them back, with zeros between.
static APART: [[u8; 16]; 256] = shuffles(false);

const fn shuffles(together: bool) -> [[u8; 16]; 256] {
    // The highest bit of a place asks for a zero.
    let mut table = [[0x80; 16]; 256];
    let mut marks = 0;
    while marks < 256 {
        let (mut place, mut filled) = (0, 0);
        while place < LANES {
            if marks >> place & 1 != 0 {
                let (to, from) = if together { (filled, place) } else { (place, filled) };
                #[expect(clippy::cast_possible_truncation, reason = "places are below 16")]
                {
                    table[marks][2 * to] = 2 * from as u8;
                    table[marks][2 * to + 1] = 2 * from as u8 + 1;
                }
                filled += 1;
            }
            place += 1;
        }
        marks += 1;
    }
    table
}

pub(super) fn pack16(elements: &[u16], usual: u16, bitmap: &mut [u8], packed: &mut [u16], count: &mut usize) {
    assert!(packed.len() >= elements.len() + LANES && bitmap.len() >= elements.len().div_ceil(8));
    let (groups, rest) = elements.as_chunks::<GROUP>();
    let (words, last) = bitmap.split_at_mut(groups.len() * GROUP / 8);
    // SAFETY: the caller asked for the processor's features; `packed` has the room that the function needs.
    let filled = unsafe { pack_groups(groups, usual, words.as_chunks_mut().0, packed) };
    let mut more = 0;
    super::pack16_portable(rest, usual, last, &mut packed[filled..], &mut more);
    *count = filled + more;
}

/// # Safety
/// The processor has the features; `packed` has `LANES` more elements than there are in `groups`.
#[target_feature(enable = "avx2,popcnt")]
unsafe fn pack_groups(
    groups: &[[u16; GROUP]],
    usual: u16,
    words: &mut [[u8; 4]],
    packed: &mut [u16],
) -> usize {
    let usual = _mm256_set1_epi16(usual.cast_signed());
    let mut filled = 0;
    for (group, word) in groups.iter().zip(words) {
        let source = group.as_ptr();
        // SAFETY: a group is 64 bytes long.
        let halves = unsafe {
            [0, 16].map(|at| _mm256_cmpeq_epi16(_mm256_loadu_si256(source.add(at).cast::<__m256i>()), usual))
        };
        // Packing works within halves of a vector: the second and the third quarter are to change places.
        let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(halves[0], halves[1]));
        *word = (!_mm256_movemask_epi8(bytes)).to_le_bytes();
        if *word == [0; 4] {
            continue;
        }
        for (i, &marks) in word.iter().enumerate() {
            // SAFETY: eight elements of the group are read; no more were filled than were read, and eight more fit
            // behind them.
            unsafe {
                let shuffle = _mm_loadu_si128(TOGETHER[usize::from(marks)].as_ptr().cast::<__m128i>());
                let lanes = _mm_loadu_si128(source.add(i * LANES).cast::<__m128i>());
                let target = packed.as_mut_ptr().add(filled).cast::<__m128i>();
                _mm_storeu_si128(target, _mm_shuffle_epi8(lanes, shuffle));
            }
            filled += marks.count_ones() as usize;
        }
    }
    filled
}

/// The bitmap marks `count` elements, all of them there.
pub(super) fn add_marked16(
    bitmap: &[u8],
    packed: &[u16],
    count: usize,
    (base, ordered): (&[u8], bool),
    out: &mut [u8],
) {
    assert!(packed.len() >= count + LANES && super::ones(bitmap) == count);
    let (groups, rest) = out.as_chunks_mut::<{ 2 * GROUP }>();
    let (bases, rest_base) = base.split_at(groups.len() * 2 * GROUP);
    let (words, last) = bitmap.split_at(groups.len() * GROUP / 8);
    let (bases, words) = (bases.as_chunks().0, words.as_chunks().0);
    // SAFETY: the caller asked for the processor's features; the bitmap marks `LANES` fewer elements than `packed`
    // has.
    let used = unsafe {
        if ordered {
            add_groups::<true>(words, packed, bases, groups)
        } else {
            add_groups::<false>(words, packed, bases, groups)
        }
    };
    super::add_marked16_portable(last, &packed[used..count], rest_base, ordered, rest);
}

/// # Safety
/// The processor has the features; `packed` has `LANES` more elements than the words mark.
#[target_feature(enable = "avx2,popcnt")]
unsafe fn add_groups<const ORDERED: bool>(
    words: &[[u8; 4]],
    packed: &[u16],
    bases: &[[u8; 2 * GROUP]],
    groups: &mut [[u8; 2 * GROUP]],
) -> usize {
    let (one, top) = (_mm_set1_epi16(1), _mm_set1_epi16(i16::MIN));
    let mut used = 0;
    for ((group, base), word) in groups.iter_mut().zip(bases).zip(words) {
        if *word == [0; 4] {
            *group = *base;
            continue;
        }
        for (i, &marks) in word.iter().enumerate() {
            // SAFETY: eight elements of the base are read and of the group written; no more of the packed ones were
            // used than are marked, and eight more are behind them.
            unsafe {
                let shuffle = _mm_loadu_si128(APART[usize::from(marks)].as_ptr().cast::<__m128i>());
                let source = packed.as_ptr().add(used).cast::<__m128i>();
                let zigzag = _mm_shuffle_epi8(_mm_loadu_si128(source), shuffle);
                let sign = _mm_sub_epi16(_mm_setzero_si128(), _mm_and_si128(zigzag, one));
                let moved = _mm_xor_si128(_mm_srli_epi16::<1>(zigzag), sign);
                let x = _mm_loadu_si128(base.as_ptr().add(2 * i * LANES).cast::<__m128i>());
                let sum = if ORDERED {
                    let x = _mm_xor_si128(x, _mm_or_si128(_mm_srai_epi16::<15>(x), top));
                    let y = _mm_add_epi16(x, moved);
                    // The top bit is set in what was positive.
                    let positive = _mm_srai_epi16::<15>(y);
                    _mm_xor_si128(y, _mm_or_si128(_mm_xor_si128(positive, _mm_set1_epi16(-1)), top))
                } else {
                    _mm_add_epi16(x, moved)
                };
                _mm_storeu_si128(group.as_mut_ptr().add(2 * i * LANES).cast::<__m128i>(), sum);
            }
            used += marks.count_ones() as usize;
        }
    }
    used
}
