//! Tensors of 16 bits that are the rounding of a tensor of 32 bits in the same file, as a model's weights are beside the
//! master weights of its optimizer: found by what is in them, since every framework has other names for them.

use std::collections::HashMap;
use std::io;

use crate::chunk::{Piece, PieceKey};
use crate::codec;
use crate::settings::TENSOR_MIN_BYTES;
use crate::source::Source;
use crate::tensor::{Element, Layout, Tensor};

/// Elements in the middle of a tensor that are compared. What they suggest is only believed chunk by chunk.
const SAMPLE_ELEMENTS: u64 = 16;

/// A piece of a file, and those that may be based on it. Numbers are indices of pieces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unit {
    pub(crate) piece: usize,
    /// Those that are expected to be its rounding.
    pub(crate) roundings: Vec<usize>,
    /// The first moments of the elements whose second moments it seems to be.
    pub(crate) first_moments: Option<usize>,
}

impl Unit {
    /// A piece on which no other one is based.
    pub(crate) const fn alone(piece: usize) -> Self {
        Self { piece, roundings: Vec::new(), first_moments: None }
    }
}

/// The pieces in the order in which they are encoded: in that of the file, but for roundings, which go with what they are
/// the rounding of.
pub(crate) fn units(source: &dyn Source, layout: &Layout, pieces: &[Piece]) -> io::Result<Vec<Unit>> {
    let masters = masters(source, &layout.tensors)?;
    let mut units: Vec<Unit> = Vec::with_capacity(pieces.len());
    if masters.is_empty() {
        units.extend((0..pieces.len()).map(Unit::alone));
        return Ok(units);
    }
    let by_key: HashMap<(usize, u64), usize> = pieces
        .iter()
        .enumerate()
        .filter_map(|(index, piece)| match piece.key {
            PieceKey::Tensor { index: tensor, offset } => Some(((tensor, offset), index)),
            PieceKey::Gap { .. } => None,
        })
        .collect();
    let master_of = |piece: &Piece| {
        let PieceKey::Tensor { index, offset } = piece.key else { return None };
        let master = *by_key.get(&(*masters.get(&index)?, offset.checked_mul(2)?))?;
        (pieces[master].range.len == 2 * piece.range.len).then_some(master)
    };
    let mut roundings: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut alone = Vec::with_capacity(pieces.len());
    for (index, piece) in pieces.iter().enumerate() {
        match master_of(piece) {
            Some(master) => roundings.entry(master).or_default().push(index),
            None => alone.push(index),
        }
    }
    units.extend(alone.into_iter().map(|piece| {
        let roundings = roundings.remove(&piece).unwrap_or_default();
        Unit { roundings, ..Unit::alone(piece) }
    }));
    Ok(units)
}

/// For each tensor of 16 bits that seems to be the rounding of another, that other one.
fn masters(source: &dyn Source, tensors: &[Tensor]) -> io::Result<HashMap<usize, usize>> {
    let count = |tensor: &Tensor| tensor.range.len / tensor.element.width() as u64;
    let narrow = |tensor: &Tensor| {
        matches!(tensor.element, Element::Bf16 | Element::F16) && tensor.range.len >= TENSOR_MIN_BYTES
    };
    let mut wanted: HashMap<u64, bool> =
        tensors.iter().filter(|tensor| narrow(tensor)).map(|tensor| (count(tensor), false)).collect();
    let is_wide = |tensor: &Tensor, wanted: &HashMap<u64, bool>| {
        tensor.element == Element::F32 && wanted.contains_key(&count(tensor))
    };
    let mut roundings: HashMap<(u64, Element, Vec<u8>), usize> = HashMap::new();
    for (index, tensor) in tensors.iter().enumerate() {
        if !is_wide(tensor, &wanted) {
            continue;
        }
        wanted.insert(count(tensor), true);
        let sample = middle(source, tensor)?;
        // Elements that are all alike are alike in many tensors.
        let elements = sample.as_chunks::<4>().0;
        if elements.iter().all(|x| *x == elements[0]) {
            continue;
        }
        for (element, rounded) in codec::roundings(&sample) {
            roundings.entry((count(tensor), element, rounded)).or_insert(index);
        }
    }
    let mut masters = HashMap::new();
    for (index, tensor) in tensors.iter().enumerate() {
        if narrow(tensor) && wanted.get(&count(tensor)) == Some(&true) {
            let sample = middle(source, tensor)?;
            if let Some(&master) = roundings.get(&(count(tensor), tensor.element, sample)) {
                masters.insert(index, master);
            }
        }
    }
    Ok(masters)
}

