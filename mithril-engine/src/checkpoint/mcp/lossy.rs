//! Rounding of the floats of a checkpoint, if it is asked for.

use std::collections::BTreeMap;

use crate::chunk::{Piece, PieceKey};
use crate::error::Result;
use crate::format::mcp::Loss;
use crate::quantize::{self, Bound, Quantization, Quantized, Report, Scheme};
use crate::tensor::{Layout, Tensor};

/// Which elements share a scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scales {
    /// So many in a row.
    Block(usize),
    /// A row of the tensor: those that share all indices but the last.
    Channel,
}

/// What is done to the floats of a checkpoint. Integers, and tensors of less than 4 KiB, stay what they are.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lossy {
    /// What elements become.
    pub scheme: Scheme,
    /// How far they may be from what they were: those that would be further are kept exactly.
    pub bound: Bound,
    /// Which of them share a scale.
    pub scales: Scales,
}

impl Lossy {
    /// Quantizes the bytes of a piece; `None` for one that stays what it is.
    pub(super) fn apply(&self, piece: &Piece, layout: &Layout, raw: &[u8]) -> Result<Option<Quantized>> {
        let PieceKey::Tensor { index, offset } = piece.key else { return Ok(None) };
        let Some(tensor) = layout.tensors.get(index).filter(|tensor| quantize::applies_to(tensor.element))
        else {
            return Ok(None);
        };
        let width = tensor.element.width();
        let (Ok(first), true) = (usize::try_from(offset / width as u64), raw.len().is_multiple_of(width))
        else {
            return Ok(None);
        };
        let how = Quantization {
            scheme: self.scheme,
            bound: self.bound,
            block_elements: self.block_elements(tensor),
        };
        quantize::quantize(raw, tensor.element, first, &how).map(Some)
    }

    fn block_elements(&self, tensor: &Tensor) -> usize {
        let row = tensor.shape.last().and_then(|&row| usize::try_from(row).ok()).unwrap_or(1);
        match self.scales {
            Scales::Block(elements) => elements,
            Scales::Channel => row.max(1),
        }
    }
}

/// The losses of a file, tensor by tensor.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeMap<usize, Report>);

impl Losses {
    pub(super) fn add(&mut self, piece: &Piece, report: &Report) {
        if let PieceKey::Tensor { index, .. } = piece.key {
            self.0.entry(index).or_default().add(report);
        }
    }

    pub(super) fn finish(self, lossy: &Lossy) -> Vec<Loss> {
        let Lossy { scheme, bound, .. } = *lossy;
        self.0.into_iter().map(|(tensor, report)| Loss { tensor, scheme, bound, report }).collect()
    }
}
