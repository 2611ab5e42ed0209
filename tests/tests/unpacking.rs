//! While a file is unpacked, which takes as long as it is big, nobody else has to wait. Needs a daemon that is slow on
//! purpose, and so debug assertions.
#![cfg(debug_assertions)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant, SystemTime};

use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;

/// Each of the steps of unpacking takes this long: a file of 16 MB has four.
const SLOW: &str = "UnpackStep=700";

/// Within which everybody else is answered.
const SOON: Duration = Duration::from_secs(1);

fn slow_mount(flags: &[&str]) -> (Mount, Vec<u8>) {
    let mount = Mount::with_fault(SLOW, flags);
    let bytes = Weights::new(4_000_000, 1).fp32_file();
    fs::write(mount.join("big"), &bytes).unwrap();
    fs::write(mount.join("other"), b"other").unwrap();
    mount.sync();
    assert!(mount.is_packed("big"));
    (mount, bytes)
}

/// Runs something that has to be done soon.
fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    let took = started.elapsed();
    assert!(took < SOON, "{what} took {took:?}");
    result
}

#[test]
fn nobody_but_writers_waits_for_an_unpacking() {
    for flags in [&[][..], &["--no-passthrough"]] {
        let (mount, mut expected) = slow_mount(flags);
        let big = mount.join("big");
        // Open already, and read from the kernel's cache nowhere.
        let readers: Vec<File> = (0..24).map(|_| File::open(&big).unwrap()).collect();
        std::thread::scope(|threads| {
            let writer = threads.spawn(|| {
                OpenOptions::new().write(true).open(&big).unwrap().write_all_at(b"changed", 1000).unwrap();
            });
            std::thread::sleep(Duration::from_millis(300));
            // More readers of that file than the daemon has threads for the kernel.
            let reads: Vec<_> = readers
                .iter()
                .enumerate()
                .map(|(number, reader)| {
                    let expected = &expected;
                    threads.spawn(move || {
                        let (at, mut seen) = (2_000_000 + number * 500_000, [0; 4096]);
                        soon("reading it", || reader.read_exact_at(&mut seen, at as u64).unwrap());
                        assert!(seen == expected[at..at + 4096], "wrong bytes at {at}");
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(50));
            soon("stat of it", || fs::metadata(&big).unwrap());
            soon("opening it", || drop(File::open(&big).unwrap()));
            soon("opening it for writing", || drop(OpenOptions::new().write(true).open(&big).unwrap()));
            // Seeking to data would wait for the writer, but in the kernel: it locks the inode for both.
            soon("stat of another", || fs::metadata(mount.join("other")).unwrap());
            soon("listing", || assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 2));
            soon("reading another", || assert_eq!(fs::read(mount.join("other")).unwrap(), b"other"));
            soon("creating another", || fs::write(mount.join("new"), b"new").unwrap());
            for read in reads {
                read.join().unwrap();
            }
            assert!(!writer.is_finished(), "the unpacking was not slow enough to tell");
            writer.join().unwrap();
        });
        expected[1000..1007].copy_from_slice(b"changed");
        let mut seen = vec![0; expected.len()];
        readers[0].read_exact_at(&mut seen, 0).unwrap();
        assert!(seen == expected, "a reader that was open sees the change");
        drop(readers);
        assert!(!mount.is_packed("big"));
        assert!(fs::read(&big).unwrap() == expected);
    }
}

#[test]
fn truncating_a_file_ends_its_unpacking() {
    let (mount, _) = slow_mount(&[]);
    let mut unpacking = mount.program().arg("unpack").arg(mount.join("big")).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    let file = soon("truncating", || File::create(mount.join("big")).unwrap());
    file.write_all_at(b"fresh", 0).unwrap();
    assert!(unpacking.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(2), "it was unpacked to the end");
    drop(file);
    assert_eq!(fs::read(mount.join("big")).unwrap(), b"fresh");
    assert_eq!(fs::read(mount.lower("big")).unwrap(), b"fresh");
}

#[test]
fn a_time_that_is_set_during_an_unpacking_lasts() {
    let (mut mount, bytes) = slow_mount(&[]);
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let mut unpacking = mount.program().arg("unpack").arg(mount.join("big")).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    soon("setting a time", || {
        File::options().write(true).open(mount.join("big")).unwrap().set_modified(time).unwrap();
    });
    assert!(unpacking.wait().unwrap().success());
    assert!(!mount.is_packed("big"));
    assert_eq!(fs::metadata(mount.join("big")).unwrap().modified().unwrap(), time);
    mount.remount();
    mount.sync();
    assert_eq!(fs::metadata(mount.join("big")).unwrap().modified().unwrap(), time);
    assert!(fs::read(mount.join("big")).unwrap() == bytes);
}
