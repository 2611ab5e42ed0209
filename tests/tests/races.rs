//! Files that are used at the very moment they are packed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mithril_tests::data::{Random, Weights};
use mithril_tests::mount::Mount;
use mithril_tests::rounds;

/// Where writers write a byte; what they write is not looked at, all else must never change.
const WRITTEN_AT: usize = 100_000;

/// Opens for reading and writing against packs that begin as soon as nobody has a file open.
#[test]
fn opens_that_race_with_packs_never_fail_and_never_see_a_wrong_byte() {
    const FILES: u64 = 2;
    for flags in [&["--settle", "0"][..], &["--settle", "0", "--no-passthrough"]] {
        let mount = Mount::new(flags);
        let bytes: Vec<Vec<u8>> = (0..FILES).map(|seed| Weights::new(150_000, seed).bf16_file()).collect();
        let path = |file: usize| mount.join(&format!("w{file}"));
        for (file, bytes) in bytes.iter().enumerate() {
            fs::write(path(file), bytes).unwrap();
        }
        let (ended, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
        let check = |file: usize| {
            let mut seen = fs::read(path(file)).unwrap();
            seen[WRITTEN_AT] = bytes[file][WRITTEN_AT];
            assert!(seen == bytes[file], "wrong bytes in w{file}");
        };
        let mut packed = 0;
        std::thread::scope(|threads| {
            for seed in 0..4 {
                let (ended, opened, path, check) = (&ended, &opened, &path, &check);
                threads.spawn(move || {
                    let mut random = Random::new(100 + seed);
                    while !ended.load(Ordering::Relaxed) {
                        let file = usize::try_from(random.below(FILES)).unwrap();
                        if random.below(3) == 0 {
                            let writer = OpenOptions::new().write(true).open(path(file)).unwrap();
                            // Some only open it: the packer is told of a writer all the same.
                            if random.below(2) == 0 {
                                writer.write_all_at(&[7], WRITTEN_AT as u64).unwrap();
                            }
                            // Others come while it is open.
                            std::thread::sleep(Duration::from_micros(random.below(30_000)));
                        } else {
                            check(file);
                        }
                        opened.fetch_add(1, Ordering::Relaxed);
                        // Long enough at times for a pack to get through, or to its last step.
                        std::thread::sleep(Duration::from_micros(random.below(80_000)));
                    }
                });
            }
            let deadline = Instant::now() + Duration::from_secs(rounds(3) as u64);
            while Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
                packed += mount.status()["packed_files"].as_u64().unwrap();
            }
            ended.store(true, Ordering::Relaxed);
        });
        assert!(packed > 0 && opened.load(Ordering::Relaxed) > 50, "nothing raced: {packed}, {opened:?}");
        mount.sync();
        (0..bytes.len()).for_each(check);
        assert_eq!(mount.status()["errors"], serde_json::json!([]), "{flags:?}");
    }
}

/// A time that is set while a file is packed is the file's time, packed or not.
#[cfg(debug_assertions)]
#[test]
fn a_time_that_is_set_during_a_pack_lasts() {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
    // The packer takes its time between finding the file unchanged and bringing its time back.
    let mut mount = Mount::with_fault("Commit=400", &[]);
    let mut random = Random::new(5);
    let mut expected = Vec::new();
    for round in 0..rounds(8) {
        let name = format!("w{round}");
        fs::write(mount.join(&name), Weights::new(100_000, round as u64).bf16_file()).unwrap();
        let time = Timespec { tv_sec: 1_000_000_000 + i64::try_from(round).unwrap(), tv_nsec: 123_456_789 };
        std::thread::scope(|threads| {
            let packing = threads.spawn(|| mount.sync());
            std::thread::sleep(Duration::from_millis(random.below(450)));
            let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
            let times = Timestamps { last_access: omit, last_modification: time };
            rustix::fs::utimensat(CWD, mount.join(&name), &times, AtFlags::empty()).unwrap();
            packing.join().unwrap();
        });
        expected.push((name, time));
    }
    for remounted in [false, true] {
        for (name, time) in &expected {
            let stat = rustix::fs::fstat(fs::File::open(mount.join(name)).unwrap()).unwrap();
            let now = (stat.st_mtime, stat.st_mtime_nsec);
            assert_eq!(now, (time.tv_sec, 123_456_789), "{name}, remounted: {remounted}");
        }
        mount.remount();
        mount.sync();
    }
}
