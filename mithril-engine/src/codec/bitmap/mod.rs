//! Which elements are something else than the usual one: one bit each, and the unusual ones packed together.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use super::DecodeError;
use super::dispatch::multiversion;
#[cfg(target_arch = "x86_64")]
use super::dispatch::{Isa, isa};
use super::numeric;

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

macro_rules! pack {
    ($name:ident, $ty:ty) => {
        multiversion! {
            /// Packs the elements that are not `usual` and marks them. `packed` has room for all of `elements` and a
            /// little more. Writes their number to `count`.
            pub(super) fn $name(
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
    };
}

pack!(pack8, u8);
pack!(pack16_portable, u16);

/// Spreads packed bytes to where the bitmap says, `usual` elsewhere.
pub(super) fn unpack8(bitmap: &[u8], packed: &[u8], usual: u8, out: &mut [u8]) -> Result<(), DecodeError> {
    if ones(bitmap) != packed.len() || bitmap.len() != bytes_for(out.len()) || !is_clean(bitmap, out.len()) {
        return Err(DecodeError::Malformed("a bitmap does not match its elements"));
    }
    out.fill(usual);
    patch8(bitmap, packed, out);
    Ok(())
}

multiversion! {
    /// Writes packed bytes to the marked places. As many are marked as are packed, all inside `out`.
    fn patch8(bitmap: &[u8], packed: &[u8], out: &mut [u8]) {
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

/// Room that `packed` needs behind its elements: whole vectors are read and written.
pub(super) const PACKED_SLACK: usize = 32;

/// [`pack8`] for 16-bit elements. `packed` has room for all of `elements` and [`PACKED_SLACK`] more.
pub(super) fn pack16(elements: &[u16], usual: u16, bitmap: &mut [u8], packed: &mut [u16], count: &mut usize) {
    #[cfg(target_arch = "x86_64")]
    match isa() {
        Isa::Avx512 => return avx512::pack16(elements, usual, bitmap, packed, count),
        Isa::Avx2 => return avx2::pack16(elements, usual, bitmap, packed, count),
        Isa::Portable => {}
    }
    pack16_portable(elements, usual, bitmap, packed, count);
}

/// Adds zigzag differences to the marked elements of `base`; the others stay as they are.
///
/// The differences are the first `count` of `packed`, which has [`PACKED_SLACK`] more; `base` and `out` are as long as
/// each other, and of whole elements. `zigzags` is a buffer with room for all elements.
///
/// # Errors
/// Where the bitmap does not mark `count` elements, or others than there are.
pub(super) fn add_marked16(
    bitmap: &[u8],
    packed: &[u16],
    count: usize,
    (base, ordered): (&[u8], bool),
    zigzags: &mut [u16],
    out: &mut [u8],
) -> Result<(), DecodeError> {
    let elements = out.len() / 2;
    if ones(bitmap) != count || bitmap.len() != bytes_for(elements) || !is_clean(bitmap, elements) {
        return Err(DecodeError::Malformed("a bitmap does not match its elements"));
    }
    #[cfg(target_arch = "x86_64")]
    match isa() {
        Isa::Avx512 => {
            let zigzags = &mut zigzags[..elements];
            avx512::unpack16(bitmap, packed, count, zigzags);
            numeric::add_differences16(zigzags, base, ordered, out);
            return Ok(());
        }
        Isa::Avx2 => {
            avx2::add_marked16(bitmap, packed, count, (base, ordered), out);
            return Ok(());
        }
        Isa::Portable => {}
    }
    let _ = zigzags;
    add_marked16_portable(bitmap, &packed[..count], base, ordered, out);
    Ok(())
}

fn add_marked16_portable(bitmap: &[u8], packed: &[u16], base: &[u8], ordered: bool, out: &mut [u8]) {
    out.copy_from_slice(base);
    let out = out.as_chunks_mut::<2>().0;
    if ordered {
        patch16(bitmap, packed, out, |x, zigzag| numeric::w2::backward::<2>(zigzag, x));
    } else {
        patch16(bitmap, packed, out, |x, zigzag| numeric::w2::backward::<3>(zigzag, x));
    }
}

/// Changes the marked elements by what is packed. As many are marked as are packed, all inside `out`.
#[inline(always)]
fn patch16(bitmap: &[u8], packed: &[u16], out: &mut [[u8; 2]], change: impl Fn(u16, u16) -> u16) {
    let mut packed = packed.iter();
    for (group, byte) in out.chunks_mut(8).zip(bitmap) {
        let mut byte = *byte;
        while byte != 0 {
            if let (Some(x), Some(zigzag)) = (group.get_mut(byte.trailing_zeros() as usize), packed.next()) {
                *x = change(u16::from_le_bytes(*x), *zigzag).to_le_bytes();
            }
            byte &= byte - 1;
        }
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

    /// Elements of which `rare` in 16 are not 5, whose places and values look random.
    fn elements(len: usize, rare: u32) -> Vec<u16> {
        let mut state = 9u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 28 < rare { u16::try_from(state >> 12 & 0xffff).unwrap() } else { 5 }
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn vectors_and_portable_code_pack_the_same() {
        type Pack = fn(&[u16], u16, &mut [u8], &mut [u16], &mut usize);
        for (len, rare) in (0..140).chain([4095, 4096, 4097]).flat_map(|len| [0, 1, 5, 16].map(|r| (len, r)))
        {
            let elements = elements(len, rare);
            let run = |pack: Pack| {
                let mut bitmap = vec![0; bytes_for(len)];
                let mut packed = vec![0; len + PACKED_SLACK];
                let mut count = 0;
                pack(&elements, 5, &mut bitmap, &mut packed, &mut count);
                packed.truncate(count);
                (bitmap, packed)
            };
            let expected = run(pack16_portable);
            assert_eq!(run(pack16), expected);
            #[cfg(target_arch = "x86_64")]
            if Isa::Avx2.supported() == Isa::Avx2 {
                assert_eq!(run(avx2::pack16), expected);
            }
        }
    }

    #[test]
    fn vectors_and_portable_code_add_the_same() {
        for (len, rare) in (0..140).chain([4095, 4096, 4097]).flat_map(|len| [0, 1, 5, 16].map(|r| (len, r)))
        {
            let zigzags: Vec<u16> = elements(len, rare).iter().map(|x| x ^ 5).collect();
            let base: Vec<u8> =
                (0..=u16::MAX).take(len).flat_map(|i| i.wrapping_mul(40503).to_le_bytes()).collect();
            let (mut bitmap, mut packed) = (vec![0; bytes_for(len)], vec![0; len + PACKED_SLACK]);
            let mut count = 0;
            pack16_portable(&zigzags, 0, &mut bitmap, &mut packed, &mut count);
            packed.truncate(count);
            packed.resize(count + PACKED_SLACK, 0x7777);
            for ordered in [false, true] {
                let mut expected = vec![0; 2 * len];
                numeric::add_differences16(&zigzags, &base, ordered, &mut expected);
                let mut out = vec![0; 2 * len];
                add_marked16(&bitmap, &packed, count, (&base, ordered), &mut vec![0; len], &mut out).unwrap();
                assert_eq!(out, expected);
                out.fill(0);
                add_marked16_portable(&bitmap, &packed[..count], &base, ordered, &mut out);
                assert_eq!(out, expected);
                #[cfg(target_arch = "x86_64")]
                if Isa::Avx2.supported() == Isa::Avx2 {
                    out.fill(0);
                    avx2::add_marked16(&bitmap, &packed, count, (&base, ordered), &mut out);
                    assert_eq!(out, expected);
                }
            }
        }
    }

    #[test]
    fn a_bitmap_that_lies_is_refused() {
        let mut out = [0; 10];
        assert!(unpack8(&[1, 0], &[], 0, &mut out).is_err());
        assert!(unpack8(&[0, 0xfc], &[1; 6], 0, &mut out).is_err());
        assert!(unpack8(&[0], &[], 0, &mut out).is_err());
        assert!(unpack8(&[1, 2], &[5, 6], 0, &mut out).is_ok());
        let add = |bitmap: &[u8], count| {
            add_marked16(bitmap, &[0; 2 + PACKED_SLACK], count, (&[0; 20], true), &mut [0; 10], &mut [0; 20])
        };
        assert!(add(&[1, 2], 2).is_ok());
        assert!(add(&[1, 2], 1).is_err());
        assert!(add(&[1, 4], 2).is_err());
        assert!(add(&[3], 2).is_err());
    }
}
