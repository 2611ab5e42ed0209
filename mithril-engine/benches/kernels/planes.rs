//! Byte planes: splitting and joining, and the codes of a plane.

use criterion::Criterion;
use mithril_engine::codec::{Format, Input, Level};
use mithril_engine::tensor::Element;

use super::both;
use super::common::{CHUNK_BYTES, noise, skewed, unusual};

pub(crate) fn measure(criterion: &mut Criterion) {
    // All planes but the highest are noise, which is only moved: what is left is splitting and joining.
    let mut group = criterion.benchmark_group("planes");
    for (width, element) in [(2, Element::U16), (4, Element::U32), (8, Element::U64)] {
        let mut raw = noise(CHUNK_BYTES);
        raw.iter_mut().skip(width - 1).step_by(width).for_each(|high| *high = 0);
        let what = format!("split and join {width} bytes");
        both(&mut group, &what, &Input::new(&raw, element), Level::Fast, Format::Planes);
    }
    group.finish();

    let mut group = criterion.benchmark_group("plane blocks");
    let raw = skewed(CHUNK_BYTES);
    both(&mut group, "huffman", &Input::new(&raw, Element::U8), Level::Fast, Format::Planes);
    for one_in in [10.0, 1000.0] {
        let raw = unusual(CHUNK_BYTES, one_in);
        let what = format!("bitmap, 1 in {one_in} is packed");
        both(&mut group, &what, &Input::new(&raw, Element::U8), Level::Fast, Format::Planes);
    }
    group.finish();
}
