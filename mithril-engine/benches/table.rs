//! One table: what was announced of this project, and what it does here: `cargo bench -p mithril-engine --bench table`.
//!
//! Buffers of 10 MB through `CheckpointCompressor`, in memory; what is decompressed is compared. Speeds are the best of
//! several rounds, in GiB/s of plaintext. Deltas by sparsity are of made-up changes, and no claim about training.

mod common;

use std::time::{Duration, Instant};

use common::{moved16, trained, trained_once};
use mithril_engine::checkpoint::{CheckpointCompressor, CompressionConfig, DType, Level};
use mithril_engine::codec;
use mithril_engine::tensor::Element;

/// Bytes of a buffer, as announced.
const BUFFER_BYTES: usize = 10_000_000;

/// The best of so many rounds, or of as many as fit this time.
const ROUNDS: usize = 9;
const TIME: Duration = Duration::from_millis(1500);

const FIRST: &str = "bf16.step1200.safetensors";
const NEXT: &str = "bf16.step1205.safetensors";

struct Measured {
    ratio: f64,
    compress: f64,
    decompress: f64,
}

/// GiB/s of so many bytes.
fn best(bytes: usize, mut round: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        round();
        best = best.min(started.elapsed().as_secs_f64());
        if begun.elapsed() > TIME {
            break;
        }
    }
    bytes as f64 / best / f64::from(1 << 30)
}

fn measure(config: CompressionConfig, new: &[u8], old: Option<&[u8]>) -> Measured {
    let compressor = CheckpointCompressor::new(config);
    let dtype = DType::BFloat16;
    let mut compressed = Vec::new();
    let compress = best(new.len(), || {
        compressed = compressor.compress_against(new, dtype, old).expect("it compresses");
    });
    let mut back = Vec::new();
    let decompress = best(new.len(), || {
        back = compressor.decompress_against(&compressed, dtype, new.len(), old).expect("it decompresses");
    });
    assert!(back == new, "it comes back as something else");
    Measured { ratio: new.len() as f64 / compressed.len() as f64, compress, decompress }
}

fn row(what: &str, announced: &str, measured: &str, data: &str) {
    println!("| {what:<42} | {announced:<14} | {measured:<32} | {data:<30} |");
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": "))
        .map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

fn main() {
    // A filter is for the other benchmarks; `cargo bench` adds an option of its own.
    if std::env::args().skip(1).any(|argument| !argument.starts_with("--")) {
        return;
    }
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    println!("\nFirst announced, and measured here: {}, {all} threads, {:?}.", processor(), codec::isa());
    println!("cargo bench -p mithril-engine --bench table\n");
    row("what", "announced", "measured", "data");
    let line = |width: usize| "-".repeat(width);
    row(&line(42), &line(14), &line(32), &line(30));

    let weights = trained(FIRST, Element::Bf16, BUFFER_BYTES);
    let (once, next) = (trained_once(FIRST), trained_once(NEXT));
    let (repeated, real) = ("trained weights, repeated", "trained weights");
    let one = CompressionConfig::default().with_threads(1);
    for level in Level::ALL {
        for threads in [1, all] {
            let Measured { compress, decompress, .. } =
                measure(one.with_level(level).with_threads(threads), &weights, None);
            let print = |what: &str, announced: &str, speed: f64| {
                let what = format!("bf16 {what}, level {level}, threads {threads}");
                row(&what, announced, &format!("{speed:.2} GiB/s"), repeated);
            };
            print("compress", "2.0-2.4 GiB/s", compress);
            print("decompress", "2.0 GiB/s", decompress);
            if all == 1 {
                break;
            }
        }
    }
    for (grouping, what, announced) in [
        (false, "ratio without byte grouping", "1.29 times"),
        (true, "ratio with byte grouping", "1.41 times"),
    ] {
        let found = measure(one.with_byte_grouping(grouping), &once, None);
        row(what, announced, &format!("{:.2} times", found.ratio), real);
    }

    for (share, what) in [(0.5, "50 %"), (0.1, "90 %"), (0.01, "99 %"), (0.001, "99.9 %"), (0.0, "all")] {
        let found = measure(one, &moved16(&weights, share), Some(&weights));
        row(
            &format!("delta, {what} unchanged"),
            "10-3500 times",
            &format!("{:.0} times, {:.1} and {:.1} GiB/s", found.ratio, found.compress, found.decompress),
            "synthetic: last places moved",
        );
    }
    let found = measure(one, &next, Some(&once));
    row(
        "delta, the same run 5 steps later",
        "",
        &format!("{:.1} times, {:.1} and {:.1} GiB/s", found.ratio, found.compress, found.decompress),
        real,
    );
    println!(
        "\nSynthetic rows move a share of the numbers by one unit in the last place, at random. Training does not:"
    );
    println!(
        "the last row is what a delta gains on weights that were trained (scripts/generate_fixtures.py)."
    );
}
