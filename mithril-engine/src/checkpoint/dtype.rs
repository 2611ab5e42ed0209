//! Element types as callers name them.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::tensor::Element;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident = $element:ident, $text:literal $(| $alias:literal)*;)*) => {
        /// What the elements of a buffer are.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum DType {
            $($(#[$doc])* $name,)*
        }

        impl DType {
            /// All of them.
            pub const ALL: &'static [DType] = &[$(DType::$name),*];

            /// Its name, as PyTorch prints it without `torch.`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(DType::$name => $text,)*
                }
            }

            /// What the codec knows it as.
            pub const fn element(self) -> Element {
                match self {
                    $(DType::$name => Element::$element,)*
                }
            }
        }

        impl FromStr for DType {
            type Err = Error;

            /// Reads PyTorch's names, with or without `torch.`, and the short ones (`bf16`, `fp32`, `i64`).
            fn from_str(name: &str) -> Result<Self> {
                match name.strip_prefix("torch.").unwrap_or(name) {
                    $($text $(| $alias)* => Ok(DType::$name),)*
                    _ => Err(Error::invalid(
                        format!("dtype {name:?}"),
                        "it is not known; use one like bfloat16, float32, int64 or uint8",
                    )),
                }
            }
        }
    };
}

dtypes! {
    /// bfloat16: a sign, 8 bits of exponent, 7 of mantissa.
    BFloat16 = Bf16, "bfloat16" | "bf16" | "BF16";
    /// IEEE 754 binary16.
    Float16 = F16, "float16" | "fp16" | "f16" | "half" | "F16";
    /// IEEE 754 binary32.
    Float32 = F32, "float32" | "fp32" | "f32" | "float" | "F32";
    /// IEEE 754 binary64.
    Float64 = F64, "float64" | "fp64" | "f64" | "double" | "F64";
    /// 8-bit float with 4 bits of exponent, as OCP defines it.
    Float8E4M3 = F8E4M3, "float8_e4m3fn" | "fp8_e4m3" | "fp8" | "F8_E4M3";
    /// 8-bit float with 5 bits of exponent, as OCP defines it.
    Float8E5M2 = F8E5M2, "float8_e5m2" | "fp8_e5m2" | "F8_E5M2";
    /// 8-bit float with 4 bits of exponent and no negative zero.
    Float8E4M3Fnuz = F8E4M3Fnuz, "float8_e4m3fnuz" | "F8_E4M3FNUZ";
    /// 8-bit float with 5 bits of exponent and no negative zero.
    Float8E5M2Fnuz = F8E5M2Fnuz, "float8_e5m2fnuz" | "F8_E5M2FNUZ";
    /// Signed 8 bits.
    Int8 = I8, "int8" | "i8" | "I8";
    /// Unsigned 8 bits.
    UInt8 = U8, "uint8" | "u8" | "U8";
    /// Signed 16 bits.
    Int16 = I16, "int16" | "i16" | "short" | "I16";
    /// Unsigned 16 bits.
    UInt16 = U16, "uint16" | "u16" | "U16";
    /// Signed 32 bits.
    Int32 = I32, "int32" | "i32" | "int" | "I32";
    /// Unsigned 32 bits.
    UInt32 = U32, "uint32" | "u32" | "U32";
    /// Signed 64 bits.
    Int64 = I64, "int64" | "i64" | "long" | "I64";
    /// Unsigned 64 bits.
    UInt64 = U64, "uint64" | "u64" | "U64";
    /// A byte that is 0 or 1.
    Bool = Bool, "bool" | "BOOL";
    /// Two binary32.
    Complex64 = Complex64, "complex64" | "c64" | "cfloat";
    /// No numbers, or packed ones of less than a byte.
    Bytes = Bytes, "bytes" | "raw";
}

impl DType {
    /// Bytes of an element.
    pub const fn width(self) -> usize {
        self.element().width()
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_with_and_without_their_module() {
        for &dtype in DType::ALL {
            assert_eq!(dtype.name().parse::<DType>().ok(), Some(dtype));
            assert_eq!(format!("torch.{dtype}").parse::<DType>().ok(), Some(dtype));
        }
        let error = "float7".parse::<DType>().unwrap_err().to_string();
        assert!(error.contains("float7") && error.contains("bfloat16"), "{error}");
    }
}
