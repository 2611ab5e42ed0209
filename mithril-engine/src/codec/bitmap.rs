//! Which elements are something else than the usual one: one bit each, and the unusual ones packed together.

use super::DecodeError;
use super::dispatch::multiversion;

/// Bytes of a bitmap of `count` elements.
pub(super) fn bytes_for(count: usize) -> usize {
    count.div_ceil(8)
}

/// Eight flags, each 0 or 1 in its byte, as the bits of one byte, the first lowest. The multiplication moves flag `i`
/// from bit `8 i` to bit `56 + i`, and no two of its products meet.
#[inline(always)]
fn gather(flags: [u8; 8]) -> u8 {
    (u64::from_le_bytes(flags).wrapping_mul(0x0102_0408_1020_4080) >> 56).to_le_bytes()[0]
}

macro_rules! element {
    ($pack:ident, $unpack:ident, $patch:ident, $ty:ty) => {
        multiversion! {
            /// Packs the elements that are not `usual` and marks them. `packed` has room for all of `elements` and a
            /// little more. Writes their number to `count`.
            pub(super) fn $pack(
                elements: &[$ty],
                usual: $ty,
                bitmap: &mut [u8],
                packed: &mut [$ty],
                count: &mut usize,
            ) {
                let mut filled = 0;
                let (whole, rest) = elements.as_chunks::<8>();
                for (byte, group) in bitmap.iter_mut().zip(whole) {
                    let flags = group.map(|x| u8::from(x != usual));
                    *byte = gather(flags);
                    for (x, flag) in group.iter().zip(flags) {
                        packed[filled] = *x;
                        filled += usize::from(flag);
                    }
                }
                if !rest.is_empty() {
                    let mut byte = 0;
                    for (i, x) in rest.iter().enumerate() {
                        packed[filled] = *x;
                        filled += usize::from(*x != usual);
                        byte |= u8::from(*x != usual) << i;
                    }
                    bitmap[whole.len()] = byte;
                }
                *count = filled;
            }
        }

        /// Spreads packed elements to where the bitmap says, `usual` elsewhere.
        pub(super) fn $unpack(
            bitmap: &[u8],
            packed: &[$ty],
            usual: $ty,
            out: &mut [$ty],
        ) -> Result<(), DecodeError> {
            if ones(bitmap) != packed.len()
                || bitmap.len() != bytes_for(out.len())
                || !is_clean(bitmap, out.len())
            {
                return Err(DecodeError::Malformed("a bitmap does not match its elements"));
            }
            out.fill(usual);
            $patch(bitmap, packed, out);
            Ok(())
        }

        multiversion! {
            /// Writes packed elements to the marked places. As many are marked as are packed, all inside `out`.
            fn $patch(bitmap: &[u8], packed: &[$ty], out: &mut [$ty]) {
                let mut packed = packed.iter();
                for (group, bytes) in bitmap.chunks(8).enumerate() {
                    let mut word = [0; 8];
                    word[..bytes.len()].copy_from_slice(bytes);
                    let mut word = u64::from_le_bytes(word);
                    while word != 0 {
                        let place = group * 64 + word.trailing_zeros() as usize;
                        if let (Some(out), Some(x)) = (out.get_mut(place), packed.next()) {
                            *out = *x;
                        }
                        word &= word - 1;
                    }
                }
            }
        }
    };
}

element!(pack8, unpack8, patch8, u8);
element!(pack16_portable, unpack16_portable, patch16, u16);

/// Room that `packed` needs behind its elements: whole vectors are read and written.
pub(super) const PACKED_SLACK: usize = 32;

/// [`pack8`] for 16-bit elements. `packed` has room for all of `elements` and [`PACKED_SLACK`] more.
pub(super) fn pack16(elements: &[u16], usual: u16, bitmap: &mut [u8], packed: &mut [u16], count: &mut usize) {
    #[cfg(target_arch = "x86_64")]
    if vectors::available() {
        return vectors::pack16(elements, usual, bitmap, packed, count);
    }
    pack16_portable(elements, usual, bitmap, packed, count);
}

/// [`unpack8`] for 16-bit elements: the first `count` of `packed`, which has [`PACKED_SLACK`] more.
pub(super) fn unpack16(
    bitmap: &[u8],
    packed: &[u16],
    count: usize,
    usual: u16,
    out: &mut [u16],
) -> Result<(), DecodeError> {
    #[cfg(target_arch = "x86_64")]
    if vectors::available() && packed.len() >= count + PACKED_SLACK {
        check(bitmap, count, out.len())?;
        vectors::unpack16(bitmap, packed, usual, out);
        return Ok(());
    }
    unpack16_portable(bitmap, packed.get(..count).unwrap_or_default(), usual, out)
}

/// A bitmap must mark as many elements as are packed, all of them there.
fn check(bitmap: &[u8], packed: usize, count: usize) -> Result<(), DecodeError> {
    if ones(bitmap) == packed && bitmap.len() == bytes_for(count) && is_clean(bitmap, count) {
        return Ok(());
    }
    Err(DecodeError::Malformed("a bitmap does not match its elements"))
}

