//! The daemon's memory does not grow with the files. In an executable of its own, so that nothing runs beside it.

use std::fs::{self, File};
use std::io::Write;

use mithril_tests::data::{Random, digest};
use mithril_tests::mount::Mount;

/// What the daemon may take at most, by default, whatever the file sizes.
const LIMIT_MIB: u64 = 512;

/// Each tensor of the checkpoint.
const TENSOR_BYTES: usize = 16 << 20;

/// GiB of a checkpoint: `scripts/torture.sh` asks for more.
fn checkpoint_gib() -> usize {
    let asked = std::env::var("MITHRIL_TEST_LARGE_GIB").ok();
    asked.map_or(1, |gib| gib.parse().expect("MITHRIL_TEST_LARGE_GIB is a number"))
}

/// The weights of a large model as bf16, made faster than they could be drawn: the signs and exponents of each tensor
/// are those of the first one, from another place on, and the mantissas are random.
struct Checkpoint {
    tensors: usize,
    /// Eight values each.
    drawn: Vec<u128>,
}

/// The bits of eight bf16 that are not their signs and exponents.
const MANTISSAS: u128 = 0x007f_007f_007f_007f_007f_007f_007f_007f;

impl Checkpoint {
    fn new(tensors: usize) -> Self {
        let mut random = Random::new(1);
        let values: Vec<u128> =
            (0..1 << 16).map(|_| u128::from((random.normal() * 0.02).to_bits() >> 16)).collect();
        let one = |random: &mut Random| values[usize::try_from(random.below(1 << 16)).expect("it is small")];
        let eight = |_| (0..8).fold(0, |word, _| word << 16 | one(&mut random));
        Self { tensors, drawn: (0..TENSOR_BYTES / 16).map(eight).collect() }
    }

    fn header(&self) -> Vec<u8> {
        let tensor = |index: usize| {
            let (start, count) = (index * TENSOR_BYTES, TENSOR_BYTES / 2);
            let end = start + TENSOR_BYTES;
            format!(
                r#""layers.{index}.weight":{{"dtype":"BF16","shape":[{count}],"data_offsets":[{start},{end}]}}"#
            )
        };
        let mut header = format!("{{{}}}", (0..self.tensors).map(tensor).collect::<Vec<_>>().join(","));
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    }

    /// Writes the file of a step, and returns its digest. From one step to the next, some values change a little.
    fn write(&self, step: u64, mut file: File) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut write = |bytes: &[u8]| {
            hasher.update(bytes);
            file.write_all(bytes).unwrap();
        };
        write(&self.header());
        let mut bytes = vec![0; TENSOR_BYTES];
        let mut state = 1u128;
        for tensor in 0..self.tensors {
            let mut from = tensor * 104_729 % self.drawn.len();
            // Plain loops: this is half of the test's time where nothing is optimised.
            for out in bytes.chunks_exact_mut(16) {
                state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
                // The high bits mixed into the low ones, which by themselves are not random.
                let mut word = self.drawn[from] ^ ((state ^ state >> 61) & MANTISSAS);
                if step > 1 && state >> 123 == 0 {
                    word ^= u128::from(step) << (16 * (state >> 100 & 7));
                }
                out.copy_from_slice(&word.to_le_bytes());
                from += 1;
                if from == self.drawn.len() {
                    from = 0;
                }
            }
            write(&bytes);
        }
        hasher.finalize()
    }
}

/// The most memory that a process had.
fn peak_mib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn large_checkpoints_take_little_memory() {
    let gib = checkpoint_gib();
    let checkpoint = Checkpoint::new((gib << 30) / TENSOR_BYTES);
    let mut mount = Mount::new(&[]);
    let name = |step: u64| format!("step_{step}.safetensors");
    let steps = [1, 2].map(|step| {
        let digest = checkpoint.write(step, File::create(mount.join(&name(step))).unwrap());
        mount.run(&["sync", "."]);
        assert!(mount.is_packed(&name(step)));
        (step, digest)
    });
    let packing = peak_mib(mount.daemon());
    // The first alone, to about two thirds; the second as a delta.
    let stored = |step| mount.entry(&name(step))["stored_bytes"].as_u64().unwrap();
    let size = (gib << 30) as u64;
    assert!(stored(1) > size / 2 && stored(2) > size / 1000, "{} and {}", stored(1), stored(2));
    assert_eq!(mount.entry(&name(2))["chain_depth"], 1);
    mount.remount();
    for (step, expected) in steps {
        assert_eq!(digest(&mount.join(&name(step))), expected, "step {step}");
    }
    let reading = peak_mib(mount.daemon());
    assert!(
        packing.max(reading) <= LIMIT_MIB,
        "{gib} GiB: packing took {packing} MiB, reading {reading} MiB"
    );
}
