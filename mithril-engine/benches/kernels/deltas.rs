//! Changes of 16-bit numbers: trained weights, of which a share is moved by one unit in the last place.

use criterion::Criterion;
use mithril_engine::codec::{self, Against, Format, Input, Level};
use mithril_engine::tensor::Element;

use super::common::{CHUNK_BYTES, moved16, trained};
use super::{both, encoder_and_decoder};

pub(crate) fn measure(criterion: &mut Criterion) {
    let old = trained("bf16.step1200.safetensors", Element::Bf16, CHUNK_BYTES);
    let next = trained("bf16.step1205.safetensors", Element::Bf16, CHUNK_BYTES);
    let changed = [
        ("synthetic, 1 % changed", moved16(&old, 0.01)),
        ("synthetic, 60 % changed", moved16(&old, 0.6)),
        ("trained, 5 steps", next),
    ];

    // Sparse: bitmaps of what has changed, which are packed and added. Dense: differences of all.
    let mut group = criterion.benchmark_group("delta16");
    for (what, new) in &changed {
        let input = Input::new(new, Element::Bf16).against(Some(&old));
        both(&mut group, what, &input, Level::Fast, Format::Delta16);
    }
    group.finish();

    let mut group = criterion.benchmark_group("context16");
    for (what, new) in &changed {
        let input = Input::new(new, Element::Bf16).against(Some(&old));
        encoder_and_decoder(&mut group, what, &input, Format::Context16, |input, scratch, out| {
            codec::encode_context16(input.raw, input.element, &old, scratch, out);
            Against::Base
        });
    }
    group.finish();
}
