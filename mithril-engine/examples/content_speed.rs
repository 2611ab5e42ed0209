//! How fast a content store keeps and gives blobs, and how fast short descriptions are named:
//! `cargo run --release --example content_speed [DIRECTORY]`.
//!
//! Every blob is another one, and does not compress. What is printed are medians of five rounds, each in a new directory;
//! the page cache is warm, and nothing is synced. DIRECTORY is the system's for temporary files if not given.

use std::path::PathBuf;
use std::time::Instant;

use mithril_engine::content::Address;
use mithril_engine::content::blocking::ContentStore;
use rayon::prelude::*;

const ROUNDS: usize = 5;
/// Bytes that are kept in a round of long blobs, and blobs in one of short ones.
const LONG_BYTES: usize = 512 << 20;
const SHORT_BLOBS: usize = 100_000;
/// Descriptions that are named in a round, and their length.
const KEYS: u64 = 8_000_000;
const DESCRIPTION_BYTES: usize = 128;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

/// Seconds of keeping and of getting `count` blobs of `len` bytes, by one thread or by all.
fn round(directory: &PathBuf, noise: &[u8], count: usize, len: usize, parallel: bool) -> (f64, f64) {
    let place = tempfile::tempdir_in(directory).expect("a directory can be made");
    let store = ContentStore::new(place.path()).expect("a store can be made");
    let blob = |index: usize| &noise[index * len..(index + 1) * len];
    let put = |index: usize| store.put(blob(index)).expect("it can be kept");
    let get = |address: &Address| assert_eq!(store.get(address).expect("it is there").len(), len);
    let mut addresses = Vec::new();
    let putting = seconds(|| {
        addresses = if parallel {
            (0..count).into_par_iter().map(put).collect()
        } else {
            (0..count).map(put).collect()
        };
    });
    let getting = seconds(|| {
        if parallel {
            addresses.par_iter().for_each(get);
        } else {
            addresses.iter().for_each(get);
        }
    });
    (putting, getting)
}

fn main() {
    let directory = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let mut noise = vec![0; LONG_BYTES];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
    println!("{} threads, in {}", rayon::current_num_threads(), directory.display());
    for (what, count, len) in [("1 MiB", LONG_BYTES >> 20, 1 << 20), ("4 KiB", SHORT_BLOBS, 4096)] {
        for parallel in [false, true] {
            let rounds: Vec<(f64, f64)> =
                (0..ROUNDS).map(|_| round(&directory, &noise, count, len, parallel)).collect();
            let threads = if parallel { "all threads" } else { "one thread" };
            for (verb, times) in
                [("put", rounds.iter().map(|r| r.0).collect()), ("get", rounds.iter().map(|r| r.1).collect())]
            {
                let time = median(times);
                let (rate, speed) = (count as f64 / time, (count * len) as f64 / time / 1e9);
                println!("{verb} of {what}, {threads}: {rate:.0} a second, {speed:.2} GB/s");
            }
        }
    }
    let times = (0..ROUNDS as u64)
        .map(|round| {
            seconds(|| {
                let sum = (0..KEYS)
                    .into_par_iter()
                    .map(|index| {
                        let mut description = [0; DESCRIPTION_BYTES];
                        description[..8].copy_from_slice(&(round * KEYS + index).to_le_bytes());
                        u64::from(Address::of(&description).as_bytes()[0])
                    })
                    .sum::<u64>();
                std::hint::black_box(sum);
            })
        })
        .collect();
    println!(
        "addresses of {DESCRIPTION_BYTES} bytes, all threads: {:.1} million a second",
        KEYS as f64 / median(times) / 1e6
    );
}
