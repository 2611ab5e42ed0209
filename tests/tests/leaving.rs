//! Packing many files on request, and the way back out.

use std::fs;

use mithril_tests::data::{Weights, weights};
use mithril_tests::disk::SmallDisk;
use mithril_tests::mount::{Mount, text};
use mithril_tests::{can_run, is_root};

/// The number before a unit, like 20.0 in "to about 20.0 MB".
fn number_after(said: &str, words: &str) -> f64 {
    let rest = &said[said.find(words).unwrap_or_else(|| panic!("{words}: {said}")) + words.len()..];
    let end = rest.find(' ').unwrap();
    rest[..end].parse().unwrap_or_else(|error| panic!("{error}: {rest}"))
}

#[test]
fn an_estimate_is_near_what_comes_of_it_and_changes_nothing() {
    let mut mount = Mount::unmounted(&["--exclude", "not"]);
    fs::create_dir_all(mount.join("old/deep")).unwrap();
    for file in 0..20 {
        fs::write(mount.join(&format!("old/deep/w{file}.bin")), weights(file)).unwrap();
    }
    fs::write(mount.join("old/not"), weights(99)).unwrap();
    mount.mount();
    let said = mount.run(&["pack", "--estimate", "./old"]);
    assert!(said.contains("20 files to pack: 20.0 MB to about"), "{said}");
    let status = mount.status();
    assert_eq!((&status["packed_files"], &status["queued_files"]), (&0.into(), &0.into()));
    let said = mount.run(&["pack", "--recursive", "./old"]);
    let expected = number_after(&said, "to about ");
    let real = number_after(&said, "20 files packed: 20.0 MB to ");
    assert!((expected - real).abs() / real < 0.1, "{said}");
    assert!(mount.is_packed("old/deep/w19.bin") && !mount.is_packed("old/not"));
}

#[test]
fn a_directory_can_be_left_for_good() {
    let mut mount = Mount::new(&[]);
    fs::create_dir(mount.join("deep")).unwrap();
    let names = ["step_1", "step_2", "deep/step_3"];
    for (seed, name) in (1..).zip(names) {
        fs::write(mount.join(name), weights(seed)).unwrap();
    }
    let time = fs::metadata(mount.join("step_2")).unwrap().modified().unwrap();
    mount.sync();
    mount.unmount();
    // In pieces, as if it had been broken off: what was done stays done.
    let said = mount.run(&["unpack", "./step_2"]);
    assert!(said.contains("1 files are plain") && !said.contains("can be deleted"), "{said}");
    let said = mount.run(&["unpack", "--recursive", "."]);
    assert!(said.contains("2 files are plain") && said.contains("can be deleted"), "{said}");
    fs::remove_dir_all(mount.join(".mithril")).unwrap();
    for (seed, name) in (1..).zip(names) {
        assert!(fs::read(mount.join(name)).unwrap() == weights(seed), "{name}");
    }
    assert_eq!(fs::metadata(mount.join("step_2")).unwrap().modified().unwrap(), time);
}

#[test]
fn what_is_damaged_stays_packed_and_is_named() {
    let mut mount = Mount::new(&[]);
    fs::write(mount.join("w"), weights(1)).unwrap();
    mount.sync();
    mount.unmount();
    for pack in fs::read_dir(mount.join(".mithril/packs")).unwrap() {
        let path = pack.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 1000].fill(0);
        fs::write(&path, bytes).unwrap();
    }
    let refused = mount.command(&["unpack", "."]);
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused));
    assert!(text(&refused).contains("still packed: w") && !text(&refused).contains("can be deleted"));
    mount.mount();
    assert!(fs::read(mount.join("w")).is_err(), "an error, as before");
}

#[test]
fn what_would_not_fit_is_not_unpacked() {
    if !can_run(is_root(), "a small file system is mounted by root only") {
        return;
    }
    let disk = SmallDisk::new(48, "");
    let mut mount = Mount::unmounted_in(disk.path(), &[]);
    mount.mount();
    // Equal ones are stored once: they take little until they are unpacked.
    for step in 0..6 {
        fs::write(mount.join(&format!("step_{step}")), Weights::new(5_000_000, 1).bf16_file()).unwrap();
        mount.sync();
    }
    let refuses = |mount: &Mount| {
        let refused = mount.command(&["unpack", "--recursive", "."]);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains("nothing was unpacked"), "{}", text(&refused));
    };
    refuses(&mount);
    assert_eq!(mount.status()["packed_files"], 6);
    mount.unmount();
    refuses(&mount);
    assert!(mount.run(&["unpack", "./step_0"]).contains("1 files are plain"));
}
