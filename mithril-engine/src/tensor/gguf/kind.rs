//! The types of ggml's tensors.

use crate::tensor::{Element, bytes_of};

/// What the bytes of a tensor are.
pub(super) struct Kind {
    /// What is done with them. Blocks of quantised numbers are bytes.
    pub(super) element: Element,
    /// Numbers of a block, which lie in one row, and the bytes that it takes.
    block: u64,
    block_bytes: u64,
}

impl Kind {
    /// The type with this number; `None` if it is not known, or not known to be in files.
    pub(super) fn of(number: u32) -> Option<Self> {
        let element = match number {
            0 => Some(Element::F32),
            1 => Some(Element::F16),
            24 => Some(Element::I8),
            25 => Some(Element::I16),
            26 => Some(Element::I32),
            27 => Some(Element::I64),
            28 => Some(Element::F64),
            30 => Some(Element::Bf16),
            _ => None,
        };
        if let Some(element) = element {
            return Some(Self { element, block: 1, block_bytes: element.width() as u64 });
        }
        let (block, block_bytes) = match number {
            // Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
            2 => (32, 18),
            3 => (32, 20),
            6 => (32, 22),
            7 => (32, 24),
            8 => (32, 34),
            // Q2_K to Q6_K.
            10 => (256, 84),
            11 => (256, 110),
            12 => (256, 144),
            13 => (256, 176),
            14 => (256, 210),
            // IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, IQ4_NL, IQ3_S, IQ2_S, IQ4_XS.
            16 => (256, 66),
            17 => (256, 74),
            18 => (256, 98),
            19 => (256, 50),
            20 => (32, 18),
            21 => (256, 110),
            22 => (256, 82),
            23 => (256, 136),
            // IQ1_M, TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0.
            29 => (256, 56),
            34 => (256, 54),
            35 => (256, 66),
            39 => (32, 17),
            40 => (64, 36),
            41 => (128, 18),
            _ => return None,
        };
        Some(Self { element: Element::Bytes, block, block_bytes })
    }

    /// Bytes of a tensor of this shape; `None` if its rows are no whole blocks or they do not fit 64 bits.
    pub(super) fn bytes(&self, shape: &[u64]) -> Option<u64> {
        let (&row, rows) = shape.split_last().unwrap_or((&1, &[]));
        let row_bytes =
            row.is_multiple_of(self.block).then(|| (row / self.block).checked_mul(self.block_bytes))?;
        bytes_of(rows, row_bytes?)
    }
}
