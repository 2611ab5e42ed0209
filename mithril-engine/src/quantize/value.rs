//! The floats that are quantized.

/// A float of some width.
pub(super) trait Float: Copy {
    /// Reads it, little-endian; the slice has its width.
    fn load(bytes: &[u8]) -> Self;
    /// Writes it.
    fn store(self, bytes: &mut [u8]);
    /// Its value, exactly.
    fn to_f64(self) -> f64;
    /// The nearest one, ties to even.
    fn from_f64(value: f64) -> Self;
    /// A code times a scale: one multiplication in the element's precision or that of `f32`, whichever is more, then
    /// one rounding. Every machine gives the same bits.
    fn scaled(code: i8, scale: f32) -> Self;
}

macro_rules! float {
    ($name:ty, $width:literal, $to:expr, $from:expr, $scaled:expr) => {
        impl Float for $name {
            fn load(bytes: &[u8]) -> Self {
                let mut array = [0; $width];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }

            fn store(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            fn to_f64(self) -> f64 {
                $to(self)
            }

            fn from_f64(value: f64) -> Self {
                $from(value)
            }

            fn scaled(code: i8, scale: f32) -> Self {
                $scaled(code, scale)
            }
        }
    };
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is what is asked for")]
fn narrow(value: f64) -> f32 {
    value as f32
}

float!(f64, 8, |x| x, |x| x, |code, scale| f64::from(code) * f64::from(scale));
float!(f32, 4, f64::from, narrow, |code, scale| f32::from(code) * scale);
float!(half::f16, 2, half::f16::to_f64, half::f16::from_f64, |code, scale| half::f16::from_f32(
    f32::from(code) * scale
));
float!(half::bf16, 2, half::bf16::to_f64, half::bf16::from_f64, |code, scale| half::bf16::from_f32(
    f32::from(code) * scale
));
