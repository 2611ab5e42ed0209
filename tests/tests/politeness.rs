//! Packing gives way: to a limit, to other processes, and to those who wait for a file.

use std::fs;
use std::time::{Duration, Instant};

use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;

#[test]
fn packing_is_as_slow_as_it_was_told_and_nothing_else_is() {
    let mut mount = Mount::new(&[]);
    let weights = Weights::new(2_000_000, 1).bf16_file();
    fs::write(mount.join("packed"), &weights).unwrap();
    mount.sync();
    mount.remount_with(&["--pack-rate", "1MiB", "--settle", "0"]);
    let started = Instant::now();
    fs::write(mount.join("slow"), Weights::new(2_000_000, 2).bf16_file()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while mount.status()["packing_path"] != "slow" && Instant::now() < deadline {}
    // Meanwhile others read, and change what is packed.
    let meanwhile = Instant::now();
    assert!(fs::read(mount.join("packed")).unwrap() == weights);
    mount.run(&["unpack", "./packed"]);
    assert!(meanwhile.elapsed() < Duration::from_millis(1500), "{:?}", meanwhile.elapsed());
    assert!(!mount.is_packed("slow") && !mount.is_packed("packed"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !mount.is_packed("slow") && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(mount.is_packed("slow"));
    assert!(started.elapsed() > Duration::from_secs(3), "4 MB at 1 MiB/s: {:?}", started.elapsed());
}

#[test]
fn unmounting_does_not_wait_for_slow_packing() {
    let mut mount = Mount::new(&["--pack-rate", "64KiB", "--settle", "0"]);
    let weights = Weights::new(2_000_000, 3).bf16_file();
    fs::write(mount.join("slow"), &weights).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while mount.status()["packing_path"] != "slow" && Instant::now() < deadline {}
    let started = Instant::now();
    mount.unmount();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(fs::read(mount.join("slow")).unwrap() == weights, "below");
}

/// The fields of a thread's `stat` after its name.
fn stat_of(stat: &str) -> Vec<&str> {
    stat.rsplit(") ").next().unwrap_or("").split(' ').collect()
}

#[test]
fn threads_that_encode_are_nice_and_those_that_answer_are_not() {
    let mount = Mount::new(&[]);
    let nice_of = |stat: &str| stat_of(stat)[16].parse::<i32>().unwrap();
    let tasks = fs::read_dir(format!("/proc/{}/task", mount.daemon())).unwrap().flatten();
    let threads: Vec<(String, i32)> = tasks
        .filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            Some((name.trim().to_owned(), nice_of(&fs::read_to_string(task.path().join("stat")).ok()?)))
        })
        .collect();
    assert!(threads.iter().any(|(name, _)| name.starts_with("pack-")), "{threads:?}");
    for (name, nice) in &threads {
        let own = nice_of(&fs::read_to_string("/proc/self/stat").unwrap());
        let expected = if name.starts_with("pack-") { 19 } else { own };
        assert_eq!(*nice, expected, "{name}: {threads:?}");
    }
}

#[test]
fn a_daemon_with_nothing_to_do_does_nothing() {
    let mount = Mount::new(&["--settle", "0"]);
    fs::write(mount.join("w"), Weights::new(200_000, 4).bf16_file()).unwrap();
    mount.sync();
    let stat = format!("/proc/{}/stat", mount.daemon());
    let ticks = || {
        let stat = fs::read_to_string(&stat).unwrap();
        stat_of(&stat)[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    std::thread::sleep(Duration::from_millis(500));
    let before = ticks();
    std::thread::sleep(Duration::from_secs(5));
    // Of a hundredth of a second each: it looks now and then whether its socket is still there.
    assert!(ticks() - before <= 1, "{} ticks in 5 s", ticks() - before);
}
