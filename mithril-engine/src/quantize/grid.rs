//! The values of 8-bit floats.

/// A float format: which values there are.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Grid {
    /// Bits of the mantissa, without the leading one.
    mantissa_bits: i32,
    /// Exponent of the smallest normal number.
    least_exponent: i32,
    /// The largest finite number.
    largest: f64,
}

/// OCP E4M3: no infinities, one NaN, up to 448.
pub(super) const E4M3: Grid = Grid { mantissa_bits: 3, least_exponent: -6, largest: 448.0 };
/// OCP E5M2: as IEEE 754, up to 57344.
pub(super) const E5M2: Grid = Grid { mantissa_bits: 2, least_exponent: -14, largest: 57344.0 };

/// Shifts beyond which a power of two is no normal `f64` any more, with room for the grid itself.
const SHIFT_MAX: i32 = 1000;

impl Grid {
    /// The power of two that moves a magnitude to the top of the range.
    pub(super) fn shift_for(&self, largest: f64) -> i32 {
        if largest == 0.0 {
            return 0;
        }
        let mut shift = (exponent_of(self.largest) - exponent_of(largest)).clamp(-SHIFT_MAX, SHIFT_MAX);
        // The top binade is not full: what lies beyond its last value goes one binade lower.
        if self.nearest(largest * power(shift)) > self.largest {
            shift -= 1;
        }
        shift
    }

    /// The nearest value of the grid times `2^-shift`, ties to even; the largest one for what lies beyond it.
    pub(super) fn round(&self, x: f64, shift: i32) -> f64 {
        let shifted = x * power(shift);
        self.nearest(shifted).clamp(-self.largest, self.largest) * power(-shift)
    }

    fn nearest(&self, x: f64) -> f64 {
        if x == 0.0 || !x.is_finite() {
            return x;
        }
        let step = power(exponent_of(x).max(self.least_exponent) - self.mantissa_bits);
        // Both are exact: divisions by and products with powers of two.
        (x / step).round_ties_even() * step
    }
}

/// The exponent of a finite number that is not zero; of a subnormal one that of the smallest normal.
fn exponent_of(x: f64) -> i32 {
    let biased = (x.to_bits() >> 52 & 0x7ff).max(1);
    i32::try_from(biased).unwrap_or(0) - 1023
}

/// `2^exponent` for exponents of normal numbers.
fn power(exponent: i32) -> f64 {
    let biased = u64::try_from(exponent.clamp(-1022, 1023) + 1023).unwrap_or(0);
    f64::from_bits(biased << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All values of a format by its definition.
    fn values(exponent_bits: u32, mantissa_bits: u32, largest: f64) -> Vec<f64> {
        let bias = (1 << (exponent_bits - 1)) - 1;
        let mut values = Vec::new();
        for exponent in 0..1 << exponent_bits {
            for mantissa in 0..1 << mantissa_bits {
                let fraction = f64::from(mantissa) / f64::from(1 << mantissa_bits);
                let value = if exponent == 0 {
                    fraction * power(1 - bias)
                } else {
                    (1.0 + fraction) * power(exponent - bias)
                };
                if value <= largest {
                    values.push(value);
                }
            }
        }
        values
    }

    #[test]
    fn rounding_finds_the_nearest_value() {
        for (grid, values) in [(E4M3, values(4, 3, 448.0)), (E5M2, values(5, 2, 57344.0))] {
            assert_eq!(values.last(), Some(&grid.largest));
            for (&low, &high) in values.iter().zip(&values[1..]) {
                assert_eq!(grid.round(low, 0), low);
                assert_eq!(grid.round(-low, 0), -low);
                for share in [0.1, 0.49, 0.51, 0.9] {
                    let nearest = if share < 0.5 { low } else { high };
                    assert_eq!(grid.round(low + share * (high - low), 0), nearest, "{low} {high}");
                }
            }
            assert_eq!(grid.round(1e9, 0), grid.largest);
        }
        // Ties go to the even mantissa.
        assert_eq!(E4M3.round(1.0625, 0), 1.0);
        assert_eq!(E4M3.round(1.1875, 0), 1.25);
    }

    #[test]
    fn a_shift_moves_the_largest_to_the_top() {
        for largest in [1e-290, 3e-40, 0.02, 1.0, 448.0, 449.0, 470.0, 1e6, 1e300] {
            for grid in [E4M3, E5M2] {
                let shift = grid.shift_for(largest);
                let moved = largest * power(shift);
                assert!(moved <= grid.largest * 1.07 && moved > grid.largest / 2.4, "{largest}: {moved}");
                let error = (grid.round(largest, shift) - largest).abs() / largest;
                assert!(error <= power(-grid.mantissa_bits - 1), "{largest}: {error}");
            }
        }
    }
}
