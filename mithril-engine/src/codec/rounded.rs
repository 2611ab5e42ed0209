//! Numbers of 16 bits that are the rounding of numbers of 32 bits: the weights that a model computes with beside the
//! master weights that its optimizer keeps. The base is the chunk of the latter, twice as long, and only what differs
//! is stored.
//!
//! ```text
//! body        mode u8, exceptions u24, then of each: place u24, element u16
//! mode        0 bfloat16, to the nearest, ties to even; 1 bfloat16, cut off; 2 binary16, to the nearest, ties to even
//! ```
//!
//! Places are indices of elements, ascending. What a NaN is rounded to is written out below, since processors and
//! libraries differ about it; where a file has something else, it is an exception.

use super::dispatch::multiversion;
use super::{DecodeError, Decoded, put_u24, take, take_u8, take_u24};
use crate::tensor::Element;

/// Of so many elements one may be an exception: more do not come from rounding.
const EXCEPTION_SHARE: usize = 64;
/// Bytes of an exception.
const EXCEPTION_BYTES: usize = 5;

/// How 32 bits become 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Bf16Nearest = 0,
    Bf16Cut = 1,
    F16Nearest = 2,
}

impl Mode {
    fn of_code(code: u8) -> Option<Self> {
        [Mode::Bf16Nearest, Mode::Bf16Cut, Mode::F16Nearest].into_iter().find(|mode| *mode as u8 == code)
    }

    /// The modes that elements of a type may come from, likeliest first.
    fn of(element: Element) -> &'static [Mode] {
        match element {
            Element::Bf16 => &[Mode::Bf16Nearest, Mode::Bf16Cut],
            Element::F16 => &[Mode::F16Nearest],
            _ => &[],
        }
    }

    fn round(self, from: &[u8], to: &mut [u8]) {
        match self {
            Mode::Bf16Nearest => to_bf16_nearest(from, to),
            Mode::Bf16Cut => to_bf16_cut(from, to),
            Mode::F16Nearest => to_f16_nearest(from, to),
        }
    }
}

multiversion! {
    fn to_bf16_nearest(from: &[u8], to: &mut [u8]) {
        for (to, from) in to.as_chunks_mut::<2>().0.iter_mut().zip(from.as_chunks::<4>().0) {
            let bits = u32::from_le_bytes(*from);
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            // A NaN stays one: its quiet bit is set.
            let quiet = bits >> 16 | 0x40;
            let half = if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded };
            *to = [half.to_le_bytes()[0], half.to_le_bytes()[1]];
        }
    }
}

multiversion! {
    fn to_bf16_cut(from: &[u8], to: &mut [u8]) {
        for (to, from) in to.as_chunks_mut::<2>().0.iter_mut().zip(from.as_chunks::<4>().0) {
            *to = [from[2], from[3]];
        }
    }
}

fn to_f16_nearest(from: &[u8], to: &mut [u8]) {
    for (to, from) in to.as_chunks_mut::<2>().0.iter_mut().zip(from.as_chunks::<4>().0) {
        *to = f16_nearest(u32::from_le_bytes(*from)).to_le_bytes();
    }
}

/// The binary16 that is nearest to a binary32: ties to even, infinity beyond the largest, NaN with the upper ten bits of
/// its payload and the quiet bit.
fn f16_nearest(bits: u32) -> u16 {
    let sign = bits >> 16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        0x7e00 | magnitude >> 13 & 0x3ff
    } else if magnitude >= 0x4780_0000 {
        0x7c00
    } else if magnitude >= 0x3880_0000 {
        // The exponent's bias goes from 127 to 15. A carry out of the fraction is right: it may reach infinity.
        let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
        (rounded >> 13) - (112 << 10)
    } else {
        // A subnormal number counts units of 2^-24.
        let shift = 126 - (magnitude >> 23);
        if shift > 24 {
            0
        } else {
            let fraction = magnitude & 0x7f_ffff | 0x80_0000;
            let (kept, cut) = (fraction >> shift, fraction & ((1 << shift) - 1));
            let tie = 1 << (shift - 1);
            kept + u32::from(cut > tie || cut == tie && kept & 1 == 1)
        }
    };
    u16::try_from(sign | half).unwrap_or(0)
}

/// What numbers of 32 bits are rounded to, by every type and mode.
pub(crate) fn roundings(master: &[u8]) -> Vec<(Element, Vec<u8>)> {
    let rounded = |element, mode: &Mode| {
        let mut rounded = vec![0; master.len() / 2];
        mode.round(master, &mut rounded);
        (element, rounded)
    };
    [Element::Bf16, Element::F16]
        .into_iter()
        .flat_map(|element| Mode::of(element).iter().map(move |mode| rounded(element, mode)))
        .collect()
}

