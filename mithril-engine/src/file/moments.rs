//! First moments of Adam and the second ones of the same parameter, in the same file: found by their names, since each is
//! noise without the other, and only believed chunk by chunk.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::twins::Unit;
use crate::chunk::{Piece, PieceKey};
use crate::settings::TENSOR_MIN_BYTES;
use crate::tensor::{Element, Tensor};

/// What first and second moments are called, as words of a name: by PyTorch, and all that is built on it, and by Optax.
const WORDS: [(&str, &str); 2] = [("exp_avg", "exp_avg_sq"), ("mu", "nu")];

/// What is too short to mean anything but at the end of a name, behind that of a parameter.
const LAST_WORDS: (&str, &str) = ("m", "v");

/// Lets the pieces of first moments go with those of the second ones.
pub(crate) fn pair(units: &mut Vec<Unit>, tensors: &[Tensor], pieces: &[Piece]) {
    let seconds = pairs(tensors);
    if seconds.is_empty() {
        return;
    }
    let key_of = |unit: &Unit| match pieces[unit.piece].key {
        PieceKey::Tensor { index, offset } => Some((index, offset)),
        PieceKey::Gap { .. } => None,
    };
    let by_key: HashMap<(usize, u64), usize> =
        units.iter().enumerate().filter_map(|(index, unit)| Some((key_of(unit)?, index))).collect();
    let mut joined = HashSet::new();
    for index in 0..units.len() {
        let Unit { piece, ref roundings, .. } = units[index];
        let second = key_of(&units[index])
            .and_then(|(tensor, offset)| by_key.get(&(*seconds.get(&tensor)?, offset)).copied())
            .filter(|&second| pieces[units[second].piece].range.len == pieces[piece].range.len)
            // What is based on first moments would be based on the second ones, too.
            .filter(|_| roundings.is_empty());
        if let Some(second) = second {
            units[second].first_moments = Some(piece);
            joined.insert(piece);
        }
    }
    units.retain(|unit| !joined.contains(&unit.piece));
}

