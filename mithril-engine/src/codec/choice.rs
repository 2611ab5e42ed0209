//! Alone or against the base, and how: judged on a sample by the entropy of what would be coded.

use super::encode::Number;
use super::entropy::{self, Histogram};
use super::numeric::{w1, w2, w4, w8};

/// Slices of the chunk that are looked at, and elements of each.
const SLICES: usize = 16;
const SLICE_ELEMENTS: usize = 512;

/// Share of unchanged elements from which a bitmap of the changed pays.
const SPARSE_SHARE: f64 = 0.4;

/// Bits of a difference from which [`Changes::Most`]: there, with 256-bit vectors, coding in context begins to be decoded
/// faster than a Huffman code of the differences.
const MOST_BITS: f64 = 6.0;

/// A base must gain this much: it costs a decoding at every read.
const GAIN: f64 = 0.98;

/// Where the estimates of both ways lie within this share of each other, only encoding tells which is shorter.
const CLOSE: f64 = 0.9;

/// Slices and their elements for [`planes_bytes`]: rougher, for a question that is asked of every chunk.
const FEW_SLICES: usize = 16;
const FEW_ELEMENTS: usize = 256;

/// How a chunk of numbers is coded against its base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Delta {
    /// As 16-bit differences, most of which are small.
    Small16(Changes),
    /// As byte planes of differences.
    Planes,
}

/// How much of a chunk changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Changes {
    /// A few elements: a bitmap of these pays.
    Few,
    /// Many, by little.
    Many,
    /// Almost all, by so much that coding them in context is no slower than without.
    Most,
}

/// What a sample says about a chunk that has a base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// By itself.
    Alone,
    /// Against the base.
    Delta(Delta),
    /// Against the base, or by itself if that is shorter.
    Either(Delta),
}

/// What a sample says.
struct Sample<const WIDTH: usize> {
    /// Two for each plane, in turn: equal neighbours, as unchanged elements are, would wait for each other.
    planes: [[Histogram; WIDTH]; 2],
    zeros: usize,
    elements: usize,
}

impl<const WIDTH: usize> Sample<WIDTH> {
    fn new() -> Self {
        Self { planes: [[[0; 256]; WIDTH]; 2], zeros: 0, elements: 0 }
    }

    #[inline(always)]
    fn add(&mut self, bytes: [u8; WIDTH]) {
        for (plane, byte) in self.planes[self.elements % 2].iter_mut().zip(bytes) {
            plane[usize::from(byte)] += 1;
        }
        self.elements += 1;
        self.zeros += usize::from(bytes == [0; WIDTH]);
    }

    fn plane(&self, index: usize) -> Histogram {
        let [one, other] = &self.planes;
        std::array::from_fn(|value| one[index][value] + other[index][value])
    }

    fn bits(&self) -> f64 {
        (0..WIDTH).map(|index| entropy::bits(&self.plane(index))).sum()
    }
}

/// Chooses for `raw`; `base` has its length.
pub(super) fn choose(raw: &[u8], number: Number, base: &[u8]) -> Choice {
    match number.width {
        1 if number.signed => sample(raw, base, |x: &[u8; 1], b| {
            (x.map(|x| x.rotate_left(1)), w1::forward::<2>(w1::load(x), w1::load(b)).to_le_bytes())
        }),
        1 => sample(raw, base, |x: &[u8; 1], b| {
            (w1::load(x).to_le_bytes(), w1::forward::<3>(w1::load(x), w1::load(b)).to_le_bytes())
        }),
        2 if number.signed => sample(raw, base, |x: &[u8; 2], b| {
            (
                w2::load(x).rotate_left(1).to_le_bytes(),
                w2::forward::<2>(w2::load(x), w2::load(b)).to_le_bytes(),
            )
        }),
        2 => {
            sample(raw, base, |x: &[u8; 2], b| (*x, w2::forward::<3>(w2::load(x), w2::load(b)).to_le_bytes()))
        }
        4 if number.signed => sample(raw, base, |x: &[u8; 4], b| {
            (
                w4::load(x).rotate_left(1).to_le_bytes(),
                w4::forward::<2>(w4::load(x), w4::load(b)).to_le_bytes(),
            )
        }),
        4 => {
            sample(raw, base, |x: &[u8; 4], b| (*x, w4::forward::<3>(w4::load(x), w4::load(b)).to_le_bytes()))
        }
        _ if number.signed => sample(raw, base, |x: &[u8; 8], b| {
            (
                w8::load(x).rotate_left(1).to_le_bytes(),
                w8::forward::<2>(w8::load(x), w8::load(b)).to_le_bytes(),
            )
        }),
        _ => {
            sample(raw, base, |x: &[u8; 8], b| (*x, w8::forward::<3>(w8::load(x), w8::load(b)).to_le_bytes()))
        }
    }
}

