//! Which files are packed by themselves: that is said, and whoever asks for a file gets it packed.

use std::fs;
use std::time::{Duration, Instant};

use mithril_tests::data::Weights;
use mithril_tests::mount::{Mount, text};

fn weights(seed: u64) -> Vec<u8> {
    Weights::new(100_000, seed).bf16_file()
}

/// Why `ls` and `status` say that a file is plain: both say the same.
fn reason(mount: &Mount, name: &str) -> String {
    let entry = mount.entry(name);
    let listed = entry["plain_because"].as_str().unwrap_or(entry["state"].as_str().unwrap()).to_owned();
    let status = mount.status();
    let named = status["left_plain"]["named"].as_array().unwrap();
    let said = named.iter().find(|entry| entry[0] == name).map(|entry| entry[1].as_str().unwrap().to_owned());
    assert_eq!(said.unwrap_or(entry["state"].as_str().unwrap().to_owned()), listed, "{name}");
    listed
}

#[test]
fn what_is_excluded_stays_plain_until_it_is_asked_for_or_renamed() {
    let mount = Mount::new(&[
        "--settle",
        "0",
        "--exclude",
        "*.tmp",
        "--exclude",
        "logs",
        "--exclude",
        "run/*/optimizer.pt",
    ]);
    for dir in ["logs/deep", "run/1", "other/1"] {
        fs::create_dir_all(mount.join(dir)).unwrap();
    }
    let files = ["a.tmp", "logs/deep/w", "run/1/optimizer.pt", "other/1/optimizer.pt", "run/1/model.pt"];
    for (seed, name) in (1..).zip(files) {
        fs::write(mount.join(name), weights(seed)).unwrap();
    }
    mount.run(&["sync", "."]);
    for name in &files[..3] {
        assert_eq!(reason(&mount, name), "excluded", "{name}");
    }
    for name in &files[3..] {
        assert!(mount.is_packed(name), "{name}");
    }
    // Below a directory that is asked for, it stays excluded; asked for by name it is packed, and that is said.
    assert!(!mount.run(&["pack", "./run"]).contains("asked for"));
    assert_eq!(reason(&mount, "run/1/optimizer.pt"), "excluded");
    let said = mount.run(&["pack", "./run/1/optimizer.pt"]);
    assert!(said.contains("packed since it was asked for: run/1/optimizer.pt (excluded)"), "{said}");
    assert!(mount.is_packed("run/1/optimizer.pt"));
    // Published under another name, alone or with its directory, it is a file like others.
    fs::rename(mount.join("a.tmp"), mount.join("a")).unwrap();
    fs::rename(mount.join("logs"), mount.join("published")).unwrap();
    assert!(mount.is_soon_packed("a") && mount.is_soon_packed("published/deep/w"));
    assert!(fs::read(mount.join("a")).unwrap() == weights(1));
}

#[test]
fn only_what_is_included_is_packed() {
    let mut mount = Mount::new(&["--include", "step_*.pt", "--include", "keep/**", "--exclude", "step_2.pt"]);
    fs::create_dir(mount.join("keep")).unwrap();
    for (seed, name) in (1..).zip(["step_1.pt", "step_2.pt", "notes", "keep/any"]) {
        fs::write(mount.join(name), weights(seed)).unwrap();
    }
    mount.run(&["sync", "."]);
    assert!(mount.is_packed("step_1.pt") && mount.is_packed("keep/any"));
    assert_eq!(
        (reason(&mount, "step_2.pt"), reason(&mount, "notes")),
        ("excluded".into(), "excluded".into())
    );
    mount.remount_with(&["--min-size", "250KiB"]);
    fs::write(mount.join("large"), Weights::new(200_000, 9).bf16_file()).unwrap();
    mount.run(&["sync", "."]);
    assert!(mount.is_packed("large") && mount.is_packed("step_1.pt"), "what is packed stays so");
    assert_eq!(reason(&mount, "notes"), "smaller than --min-size");
    for wrong in [["--exclude", "["], ["--min-size", "1KiB"]] {
        let refused = mount.command(&[&["mount", "."], &wrong[..]].concat());
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    }
}

