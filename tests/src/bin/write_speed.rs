//! Writing a 2 GiB file through the mount, against the same on the directory below: `write + fsync + close`. A pair is
//! two of each, mount, below, below, mount or the other way round in turn: what a disk does every second time, as it
//! frees and reuses blocks, falls on both alike. Fails if passthrough was not active or the daemon served a write.
//!
//! `cargo run --release -p mithril-tests --bin write_speed [-- GIBIBYTES PAIRS]`

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use mithril_tests::data::Random;
use mithril_tests::mount::Mount;

/// Touches as much memory as the page cache will need. A virtual machine may have given free memory back to its host,
/// and getting it again costs several times what the write does, for whoever comes first.
fn touch_memory(len: usize) {
    let touched = vec![1u8; len + len / 4];
    std::hint::black_box(&touched);
}

fn write(path: &Path, bytes: &[u8]) -> f64 {
    touch_memory(bytes.len());
    let started = Instant::now();
    let mut file = File::create(path).expect("the file can be created");
    // As torch.save writes: a storage at a time.
    bytes.chunks(64 << 20).for_each(|part| file.write_all(part).expect("it can be written"));
    file.sync_all().expect("it can be synced");
    drop(file);
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(path).expect("it can be removed");
    // What removing it costs is not the next one's.
    rustix::fs::sync();
    seconds
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().expect("a number"));
    let len = arguments.next().unwrap_or(2) << 30;
    let pairs = arguments.next().unwrap_or(9);
    let bytes = Random::new(1).bytes(len);
    let mount = Mount::new(&["--no-packing"]);
    let (above, below) = (mount.join("above"), mount.lower("below"));
    write(&above, &bytes);
    write(&below, &bytes);
    let (mut mounted, mut lower, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        let (mut through, mut direct) = (0.0, 0.0);
        for turn in 0..4 {
            let is_through = (turn == 0 || turn == 3) == (pair % 2 == 0);
            let seconds = write(if is_through { &above } else { &below }, &bytes) / 2.0;
            *if is_through { &mut through } else { &mut direct } += seconds;
        }
        println!("pair {pair}: mount {through:.3} s, below {direct:.3} s, ratio {:.3}", through / direct);
        mounted.push(through);
        lower.push(direct);
        ratios.push(through / direct);
    }
    ratios.sort_by(f64::total_cmp);
    let status = mount.status();
    assert!(status["passthrough"].is_null(), "passthrough was not active: {status}");
    assert_eq!(status["passthrough_opens"].as_u64(), Some(2 * pairs as u64 + 1), "{status}");
    assert_eq!(status["write_requests"].as_u64(), Some(0), "the daemon served writes: {status}");
    // The second smallest and largest of nine bound the median with 96 %.
    let bound = usize::from(pairs >= 5);
    println!(
        "median: mount {:.3} s, below {:.3} s; ratio of pairs {:.3} [{:.3}, {:.3}]; passthrough, no write served",
        median(&mounted),
        median(&lower),
        median(&ratios),
        ratios[bound],
        ratios[ratios.len() - 1 - bound]
    );
}
