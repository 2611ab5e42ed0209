//! Where a file is cut: along its tensors, so that the same tensor of the next file is cut alike.

use crate::codec::Grid;
use crate::range::ByteRange;
use crate::settings::{CHUNK_TARGET_BYTES, TENSOR_MIN_BYTES};
use crate::tensor::{Element, Layout, Tensor};

/// What a piece of a file belongs to: pieces of two files with equal keys are each other's likeliest bases.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PieceKey {
    /// The piece at `offset` of the tensor with this index in the layout.
    Tensor {
        /// Index into [`Layout::tensors`].
        index: usize,
        /// Byte offset inside the tensor.
        offset: u64,
    },
    /// The `ordinal`-th run of bytes without a hole outside the tensors that have pieces of their own, from `offset` in
    /// it.
    Gap {
        /// Counted from 0 in file order.
        ordinal: usize,
        /// Byte offset inside the gap.
        offset: u64,
    },
}

/// A piece of a file that becomes one chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where it lies in the file; at most a little over [`CHUNK_TARGET_BYTES`] long.
    pub range: ByteRange,
    /// What its bytes are.
    pub element: Element,
    /// What it belongs to.
    pub key: PieceKey,
}

impl Piece {
    /// How its elements lie in their tensor, if that is a matrix or a stack of matrices.
    pub fn grid(&self, tensors: &[Tensor]) -> Option<Grid> {
        let PieceKey::Tensor { index, offset } = self.key else { return None };
        let tensor = tensors.get(index)?;
        let [_, .., columns] = tensor.shape[..] else { return None };
        let width = self.element.width();
        Some(Grid {
            columns: usize::try_from(columns).ok()?,
            first: usize::try_from(offset / width as u64).ok()?,
        })
    }
}

/// Cuts the data of a file: `spans` are its ranges that are no holes, in order. The pieces cover them without overlap, in
/// order. Holes have none, however long they are. A tensor with a hole in it is bytes like those between the tensors:
/// pieces of numbers are wholes.
pub fn cut(layout: &Layout, spans: &[ByteRange]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut gaps = 0;
    let mut gap = |pieces: &mut Vec<Piece>, start: u64, end: u64| {
        if end > start {
            split(pieces, start, end - start, Element::Bytes, |offset| PieceKey::Gap {
                ordinal: gaps,
                offset,
            });
            gaps += 1;
        }
    };
    for span in spans {
        let mut position = span.offset;
        let first = layout.tensors.partition_point(|tensor| tensor.range.offset < span.offset);
        for (index, tensor) in layout.tensors.iter().enumerate().skip(first) {
            let range = tensor.range;
            if range.offset >= span.end() {
                break;
            }
            if range.len < TENSOR_MIN_BYTES || range.offset < position || range.end() > span.end() {
                continue;
            }
            gap(&mut pieces, position, range.offset);
            split(&mut pieces, range.offset, range.len, tensor.element, |offset| PieceKey::Tensor {
                index,
                offset,
            });
            position = range.end();
        }
        gap(&mut pieces, position, span.end());
    }
    pieces
}

/// Cuts `len` bytes from `start` into pieces of the target size; a short rest joins the last one, so that
/// no table is spent on a sliver.
fn split(pieces: &mut Vec<Piece>, start: u64, len: u64, element: Element, key: impl Fn(u64) -> PieceKey) {
    // As many elements of 16 bits as of 32: a tensor is cut like the one that it is the rounding of.
    let target = match element {
        Element::Bf16 | Element::F16 => CHUNK_TARGET_BYTES as u64 / 2,
        _ => CHUNK_TARGET_BYTES as u64,
    };
    let mut offset = 0;
    while offset < len {
        let rest = len - offset;
        let take = if rest < target + target / 4 { rest } else { target };
        pieces.push(Piece {
            range: ByteRange { offset: start + offset, len: take },
            element,
            key: key(offset),
        });
        offset += take;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Container, Tensor};

    fn tensor(offset: u64, len: u64) -> Tensor {
        Tensor {
            name: String::new(),
            element: Element::Bf16,
            shape: vec![len / 2],
            range: ByteRange { offset, len },
        }
    }

    fn pieces_of(tensors: Vec<Tensor>, file_len: u64) -> Vec<Piece> {
        let layout = Layout { container: Container::Unknown, tensors, note: None };
        let spans = [ByteRange { offset: 0, len: file_len }];
        let pieces = cut(&layout, &spans);
        let mut position = 0;
        for piece in &pieces {
            assert_eq!(piece.range.offset, position);
            assert!(piece.range.len > 0 && piece.range.len < CHUNK_TARGET_BYTES as u64 * 5 / 4);
            position = piece.range.end();
        }
        assert_eq!(position, file_len);
        pieces
    }

    #[test]
    fn an_empty_file_has_no_pieces() {
        assert!(pieces_of(Vec::new(), 0).is_empty());
    }

    #[test]
    fn pieces_cover_the_file_and_keep_to_tensors() {
        let pieces = pieces_of(vec![tensor(100, 5 << 20), tensor((5 << 20) + 200, 10_000)], 6 << 20);
        assert!(pieces.iter().any(|p| p.key == PieceKey::Tensor { index: 1, offset: 0 }));
        assert!(
            pieces
                .iter()
                .filter(|p| matches!(p.key, PieceKey::Tensor { .. }))
                .all(|p| p.element == Element::Bf16)
        );
    }

    #[test]
    fn small_and_impossible_tensors_are_part_of_the_gap() {
        let pieces = pieces_of(vec![tensor(10, 100), tensor(50_000, u64::MAX - 50_000)], 60_000);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].key, PieceKey::Gap { ordinal: 0, offset: 0 });
    }

    #[test]
    fn holes_have_no_pieces_and_gaps_are_counted_across_them() {
        let tensors = vec![tensor(1 << 40, 1 << 19), tensor((1 << 40) + (1 << 19), 1 << 19)];
        let layout = Layout { container: Container::Unknown, tensors, note: None };
        let span = |offset, len| ByteRange { offset, len };
        // The second tensor ends in a hole.
        let pieces = cut(&layout, &[span(0, 10_000), span(1 << 40, 3 << 18), span(1 << 50, 5)]);
        let keys: Vec<_> = pieces.iter().map(|piece| (piece.range, piece.element, &piece.key)).collect();
        let gap = |ordinal| PieceKey::Gap { ordinal, offset: 0 };
        assert_eq!(
            keys,
            [
                (span(0, 10_000), Element::Bytes, &gap(0)),
                (span(1 << 40, 1 << 19), Element::Bf16, &PieceKey::Tensor { index: 0, offset: 0 }),
                (span((1 << 40) + (1 << 19), 1 << 18), Element::Bytes, &gap(1)),
                (span(1 << 50, 5), Element::Bytes, &gap(2)),
            ]
        );
    }
}
