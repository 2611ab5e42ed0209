//! A daemon that is killed at any moment loses nothing.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant, SystemTime};

use mithril_tests::data::{Random, Weights};
use mithril_tests::mount::Mount;
use mithril_tests::rounds;

/// Files that are packed, changed and unpacked while the daemon is killed at random moments.
#[test]
fn killing_the_daemon_at_random_moments_loses_nothing() {
    let mut mount = Mount::unmounted(&["--settle", "0"]);
    let mut random = Random::new(42);
    let mut weights: Vec<Weights> = (0..4).map(|seed| Weights::new(400_000, seed)).collect();
    let mut expected: Vec<(String, Vec<u8>, SystemTime)> = Vec::new();
    for round in 0..rounds(50) {
        mount.mount();
        let daemon = mount.daemon();
        for (name, bytes, time) in &expected {
            assert!(fs::read(mount.join(name)).unwrap() == *bytes, "{name} differs before round {round}");
            assert_time_comes_back(&mount, name, *time);
        }
        mount.run(&["verify", "."]);
        // Something new to pack, something to unpack, by a change and by command.
        for (index, weights) in weights.iter_mut().enumerate() {
            weights.step(1e-4);
            let name = format!("run{index}_step_{}.safetensors", round % 6);
            let bytes = if index % 2 == 0 { weights.bf16_file() } else { weights.fp32_file() };
            fs::write(mount.join(&name), &bytes).unwrap();
            fs::File::open(mount.join(&name)).unwrap().sync_all().unwrap();
            let time = fs::metadata(mount.join(&name)).unwrap().modified().unwrap();
            expected.retain(|(known, ..)| *known != name);
            expected.push((name, bytes, time));
        }
        let unpacking = (round % 3 == 1).then(|| {
            std::process::Command::new(mithril_tests::executable())
                .arg("unpack")
                .arg(mount.path())
                .spawn()
                .unwrap()
        });
        if round % 3 == 2 {
            let at = usize::try_from(random.below(expected.len() as u64)).unwrap();
            let (name, bytes, time) = &mut expected[at];
            let file = OpenOptions::new().write(true).open(mount.join(name)).unwrap();
            file.write_all_at(b"changed", 5000).unwrap();
            file.sync_all().unwrap();
            bytes[5000..5007].copy_from_slice(b"changed");
            *time = file.metadata().unwrap().modified().unwrap();
        }
        std::thread::sleep(Duration::from_micros(random.below(120_000)));
        mount.kill(daemon);
        if let Some(mut unpacking) = unpacking {
            let _ = unpacking.wait();
        }
    }
    mount.mount();
    mount.sync();
    for (name, bytes, time) in &expected {
        assert!(fs::read(mount.join(name)).unwrap() == *bytes, "{name} differs");
        assert_time_comes_back(&mount, name, *time);
    }
    let verified = mount.run(&["verify", "."]);
    assert!(verified.contains("checked"), "{verified}");
    mount.run(&["gc", "."]);
    mount.remount();
    for (name, bytes, _) in &expected {
        assert!(fs::read(mount.join(name)).unwrap() == *bytes, "{name} differs after a collection");
    }
    mount.run(&["verify", "."]);
}

/// What a crash did to a file's time is undone soon after the next mount.
fn assert_time_comes_back(mount: &Mount, name: &str, time: SystemTime) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = fs::metadata(mount.join(name)).unwrap().modified().unwrap();
        if now == time {
            return;
        }
        assert!(Instant::now() < deadline, "{name} has the time {now:?} instead of {time:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_crash_at_the_end_of_an_unpacking_keeps_the_time() {
    let mut mount = Mount::with_fault("AttributeRemoved=abort", &[]);
    let bytes = Weights::new(300_000, 8).bf16_file();
    fs::write(mount.join("w"), &bytes).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    fs::File::options().write(true).open(mount.join("w")).unwrap().set_modified(time).unwrap();
    mount.sync();
    assert!(mount.is_packed("w"));
    let daemon = mount.daemon();
    assert!(!mount.command(&["unpack", "./w"]).status.success());
    mount.wait_for_death(daemon);
    mount.without_fault();
    mount.mount();
    assert!(!mount.is_packed("w"));
    assert_eq!(fs::metadata(mount.join("w")).unwrap().modified().unwrap(), time);
    assert!(fs::read(mount.join("w")).unwrap() == bytes);
}

