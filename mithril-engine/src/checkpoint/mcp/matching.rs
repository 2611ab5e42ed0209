//! Which bytes of the reference a piece of a checkpoint is likeliest to resemble.

use std::collections::HashMap;

use crate::chunk::{self, Piece, PieceKey};
use crate::range::ByteRange;
use crate::tensor::{Element, Layout, Tensor};

/// The reference's tensors by what they are.
pub(super) struct Matching {
    exact: HashMap<(String, Element, Vec<u64>), ByteRange>,
    /// By name and type: a vocabulary that grew is still the same matrix at its start.
    by_name: HashMap<(String, Element), ByteRange>,
    /// Runs of bytes outside the tensors, without holes.
    gaps: Vec<ByteRange>,
}

impl Matching {
    /// The matching with a file of this layout and these ranges of data.
    pub(super) fn new(layout: &Layout, spans: &[ByteRange]) -> Self {
        let (mut exact, mut by_name) = (HashMap::new(), HashMap::new());
        for tensor in &layout.tensors {
            let key = (tensor.name.clone(), tensor.element, tensor.shape.clone());
            exact.entry(key).or_insert(tensor.range);
            by_name.entry((tensor.name.clone(), tensor.element)).or_insert(tensor.range);
        }
        let mut gaps: Vec<ByteRange> = Vec::new();
        for piece in chunk::cut(layout, spans) {
            match piece.key {
                PieceKey::Gap { offset: 0, .. } => gaps.push(piece.range),
                PieceKey::Gap { .. } => {
                    if let Some(gap) = gaps.last_mut() {
                        gap.len += piece.range.len;
                    }
                }
                PieceKey::Tensor { .. } => {}
            }
        }
        Self { exact, by_name, gaps }
    }

    /// The range for a piece of a file with these tensors. Numbers need a base of their own length; bytes take what
    /// there is.
    pub(super) fn find(&self, piece: &Piece, tensors: &[Tensor]) -> Option<ByteRange> {
        let (whole, offset) = match &piece.key {
            PieceKey::Tensor { index, offset } => {
                let tensor = tensors.get(*index)?;
                let key = (tensor.name.clone(), tensor.element, tensor.shape.clone());
                let whole = self
                    .exact
                    .get(&key)
                    .or_else(|| self.by_name.get(&(tensor.name.clone(), tensor.element)))?;
                (whole, *offset)
            }
            PieceKey::Gap { ordinal, offset } => (self.gaps.get(*ordinal)?, *offset),
        };
        let left = whole.len.checked_sub(offset).filter(|&left| left > 0)?;
        let range = ByteRange::new(whole.offset.checked_add(offset)?, left.min(piece.range.len))?;
        (piece.element == Element::Bytes || range.len == piece.range.len).then_some(range)
    }
}
