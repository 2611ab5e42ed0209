//! Finding the prediction that some elements of a sample share, because nothing but decay moved them.

use super::groups::{LANES, Words};
use super::number::w4;
use super::predict::{MAX_STEPS, Steps};

/// A factor that some elements share: the middle of the shortest interval with an eighth of the quotients of some, or the
/// one next to it that is right most often.
pub(super) fn factor(new: &[Words], base: &[Words]) -> Option<f32> {
    const PAIRS: usize = 256;
    const LEAST: usize = 64;
    let (new, base) = (new.as_flattened(), base.as_flattened());
    let stretch = new.len() / PAIRS;
    // Not always the same column.
    let places = (0..PAIRS).map(|i| i * stretch + (i * 37) % stretch.max(1));
    let pairs = places.filter_map(|place| Some((*new.get(place)?, *base.get(place)?)));
    let pairs: Vec<(u32, u32)> =
        pairs.filter(|(x, b)| w4::is_normal(*x) && w4::is_normal(*b) && (x ^ b) & w4::TOP == 0).collect();
    // As bits, which grow as the logarithm.
    let quotients = pairs.iter().map(|(x, b)| (f32::from_bits(*x) / f32::from_bits(*b)).to_bits());
    let mut quotients: Vec<u32> = quotients.filter(|quotient| w4::is_normal(*quotient)).collect();
    if quotients.len() < LEAST {
        return None;
    }
    quotients.sort_unstable();
    let part = quotients.len() / 8;
    let widths = quotients.windows(part + 1).map(|window| window[part] - window[0]);
    let (at, width) = widths.enumerate().min_by_key(|(_, width)| *width)?;
    let middle = quotients[at + part / 2];
    // What moves at random is around its base: then the factor is as close to 1 as they are to each other.
    if middle.abs_diff(1f32.to_bits()) <= width {
        return None;
    }
    let right = |bits: u32| {
        let factor = f32::from_bits(bits);
        pairs.iter().filter(|(x, b)| w4::scaled(*b, factor) == *x).count()
    };
    let factors = [0, 1u32.wrapping_neg(), 1, 2u32.wrapping_neg(), 2].map(|by| middle.wrapping_add(by));
    let best =
        factors.into_iter().filter(|bits| w4::is_normal(*bits)).rev().max_by_key(|bits| right(*bits))?;
    Some(f32::from_bits(best))
}

/// How the bits of an element differ from those of its base: the mantissa of the base, and by how much.
#[derive(Clone, Copy)]
struct Move {
    mantissa: u32,
    by: u32,
}

/// Parts of the mantissas that are looked at one by one.
const PARTS: usize = 64;

/// Offsets that some elements share.
#[inline(always)]
pub(super) fn steps(new: &[Words], base: &[Words]) -> Option<Steps> {
    // Elements that moved by decay alone often moved as their neighbours did.
    let alike: usize = new.iter().zip(base).map(|(new, base)| alike(new, base)).sum();
    if alike * 32 < new.len() * LANES {
        return None;
    }
    steps_of(new, base)
}

/// How many elements of a group moved as their neighbours did.
#[inline(always)]
fn alike(new: &Words, base: &Words) -> usize {
    let mut moves = [0; LANES];
    for lane in 0..LANES {
        moves[lane] = new[lane].wrapping_sub(base[lane]);
    }
    let mut alike = 0;
    for lane in 1..LANES {
        alike += u32::from(moves[lane] == moves[lane - 1] && moves[lane] != 0);
    }
    alike as usize
}

#[cold]
#[inline(never)]
fn steps_of(new: &[Words], base: &[Words]) -> Option<Steps> {
    const MOST: usize = 4096;
    let pairs = new.as_flattened().iter().zip(base.as_flattened());
    let mut moves: Vec<Move> = pairs
        .filter(|(x, b)| w4::is_normal(**b) && (**x ^ **b) & w4::TOP == 0)
        .map(|(x, b)| Move { mantissa: b & w4::MANTISSA, by: x.wrapping_sub(*b) })
        .step_by((new.len() * LANES).div_ceil(MOST).max(1))
        .collect();
    moves.sort_unstable_by_key(|moved| moved.mantissa);
    // The most frequent move of each part, if it is frequent; runs of parts that have the same.
    let mut runs: Vec<(usize, usize, u32)> = Vec::new();
    let part_of = |moved: &Move| (moved.mantissa as usize * PARTS) >> w4::MANTISSA.count_ones();
    let mut start = 0;
    for part in moves.chunk_by(|a, b| part_of(a) == part_of(b)) {
        let end = start + part.len();
        if let Some(by) = mode(part) {
            match runs.last_mut() {
                Some(run) if run.2 == by => run.1 = end,
                _ => runs.push((start, end, by)),
            }
        }
        start = end;
    }
    if runs.is_empty() || runs.len() > MAX_STEPS {
        return None;
    }
    let mut steps = vec![(0, runs[0].2)];
    for pair in runs.windows(2) {
        let [(first, _, before), (_, last, after)] = [pair[0], pair[1]];
        // Somewhere in between: where most are as they should be.
        let (mut best, mut score, mut at) = (0i32, 0i32, first);
        for (place, moved) in moves[first..last].iter().enumerate() {
            score += i32::from(moved.by == before) - i32::from(moved.by == after);
            if score > best {
                (best, at) = (score, first + place + 1);
            }
        }
        steps.push((moves.get(at).map_or(w4::MANTISSA, |moved| moved.mantissa), after));
    }
    Steps::new(&steps)
}

/// The most frequent move, if it is a tenth of all.
fn mode(moves: &[Move]) -> Option<u32> {
    let mut by: Vec<u32> = moves.iter().map(|moved| moved.by).collect();
    by.sort_unstable();
    let longest = by.chunk_by(|a, b| a == b).max_by_key(|same| same.len())?;
    (longest.len() > 1 && longest.len() * 10 >= moves.len()).then_some(longest[0])
}
