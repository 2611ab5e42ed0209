//! Alone or against the base, and how: judged on a sample by the entropy of what would be coded.

use super::entropy::{self, Histogram};
use super::numeric::{w1, w2, w4, w8};

/// Slices of the chunk that are looked at, and elements of each.
const SLICES: usize = 16;
const SLICE_ELEMENTS: usize = 1024;

/// Share of unchanged elements from which a bitmap of the changed pays.
const SPARSE_SHARE: f64 = 0.4;

/// A base must gain this much: it costs a decoding at every read.
const GAIN: f64 = 0.98;

/// How a chunk of numbers is coded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// By itself.
    Alone,
    /// As 16-bit differences, with or without a bitmap of the changed.
    Delta16 {
        /// With the bitmap.
        sparse: bool,
    },
    /// As byte planes of differences.
    DeltaPlanes,
}

/// What a sample says.
struct Sample {
    planes: [Histogram; 8],
    zeros: usize,
    elements: usize,
}

impl Sample {
    fn new() -> Self {
        Self { planes: [[0; 256]; 8], zeros: 0, elements: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        for (plane, &byte) in self.planes.iter_mut().zip(bytes) {
            plane[usize::from(byte)] += 1;
        }
        self.elements += 1;
        self.zeros += usize::from(bytes.iter().all(|&byte| byte == 0));
    }

    fn bits(&self) -> f64 {
        self.planes.iter().map(entropy::bits).sum()
    }
}

/// Chooses for `raw`; `base` has its length.
pub(super) fn choose(raw: &[u8], width: usize, signed: bool, base: Option<&[u8]>) -> Choice {
    let Some(base) = base else { return Choice::Alone };
    let (alone, delta) = match (width, signed) {
        (1, _) => sample(raw, base, |x: &[u8; 1], b| {
            (w1::load(x).to_le_bytes(), w1::forward::<3>(w1::load(x), w1::load(b)).to_le_bytes())
        }),
        (2, true) => sample(raw, base, |x: &[u8; 2], b| {
            (
                w2::load(x).rotate_left(1).to_le_bytes(),
                w2::forward::<2>(w2::load(x), w2::load(b)).to_le_bytes(),
            )
        }),
        (2, false) => {
            sample(raw, base, |x: &[u8; 2], b| (*x, w2::forward::<3>(w2::load(x), w2::load(b)).to_le_bytes()))
        }
        (4, true) => sample(raw, base, |x: &[u8; 4], b| {
            (
                w4::load(x).rotate_left(1).to_le_bytes(),
                w4::forward::<2>(w4::load(x), w4::load(b)).to_le_bytes(),
            )
        }),
        (4, false) => {
            sample(raw, base, |x: &[u8; 4], b| (*x, w4::forward::<3>(w4::load(x), w4::load(b)).to_le_bytes()))
        }
        (_, true) => sample(raw, base, |x: &[u8; 8], b| {
            (
                w8::load(x).rotate_left(1).to_le_bytes(),
                w8::forward::<2>(w8::load(x), w8::load(b)).to_le_bytes(),
            )
        }),
        (_, false) => {
            sample(raw, base, |x: &[u8; 8], b| (*x, w8::forward::<3>(w8::load(x), w8::load(b)).to_le_bytes()))
        }
    };
    if delta.bits() >= alone.bits() * GAIN {
        return Choice::Alone;
    }
    if width != 2 {
        return Choice::DeltaPlanes;
    }
    // Large differences are escapes of two bytes each, beside their symbol: planes are better at many of them.
    let large = delta.elements - delta.planes[1][0] as usize;
    if large * 8 > delta.elements {
        return Choice::DeltaPlanes;
    }
    Choice::Delta16 { sparse: delta.zeros as f64 >= delta.elements as f64 * SPARSE_SHARE }
}

/// Looks at slices spread over the chunk: what their elements are alone, and against the base.
fn sample<const WIDTH: usize>(
    raw: &[u8],
    base: &[u8],
    transform: impl Fn(&[u8; WIDTH], &[u8; WIDTH]) -> ([u8; WIDTH], [u8; WIDTH]),
) -> (Sample, Sample) {
    let elements = raw.as_chunks::<WIDTH>().0;
    let bases = base.as_chunks::<WIDTH>().0;
    let (mut alone, mut delta) = (Sample::new(), Sample::new());
    let stretch = elements.len().div_ceil(SLICES).max(1);
    for (elements, bases) in elements.chunks(stretch).zip(bases.chunks(stretch)) {
        for (x, b) in elements.iter().zip(bases).take(SLICE_ELEMENTS) {
            let (one, other) = transform(x, b);
            alone.add(&one);
            delta.add(&other);
        }
    }
    (alone, delta)
}
