//! Element types, as the containers name them.

/// What one element of a tensor is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Element {
    /// No element known: text, pickles, packed sub-byte types.
    Bytes = 0,
    /// One byte, 0 or 1.
    Bool = 1,
    /// Unsigned 8 bits.
    U8 = 2,
    /// Signed 8 bits.
    I8 = 3,
    /// Signed 16 bits.
    I16 = 4,
    /// Unsigned 16 bits.
    U16 = 5,
    /// Signed 32 bits.
    I32 = 6,
    /// Unsigned 32 bits.
    U32 = 7,
    /// Signed 64 bits.
    I64 = 8,
    /// Unsigned 64 bits.
    U64 = 9,
    /// IEEE 754 binary16.
    F16 = 10,
    /// bfloat16.
    Bf16 = 11,
    /// IEEE 754 binary32.
    F32 = 12,
    /// IEEE 754 binary64.
    F64 = 13,
    /// 8-bit float, 4 exponent bits, OCP.
    F8E4M3 = 14,
    /// 8-bit float, 5 exponent bits, OCP.
    F8E5M2 = 15,
    /// 8-bit float, 4 exponent bits, no negative zero.
    F8E4M3Fnuz = 16,
    /// 8-bit float, 5 exponent bits, no negative zero.
    F8E5M2Fnuz = 17,
    /// An 8-bit exponent, as the scales of MX formats.
    F8E8M0 = 18,
    /// Two `F32`.
    Complex64 = 19,
    /// Two `F64`.
    Complex128 = 20,
}

impl Element {
    /// Every element type.
    pub const ALL: [Element; 21] = [
        Element::Bytes,
        Element::Bool,
        Element::U8,
        Element::I8,
        Element::I16,
        Element::U16,
        Element::I32,
        Element::U32,
        Element::I64,
        Element::U64,
        Element::F16,
        Element::Bf16,
        Element::F32,
        Element::F64,
        Element::F8E4M3,
        Element::F8E5M2,
        Element::F8E4M3Fnuz,
        Element::F8E5M2Fnuz,
        Element::F8E8M0,
        Element::Complex64,
        Element::Complex128,
    ];

    /// Bytes of one element.
    pub const fn width(self) -> usize {
        match self {
            Element::Bytes
            | Element::Bool
            | Element::U8
            | Element::I8
            | Element::F8E4M3
            | Element::F8E5M2
            | Element::F8E4M3Fnuz
            | Element::F8E5M2Fnuz
            | Element::F8E8M0 => 1,
            Element::I16 | Element::U16 | Element::F16 | Element::Bf16 => 2,
            Element::I32 | Element::U32 | Element::F32 => 4,
            Element::I64 | Element::U64 | Element::F64 | Element::Complex64 => 8,
            Element::Complex128 => 16,
        }
    }

    /// Its number on disk.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The element type with this number on disk.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_positions() {
        for (position, element) in Element::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(element.code()), position);
            assert_eq!(Element::from_code(element.code()), Some(element));
        }
        assert_eq!(Element::from_code(21), None);
    }
}
