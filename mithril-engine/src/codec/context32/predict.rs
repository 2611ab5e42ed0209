//! What an element is expected to be, by its base alone.
//!
//! Where nothing but decay acts, an element is its base times a factor, rounded. After many steps of a weak decay it is its
//! base and a few units in the last place, whose number depends on the mantissa alone: rounding at each step is the same
//! for all elements whose mantissas are close.

use super::super::{DecodeError, Decoded, take, take_u8, take_u24};
use super::groups::{LANES, Words};
use super::number::w4;

/// Offsets of [`Steps`], at most.
pub(super) const MAX_STEPS: usize = 16;

mod kind {
    pub(super) const BASE: u8 = 0;
    pub(super) const FACTOR: u8 = 1;
    pub(super) const STEPS: u8 = 2;
}

/// How elements are predicted.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Prediction {
    /// By their bases.
    Base,
    /// By their bases times a factor; see [`w4::scaled`].
    Factor(f32),
    /// By their bases and an offset.
    Steps(Steps),
}

/// Offsets of the bits of normal numbers: each is for the mantissas from one on, up to where the next begins.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Steps {
    count: usize,
    /// The first one is 0.
    from: [u32; MAX_STEPS],
    offset: [u32; MAX_STEPS],
}

impl Steps {
    /// Offsets, and the mantissas from which they are; the first is 0, and they ascend. `None`: too many, or not so.
    pub(super) fn new(steps: &[(u32, u32)]) -> Option<Self> {
        let starts = steps.first().is_some_and(|(from, _)| *from == 0);
        if !starts || steps.len() > MAX_STEPS || !steps.is_sorted_by(|a, b| a.0 < b.0) {
            return None;
        }
        let mut all = Self { count: steps.len(), from: [0; MAX_STEPS], offset: [0; MAX_STEPS] };
        for (i, &(from, offset)) in steps.iter().enumerate() {
            (all.from[i], all.offset[i]) = (from, offset);
        }
        Some(all)
    }

    #[inline(always)]
    fn add(&self, base: &Words) -> Words {
        let mut offsets = [self.offset[0]; LANES];
        for step in 1..self.count.min(MAX_STEPS) {
            let more = self.offset[step].wrapping_sub(self.offset[step - 1]);
            for lane in 0..LANES {
                let reached = base[lane] & w4::MANTISSA >= self.from[step];
                offsets[lane] = offsets[lane].wrapping_add(if reached { more } else { 0 });
            }
        }
        let mut words = *base;
        for lane in 0..LANES {
            let offset = if w4::is_normal(base[lane]) { offsets[lane] } else { 0 };
            words[lane] = base[lane].wrapping_add(offset);
        }
        words
    }
}

impl Prediction {
    /// Predicts a group.
    #[inline(always)]
    pub(super) fn of(&self, base: &Words) -> Words {
        match self {
            Prediction::Base => *base,
            Prediction::Factor(factor) => {
                let mut words = *base;
                for word in &mut words {
                    *word = w4::scaled(*word, *factor);
                }
                words
            }
            Prediction::Steps(steps) => steps.add(base),
        }
    }

    /// Appends it.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Prediction::Base => out.push(kind::BASE),
            Prediction::Factor(factor) => {
                out.push(kind::FACTOR);
                out.extend_from_slice(&factor.to_le_bytes());
            }
            Prediction::Steps(steps) => {
                out.extend_from_slice(&[kind::STEPS, steps.count.to_le_bytes()[0]]);
                for (i, (from, offset)) in steps.from.iter().zip(&steps.offset).take(steps.count).enumerate()
                {
                    if i > 0 {
                        out.extend_from_slice(&from.to_le_bytes()[..3]);
                    }
                    out.extend_from_slice(&offset.to_le_bytes());
                }
            }
        }
    }

    /// Takes it from the front of `body`.
    pub(super) fn take(body: &mut &[u8]) -> Decoded<Self> {
        let take_u32 = |body: &mut &[u8]| -> Decoded<u32> {
            let bytes = take(body, 4)?;
            Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        match take_u8(body)? {
            kind::BASE => Ok(Prediction::Base),
            kind::FACTOR => {
                let bits = take_u32(body)?;
                if bits & w4::TOP != 0 || !w4::is_normal(bits) {
                    return Err(DecodeError::Malformed("a factor is no positive normal number"));
                }
                Ok(Prediction::Factor(f32::from_bits(bits)))
            }
            kind::STEPS => {
                const WRONG: DecodeError = DecodeError::Malformed("the steps of a prediction are wrong");
                let count = usize::from(take_u8(body)?);
                if count > MAX_STEPS {
                    return Err(WRONG);
                }
                let mut steps = [(0, 0); MAX_STEPS];
                for (i, (from, offset)) in steps[..count].iter_mut().enumerate() {
                    if i > 0 {
                        *from = u32::try_from(take_u24(body)?).unwrap_or(u32::MAX);
                    }
                    *offset = take_u32(body)?;
                }
                if steps.iter().any(|(from, _)| *from > w4::MANTISSA) {
                    return Err(WRONG);
                }
                Steps::new(&steps[..count]).map(Prediction::Steps).ok_or(WRONG)
            }
            _ => Err(DecodeError::Malformed("unknown prediction")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_come_back_and_impossible_ones_are_refused() {
        let steps = Steps::new(&[(0, 2u32.wrapping_neg()), (0x2a_aaab, 3u32.wrapping_neg())]).unwrap();
        for prediction in [Prediction::Base, Prediction::Factor(0.999), Prediction::Steps(steps)] {
            let mut bytes = Vec::new();
            prediction.put(&mut bytes);
            let mut rest = &bytes[..];
            assert_eq!(Prediction::take(&mut rest), Ok(prediction));
            assert!(rest.is_empty());
            for len in 0..bytes.len() {
                assert!(Prediction::take(&mut &bytes[..len]).is_err());
            }
        }
        let wrong: [&[u8]; 7] = [
            &[3],
            &[1, 0, 0, 0x80, 0xbf],                                        // -1
            &[1, 0, 0, 0x80, 0x7f],                                        // infinity
            &[1, 0, 0, 0x40, 0],                                           // subnormal
            &[2, 0],                                                       // no steps
            &[2, 2, 0, 0, 0, 0, 0, 0, 0x80, 1, 0, 0, 0],                   // no mantissa
            &[2, 3, 0, 0, 0, 0, 5, 0, 0, 1, 0, 0, 0, 5, 0, 0, 1, 0, 0, 0], // not ascending
        ];
        for bytes in wrong {
            assert!(Prediction::take(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn steps_are_for_normal_numbers_from_their_mantissas_on() {
        let steps = Steps::new(&[(0, 7), (100, 5), (101, u32::MAX)]).unwrap();
        let mut base = [0; LANES];
        let some =
            [0x3f80_0000, 0x3f80_0063, 0xbf80_0064, 0x3f80_0065, 0x3fff_ffff, 0x7f80_0001, 1, 0x8000_0000];
        base[..8].copy_from_slice(&some);
        let expected =
            [0x3f80_0007, 0x3f80_006a, 0xbf80_0069, 0x3f80_0064, 0x3fff_fffe, 0x7f80_0001, 1, 0x8000_0000];
        assert_eq!(Prediction::Steps(steps).of(&base)[..8], expected);
    }
}
