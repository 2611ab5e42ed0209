//! What is plain although it could be packed is named, with its reason, for as long as that is so.

use std::fs::{self, File};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mithril_tests::data::{Random, Weights};
use mithril_tests::mount::{Mount, text};
use serde_json::Value;

/// The reason that `status` has for a file; all of what it names.
fn left(mount: &Mount) -> Vec<(String, String)> {
    let status = mount.status();
    let named = status["left_plain"]["named"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    named.iter().map(|entry| (text(&entry[0]), text(&entry[1]))).collect()
}

fn is_left(mount: &Mount, name: &str, reason: &str) -> bool {
    left(mount).iter().any(|(path, why)| path == name && why.contains(reason))
}

#[test]
fn what_is_left_plain_is_named_while_it_is() {
    let mount = Mount::new(&[]);
    let noise = Random::new(1).bytes(200_000);
    for name in ["noise", "deleted", "replaced"] {
        fs::write(mount.join(name), &noise).unwrap();
    }
    fs::write(mount.join("small"), &noise[..60_000]).unwrap();
    fs::write(mount.join("by_hand"), Weights::new(100_000, 1).bf16_file()).unwrap();
    mount.sync();
    mount.run(&["unpack", "./by_hand"]);
    let mut open = File::create(mount.join("open")).unwrap();
    open.write_all(&Weights::new(100_000, 2).bf16_file()).unwrap();
    let synced = mount.command(&["sync", "."]);
    assert_eq!(synced.status.code(), Some(7), "{}", text(&synced));
    for said in ["noise (hardly compressible)", "by_hand (unpacked by hand)", "open (open)"] {
        assert!(text(&synced).contains(&format!("plain: {said}\n")), "{said}: {}", text(&synced));
        assert!(mount.run(&["status", "."]).contains(&format!("plain: {said}\n")), "{said}");
    }
    assert_eq!(left(&mount).len(), 5, "{:?}", left(&mount));
    assert_eq!(mount.status()["left_plain"]["for_now"], 1, "only the open one may be packed yet");

    // Closed, it is waiting; deleted, renamed, overwritten or packed, it is not what it was.
    drop(open);
    // The daemon is told a moment later.
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_left(&mount, "open", "") && Instant::now() < deadline {}
    assert!(!is_left(&mount, "open", ""), "{:?}", left(&mount));
    fs::remove_file(mount.join("deleted")).unwrap();
    fs::rename(mount.join("noise"), mount.join("renamed")).unwrap();
    fs::write(mount.join("replaced"), Weights::new(100_000, 3).bf16_file()).unwrap();
    let expected = [("by_hand", "unpacked by hand"), ("renamed", "hardly compressible")];
    let expected = expected.map(|(path, reason)| (path.to_owned(), reason.to_owned()));
    assert_eq!(left(&mount), expected);
    mount.run(&["sync", "."]);
    assert_eq!(left(&mount), expected);
    mount.run(&["pack", "./by_hand"]);
    assert_eq!(left(&mount), expected[1..]);
    let packed = mount.run(&["pack", "./open"]);
    assert!(!packed.contains("plain"), "of other files nothing is said: {packed}");
}

#[test]
fn what_was_written_below_is_left_until_somebody_looks() {
    let mount = Mount::new(&[]);
    mount.sync();
    fs::write(mount.lower("below"), Weights::new(100_000, 4).bf16_file()).unwrap();
    assert!(is_left(&mount, "below", "not tried yet"), "{:?}", left(&mount));
    mount.run(&["sync", "."]);
    assert_eq!(left(&mount), []);
}

#[test]
fn of_many_files_the_first_are_named_and_the_others_counted() {
    let mount = Mount::new(&[]);
    let noise = Random::new(2).bytes(64 << 10);
    for number in 0..130 {
        let mut noise = noise.clone();
        noise[number] ^= 1;
        fs::write(mount.join(&format!("noise_{number:03}")), noise).unwrap();
    }
    let said = mount.run(&["sync", "."]);
    assert!(said.contains("plain: noise_009") && said.contains("and 120 more plain files"), "{said}");
    let counts = |mount: &Mount| {
        let left = mount.status()["left_plain"].clone();
        (left["named"].as_array().unwrap().len() as u64, left["more"].as_u64().unwrap())
    };
    assert_eq!(counts(&mount), (100, 30));
    let said = mount.run(&["status", "."]);
    assert!(said.contains("130 files, 0 of them for now") && said.contains("and 120 more"), "{said}");
    for number in 0..110 {
        fs::remove_file(mount.join(&format!("noise_{number:03}"))).unwrap();
    }
    assert_eq!(counts(&mount), (20, 0));
}

#[test]
fn a_file_that_changes_all_the_while_is_packed_or_named() {
    let mount = Mount::new(&[]);
    let path = mount.join("busy");
    fs::write(&path, Weights::new(1_000_000, 5).bf16_file()).unwrap();
    let (ends, quiet) = (AtomicBool::new(false), Mutex::new(()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::SeqCst) {
                let turn = quiet.lock().unwrap();
                File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
                drop(turn);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut answers = (0..20).map(|_| {
            let turn = quiet.lock().unwrap();
            while !mount.is_packed("busy") {
                mount.sync();
            }
            drop(turn);
            // From now on, nobody packs it but the next sync.
            while mount.is_packed("busy") {}
            text(&mount.command(&["sync", "."]))
        });
        let wrong = answers.find(|said| said.starts_with("0 files") && !said.contains("plain: busy"));
        ends.store(true, Ordering::SeqCst);
        assert_eq!(wrong, None);
    });
}
