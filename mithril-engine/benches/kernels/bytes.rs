//! Bytes that are no numbers, and the names of all.

use criterion::{Criterion, Throughput};
use mithril_engine::codec::{Format, Input, Level};
use mithril_engine::id::ChunkId;
use mithril_engine::tensor::Element;

use super::both;
use super::common::{CHUNK_BYTES, noise, text};

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bytes");
    let old = text(CHUNK_BYTES);
    let mut new = old.clone();
    // Few changes, here and there.
    new.iter_mut().step_by(5000).for_each(|byte| *byte ^= 1);
    both(&mut group, "zstd, text", &Input::new(&new, Element::Bytes), Level::Default, Format::Zstd);
    let input = Input::new(&new, Element::Bytes).against(Some(&old));
    both(&mut group, "zstd, text with a base", &input, Level::Default, Format::Zstd);
    let raw = noise(CHUNK_BYTES);
    group.throughput(Throughput::Bytes(CHUNK_BYTES as u64));
    group.bench_function("BLAKE3", |bencher| bencher.iter(|| ChunkId::of(&raw)));
    group.finish();
}
