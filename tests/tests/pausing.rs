//! Packing that is paused: by command, and by itself where there is no room. Nothing is lost by it, and nobody waits for
//! ever.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use mithril_tests::data::{Random, Weights, weights};
use mithril_tests::disk::SmallDisk;
use mithril_tests::mount::{Mount, text};
use mithril_tests::{can_run, eventually, is_root};

#[test]
fn no_file_is_begun_while_packing_is_paused() {
    let mut mount = Mount::new(&["--settle", "0"]);
    let said = mount.run(&["pause", "."]);
    assert!(said.contains("paused by command"), "{said}");
    fs::write(mount.join("w"), weights(1)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let status = mount.status();
    assert_eq!((&status["packed_files"], &status["queued_files"]), (&0.into(), &1.into()));
    assert!(mount.run(&["status", "."]).contains("paused: by command"));
    // Nobody waits for what is not going to happen, and nothing is stopped.
    for arguments in [&["sync", "."][..], &["pack", "./w"], &["umount", ".", "--drain"]] {
        let refused = mount.command(arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {}", text(&refused));
        assert!(text(&refused).contains("mithril-fs resume"), "{arguments:?}: {}", text(&refused));
    }
    assert!(fs::read(mount.join("w")).unwrap() == weights(1));
    let said = mount.run(&["resume", "."]);
    assert!(said.contains("goes on"), "{said}");
    eventually("it is packed once it goes on", || mount.is_packed("w"));
    assert!(mount.status()["paused"].is_null());
    // It is for a mount, not for the directory.
    mount.run(&["pause", "."]);
    fs::write(mount.join("next"), weights(2)).unwrap();
    mount.remount();
    eventually("it is packed by the next mount", || mount.is_packed("next"));
}

#[cfg(debug_assertions)]
#[test]
fn the_file_that_is_being_packed_is_finished_and_named() {
    let mount = Mount::with_fault("Commit=1500", &["--settle", "0"]);
    fs::write(mount.join("a"), weights(1)).unwrap();
    eventually("it is begun", || mount.status()["packing_path"] == "a");
    fs::write(mount.join("b"), weights(2)).unwrap();
    let said = mount.run(&["pause", "."]);
    assert!(said.contains("a is being packed, and is finished first"), "{said}");
    eventually("it is finished", || mount.is_packed("a"));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!mount.is_packed("b"));
}

/// A user fills the disk. What they get told is what the disk says, and what waits is packed once there is room.
fn a_full_disk_is_waited_for(flags: &[&str]) {
    if !can_run(is_root(), "a small file system is mounted by root only") {
        return;
    }
    let disk = SmallDisk::new(64, "");
    let mut mount = Mount::unmounted_in(disk.path(), flags);
    mount.mount();
    let (first, second) = (weights(1), weights(2));
    fs::write(mount.join("step_1"), &first).unwrap();
    mount.sync();
    mount.run(&["pause", "."]);
    fs::write(mount.join("step_2"), &second).unwrap();
    // What others have takes most of it; what a user writes through the mount takes the rest.
    let ballast = disk.fill_but(4);
    let mut file = File::create(mount.join("filler")).unwrap();
    let noise = Random::new(1).bytes(1 << 20);
    let error = (0..100).find_map(|_| file.write_all(&noise).and_then(|()| file.sync_all()).err());
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::StorageFull));
    drop(file);
    mount.run(&["resume", "."]);
    eventually("it is said why it waits", || {
        mount.status()["paused"].as_str().is_some_and(|why| why.contains("the disk is full"))
    });
    assert!(mount.run(&["status", "."]).contains("paused: the disk is full"));
    // Whoever waits for it is told, soon.
    let started = Instant::now();
    let synced = mount.command(&["sync", "."]);
    assert_eq!(synced.status.code(), Some(7), "{}", text(&synced));
    assert!(text(&synced).contains("the disk is full"), "{}", text(&synced));
    assert!(text(&synced).contains("step_2 (packing is paused)"), "{}", text(&synced));
    let drained = mount.command(&["umount", ".", "--drain"]);
    assert_eq!(drained.status.code(), Some(1), "{}", text(&drained));
    assert!(text(&drained).contains("the disk is full"), "{}", text(&drained));
    assert!(started.elapsed() < Duration::from_secs(20));
    // Both states are read as ever, and nothing failed.
    assert!(
        fs::read(mount.join("step_1")).unwrap() == first && fs::read(mount.join("step_2")).unwrap() == second
    );
    let status = mount.status();
    assert_eq!((&status["packed_files"], status["errors"].as_array().unwrap().len()), (&1.into(), 0));
    fs::remove_file(ballast).unwrap();
    fs::remove_file(mount.join("filler")).unwrap();
    let mut said = String::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !mount.is_packed("step_2") {
        assert!(Instant::now() < deadline, "it goes on once there is room: {said} {}", mount.status());
        said = text(&mount.command(&["sync", "."]));
    }
    assert!(mount.status()["paused"].is_null());
    assert!(fs::read(mount.join("step_2")).unwrap() == second);
    mount.run(&["verify", "."]);
}