/// For each tensor of first moments, that of the second ones. No tensor is both, and each is in one pair at most.
fn pairs(tensors: &[Tensor]) -> HashMap<usize, usize> {
    let is_moments = |tensor: &Tensor| {
        matches!(tensor.element, Element::F16 | Element::Bf16 | Element::F32 | Element::F64)
            && tensor.range.len >= TENSOR_MIN_BYTES
    };
    let mut wanted: HashMap<(Cow<'_, str>, Element, &[u64]), usize> = HashMap::new();
    for (index, tensor) in tensors.iter().enumerate().filter(|(_, tensor)| is_moments(tensor)) {
        if let Some(name) = name_of_second(&tensor.name) {
            wanted.entry((Cow::Owned(name), tensor.element, &tensor.shape)).or_insert(index);
        }
    }
    let mut pairs = HashMap::new();
    for (second, tensor) in tensors.iter().enumerate().filter(|(_, tensor)| is_moments(tensor)) {
        let first = wanted.remove(&(Cow::Borrowed(&*tensor.name), tensor.element, &*tensor.shape));
        pairs.extend(first.map(|first| (first, second)));
    }
    let seconds: HashSet<usize> = pairs.values().copied().collect();
    pairs.retain(|first, _| !seconds.contains(first));
    pairs
}

/// The name of the second moments that belong to first moments of this name, by the last word that says so; `None` if
/// none does.
fn name_of_second(name: &str) -> Option<String> {
    let mut end = name.len();
    for word in name.rsplit(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_') {
        let start = end - word.len();
        let is_last = end == name.len() && start > 0;
        let (first, second) = LAST_WORDS;
        let second = match WORDS.iter().find(|(first, _)| *first == word) {
            Some((_, second)) => Some(*second),
            None => (is_last && word == first).then_some(second),
        };
        if let Some(second) = second {
            return Some([&name[..start], second, &name[end..]].concat());
        }
        end = start.saturating_sub(1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk;
    use crate::range::ByteRange;
    use crate::tensor::{Container, Layout};

    #[test]
    fn names_are_those_of_frameworks() {
        for (first, second) in [
            ("state.0.exp_avg", "state.0.exp_avg_sq"),
            ("optimizer.state.model.w.exp_avg", "optimizer.state.model.w.exp_avg_sq"),
            ("optimizer.state.exp_avg.decoder.layers.w", "optimizer.state.exp_avg_sq.decoder.layers.w"),
            ("base_optimizer_state.state.3.exp_avg", "base_optimizer_state.state.3.exp_avg_sq"),
            ("zero/model.w/exp_avg", "zero/model.w/exp_avg_sq"),
            ("opt_state.0.mu.dense.kernel", "opt_state.0.nu.dense.kernel"),
            ("exp_avg", "exp_avg_sq"),
            ("w.m", "w.v"),
            ("exp_avg.w.exp_avg", "exp_avg.w.exp_avg_sq"),
            ("größe/exp_avg/ß", "größe/exp_avg_sq/ß"),
        ] {
            assert_eq!(name_of_second(first).as_deref(), Some(second));
            assert_eq!(name_of_second(second).filter(|_| !first.starts_with("exp_avg.")), None, "{second}");
        }
        for name in
            ["", ".", "...", "m", "v", "m.w", "w.v", "w_m", "my_exp_avg", "exp_avgs", "ßm", "max_exp_avg_sq"]
        {
            assert_eq!(name_of_second(name), None, "{name}");
        }
    }

    /// A file of tensors, one behind the other.
    fn tensors(of: &[(&str, Element, &[u64])]) -> Vec<Tensor> {
        let mut offset = 100;
        of.iter()
            .map(|&(name, element, shape)| {
                let len = shape.iter().product::<u64>() * element.width() as u64;
                let range = ByteRange { offset, len };
                offset += len;
                Tensor { name: name.to_owned(), element, shape: shape.to_vec(), range }
            })
            .collect()
    }

    fn pairs_of(of: &[(&str, Element, &[u64])]) -> Vec<(usize, usize)> {
        let mut pairs: Vec<_> = pairs(&tensors(of)).into_iter().collect();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn only_equals_are_paired() {
        use Element::{Bf16, Bytes, F32, I32};
        let shape = &[100u64, 100][..];
        assert_eq!(pairs_of(&[("w.exp_avg_sq", F32, shape), ("w.exp_avg", F32, shape)]), [(1, 0)]);
        for others in [
            // There are no second moments, or they are of another parameter, type or shape, or too small, or no floats.
            &[("a.exp_avg", F32, shape)][..],
            &[("a.exp_avg", F32, shape), ("b.exp_avg_sq", F32, shape)],
            &[("a.exp_avg", Bf16, shape), ("a.exp_avg_sq", F32, shape)],
            &[("a.exp_avg", F32, shape), ("a.exp_avg_sq", F32, &[10_000])],
            &[("a.exp_avg", F32, &[10]), ("a.exp_avg_sq", F32, &[10])],
            &[("a.exp_avg", I32, shape), ("a.exp_avg_sq", I32, shape)],
            &[("a.exp_avg", Bytes, shape), ("a.exp_avg_sq", Bytes, shape)],
            &[("exp_avg_sq", F32, shape), ("exp_avg_sq", F32, shape)],
        ] {
            assert_eq!(pairs_of(others), [], "{others:?}");
        }
    }

    #[test]
    fn hostile_names_make_no_chains_and_no_tensor_is_in_two_pairs() {
        let shape = &[5000u64][..];
        let of = |names: &[&'static str]| {
            pairs_of(&names.iter().map(|name| (*name, Element::F32, shape)).collect::<Vec<_>>())
        };
        assert_eq!(of(&["a.exp_avg", "a.exp_avg", "a.exp_avg_sq", "a.exp_avg_sq"]), [(0, 2)]);
        // The second moments of the one are the first ones of another.
        assert_eq!(of(&["mu.m", "mu.v", "nu.v"]), [(0, 1)]);
        assert_eq!(of(&["nu.v", "mu.v", "mu.m"]), [(2, 1)]);
        let long = "exp_avg.".repeat(1 << 17) + "w";
        assert!(name_of_second(&long).is_some_and(|second| second.ends_with("exp_avg.exp_avg_sq.w")));
    }

    #[test]
    fn each_piece_is_encoded_once() {
        let shape = &[700_000u64][..];
        let tensors = tensors(&[
            ("w.exp_avg", Element::F32, shape),
            ("w", Element::F32, shape),
            ("w.exp_avg_sq", Element::F32, shape),
            ("x.exp_avg", Element::F32, shape),
        ]);
        let end = tensors[3].range.end();
        let layout = Layout { container: Container::Unknown, tensors, note: None };
        let pieces = chunk::cut(&layout, &[ByteRange { offset: 0, len: end + 10 }]);
        let mut units: Vec<Unit> = (0..pieces.len()).map(Unit::alone).collect();
        pair(&mut units, &layout.tensors, &pieces);
        let mut all: Vec<usize> =
            units.iter().flat_map(|unit| [unit.piece].into_iter().chain(unit.first_moments)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..pieces.len()).collect::<Vec<_>>());
        let distance = tensors_distance(&layout);
        for unit in &units {
            let Some(first) = unit.first_moments else { continue };
            assert_eq!(pieces[first].range.offset + distance, pieces[unit.piece].range.offset);
        }
        assert_eq!(pieces.len() - units.len(), 3);
    }

    fn tensors_distance(layout: &Layout) -> u64 {
        layout.tensors[2].range.offset - layout.tensors[0].range.offset
    }

    #[test]
    fn what_has_a_rounding_of_its_own_is_not_predicted() {
        let tensors =
            tensors(&[("w.exp_avg", Element::F32, &[5000]), ("w.exp_avg_sq", Element::F32, &[5000])]);
        let end = tensors[1].range.end();
        let layout = Layout { container: Container::Unknown, tensors, note: None };
        let pieces = chunk::cut(&layout, &[ByteRange { offset: 100, len: end - 100 }]);
        let alone = vec![Unit { roundings: vec![2], ..Unit::alone(0) }, Unit::alone(1)];
        let mut units = alone.clone();
        pair(&mut units, &layout.tensors, &pieces);
        assert_eq!(units, alone);
    }
}
