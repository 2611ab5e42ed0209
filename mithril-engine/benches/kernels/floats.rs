//! Floats by themselves, by type: trained weights, and Adam's moments with what predicts them.

use criterion::Criterion;
use mithril_engine::codec::{Format, Input, Level};
use mithril_engine::tensor::Element;

use super::both;
use super::common::{CHUNK_BYTES, halved, trained, widened};

pub(crate) fn measure(criterion: &mut Criterion) {
    let bf16 = trained("bf16.step1200.safetensors", Element::Bf16, CHUNK_BYTES);
    let f32 = trained("exp_avg.step1200.safetensors", Element::F32, 2 * CHUNK_BYTES);
    let second = trained("exp_avg_sq.step1200.safetensors", Element::F32, CHUNK_BYTES);
    let (f16, f64) = (halved(&f32), widened(&f32[..CHUNK_BYTES / 2]));

    let mut group = criterion.benchmark_group("float");
    for (what, element, raw) in [
        ("bf16, trained weights", Element::Bf16, &bf16[..]),
        ("f16, from first moments", Element::F16, &f16),
        ("f32, first moments", Element::F32, &f32[..CHUNK_BYTES]),
        ("f64, from first moments", Element::F64, &f64),
        ("complex64, from first moments", Element::Complex64, &f32[..CHUNK_BYTES]),
    ] {
        both(&mut group, what, &Input::new(raw, element), Level::Default, Format::Float);
    }
    let predicted = Input { moments: Some(&second), ..Input::new(&f32[..CHUNK_BYTES], Element::F32) };
    both(&mut group, "f32, first moments by second ones", &predicted, Level::Default, Format::Float);
    group.finish();
}