#[test]
fn a_full_disk_is_waited_for_in_passthrough() {
    a_full_disk_is_waited_for(&["--settle", "0"]);
}

#[test]
fn a_full_disk_is_waited_for_through_the_daemon() {
    a_full_disk_is_waited_for(&["--settle", "0", "--no-passthrough"]);
}

#[test]
fn packing_goes_on_by_itself_once_there_is_room() {
    if !can_run(is_root(), "a small file system is mounted by root only") {
        return;
    }
    let disk = SmallDisk::new(64, "");
    let mut mount = Mount::unmounted_in(disk.path(), &["--settle", "0.5"]);
    mount.mount();
    fs::write(mount.join("w"), weights(3)).unwrap();
    let ballast = disk.fill_but(0);
    eventually("it waits", || mount.status()["paused"].is_string() || mount.is_packed("w"));
    assert!(!mount.is_packed("w"), "the disk was filled too late");
    fs::remove_file(ballast).unwrap();
    eventually("it goes on", || mount.is_packed("w"));
    assert!(mount.status()["paused"].is_null());
}

#[test]
fn where_no_inode_is_left_packing_waits() {
    if !can_run(is_root(), "a small file system is mounted by root only") {
        return;
    }
    let disk = SmallDisk::new(64, ",nr_inodes=64");
    let mut mount = Mount::unmounted_in(disk.path(), &["--settle", "0.5"]);
    mount.mount();
    fs::write(mount.join("w"), weights(3)).unwrap();
    let taken = mount.lower("taken");
    fs::create_dir(&taken).unwrap();
    while File::create(
        taken.join(format!("{}", Random::new(fs::read_dir(&taken).unwrap().count() as u64 + 1).next_u64())),
    )
    .is_ok()
    {}
    eventually("it waits", || mount.status()["paused"].is_string() || mount.is_packed("w"));
    assert!(!mount.is_packed("w"), "the inodes were used up too late");
    assert!(mount.status()["paused"].as_str().unwrap().contains("inodes"), "{}", mount.status());
    fs::remove_dir_all(&taken).unwrap();
    mount.run(&["resume", "."]);
    eventually("it goes on", || mount.is_packed("w"));
}

#[test]
fn a_file_that_might_not_fit_is_put_off_for_those_that_do() {
    if !can_run(is_root(), "a small file system is mounted by root only") {
        return;
    }
    let disk = SmallDisk::new(64, "");
    let mut mount = Mount::unmounted_in(disk.path(), &[]);
    mount.mount();
    let large = Weights::new(18_000_000, 4).bf16_file();
    fs::write(mount.join("a_large"), &large).unwrap();
    fs::write(mount.join("small"), weights(5)).unwrap();
    let synced = mount.command(&["sync", "."]);
    assert_eq!(synced.status.code(), Some(7), "{}", text(&synced));
    assert!(text(&synced).contains("a_large (packing it may take "), "{}", text(&synced));
    assert!(mount.is_packed("small") && !mount.is_packed("a_large"));
    assert!(fs::read(mount.join("a_large")).unwrap() == large);
    assert!(mount.status()["paused"].is_null(), "others can be packed");
}