/// Chooses by what a sample takes alone, and against the base.
fn judge<const WIDTH: usize>(alone: &Sample<WIDTH>, delta: &Sample<WIDTH>) -> Choice {
    let (alone_bits, delta_bits) = (alone.bits(), delta.bits());
    if delta_bits >= alone_bits * GAIN {
        return Choice::Alone;
    }
    // Large differences are escapes of two bytes each, beside their symbol: planes are better at many of them.
    let large = |delta: &Sample<WIDTH>| delta.elements - delta.plane(1)[0] as usize;
    let kind = if WIDTH == 2 && large(delta) * 8 <= delta.elements {
        let elements = delta.elements as f64;
        Delta::Small16(match () {
            () if delta.zeros as f64 >= elements * SPARSE_SHARE => Changes::Few,
            () if delta_bits >= elements * MOST_BITS => Changes::Most,
            () => Changes::Many,
        })
    } else {
        Delta::Planes
    };
    if delta_bits >= alone_bits * CLOSE { Choice::Either(kind) } else { Choice::Delta(kind) }
}

/// What `raw` takes by itself as byte planes, by the entropy of a few of its elements; too little rather than too much,
/// since few elements show few values.
pub(super) fn planes_bytes(raw: &[u8], number: Number) -> usize {
    let bits = match number.width {
        1 => plane_bits::<1>(raw, |x| *x),
        2 if number.signed => plane_bits(raw, |x| w2::load(x).rotate_left(1).to_le_bytes()),
        2 => plane_bits::<2>(raw, |x| *x),
        4 if number.signed => plane_bits(raw, |x| w4::load(x).rotate_left(1).to_le_bytes()),
        4 => plane_bits::<4>(raw, |x| *x),
        _ if number.signed => plane_bits(raw, |x| w8::load(x).rotate_left(1).to_le_bytes()),
        _ => plane_bits::<8>(raw, |x| *x),
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few bytes more than `raw` at most"
    )]
    let bytes = (bits * (raw.len() / number.width) as f64 / 8.0) as usize;
    bytes
}

/// Steps between integers must take this share of what they take themselves: undoing them is slower.
const STEP_GAIN: f64 = 0.9;

/// Whether integers are better told by their steps, judged as in [`planes_bytes`].
pub(super) fn steps(raw: &[u8], number: Number) -> bool {
    /// Bits of an element, and of a step.
    fn of<const WIDTH: usize>(raw: &[u8], step: impl Fn(&[u8; WIDTH], &[u8; WIDTH]) -> [u8; WIDTH]) -> bool {
        let elements = raw.as_chunks::<WIDTH>().0;
        let (mut own, mut steps) = (Sample::<WIDTH>::new(), Sample::<WIDTH>::new());
        let stretch = elements.len().div_ceil(FEW_SLICES).max(1);
        for slice in elements.chunks(stretch) {
            for [before, x] in slice.array_windows().take(FEW_ELEMENTS) {
                own.add(*x);
                steps.add(step(x, before));
            }
        }
        steps.bits() < own.bits() * STEP_GAIN
    }
    match number.width {
        1 => of(raw, |x, b| w1::forward::<3>(w1::load(x), w1::load(b)).to_le_bytes()),
        2 => of(raw, |x, b| w2::forward::<3>(w2::load(x), w2::load(b)).to_le_bytes()),
        4 => of(raw, |x, b| w4::forward::<3>(w4::load(x), w4::load(b)).to_le_bytes()),
        _ => of(raw, |x, b| w8::forward::<3>(w8::load(x), w8::load(b)).to_le_bytes()),
    }
}

/// How integers are in order, which their bytes by themselves do not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Order {
    /// They are better told by their steps.
    pub(super) steps: bool,
    /// They repeat what came before.
    pub(super) repeats: bool,
}

impl Order {
    /// Looks for it. Their values may be many.
    pub(super) fn of(raw: &[u8], number: Number) -> Self {
        Self { steps: steps(raw, number), repeats: repeats(raw, number, RUN_ELEMENTS) }
    }
}

/// Of the runs of some elements, one in [`ONE_IN`] is remembered, chosen by what it holds: so two that are alike are
/// both remembered, however far apart.
const ONE_IN: u64 = 64;

/// Elements of such a run, of values that are many.
pub(super) const RUN_ELEMENTS: usize = 4;

/// Bits that a run must have where values are few: so many are not there twice in a chunk by chance. And its elements
/// at most.
const RUN_BITS: f64 = 40.0;
const RUN_ELEMENTS_MAX: usize = 512;

/// Runs that were there before, one in this many and a few more, from which a search for them pays.
const REPEATED: usize = 8;
const REPEATED_LEAST: usize = 4;

