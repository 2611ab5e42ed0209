//! 32 elements at a time, with the instructions that compress and expand vectors.

use std::arch::x86_64::{
    __m512i, _mm512_cmpneq_epi16_mask, _mm512_loadu_si512, _mm512_mask_expand_epi16,
    _mm512_maskz_compress_epi16, _mm512_set1_epi16, _mm512_setzero_si512, _mm512_storeu_si512,
};

const LANES: usize = 32;

pub(super) fn pack16(elements: &[u16], usual: u16, bitmap: &mut [u8], packed: &mut [u16], count: &mut usize) {
    assert!(packed.len() >= elements.len() + LANES && bitmap.len() >= elements.len().div_ceil(8));
    // SAFETY: the caller asked for the processor's features, and the buffers have the room that the function needs.
    unsafe { pack16_wide(elements, usual, bitmap, packed, count) }
}

/// # Safety
/// The processor has the features; `packed` has `LANES` more elements than `elements`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
unsafe fn pack16_wide(
    elements: &[u16],
    usual: u16,
    bitmap: &mut [u8],
    packed: &mut [u16],
    count: &mut usize,
) {
    let (groups, rest) = elements.as_chunks::<LANES>();
    let words = bitmap.as_chunks_mut::<4>().0;
    let usual_lanes = _mm512_set1_epi16(usual.cast_signed());
    let mut filled = 0;
    for (group, word) in groups.iter().zip(words) {
        // SAFETY: a group is 64 bytes long; at most as many elements were filled as were read, and a whole
        // vector fits behind them.
        unsafe {
            let lanes = _mm512_loadu_si512(group.as_ptr().cast::<__m512i>());
            let mask = _mm512_cmpneq_epi16_mask(lanes, usual_lanes);
            let target = packed.as_mut_ptr().add(filled);
            _mm512_storeu_si512(target.cast::<__m512i>(), _mm512_maskz_compress_epi16(mask, lanes));
            *word = mask.to_le_bytes();
            filled += mask.count_ones() as usize;
        }
    }
    let mut more = 0;
    let start = groups.len() * 4;
    super::pack16_portable(rest, usual, &mut bitmap[start..], &mut packed[filled..], &mut more);
    *count = filled + more;
}

/// Spreads the first `count` of `packed` to where the bitmap says, and puts zeros elsewhere.
pub(super) fn unpack16(bitmap: &[u8], packed: &[u16], count: usize, out: &mut [u16]) {
    assert!(packed.len() >= count + LANES && super::ones(bitmap) == count);
    // SAFETY: the caller asked for the processor's features; the bitmap marks `LANES` fewer elements than `packed` has.
    unsafe { unpack16_wide(bitmap, packed, out) }
}

/// # Safety
/// The processor has the features; `packed` has `LANES` more elements than the bitmap marks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
unsafe fn unpack16_wide(bitmap: &[u8], packed: &[u16], out: &mut [u16]) {
    let (groups, rest) = out.as_chunks_mut::<LANES>();
    let mut used = 0;
    for (group, word) in groups.iter_mut().zip(bitmap.as_chunks::<4>().0) {
        let mask = u32::from_le_bytes(*word);
        // SAFETY: no more elements were used than are marked, and a whole vector fits behind them; a group is
        // 64 bytes long.
        unsafe {
            let lanes = _mm512_loadu_si512(packed.as_ptr().add(used).cast::<__m512i>());
            let spread = _mm512_mask_expand_epi16(_mm512_setzero_si512(), mask, lanes);
            _mm512_storeu_si512(group.as_mut_ptr().cast::<__m512i>(), spread);
        }
        used += mask.count_ones() as usize;
    }
    let mut packed = packed[used..].iter();
    for (i, x) in rest.iter_mut().enumerate() {
        let marked = bitmap[groups.len() * 4 + i / 8] >> (i % 8) & 1 != 0;
        *x = if marked { packed.next().copied().unwrap_or(0) } else { 0 };
    }
}
