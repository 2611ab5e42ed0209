//! Which chunk of an earlier file each piece of a new one is coded against.

use std::collections::HashMap;

use crate::chunk::{self, Piece, PieceKey};
use crate::format::manifest::{Extent, Manifest};
use crate::id::ChunkId;
use crate::tensor::{Element, Layout, Tensor};

/// The chunks of an earlier file, ready to be matched.
#[derive(Debug)]
pub(super) struct Bases {
    /// Chunk and length by file offset.
    chunks: HashMap<u64, (ChunkId, u32)>,
    /// Start of a tensor by name, type and shape.
    exact: HashMap<(String, Element, Vec<u64>), u64>,
    /// Start of a tensor by name and type: a vocabulary that grew is still the same matrix at its start.
    by_name: HashMap<(String, Element), u64>,
    /// Start of each run of bytes outside the tensors, without holes.
    gaps: Vec<u64>,
}

impl Bases {
    /// Indexes a manifest.
    pub(super) fn new(manifest: &Manifest) -> Self {
        let mut chunks = HashMap::with_capacity(manifest.extents.len());
        let mut position = 0;
        for extent in &manifest.extents {
            if let Extent::Chunk { id, len, .. } = *extent {
                chunks.insert(position, (id, len));
            }
            position += extent.len();
        }
        let mut exact = HashMap::new();
        let mut by_name = HashMap::new();
        for tensor in &manifest.tensors {
            let start = tensor.range.offset;
            exact.entry((tensor.name.clone(), tensor.element, tensor.shape.clone())).or_insert(start);
            by_name.entry((tensor.name.clone(), tensor.element)).or_insert(start);
        }
        let layout = Layout { container: manifest.container, tensors: manifest.tensors.clone(), note: None };
        // As the file was cut when it was packed: holes may be terabytes.
        let gaps = chunk::cut(&layout, &manifest.data_spans())
            .into_iter()
            .filter(|piece| matches!(piece.key, PieceKey::Gap { offset: 0, .. }))
            .map(|piece| piece.range.offset)
            .collect();
        Self { chunks, exact, by_name, gaps }
    }

    /// The chunk that `piece` of a file with these tensors is likeliest to resemble. Numbers need a base of their
    /// own length; bytes take any.
    pub(super) fn find(&self, piece: &Piece, tensors: &[Tensor]) -> Option<(ChunkId, u32)> {
        let offset = match &piece.key {
            PieceKey::Tensor { index, offset } => {
                let tensor = &tensors[*index];
                let start = self
                    .exact
                    .get(&(tensor.name.clone(), tensor.element, tensor.shape.clone()))
                    .or_else(|| self.by_name.get(&(tensor.name.clone(), tensor.element)))?;
                start.checked_add(*offset)?
            }
            PieceKey::Gap { ordinal, offset } => self.gaps.get(*ordinal)?.checked_add(*offset)?,
        };
        let (id, len) = *self.chunks.get(&offset)?;
        (piece.element == Element::Bytes || u64::from(len) == piece.range.len).then_some((id, len))
    }

    /// Share of the bytes of these pieces that have a base, from 0 to 1.
    pub(super) fn coverage(&self, pieces: &[Piece], tensors: &[Tensor]) -> f64 {
        let total: u64 = pieces.iter().map(|piece| piece.range.len).sum();
        let covered: u64 = pieces
            .iter()
            .filter(|piece| self.find(piece, tensors).is_some())
            .map(|piece| piece.range.len)
            .sum();
        if total == 0 { 0.0 } else { covered as f64 / total as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::ByteRange;
    use crate::tensor::Container;

    #[test]
    fn what_lies_behind_holes_of_terabytes_has_bases() {
        const HOLE: u64 = 15 << 40;
        let chunk = |byte, len, element| Extent::Chunk { id: ChunkId::from_bytes([byte; 32]), len, element };
        let range = ByteRange { offset: 5000 + HOLE + 100, len: 1 << 20 };
        let tensor = Tensor { name: "w".to_owned(), element: Element::F32, shape: vec![1 << 18], range };
        let manifest = Manifest {
            container: Container::Unknown,
            tensors: vec![tensor],
            extents: vec![
                chunk(1, 5000, Element::Bytes),
                Extent::Hole { len: HOLE },
                chunk(2, 100, Element::Bytes),
                chunk(3, 1 << 20, Element::F32),
                Extent::Hole { len: HOLE },
                chunk(4, 7, Element::Bytes),
            ],
        };
        let bases = Bases::new(&manifest);
        let layout = Layout { container: Container::Unknown, tensors: manifest.tensors.clone(), note: None };
        let pieces = chunk::cut(&layout, &manifest.data_spans());
        let found: Vec<_> = pieces.iter().map(|piece| bases.find(piece, &manifest.tensors)).collect();
        let expected = [(1, 5000), (2, 100), (3, 1 << 20), (4, 7)];
        assert_eq!(found, expected.map(|(byte, len)| Some((ChunkId::from_bytes([byte; 32]), len))));
    }
}