#[test]
fn the_newest_steps_stay_plain_until_newer_ones_come() {
    let mount = Mount::new(&["--settle", "0", "--hot", "2"]);
    let save = |step: u32| {
        fs::write(mount.join(&format!("step_{step}.pt")), weights(step.into())).unwrap();
        let dir = mount.join(&format!("checkpoint-{step}/mp_rank_00"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("model.pt"), weights(u64::from(step) + 100)).unwrap();
        fs::write(dir.with_file_name("model-00001-of-00002.pt"), weights(u64::from(step) + 200)).unwrap();
        fs::write(dir.with_file_name("model-00002-of-00002.pt"), weights(u64::from(step) + 300)).unwrap();
    };
    let names = |step: u32| {
        let below = format!("checkpoint-{step}");
        [
            format!("step_{step}.pt"),
            format!("{below}/mp_rank_00/model.pt"),
            format!("{below}/model-00001-of-00002.pt"),
            format!("{below}/model-00002-of-00002.pt"),
        ]
    };
    fs::write(mount.join("latest.pt"), weights(99)).unwrap();
    for step in [8, 9, 10, 11] {
        save(step);
        mount.run(&["sync", "."]);
    }
    for (step, is_hot) in [(8, false), (9, false), (10, true), (11, true)] {
        for name in names(step) {
            if is_hot {
                assert!(reason(&mount, &name).starts_with("hot"), "{name}");
            } else {
                assert!(mount.is_packed(&name), "{name}");
            }
        }
    }
    assert!(reason(&mount, "latest.pt").starts_with("hot"), "it is its newest one");
    // By itself too: no command was given between.
    save(12);
    for name in names(10) {
        assert!(mount.is_soon_packed(&name), "{name}");
    }
    assert!(reason(&mount, "step_11.pt").starts_with("hot"));
    let said = mount.run(&["pack", "./step_11.pt"]);
    assert!(said.contains("packed since it was asked for: step_11.pt (hot"), "{said}");
    assert!(mount.is_packed("step_11.pt") && fs::read(mount.join("step_11.pt")).unwrap() == weights(11));
}

#[test]
fn what_was_there_before_the_mount_is_packed_on_request_only() {
    let mut mount = Mount::unmounted(&["--settle", "0"]);
    fs::create_dir(mount.join("old")).unwrap();
    for (seed, name) in (1..).zip(["old/a", "old/b", "old/c", "read"]) {
        fs::write(mount.join(name), weights(seed)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(20));
    mount.mount();
    mount.run(&["sync", "."]);
    // Reading is no reason to pack it, writing is.
    fs::read(mount.join("read")).unwrap();
    mount.run(&["sync", "."]);
    for name in ["old/a", "old/b", "old/c", "read"] {
        assert!(reason(&mount, name).starts_with("there before"), "{name}: {}", reason(&mount, name));
    }
    fs::write(mount.join("old/c"), weights(5)).unwrap();
    assert!(mount.is_soon_packed("old/c"));
    let said = mount.run(&["pack", "./old"]);
    assert!(said.contains("old/a (there before the directory was mounted"), "{said}");
    assert!(mount.is_packed("old/a") && mount.is_packed("old/b"));
    // What waits at the end of a mount, or when its daemon is killed, is told from it.
    mount.run(&["pause", "."]);
    fs::write(mount.join("queued"), weights(6)).unwrap();
    mount.remount();
    assert!(mount.is_soon_packed("queued"));
    mount.run(&["pause", "."]);
    fs::write(mount.join("survivor"), weights(7)).unwrap();
    let daemon = mount.daemon();
    mount.kill(daemon);
    mount.mount();
    assert!(mount.is_soon_packed("survivor"));
    assert!(reason(&mount, "read").starts_with("there before"), "not yet");
    mount.remount_with(&["--settle", "0", "--pack-existing"]);
    assert!(mount.is_soon_packed("read"));
    assert!(fs::read(mount.join("read")).unwrap() == weights(4));
}

#[test]
fn a_directory_of_many_files_is_mounted_at_once() {
    let mut mount = Mount::unmounted(&["--settle", "0"]);
    for dir in 0..100 {
        let dir = mount.join(&format!("{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..200 {
            fs::File::create(dir.join(format!("{file}"))).unwrap().set_len(1 << 20).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(20));
    let started = Instant::now();
    mount.mount();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let status = mount.status();
    assert_eq!((&status["queued_files"], &status["packed_files"]), (&0.into(), &0.into()));
    assert_eq!(status["left_plain"]["more"], 20_000 - 100);
}
