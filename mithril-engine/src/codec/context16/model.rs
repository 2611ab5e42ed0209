//! What predicts a change, and what a change is made of: constants of the format, and integer arithmetic only, so that
//! every machine makes the same choices.

use super::super::entropy::{LOG2_FRACTION, log2};

/// Elements of a group: what a step of the coder takes, one a lane.
pub(super) const LANES: usize = 32;
/// Bytes of a group.
pub(super) const GROUP_BYTES: usize = 2 * LANES;
/// Exponent classes, from the smallest base values to the greatest.
pub(super) const EXPONENT_CLASSES: usize = 16;
/// Density classes: how many of the group before have changed.
pub(super) const DENSITY_CLASSES: usize = 8;
/// Value classes: how far a changed element moved.
pub(super) const VALUE_CLASSES: usize = 32;
/// Value classes below this one are the value itself, the others have raw bits.
pub(super) const FIRST_RAW_CLASS: u8 = 8;

/// The base of the elements that fill up the last groups. They have not changed.
pub(super) const PADDING: u16 = 0x7f80;

/// What the elements are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(in crate::codec) enum Kind {
    /// Floats with 8 bits of exponent.
    Bf16 = 0,
    /// Floats with 5 bits of exponent.
    F16 = 1,
    /// Integers, signed or not.
    Integer = 2,
}

impl Kind {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Kind::Bf16, Kind::F16, Kind::Integer].into_iter().find(|kind| *kind as u8 == code)
    }

    /// Whether differences are those of ordered integers, with the sign of the base folded in.
    pub(super) fn is_float(self) -> bool {
        self != Kind::Integer
    }

    /// Where the exponent is: the lowest bit, and the greatest number in it. Integers have none.
    fn exponent(self) -> (u32, u16) {
        match self {
            Kind::Bf16 => (7, 255),
            Kind::F16 => (10, 31),
            Kind::Integer => (0, 0),
        }
    }
}

/// The exponents that have a class of their own. Those below share the first class, those above the last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Lowest bit of the exponent.
    pub(super) shift: u32,
    /// The exponent's bits, after shifting.
    pub(super) mask: u16,
    /// The exponent of the first class.
    pub(super) lowest: u8,
    /// Whether the elements are floats.
    pub(super) float: bool,
}

impl Window {
    pub(super) fn new(kind: Kind, lowest: u8) -> Self {
        let (shift, mask) = kind.exponent();
        Self { shift, mask, lowest, float: kind.is_float() }
    }

    /// The window for a block: at most one in 512 of its elements is above class 13. Judged on every 16th element.
    pub(super) fn choose(kind: Kind, base: &[u8]) -> Self {
        let mut window = Self::new(kind, 0);
        let mut counts = [0u32; 256];
        let mut sampled = 0;
        for element in base.as_chunks::<2>().0.iter().step_by(16) {
            let exponent = u16::from_le_bytes(*element) >> window.shift & window.mask;
            counts[usize::from(exponent)] += 1;
            sampled += 1;
        }
        let (mut top, mut above) = (255, 0);
        while top > 15 {
            above += counts[usize::from(top)];
            if above > sampled >> 9 {
                break;
            }
            top -= 1;
        }
        window.lowest = if window.mask == 0 { 0 } else { top - 13 };
        window
    }

    /// The exponent class of a base value.
    #[inline(always)]
    pub(super) fn class(self, base: u16) -> u8 {
        (base >> self.shift & self.mask).saturating_sub(u16::from(self.lowest)).min(15).to_le_bytes()[0]
    }
}

/// The density class of each number of changes in a group.
pub(super) const DENSITY: [u8; LANES + 1] = {
    const MOST: [usize; DENSITY_CLASSES] = [0, 1, 3, 7, 13, 20, 27, 32];
    let mut classes = [0; LANES + 1];
    let (mut changes, mut class) = (0, 0);
    while changes <= LANES {
        if changes > MOST[class as usize] {
            class += 1;
        }
        classes[changes] = class;
        changes += 1;
    }
    classes
};

/// The first value of a value class. Values below 8 are a class each; then every power of two has two classes, one for
/// each half of what is below the next; the last two powers have one each.
pub(super) const FIRST_VALUE: [u16; VALUE_CLASSES] = {
    let mut first = [0; VALUE_CLASSES];
    let (mut class, mut value) = (0, 0u16);
    while class < VALUE_CLASSES {
        first[class] = value;
        value = value.wrapping_add(1 << RAW_BITS[class]);
        class += 1;
    }
    first
};

