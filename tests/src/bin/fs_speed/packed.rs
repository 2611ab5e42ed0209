//! Reading packed bf16 weights: alone, and as deltas of deltas, beside what the same mount reads without decoding.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use mithril_tests::data::{Random, Weights};
use mithril_tests::mount::{Mount, drop_caches};

use super::paired::{Paired, median};
use super::plain::read;

/// Weights in a file: 256 MB.
const WEIGHTS: usize = 128 << 20;

/// Checkpoints: the first stands alone, the last is four deltas away from it.
const STEPS: usize = 5;

/// How much a step moves the weights: a fine-tuning.
const LEARNING_RATE: f32 = 2e-5;

/// Reads at random.
const READS: usize = 2000;
const READ_BYTES: u64 = 64 << 10;

fn name(step: usize) -> String {
    format!("step_{step}.safetensors")
}

/// Restarts the daemon with nothing cached but the packs.
fn restart(mount: &mut Mount) {
    mount.remount();
    let packs = mount.lower(".mithril/packs");
    for pack in std::fs::read_dir(packs).expect("there are packs").flatten() {
        read(&pack.path());
    }
    // Likewise what is not packed.
    read(&mount.lower("plain"));
}

pub(crate) fn measure(pairs: usize) {
    // All I/O goes to the daemon, of plain files too: so both ways differ by decoding alone.
    let mut mount = Mount::new(&["--no-passthrough"]);
    let mut weights = Weights::new(WEIGHTS, 1);
    let mut len = 0;
    for step in 0..STEPS {
        let bytes = weights.bf16_file();
        len = bytes.len() as u64;
        std::fs::write(mount.join(&name(step)), bytes).expect("it can be written");
        mount.sync();
        assert!(mount.is_packed(&name(step)), "step {step} is not packed");
        weights.step(LEARNING_RATE);
    }
    std::fs::write(mount.join("plain"), Random::new(4).bytes(usize::try_from(len).expect("it fits")))
        .expect("it can be written");
    mount.sync();
    let gigabytes = len as f64 / 1e9;
    for (deep, what) in [(0, "alone"), (1, "one delta deep"), (4, "four deltas deep")] {
        // The other way round, since a part of the plain speed is asked for.
        let measured = Paired::measure(pairs, |plain| {
            restart(&mut mount);
            read(&if plain { mount.join("plain") } else { mount.join(&name(deep)) })
        });
        let (plain, packed) = measured.medians();
        println!(
            "cold sequential read of packed bf16, {what}: {:.2} GB/s, without decoding {:.2} GB/s; part {}",
            gigabytes / packed,
            gigabytes / plain,
            measured.ratio()
        );
    }
    map(&mut mount, pairs);
    random(&mut mount, len, pairs);
}

/// Touching every page of a mapping, as safetensors loads, beside reading.
fn map(mount: &mut Mount, pairs: usize) {
    let path = mount.join(&name(1));
    let measured = Paired::measure(pairs, |mapped| {
        restart(mount);
        if mapped { read_mapped(&path) } else { read(&path) }
    });
    println!("cold load by mapping, one delta deep: {} of the time of a sequential read", measured.ratio());
}

fn read_mapped(path: &Path) -> f64 {
    use std::os::fd::AsRawFd;
    let started = Instant::now();
    let file = File::open(path).expect("it can be opened");
    let len = usize::try_from(file.metadata().expect("it is there").len()).expect("it fits");
    // SAFETY: a new private mapping of an open file that nobody changes; it is read within its length, and given back.
    unsafe {
        let start =
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
        assert!(start != libc::MAP_FAILED, "it can be mapped");
        let bytes = std::slice::from_raw_parts(start.cast::<u8>(), len);
        let sum = bytes.iter().step_by(4096).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        std::hint::black_box(sum);
        libc::munmap(start, len);
    }
    started.elapsed().as_secs_f64()
}

/// Reads of 64 KiB at random places: how many a second, and how many bytes are decoded for each that is wanted.
fn random(mount: &mut Mount, len: u64, pairs: usize) {
    for (deep, what) in [(0, "alone"), (1, "one delta deep")] {
        let mut rates = Vec::new();
        let mut amplification = 0.0;
        for round in 0..pairs.min(3) as u64 {
            mount.remount();
            drop_caches();
            let file = File::open(mount.join(&name(deep))).expect("it can be opened");
            let mut random = Random::new(100 + round);
            let mut buffer = vec![0; usize::try_from(READ_BYTES).expect("it fits")];
            let started = Instant::now();
            for _ in 0..READS {
                let at = random.below((len - READ_BYTES) / 4096) * 4096;
                file.read_exact_at(&mut buffer, at).expect("it can be read");
            }
            rates.push(READS as f64 / started.elapsed().as_secs_f64());
            let decoded = mount.status()["decoded_bytes"].as_u64().expect("a number");
            amplification = decoded as f64 / (READS as u64 * READ_BYTES) as f64;
        }
        println!(
            "random reads of 64 KiB, cold, {what}: {:.0} a second, {amplification:.1} bytes decoded for one",
            median(rates.into_iter())
        );
    }
}
