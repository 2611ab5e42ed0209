//! What a float is made of, and the classes of differences between floats. All of it is exact on every bit pattern.
//!
//! A float without its sign is an integer, its *magnitude*, that grows with its value: the difference of two magnitudes of
//! the same sign says how many floats lie between. Differences are classed by *half-octaves*: the bit length, twice, and
//! the bit below the leading one. Class 0 is the difference 0, class 2 is 1, class 3 is none; from 4 on, `2n + h` has the
//! differences of `n` bits whose second bit is `h`.

macro_rules! number {
    ($(#[$attribute:meta])* $module:ident, $word:ty, $signed:ty, $float:ty) => {
        $(#[$attribute])*
        pub(super) mod $module {
            /// The bits of a float.
            pub(in crate::codec) type Word = $word;

            /// The sign.
            pub(in crate::codec) const TOP: Word = 1 << (Word::BITS - 1);
            const MANTISSA_BITS: u32 = <$float>::MANTISSA_DIGITS - 1;
            /// The bits of the mantissa.
            pub(in crate::codec) const MANTISSA: Word = (1 << MANTISSA_BITS) - 1;
            /// The greatest exponent: that of infinities and NaNs.
            const EXPONENTS: Word = (TOP >> MANTISSA_BITS) - 1;

            /// The bits of the exponent.
            #[inline(always)]
            pub(in crate::codec) fn exponent(x: Word) -> Word {
                x >> MANTISSA_BITS & EXPONENTS
            }

            /// Whether it is neither 0 or subnormal, nor infinite or a NaN.
            #[inline(always)]
            pub(in crate::codec) fn is_normal(x: Word) -> bool {
                exponent(x).wrapping_sub(1) < EXPONENTS - 1
            }

            /// The product with a factor, rounded to nearest, of a normal number. Where it is not safely normal too, which
            /// depends on how the processor treats subnormal numbers, the number itself.
            #[inline(always)]
            pub(in crate::codec) fn scaled(x: Word, factor: $float) -> Word {
                let product = (<$float>::from_bits(x) * factor).to_bits();
                let is_safe = exponent(product).wrapping_sub(2) < EXPONENTS - 2;
                if is_safe && is_normal(x) { product } else { x }
            }

            /// The half-octave of a difference, which is less than the sign's bit.
            #[inline(always)]
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "see inside")]
            pub(in crate::codec) fn half_octave(difference: Word) -> Word {
                // A conversion finds the leading one, and is exact in the two bits that count: the third is cleared, so
                // that rounding does not reach them.
                let rounded = (difference & !(difference >> 2)).cast_signed() as $float;
                (rounded.to_bits() >> (MANTISSA_BITS - 1)).saturating_sub(2 * (EXPONENTS / 2 - 1))
            }
        }
    };
}

number!(
    /// Floats of 32 bits.
    w4,
    u32,
    i32,
    f32
);
number!(
    /// Floats of 64 bits: not coded by this format yet, but nothing here is in the way.
    #[cfg(test)]
    #[allow(dead_code)]
    w8,
    u64,
    i64,
    f64
);

/// The leading bits of the differences in a half-octave: less than 4, to be followed by [`raw_bits`].
#[inline(always)]
pub(super) fn leading(half_octave: u8) -> u8 {
    // 0, 1 or 2, and the second bit if there is one.
    (half_octave >> 1).min(2) | half_octave & u8::from(half_octave > 3)
}

/// How many bits of a difference its half-octave leaves open.
#[inline(always)]
pub(super) const fn raw_bits(half_octave: u8) -> u8 {
    (half_octave >> 1).saturating_sub(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_octaves_and_raw_bits_make_every_difference() {
        let interesting = (0..64u32).flat_map(|bits| {
            let power = 1u64 << bits;
            [0, 1, 2, 3, power / 2, power / 2 + power / 4, power - power / 4]
                .map(|more| power.wrapping_sub(1) ^ more)
        });
        for difference in
            (0..5000).chain(interesting).chain([(1 << 25) - 1, (1 << 54) - 1, 0x00ff_ffff_ffff_ffff])
        {
            let check = |half_octave: u8| {
                let raw = raw_bits(half_octave);
                assert_eq!(difference >> raw, u64::from(leading(half_octave)), "{difference:x}");
                let bits = u64::BITS - difference.leading_zeros();
                assert_eq!(u32::from(half_octave >> 1), bits, "{difference:x}");
            };
            if let Ok(short) = u32::try_from(difference)
                && short < w4::TOP
            {
                check(u8::try_from(w4::half_octave(short)).unwrap());
            }
            if difference < w8::TOP {
                check(u8::try_from(w8::half_octave(difference)).unwrap());
            }
        }
    }

    #[test]
    fn only_safely_normal_products_count() {
        let scaled = |x: f32, factor: f32| f32::from_bits(w4::scaled(x.to_bits(), factor));
        assert_eq!(scaled(-3.0, 0.5), -1.5);
        assert_eq!(scaled(f32::MIN_POSITIVE * 4.0, 0.5), f32::MIN_POSITIVE * 2.0);
        for x in [0.0, -0.0, f32::MIN_POSITIVE / 2.0, f32::INFINITY, f32::MIN_POSITIVE * 2.0] {
            assert_eq!(scaled(x, 0.5).to_bits(), x.to_bits());
        }
        assert_eq!(scaled(f32::MAX, 2.0), f32::MAX);
        assert_eq!(w4::scaled(0xffc0_1234, 0.5), 0xffc0_1234);
        assert_eq!(w8::scaled(8f64.to_bits(), 0.25), 2f64.to_bits());
    }
}
