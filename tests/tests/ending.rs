//! `umount` ends when the directory is free, and says what it waits for.

use std::fs;
use std::time::Duration;
#[cfg(debug_assertions)]
use std::time::Instant;

use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;
#[cfg(debug_assertions)]
use mithril_tests::mount::text;

#[cfg(debug_assertions)]
#[test]
fn unmounting_waits_for_a_packer_that_waits_for_the_disk() {
    // The last step of packing a file takes as long as if the disk were slow.
    let mut mount = Mount::with_fault("Commit=6000", &[]);
    let bytes = Weights::new(100_000, 1).bf16_file();
    fs::write(mount.join("slow"), &bytes).unwrap();
    fs::write(mount.join("waiting"), &bytes).unwrap();
    let mut syncing = mount.program().arg("sync").arg(mount.path()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while mount.status()["packing_path"] != "slow" && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    let unmounted = mount.command(&["umount", "."]);
    let took = started.elapsed();
    let said = text(&unmounted);
    assert_eq!(unmounted.status.code(), Some(0), "after {took:?}: {said}");
    assert!(took > Duration::from_secs(3), "the packer was not slow: {took:?}");
    assert!(said.contains("to end: it waits for the disk, with slow"), "{said}");
    assert!(said.contains("  waiting\n"), "what is queued is named: {said}");
    assert!(mount.is_free(), "somebody has the directory still");
    syncing.wait().unwrap();
    mount.without_fault();
    mount.mount();
    assert!(mount.is_packed("slow"), "the last step is done to the end");
    for name in ["slow", "waiting"] {
        assert!(fs::read(mount.join(name)).unwrap() == bytes);
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_signal_lets_the_packer_end_its_last_step() {
    let mut mount = Mount::with_fault("Commit=7000", &["--settle", "0"]);
    let bytes = Weights::new(100_000, 2).bf16_file();
    fs::write(mount.join("slow"), &bytes).unwrap();
    let daemon = mount.daemon();
    let deadline = Instant::now() + Duration::from_secs(10);
    while mount.status()["packing_path"] != "slow" && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    mount.wait_for_death(daemon);
    mount.without_fault();
    mount.mount();
    assert!(mount.is_packed("slow"), "its daemon was killed at that");
    assert!(fs::read(mount.join("slow")).unwrap() == bytes);
}

#[cfg(debug_assertions)]
#[test]
fn who_gives_up_draining_keeps_the_mount() {
    // Each file takes a while.
    let mut mount = Mount::with_fault("Taken=1000", &[]);
    let bytes = Weights::new(100_000, 3).bf16_file();
    for name in ["first", "second", "third"] {
        fs::write(mount.join(name), &bytes).unwrap();
    }
    let mut draining = mount.program().args(["umount", "--drain"]).arg(mount.path()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while mount.status()["packing_path"].is_null() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    draining.kill().unwrap();
    draining.wait().unwrap();
    // Longer than all of them take.
    std::thread::sleep(Duration::from_secs(4));
    let status = mount.command(&["status", "."]);
    assert!(status.status.success(), "it was unmounted: {}", text(&status));
    mount.run(&["umount", ".", "--drain"]);
    mount.without_fault();
    mount.mount();
    for name in ["first", "second", "third"] {
        assert!(mount.is_packed(name), "{name}");
    }
}

#[test]
fn a_directory_is_free_as_soon_as_it_is_unmounted() {
    let mut mount = Mount::unmounted(&["--settle", "0"]);
    for round in 0..10 {
        mount.mount();
        fs::write(mount.join(&format!("w{round}")), Weights::new(300_000, round).bf16_file()).unwrap();
        std::thread::sleep(Duration::from_millis(10 * round));
        mount.run(&["umount", "."]);
        assert!(mount.is_free(), "round {round}");
    }
}