/// The directory after a crash between the attribute and the punching, with a damaged store: the name of its pack.
fn half_packed_and_damaged(mount: &mut Mount, below: &[u8]) {
    mount.unmount();
    let stub = OpenOptions::new().write(true).open(mount.lower("w")).unwrap();
    stub.write_all_at(below, 0).unwrap();
    drop(stub);
    let pack = fs::read_dir(mount.lower(".mithril/packs")).unwrap().next().unwrap().unwrap().file_name();
    let pack = mount.lower(&format!(".mithril/packs/{}", pack.to_str().unwrap()));
    let mut bytes = fs::read(&pack).unwrap();
    bytes[100] ^= 0x10;
    fs::write(&pack, bytes).unwrap();
    mount.mount();
    // What was found is told once it was treated. A sync would pack what is plain again.
    let deadline = Instant::now() + Duration::from_secs(10);
    while mount.status()["errors"].as_array().unwrap().is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_last_good_copy_of_a_file_is_not_given_back() {
    use std::os::unix::fs::MetadataExt;
    let mut mount = Mount::new(&[]);
    let bytes = Weights::new(300_000, 9).bf16_file();
    fs::write(mount.join("w"), &bytes).unwrap();
    let time = fs::metadata(mount.join("w")).unwrap().modified().unwrap();
    mount.sync();
    assert!(mount.is_packed("w"));
    half_packed_and_damaged(&mut mount, &bytes);
    assert!(!mount.is_packed("w"));
    assert!(fs::read(mount.join("w")).unwrap() == bytes);
    assert_eq!(fs::metadata(mount.join("w")).unwrap().modified().unwrap(), time);
    assert!(mount.status()["errors"].to_string().contains("plain again"), "{}", mount.status());
    // Packed once more, it does not rely on what is damaged.
    mount.sync();
    assert!(mount.is_packed("w"));
    mount.remount();
    assert!(fs::read(mount.join("w")).unwrap() == bytes);

    // Where the blocks are not all of it either, they are no file: an error, but nothing is thrown away.
    let mut mount = Mount::new(&[]);
    fs::write(mount.join("w"), &bytes).unwrap();
    mount.sync();
    half_packed_and_damaged(&mut mount, &bytes[..bytes.len() / 2]);
    assert!(mount.is_packed("w"));
    assert!(fs::read(mount.join("w")).is_err());
    let below = fs::read(mount.lower("w")).unwrap();
    assert!(below[..bytes.len() / 2] == bytes[..bytes.len() / 2]);
    assert!(fs::metadata(mount.lower("w")).unwrap().blocks() * 512 > 100_000);
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_costs_one_call_and_the_mount_goes_on() {
    let mount = Mount::with_fault("Lookup=panic", &[]);
    fs::write(mount.join("file"), b"before").unwrap();
    for _ in 0..20 {
        let error = fs::metadata(mount.join("fault-file")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    }
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"before");
    fs::write(mount.join("file"), b"after").unwrap();
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"after");
    mount.status();
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_while_the_directory_is_looked_through_keeps_nobody_waiting() {
    let mount = Mount::with_fault("Scan=panic", &[]);
    fs::write(mount.join("w"), Weights::new(100_000, 1).bf16_file()).unwrap();
    mount.run(&["sync", "."]);
    assert!(mount.is_packed("w"));
    assert!(mount.status()["errors"].to_string().contains("panicked"), "{}", mount.status());
}

#[test]
fn what_a_crash_left_half_done_is_finished_at_the_next_mount() {
    let mut mount = Mount::new(&["--settle", "0"]);
    let bytes = Weights::new(300_000, 3).bf16_file();
    fs::write(mount.join("w"), &bytes).unwrap();
    mount.sync();
    assert!(mount.is_packed("w"));
    let time = fs::metadata(mount.join("w")).unwrap().modified().unwrap();
    mount.unmount();
    // As after a crash between the attribute and the punching: blocks are there, and the time is another one.
    let stub = OpenOptions::new().write(true).open(mount.lower("w")).unwrap();
    stub.write_all_at(&bytes, 0).unwrap();
    drop(stub);
    mount.mount();
    mount.sync();
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(mount.join("w")).unwrap();
    assert_eq!(metadata.modified().unwrap(), time);
    assert!(metadata.blocks() * 512 <= 8192, "{} blocks", metadata.blocks());
    assert!(fs::read(mount.join("w")).unwrap() == bytes);
}

#[test]
fn a_truncation_that_was_interrupted_is_an_empty_file() {
    let mut mount = Mount::new(&[]);
    fs::write(mount.join("w"), Weights::new(300_000, 6).bf16_file()).unwrap();
    mount.sync();
    assert!(mount.is_packed("w"));
    mount.unmount();
    // As after a crash between the truncation and the removal of the attribute.
    OpenOptions::new().write(true).open(mount.lower("w")).unwrap().set_len(0).unwrap();
    mount.mount();
    assert_eq!(fs::read(mount.join("w")).unwrap(), b"");
    let fresh = Weights::new(300_000, 7).fp32_file();
    fs::write(mount.join("w"), &fresh).unwrap();
    mount.remount();
    assert!(fs::read(mount.join("w")).unwrap() == fresh, "the attribute was believed again");
}

#[test]
fn a_lost_or_damaged_index_is_rebuilt() {
    let mut mount = Mount::new(&[]);
    let bytes = Weights::new(300_000, 4).bf16_file();
    fs::write(mount.join("w"), &bytes).unwrap();
    mount.sync();
    let index = fs::read(mount.lower(".mithril/index")).unwrap();
    for damage in 0..4 {
        mount.unmount();
        match damage {
            0 => fs::remove_file(mount.lower(".mithril/index")).unwrap(),
            1 => fs::write(mount.lower(".mithril/index"), &index[..index.len() / 2]).unwrap(),
            2 => fs::write(mount.lower(".mithril/index"), b"").unwrap(),
            _ => {
                let mut flipped = index.clone();
                flipped[60] ^= 1;
                fs::write(mount.lower(".mithril/index"), flipped).unwrap();
            }
        }
        mount.mount();
        assert!(fs::read(mount.join("w")).unwrap() == bytes, "damage {damage}");
        mount.run(&["verify", ".", "--repair-index"]);
    }
}

#[test]
fn damage_in_a_pack_is_an_error_and_is_named() {
    let mut mount = Mount::new(&[]);
    let bytes = Weights::new(300_000, 5).bf16_file();
    fs::write(mount.join("w"), &bytes).unwrap();
    mount.sync();
    mount.unmount();
    let pack = fs::read_dir(mount.lower(".mithril/packs")).unwrap().next().unwrap().unwrap().file_name();
    let pack = mount.lower(&format!(".mithril/packs/{}", pack.to_str().unwrap()));
    let good = fs::read(&pack).unwrap();
    for at in [100, good.len() / 2] {
        let mut damaged = good.clone();
        damaged[at] ^= 0x10;
        fs::write(&pack, &damaged).unwrap();
        mount.mount();
        assert!(fs::read(mount.join("w")).is_err(), "byte {at}: wrong bytes instead of an error");
        let verified = mount.command(&["verify", "."]);
        assert_eq!(verified.status.code(), Some(5));
        assert!(mithril_tests::mount::text(&verified).contains("unreadable: w"));
        let status = mount.run(&["status", "."]);
        assert!(status.lines().any(|line| line.starts_with("error: cannot read w")), "byte {at}: {status}");
        mount.unmount();
    }
    fs::write(&pack, &good).unwrap();
    mount.mount();
    assert!(fs::read(mount.join("w")).unwrap() == bytes);
}
