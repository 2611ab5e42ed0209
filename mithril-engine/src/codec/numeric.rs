//! What is done to numbers before their bytes are coded: all of it reversible on every bit pattern, NaN included.
//!
//! * Rotating the sign to the lowest bit puts the whole exponent into the highest byte, so that it is one symbol.
//! * The ordered integer of a float grows with its value (negative numbers have all bits inverted, others the top
//!   one): neighbours are one apart, across zero and exponents too. So a difference of ordered integers says how
//!   many representable values lie between, and is small where a weight moved a little.
//! * Zigzag folds the sign of a difference into its lowest bit.
//! * Integers that count or are sorted (positions, offsets, indices) are told by their steps.

use super::dispatch::multiversion;

/// What was done to the elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Transform {
    /// Nothing.
    None = 0,
    /// The sign is the lowest bit.
    RotateSign = 1,
    /// Zigzag of the difference of ordered integers, against the base.
    OrderedDifference = 2,
    /// Zigzag of the plain difference, against the base.
    Difference = 3,
    /// Zigzag of the plain difference, against the element before in the block.
    Step = 4,
}

impl Transform {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        use Transform::{Difference, None, OrderedDifference, RotateSign, Step};
        [None, RotateSign, OrderedDifference, Difference, Step]
            .into_iter()
            .find(|transform| *transform as u8 == code)
    }

    pub(super) fn needs_base(self) -> bool {
        matches!(self, Transform::OrderedDifference | Transform::Difference)
    }
}

macro_rules! number {
    ($unsigned:ty, $signed:ty, $module:ident) => {
        /// Transforms of one width.
        pub(super) mod $module {
            /// The unsigned integer of this width.
            pub(in crate::codec) type Word = $unsigned;
            /// Bytes of an element.
            pub(in crate::codec) const WIDTH: usize = size_of::<Word>();
            const TOP: Word = 1 << (Word::BITS - 1);

            #[inline(always)]
            pub(in crate::codec) fn load(bytes: &[u8; WIDTH]) -> Word {
                Word::from_le_bytes(*bytes)
            }

            #[inline(always)]
            pub(in crate::codec) fn ordered(x: Word) -> Word {
                x ^ ((x.cast_signed() >> (Word::BITS - 1)).cast_unsigned() | TOP)
            }

            #[inline(always)]
            pub(in crate::codec) fn unordered(y: Word) -> Word {
                y ^ (((!y).cast_signed() >> (Word::BITS - 1)).cast_unsigned() | TOP)
            }

            #[inline(always)]
            pub(in crate::codec) fn zigzag(d: Word) -> Word {
                (d << 1) ^ (d.cast_signed() >> (Word::BITS - 1)).cast_unsigned()
            }

            #[inline(always)]
            pub(in crate::codec) fn unzigzag(z: Word) -> Word {
                (z >> 1) ^ (z & 1).wrapping_neg()
            }

            /// Forward, as the transform's code says.
            #[inline(always)]
            pub(in crate::codec) fn forward<const CODE: u8>(x: Word, base: Word) -> Word {
                match CODE {
                    1 => x.rotate_left(1),
                    2 => zigzag(ordered(x).wrapping_sub(ordered(base))),
                    3 => zigzag(x.wrapping_sub(base)),
                    _ => x,
                }
            }

            /// Back.
            #[inline(always)]
            pub(in crate::codec) fn backward<const CODE: u8>(z: Word, base: Word) -> Word {
                match CODE {
                    1 => z.rotate_right(1),
                    2 => unordered(ordered(base).wrapping_add(unzigzag(z))),
                    3 => base.wrapping_add(unzigzag(z)),
                    _ => z,
                }
            }
        }
    };
}

number!(u8, i8, w1);
number!(u16, i16, w2);
number!(u32, i32, w4);
number!(u64, i64, w8);

multiversion! {
    /// Zigzag differences of 16-bit elements, of ordered integers if `signed`.
    pub(super) fn differences16(raw: &[u8], base: &[u8], signed: bool, out: &mut [u16]) {
        let pairs = raw.as_chunks::<2>().0.iter().zip(base.as_chunks::<2>().0);
        if signed {
            for (out, (x, b)) in out.iter_mut().zip(pairs) {
                *out = w2::forward::<2>(w2::load(x), w2::load(b));
            }
        } else {
            for (out, (x, b)) in out.iter_mut().zip(pairs) {
                *out = w2::forward::<3>(w2::load(x), w2::load(b));
            }
        }
    }
}

multiversion! {
    /// Adds zigzag differences back to 16-bit elements.
    pub(super) fn add_differences16(zigzags: &[u16], base: &[u8], signed: bool, out: &mut [u8]) {
        let pairs = zigzags.iter().zip(base.as_chunks::<2>().0);
        if signed {
            for (out, (&z, b)) in out.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
                *out = w2::backward::<2>(z, w2::load(b)).to_le_bytes();
            }
        } else {
            for (out, (&z, b)) in out.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
                *out = w2::backward::<3>(z, w2::load(b)).to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_integers_grow_with_the_value_and_come_back() {
        let mut last = 0;
        for bits in (0..=u16::MAX).filter(|bits| !half::bf16::from_bits(*bits).is_nan()) {
            assert_eq!(w2::unordered(w2::ordered(bits)), bits);
        }
        for value in [f32::NEG_INFINITY, -3.0, -1e-40, -0.0, 0.0, 1e-40, 3.0, f32::INFINITY] {
            let now = w4::ordered(value.to_bits());
            assert!(now > last, "{value}");
            last = now;
        }
    }

    #[test]
    fn every_transform_is_reversible() {
        for x in [0u32, 1, 0x7fc0_0001, 0x8000_0000, 0xffff_ffff, 0x3f80_0000, 0x1234_5678] {
            for b in [0u32, 0x8000_0000, 0x3f80_0001, 0xffff_ffff] {
                assert_eq!(w4::backward::<1>(w4::forward::<1>(x, b), b), x);
                assert_eq!(w4::backward::<2>(w4::forward::<2>(x, b), b), x);
                assert_eq!(w4::backward::<3>(w4::forward::<3>(x, b), b), x);
            }
        }
        for x in 0..=255u8 {
            for b in 0..=255u8 {
                assert_eq!(w1::backward::<2>(w1::forward::<2>(x, b), b), x);
            }
        }
    }
}
