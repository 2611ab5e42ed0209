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
element!(pack16, unpack16, patch16, u16);

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
    fn a_bitmap_that_lies_is_refused() {
        let mut out = [0; 10];
        assert!(unpack8(&[1, 0], &[], 0, &mut out).is_err());
        assert!(unpack8(&[0, 0xfc], &[1; 6], 0, &mut out).is_err());
        assert!(unpack8(&[0], &[], 0, &mut out).is_err());
        assert!(unpack8(&[1, 2], &[5, 6], 0, &mut out).is_ok());
    }
}
