//! Writing a checkpoint while older ones are packed, beside writing one while nothing is.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mithril_tests::data::{Random, Weights};
use mithril_tests::mount::Mount;

use super::paired::Paired;
use super::write::write;

/// Weights in each file of the backlog: 256 MB.
const WEIGHTS: usize = 128 << 20;

/// Other weights than before, at the speed of memory: the lowest bit of each is noise.
fn vary(bytes: &mut [u8], random: &mut Random) {
    for word in bytes[4096..].chunks_exact_mut(8) {
        let noise = random.next_u64() & 0x0001_0001_0001_0001;
        word.iter_mut().zip(noise.to_le_bytes()).for_each(|(byte, noise)| *byte ^= noise);
    }
}

/// Makes files that wait to be packed; what they are is on the disk.
fn pile_up(mount: &Mount, files: usize, bytes: &mut [u8], random: &mut Random) {
    for file in 0..files {
        vary(bytes, random);
        let mut new = File::create(mount.join(&format!("backlog_{file}"))).expect("it can be created");
        new.write_all(bytes).expect("it can be written");
    }
    rustix::fs::sync();
}

/// Bytes of the backlog that are not packed yet, as the disk has them.
fn unpacked(mount: &Mount, files: usize) -> u64 {
    let blocks = |path: &Path| path.metadata().map_or(0, |metadata| metadata.blocks() * 512);
    (0..files).map(|file| blocks(&mount.lower(&format!("backlog_{file}")))).sum()
}

pub(crate) fn measure(len: usize, pairs: usize) {
    let mount = Mount::new(&["--settle", "0"]);
    let mut weights = Weights::new(WEIGHTS, 5).bf16_file();
    let mut random = Random::new(6);
    // More than can be packed meanwhile.
    let files = (len / weights.len() * 2).max(4);
    let bytes = Random::new(1).bytes(len);
    let path = mount.join("new.pt");
    let mut packed = Vec::new();
    let measured = Paired::measure(pairs, |busy| {
        mount.run(&["pause", "."]);
        if busy {
            pile_up(&mount, files, &mut weights, &mut random);
            mount.run(&["resume", "."]);
            // Under way, not about to begin.
            let all = unpacked(&mount, files);
            while unpacked(&mount, files) == all {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        let before = unpacked(&mount, files);
        let seconds = write(&path, &bytes);
        if busy {
            let left = unpacked(&mount, files);
            assert!(left > 0, "the backlog was packed before the file was written");
            packed.push((before - left) as f64 / seconds / 1e9);
            mount.run(&["pause", "."]);
            (0..files).for_each(|file| {
                std::fs::remove_file(mount.join(&format!("backlog_{file}"))).expect("it can be removed");
            });
            mount.run(&["gc", "."]);
            rustix::fs::sync();
        }
        seconds
    });
    let (busy, idle) = measured.medians();
    println!(
        "write + fsync + close of {} MiB while packing: {busy:.3} s, without {idle:.3} s; ratio {} (packed at {:.2} GB/s \
         beside it)",
        len >> 20,
        measured.ratio(),
        super::paired::median(packed.into_iter())
    );
}
