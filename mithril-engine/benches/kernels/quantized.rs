//! Floats rounded within a bound, and what is encoded of them.

use criterion::{Criterion, Throughput};
use mithril_engine::codec::{self, Against, Format, Input};
use mithril_engine::quantize::{self, Bound, DEFAULT_BLOCK_ELEMENTS, Quantization, Scheme};
use mithril_engine::tensor::Element;

use super::common::{CHUNK_BYTES, trained};
use super::encoder_and_decoder;

pub(crate) fn measure(criterion: &mut Criterion) {
    let raw = trained("exp_avg.step1200.safetensors", Element::F32, CHUNK_BYTES);
    let how =
        |scheme| Quantization { scheme, bound: Bound::Relative(0.1), block_elements: DEFAULT_BLOCK_ELEMENTS };
    let mut group = criterion.benchmark_group("quantize");
    group.throughput(Throughput::Bytes(CHUNK_BYTES as u64));
    for scheme in Scheme::ALL {
        let how = how(scheme);
        group.bench_function(format!("f32 to {scheme}"), |bencher| {
            bencher.iter(|| quantize::quantize(&raw, Element::F32, 0, &how).expect("these are floats"));
        });
    }
    let quantized = quantize::quantize(&raw, Element::F32, 0, &how(Scheme::Int8)).expect("these are floats");
    let input = Input::new(&quantized.bytes, Element::F32);
    encoder_and_decoder(&mut group, "scaled", &input, Format::Scaled, |_, scratch, out| {
        codec::encode_quantized(&quantized, Element::F32, scratch, out);
        Against::Nothing
    });
    group.finish();
}
