//! What a block is like, judged by a sample: how it is predicted, which classes it has, and what byte planes would take.

use super::groups::{LANES, Words, load};
use super::model::{Differences, EXPONENTS, Model};
use super::number::w4;
use super::predict::Prediction;
use super::tally::{Classes, Tally};
use super::{decay, differences};
use crate::codec::entropy::LOG2_FRACTION;

/// One group in so many is looked at, at most: an odd number, since rows of tensors are even.
const STRIDE: usize = 23;

/// Groups that are looked at, at least, if there are as many.
const LEAST_GROUPS: usize = 64;

/// What a prediction must gain beside being the base itself, in units of 2^-16 bits an element.
const GAIN: u64 = (1 << LOG2_FRACTION) / 50;

/// Buffers that are kept between calls.
#[derive(Debug, Default)]
pub(super) struct SurveyScratch {
    new: Vec<Words>,
    base: Vec<Words>,
    tally: Tally,
}

/// What was chosen for a block.
pub(super) struct Choice {
    pub(super) model: Model,
    /// Whether elements without a difference have a symbol.
    pub(super) zeros: bool,
    /// How byte planes are predicted best.
    pub(super) planes_prediction: Prediction,
    /// What they would take, about, in bytes.
    pub(super) planes_bytes: u64,
}

/// Chooses for a block of `groups` groups.
#[inline(always)]
pub(super) fn choose(raw: &[u8], base: &[u8], groups: usize, scratch: &mut SurveyScratch) -> Choice {
    let stride = (groups / LEAST_GROUPS).saturating_sub(1).min(STRIDE) | 1;
    scratch.new.clear();
    scratch.base.clear();
    // First every second of them, then the others: so that half of the sample is from everywhere, too.
    for group in (0..groups).step_by(2 * stride).chain((stride..groups).step_by(2 * stride)) {
        scratch.new.push(load(raw, group));
        scratch.base.push(load(base, group));
    }
    let SurveyScratch { new, base, tally } = scratch;
    let lowest_exponent = lowest_exponent(base);
    let mut best = (Prediction::Base, classes(new, base, &Prediction::Base, lowest_exponent, tally));
    let needed = GAIN * (new.len() * LANES) as u64;
    for other in
        [decay::factor(new, base).map(Prediction::Factor), decay::steps(new, base).map(Prediction::Steps)]
    {
        let Some(prediction) = other else { continue };
        let classes = classes(new, base, &prediction, lowest_exponent, tally);
        if classes.cost + needed < best.1.cost {
            best = (prediction, classes);
        }
    }
    let (prediction, classes) = best;
    // Half of the sample is enough for planes.
    let some = new.len().div_ceil(2);
    let planes = |prediction: &Prediction| differences::cost(&new[..some], &base[..some], prediction);
    let mut planes_prediction = Prediction::Base;
    let mut planes_cost = planes(&planes_prediction);
    if prediction != planes_prediction {
        let cost = planes(&prediction);
        if cost < planes_cost {
            (planes_prediction, planes_cost) = (prediction.clone(), cost);
        }
    }
    Choice {
        model: Model {
            prediction,
            flips: classes.flips,
            lowest_exponent,
            offsets: classes.offsets,
            lowest_class: classes.lowest,
            classes: classes.count,
        },
        zeros: classes.zeros,
        planes_prediction,
        planes_bytes: ((planes_cost / some as u64) >> (LOG2_FRACTION + 3)) * groups as u64,
    }
}

/// At most one base in 512 has a greater exponent than those that have offsets.
#[inline(always)]
fn lowest_exponent(base: &[Words]) -> u8 {
    let mut counts = [0u32; 256];
    // Some of them: neighbours have the same exponent too often to be counted fast.
    for base in base.as_flattened().iter().step_by(5) {
        counts[w4::exponent(*base) as usize & 255] += 1;
    }
    let few = counts.iter().sum::<u32>() / 512;
    let (mut above, mut top) = (0, 255);
    while top > 0 && above + counts[top] <= few {
        above += counts[top];
        top -= 1;
    }
    (top + 2).saturating_sub(EXPONENTS).to_le_bytes()[0]
}

/// The classes for a prediction.
#[inline(always)]
fn classes(
    new: &[Words],
    base: &[Words],
    prediction: &Prediction,
    lowest_exponent: u8,
    tally: &mut Tally,
) -> Classes {
    tally.clear();
    for (new, base) in new.iter().zip(base) {
        let differences = Differences::new(new, &prediction.of(base));
        if differences.are_none() {
            continue;
        }
        let places = Model::places(lowest_exponent, &differences.exponents);
        tally.add(&differences, &places);
    }
    tally.choose()
}