/// The elements in the middle of a tensor.
fn middle(source: &dyn Source, tensor: &Tensor) -> io::Result<Vec<u8>> {
    let width = tensor.element.width() as u64;
    let count = tensor.range.len / width;
    let len = SAMPLE_ELEMENTS.min(count);
    let mut sample = vec![0; usize::try_from(len * width).unwrap_or(0)];
    source.read_exact_at(&mut sample, tensor.range.offset + (count - len) / 2 * width)?;
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk;
    use crate::range::ByteRange;
    use crate::tensor::Container;

    /// A file of tensors, one behind the other.
    fn file(tensors: &[(Element, Vec<u8>)]) -> (Vec<u8>, Layout) {
        let mut bytes = Vec::new();
        let mut layout = Layout { container: Container::Unknown, tensors: Vec::new(), note: None };
        for (element, data) in tensors {
            let range = ByteRange { offset: bytes.len() as u64, len: data.len() as u64 };
            let shape = vec![range.len / element.width() as u64];
            layout.tensors.push(Tensor { name: String::new(), element: *element, shape, range });
            bytes.extend_from_slice(data);
        }
        (bytes, layout)
    }

    fn wide(count: u32, seed: u32) -> Vec<u8> {
        (0..count)
            .flat_map(|i| {
                let hash = (i ^ seed).wrapping_mul(0x9e37_79b1).rotate_left(9).wrapping_mul(0x85eb_ca6b);
                f32::from_bits(0x3c00_0000 + (hash >> 7)).to_le_bytes()
            })
            .collect()
    }

    fn rounded(element: Element, wide: &[u8]) -> Vec<u8> {
        codec::roundings(wide).into_iter().find(|(of, _)| *of == element).unwrap().1
    }

    fn units_of(tensors: &[(Element, Vec<u8>)]) -> (Vec<Unit>, usize) {
        let (bytes, layout) = file(tensors);
        let spans = [ByteRange { offset: 0, len: bytes.len() as u64 }];
        let pieces = chunk::cut(&layout, &spans);
        let units = units(&&bytes[..], &layout, &pieces).unwrap();
        let mut all: Vec<usize> =
            units.iter().flat_map(|unit| unit.roundings.iter().copied().chain([unit.piece])).collect();
        all.sort_unstable();
        assert_eq!(all, (0..pieces.len()).collect::<Vec<_>>(), "each piece once");
        (units, pieces.len())
    }

    #[test]
    fn roundings_go_with_their_masters_piece_by_piece() {
        let (a, b) = (wide(700_000, 1), wide(700_000, 2));
        let (units, pieces) = units_of(&[
            (Element::Bf16, rounded(Element::Bf16, &b)),
            (Element::F16, rounded(Element::F16, &b)),
            (Element::F32, a),
            (Element::F32, b),
            (Element::Bf16, rounded(Element::Bf16, &wide(700_000, 3))),
        ]);
        let with: Vec<&Unit> = units.iter().filter(|unit| !unit.roundings.is_empty()).collect();
        assert_eq!(with.len() * 5, pieces);
        assert!(with.iter().all(|unit| unit.roundings.len() == 2));
        assert_eq!(with[0].roundings[0], 0);
    }

    #[test]
    fn zeros_and_small_tensors_have_no_master() {
        let zeros = vec![0; 4 * 700_000];
        let small = wide(100, 1);
        let (units, pieces) = units_of(&[
            (Element::F32, zeros.clone()),
            (Element::Bf16, vec![0; 2 * 700_000]),
            (Element::F32, small.clone()),
            (Element::Bf16, rounded(Element::Bf16, &small)),
        ]);
        assert_eq!(units.len(), pieces);
    }
}