/// Elements of a run that is not there twice by chance, if `bytes` is what `count` elements take.
pub(super) fn run_elements(count: usize, bytes: usize) -> usize {
    let bits = (bytes * 8) as f64 / count.max(1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "any number is")]
    let run = (RUN_BITS / bits).ceil() as usize;
    run.clamp(RUN_ELEMENTS, RUN_ELEMENTS_MAX)
}

/// Whether integers repeat what came before, by runs of so many.
pub(super) fn repeats(raw: &[u8], number: Number, run: usize) -> bool {
    fn of<const WIDTH: usize>(raw: &[u8], run: usize, load: impl Fn(&[u8; WIDTH]) -> u64) -> bool {
        let elements = raw.as_chunks::<WIDTH>().0;
        let run = run.min(elements.len());
        let (first, rest) = elements.split_at(run);
        let mut hash = first.iter().fold(0u64, |hash, x| hash.wrapping_mul(HASH).wrapping_add(load(x)));
        // What the first element of a run counts for when the run has moved past it.
        let past = (0..run).fold(1u64, |power, _| power.wrapping_mul(HASH));
        let mut same = first.array_windows().rev().take_while(|[before, x]| before == x).count();
        let mut remembered = Vec::new();
        for ((last, x), before) in elements.iter().zip(rest).zip(&elements[run.saturating_sub(1)..]) {
            hash = hash.wrapping_mul(HASH).wrapping_add(load(x)).wrapping_sub(load(last).wrapping_mul(past));
            same = if x == before { same + 1 } else { 0 };
            // Multiplied once more, so that the upper bits depend on the last element as well. What stays the same is a run of one
            // value, and needs no search.
            if hash.wrapping_mul(HASH) < u64::MAX / ONE_IN && same + 1 < run {
                remembered.push(hash);
            }
        }
        let count = remembered.len();
        remembered.sort_unstable();
        remembered.dedup();
        (count - remembered.len()) * REPEATED > count + REPEATED_LEAST * REPEATED
    }
    /// Odd, and no pattern: the fraction of the golden ratio.
    const HASH: u64 = 0x9e37_79b9_7f4a_7c15;
    match number.width {
        1 => of(raw, run, |x| w1::load(x).into()),
        2 => of(raw, run, |x| w2::load(x).into()),
        4 => of(raw, run, |x| w4::load(x).into()),
        _ => of(raw, run, w8::load),
    }
}

/// Bits of an element.
fn plane_bits<const WIDTH: usize>(raw: &[u8], transform: impl Fn(&[u8; WIDTH]) -> [u8; WIDTH]) -> f64 {
    let elements = raw.as_chunks::<WIDTH>().0;
    let mut sample = Sample::<WIDTH>::new();
    let stretch = elements.len().div_ceil(FEW_SLICES).max(1);
    for slice in elements.chunks(stretch) {
        for x in slice.iter().take(FEW_ELEMENTS) {
            sample.add(transform(x));
        }
    }
    sample.bits() / sample.elements.max(1) as f64
}

/// Chooses by slices spread over the chunk: what their elements are alone, and against the base.
fn sample<const WIDTH: usize>(
    raw: &[u8],
    base: &[u8],
    transform: impl Fn(&[u8; WIDTH], &[u8; WIDTH]) -> ([u8; WIDTH], [u8; WIDTH]),
) -> Choice {
    let elements = raw.as_chunks::<WIDTH>().0;
    let bases = base.as_chunks::<WIDTH>().0;
    let (mut alone, mut delta) = (Sample::<WIDTH>::new(), Sample::<WIDTH>::new());
    let stretch = elements.len().div_ceil(SLICES).max(1);
    for (elements, bases) in elements.chunks(stretch).zip(bases.chunks(stretch)) {
        for (x, b) in elements.iter().zip(bases).take(SLICE_ELEMENTS) {
            let (one, other) = transform(x, b);
            alone.add(one);
            delta.add(other);
        }
    }
    judge(&alone, &delta)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Random;
    use super::*;

    #[test]
    fn few_values_repeat_only_what_chance_does_not() {
        let number = Number { width: 4, signed: false };
        let mut random = Random(6);
        for values in [2, 3, 10, 100] {
            let labels: Vec<u8> = (0..50_000)
                .flat_map(|_| u32::try_from(random.next() % values).unwrap().to_le_bytes())
                .collect();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few bytes")]
            let run = run_elements(50_000, ((values as f64).log2() * 50_000.0 / 8.0) as usize);
            assert!(!repeats(&labels, number, run), "{values}");
            assert!(repeats(&[&labels[..], &labels[..]].concat(), number, run), "{values}");
        }
        // One value is a run, and so are less than a run.
        for len in [0, 1, 3, 4, 5, 511, 512, 513, 10_000] {
            assert!(!repeats(&vec![0; len * 4], number, RUN_ELEMENTS_MAX), "{len}");
            assert!(!repeats(&vec![0; len * 4], number, run_elements(len, 0)), "{len}");
        }
    }
}
