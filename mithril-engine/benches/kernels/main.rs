//! Speed of every kernel on one chunk of 1 MiB and one thread:
//! `cargo bench -p mithril-engine --bench kernels [-- FILTER]`.
//!
//! Kernels are reached as the rest of the engine reaches them, through `codec::encode` and `codec::decode`, on chunks
//! of which they are nearly all the work; each is decoded and compared before it is measured.

mod bytes;
#[path = "../common/mod.rs"]
mod common;
mod deltas;
mod floats;
mod planes;
mod quantized;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use mithril_engine::codec::{self, Against, Format, Input, Level, Options, Scratch};

/// Measures the encoding and the decoding of a chunk, which must become one of the given format.
fn both(
    group: &mut BenchmarkGroup<'_, WallTime>,
    what: &str,
    input: &Input<'_>,
    level: Level,
    format: Format,
) {
    let options = Options { level, planes: true };
    encoder_and_decoder(group, what, input, format, |input, scratch, out| {
        codec::encode(input, options, scratch, out)
    });
}

fn encoder_and_decoder(
    group: &mut BenchmarkGroup<'_, WallTime>,
    what: &str,
    input: &Input<'_>,
    format: Format,
    encode: impl Fn(&Input<'_>, &mut Scratch, &mut Vec<u8>) -> Against,
) {
    let (mut scratch, mut encoded) = (Scratch::default(), Vec::new());
    let base = match encode(input, &mut scratch, &mut encoded) {
        Against::Nothing => None,
        Against::Base => input.base,
        Against::Moments => input.moments,
    };
    let found = Format::of(&encoded);
    if found != Some(format) {
        // As on processors without the vectors that a format is for.
        println!("{what}: not measured, since it is {found:?} here and not {format:?}");
        return;
    }
    let mut out = vec![0; input.raw.len()];
    codec::decode(&encoded, base, &mut scratch, &mut out).expect("it decodes");
    assert!(out == input.raw, "{what} decodes to other bytes");
    group.throughput(Throughput::Bytes(input.raw.len() as u64));
    let mut target = Vec::with_capacity(input.raw.len() * 2);
    group.bench_function(format!("{what}/encode"), |bencher| {
        bencher.iter(|| {
            target.clear();
            encode(input, &mut scratch, &mut target)
        });
    });
    group.bench_function(format!("{what}/decode"), |bencher| {
        bencher.iter(|| codec::decode(&encoded, base, &mut scratch, &mut out).expect("it decodes"));
    });
}

fn main() {
    // Short: what matters here shows in seconds, and all of it has to be done in minutes.
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    planes::measure(&mut criterion);
    deltas::measure(&mut criterion);
    floats::measure(&mut criterion);
    bytes::measure(&mut criterion);
    quantized::measure(&mut criterion);
    criterion.final_summary();
}