/// How many bits of a value its class leaves open.
pub(super) const RAW_BITS: [u8; VALUE_CLASSES] =
    [0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 14, 15];

/// The value class of a value.
#[allow(clippy::cast_possible_truncation, reason = "a constant: there are no conversions by traits")]
pub(super) const fn value_class(value: u16) -> u8 {
    if value < 8 {
        return value as u8;
    }
    let octave = value.ilog2() as u8;
    if octave >= 14 { octave + 16 } else { 2 * octave + 2 + (value >> (octave - 1) & 1) as u8 }
}

/// The probability of a change that a code stands for, in units of 2^-16: from 1 to 65535. The code is logarithmic on both
/// sides of one half, 8 to a factor of two.
#[allow(clippy::cast_possible_truncation, reason = "a constant: there are no conversions by traits")]
pub(super) const PROBABILITY: [u16; 256] = {
    /// 65536 * 2^(-i/8)
    const EIGHTHS: [u32; 8] = [65536, 60097, 55109, 50535, 46341, 42495, 38968, 35734];
    let mut probabilities = [0; 256];
    let mut steps = 0;
    while steps < 128 {
        let rarer = (EIGHTHS[steps % 8] >> (steps / 8)) >> 1;
        let rarer = if rarer == 0 { 1 } else { rarer };
        probabilities[127 - steps] = rarer as u16;
        probabilities[128 + steps] = (65536 - rarer) as u16;
        steps += 1;
    }
    probabilities
};

/// The code that is closest to `changed` of `all` (not 0), with a little doubt.
pub(super) fn probability_code(changed: u32, all: u32) -> u8 {
    let (changed, all) = (50 * u64::from(changed) + 1, 50 * u64::from(all) + 2);
    let rarer = changed.min(all - changed);
    // Eighths of a factor of two below one half, rounded.
    let bits = (log2(all) - log2(rarer)).saturating_sub(1 << LOG2_FRACTION);
    let steps = ((bits + (1 << (LOG2_FRACTION - 4))) >> (LOG2_FRACTION - 3)).min(127).to_le_bytes()[0];
    if changed < all - changed { 127 - steps } else { 128 + steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_cover_all_values_in_order() {
        for value in 0..=u16::MAX {
            let class = usize::from(value_class(value));
            assert!(FIRST_VALUE[class] <= value);
            assert!(u32::from(value - FIRST_VALUE[class]) < 1 << RAW_BITS[class]);
        }
        assert_eq!(FIRST_VALUE[31], 32768);
        assert_eq!(value_class(8), FIRST_RAW_CLASS);
    }

    #[test]
    fn a_probability_code_is_within_a_sixteenth_of_a_factor_of_two() {
        assert_eq!(PROBABILITY[127], 32768);
        assert_eq!(PROBABILITY[128], 32768);
        assert_eq!((PROBABILITY[0], PROBABILITY[255]), (1, 65535));
        for (changed, all) in [(1u32, 100u32), (50, 100), (99, 100), (1, 3000), (123, 4567), (4400, 4567)] {
            let probability = f64::from(PROBABILITY[usize::from(probability_code(changed, all))]) / 65536.0;
            let real = f64::from(changed) / f64::from(all);
            let factor = if real < 0.5 { probability / real } else { (1.0 - probability) / (1.0 - real) };
            assert!(factor.log2().abs() < 0.1, "{changed} {all} {probability}");
        }
        assert_eq!(probability_code(0, 1 << 20), probability_code(0, u32::MAX / 64));
        assert_eq!((probability_code(0, 1), probability_code(1, 1)), (127 - 38, 128 + 38));
    }

    #[test]
    fn the_window_holds_nearly_all_exponents() {
        let base: Vec<u8> = (0..40_000u16).flat_map(|i| (0x3c00 + i % 0x200).to_le_bytes()).collect();
        let window = Window::choose(Kind::Bf16, &base);
        assert_eq!(window.lowest, 123 - 13);
        assert_eq!((window.class(0x3dff), window.class(0), window.class(PADDING)), (13, 0, 15));
        assert_eq!(Window::choose(Kind::Integer, &base).class(0xffff), 0);
        assert_eq!(Window::choose(Kind::F16, &base).class(0x7c00), 15);
    }
}