/// The same with the vector instructions made for it: 32 elements at a time.
#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::arch::x86_64::{
        __m512i, _mm512_cmpneq_epi16_mask, _mm512_loadu_si512, _mm512_mask_expand_epi16,
        _mm512_maskz_compress_epi16, _mm512_set1_epi16, _mm512_storeu_si512,
    };

    use super::super::dispatch::{Isa, isa};

    const LANES: usize = 32;

    pub(super) fn available() -> bool {
        isa() == Isa::Avx512
    }

    pub(super) fn pack16(
        elements: &[u16],
        usual: u16,
        bitmap: &mut [u8],
        packed: &mut [u16],
        count: &mut usize,
    ) {
        assert!(packed.len() >= elements.len() + LANES && bitmap.len() >= elements.len().div_ceil(8));
        // SAFETY: `available` was asked, and the buffers have the room that the function needs.
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

    pub(super) fn unpack16(bitmap: &[u8], packed: &[u16], usual: u16, out: &mut [u16]) {
        // SAFETY: `available` was asked; the caller checked that the bitmap marks `LANES` fewer elements than
        // `packed` has.
        unsafe { unpack16_wide(bitmap, packed, usual, out) }
    }

    /// # Safety
    /// The processor has the features; `packed` has `LANES` more elements than the bitmap marks.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
    unsafe fn unpack16_wide(bitmap: &[u8], packed: &[u16], usual: u16, out: &mut [u16]) {
        let usual_lanes = _mm512_set1_epi16(usual.cast_signed());
        let (groups, rest) = out.as_chunks_mut::<LANES>();
        let mut used = 0;
        for (group, word) in groups.iter_mut().zip(bitmap.as_chunks::<4>().0) {
            let mask = u32::from_le_bytes(*word);
            // SAFETY: no more elements were used than are marked, and a whole vector fits behind them; a group is
            // 64 bytes long.
            unsafe {
                let lanes = _mm512_loadu_si512(packed.as_ptr().add(used).cast::<__m512i>());
                let spread = _mm512_mask_expand_epi16(usual_lanes, mask, lanes);
                _mm512_storeu_si512(group.as_mut_ptr().cast::<__m512i>(), spread);
            }
            used += mask.count_ones() as usize;
        }
        rest.fill(usual);
        super::patch16(&bitmap[groups.len() * 4..], &packed[used..], rest);
    }
}

/// Marks in a bitmap.
fn ones(bitmap: &[u8]) -> usize {
    let (words, rest) = bitmap.as_chunks::<8>();
    let whole: u32 = words.iter().map(|word| u64::from_le_bytes(*word).count_ones()).sum();
    (whole + rest.iter().map(|byte| byte.count_ones()).sum::<u32>()) as usize
}

/// Whether the bits after the last element are zero.
fn is_clean(bitmap: &[u8], count: usize) -> bool {
    count.is_multiple_of(8) || bitmap.last().is_none_or(|last| last >> (count % 8) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_reversible_at_every_length() {
        for len in 0..200usize {
            let elements: Vec<u8> = (0..=199u8).take(len).map(|i| if i % 3 == 0 { 7 } else { i }).collect();
            let mut bitmap = vec![0; bytes_for(len)];
            let mut packed = vec![0; len + 1];
            let mut count = 0;
            pack8(&elements, 7, &mut bitmap, &mut packed, &mut count);
            let mut out = vec![0; len];
            unpack8(&bitmap, &packed[..count], 7, &mut out).unwrap();
            assert_eq!(out, elements);
        }
    }

    #[test]
    fn vectors_and_portable_code_agree() {
        let mut state = 9u32;
        for len in (0..140).chain([4095, 4096, 4097]) {
            let elements: Vec<u16> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if state >> 30 == 0 { u16::try_from(state >> 16 & 0xffff).unwrap() } else { 5 }
                })
                .collect();
            let run = |pack: fn(&[u16], u16, &mut [u8], &mut [u16], &mut usize)| {
                let mut bitmap = vec![0; bytes_for(len)];
                let mut packed = vec![0; len + PACKED_SLACK];
                let mut count = 0;
                pack(&elements, 5, &mut bitmap, &mut packed, &mut count);
                packed.truncate(count);
                (bitmap, packed)
            };
            let (bitmap, mut packed) = run(pack16);
            assert_eq!((&bitmap, &packed), (&run(pack16_portable).0, &run(pack16_portable).1));
            let count = packed.len();
            let mut out = vec![0; len];
            unpack16_portable(&bitmap, &packed, 5, &mut out).unwrap();
            assert_eq!(out, elements);
            packed.resize(count + PACKED_SLACK, 77);
            out.fill(0);
            unpack16(&bitmap, &packed, count, 5, &mut out).unwrap();
            assert_eq!(out, elements);
        }
    }

    #[test]
    fn a_bitmap_that_lies_is_refused() {
        let mut out = [0; 10];
        assert!(unpack8(&[1, 0], &[], 0, &mut out).is_err());
        assert!(unpack8(&[0, 0xfc], &[1; 6], 0, &mut out).is_err());
        assert!(unpack8(&[0], &[], 0, &mut out).is_err());
        assert!(unpack8(&[1, 2], &[5, 6], 0, &mut out).is_ok());
    }
}