/// Appends the body of `raw`, rounded from `base`; returns whether it was, and appends nothing if not. `rounded` is a
/// buffer.
pub(super) fn encode(
    raw: &[u8],
    element: Element,
    base: &[u8],
    rounded: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> bool {
    if raw.is_empty() || !raw.len().is_multiple_of(2) || base.len() != 2 * raw.len() {
        return false;
    }
    let rounded = super::sized(rounded, raw.len());
    let limit = raw.len() / 2 / EXCEPTION_SHARE;
    for &mode in Mode::of(element) {
        mode.round(base, rounded);
        let start = out.len();
        out.push(mode as u8);
        put_u24(out, 0);
        if put_exceptions(raw, rounded, limit, out) {
            let count = (out.len() - start - 4) / EXCEPTION_BYTES;
            out[start + 1..start + 4].copy_from_slice(&count.to_le_bytes()[..3]);
            return true;
        }
        out.truncate(start);
    }
    false
}

/// Appends where `raw` is not what was rounded; `false` if that is at more than `limit` places.
fn put_exceptions(raw: &[u8], rounded: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
    const GROUP: usize = 64;
    let mut count = 0;
    for (index, (group, expected)) in raw.chunks(GROUP).zip(rounded.chunks(GROUP)).enumerate() {
        if group == expected {
            continue;
        }
        for (place, (x, y)) in group.as_chunks::<2>().0.iter().zip(expected.as_chunks::<2>().0).enumerate() {
            if x != y {
                count += 1;
                if count > limit {
                    return false;
                }
                put_u24(out, index * GROUP / 2 + place);
                out.extend_from_slice(x);
            }
        }
    }
    true
}

/// Decodes what `encode` wrote.
pub(super) fn decode(mut body: &[u8], base: &[u8], out: &mut [u8]) -> Decoded<()> {
    if !out.len().is_multiple_of(2) || base.len() != 2 * out.len() {
        return Err(DecodeError::WrongBase);
    }
    let mode =
        Mode::of_code(take_u8(&mut body)?).ok_or(DecodeError::Malformed("unknown mode of rounding"))?;
    let count = take_u24(&mut body)?;
    mode.round(base, out);
    let elements = out.as_chunks_mut::<2>().0;
    let mut after = 0;
    for _ in 0..count {
        let place = take_u24(&mut body)?;
        let value = take(&mut body, 2)?;
        let element = elements.get_mut(place).filter(|_| place >= after);
        let element = element.ok_or(DecodeError::Malformed("an exception is out of place"))?;
        *element = [value[0], value[1]];
        after = place + 1;
    }
    if body.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes are left over")) }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    /// Numbers of every exponent, with ties among them.
    fn numbers() -> Vec<u32> {
        let exponents = (0..=255u32).flat_map(|exponent| {
            let fractions =
                [0, 1, 0xfff, 0x1000, 0x1001, 0x3000, 0x7fff, 0x8000, 0x8001, 0x1_8000, 0x7f_ffff];
            fractions.map(|fraction| exponent << 23 | fraction)
        });
        exponents.flat_map(|bits| [bits, bits | 1 << 31]).collect()
    }

    #[test]
    fn rounding_is_that_of_the_standard() {
        let numbers = numbers();
        let bytes: Vec<u8> = numbers.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let mut nearest = vec![0; bytes.len() / 2];
        to_bf16_nearest(&bytes, &mut nearest);
        for (bits, nearest) in numbers.iter().zip(nearest.as_chunks::<2>().0) {
            let value = f32::from_bits(*bits);
            assert_eq!(u16::from_le_bytes(*nearest), bf16::from_f32(value).to_bits(), "{bits:08x}");
            if !value.is_nan() {
                assert_eq!(f16_nearest(*bits), f16::from_f32_const(value).to_bits(), "{bits:08x}");
            }
            assert_eq!(f16::from_bits(f16_nearest(*bits)).is_nan(), value.is_nan());
        }
    }

    #[test]
    fn what_was_rounded_costs_nothing_and_exceptions_a_little() {
        let numbers = numbers();
        let base: Vec<u8> = numbers.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        for (element, mode) in [
            (Element::Bf16, Mode::Bf16Nearest),
            (Element::Bf16, Mode::Bf16Cut),
            (Element::F16, Mode::F16Nearest),
        ] {
            let mut raw = vec![0; base.len() / 2];
            mode.round(&base, &mut raw);
            for exceptions in 0..4 {
                let mut body = Vec::new();
                assert!(encode(&raw, element, &base, &mut Vec::new(), &mut body));
                assert_eq!((body[0], body.len()), (mode as u8, 4 + exceptions * EXCEPTION_BYTES));
                let mut out = vec![0x55; raw.len()];
                decode(&body, &base, &mut out).unwrap();
                assert_eq!(out, raw);
                for len in 0..body.len() {
                    assert!(decode(&body[..len], &base, &mut out).is_err());
                }
                assert_eq!(decode(&body, &base[4..], &mut out), Err(DecodeError::WrongBase));
                raw[77 + 400 * exceptions] ^= 0x11;
            }
        }
    }

    #[test]
    fn other_numbers_are_left_to_other_formats() {
        let base: Vec<u8> = numbers().iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let other = vec![0x3f; base.len() / 2];
        let mut body = Vec::new();
        for element in [Element::Bf16, Element::F16, Element::F32] {
            assert!(!encode(&other, element, &base, &mut Vec::new(), &mut body));
        }
        assert!(!encode(&other[1..], Element::Bf16, &base, &mut Vec::new(), &mut body));
        assert!(body.is_empty());
    }

    #[test]
    fn exceptions_out_of_place_are_refused() {
        let (base, mut out) = ([0; 16], [0; 8]);
        let body = |places: &[u8]| {
            let mut body = vec![0, u8::try_from(places.len()).unwrap(), 0, 0];
            body.extend(places.iter().flat_map(|&place| [place, 0, 0, 1, 2]));
            body
        };
        assert!(decode(&body(&[0, 3]), &base, &mut out).is_ok());
        assert!(decode(&body(&[3, 0]), &base, &mut out).is_err());
        assert!(decode(&body(&[1, 1]), &base, &mut out).is_err());
        assert!(decode(&body(&[4]), &base, &mut out).is_err());
    }
}
