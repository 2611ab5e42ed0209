//! A daemon that is killed while it collects garbage loses nothing that a file needs.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mithril_tests::data::{Random, Weights};
use mithril_tests::mount::Mount;
use mithril_tests::{executable, rounds};

/// Files of a few runs are replaced, so that packs are partly dead and deltas lose the files they were made against;
/// then a collection is killed at a random moment.
#[test]
fn killing_the_daemon_in_a_collection_loses_nothing() {
    let mut mount = Mount::unmounted(&[]);
    let mut random = Random::new(7);
    let mut weights: Vec<Weights> = (0..3).map(|seed| Weights::new(200_000, seed)).collect();
    let mut expected: Vec<(String, Vec<u8>)> = Vec::new();
    // How long a collection takes that is not killed: moments are chosen within it.
    let mut longest = Duration::from_millis(20);
    let mut cut_short = 0;
    let rounds = rounds(20);
    for round in 0..rounds {
        mount.mount();
        let daemon = mount.daemon();
        for (name, bytes) in &expected {
            assert!(fs::read(mount.join(name)).unwrap() == *bytes, "{name} differs before round {round}");
        }
        mount.run(&["verify", "."]);
        for (run, weights) in weights.iter_mut().enumerate() {
            weights.step(1e-5);
            let name = format!("run{run}_step_{}.safetensors", random.below(5));
            let bytes = if run == 0 { weights.fp32_file() } else { weights.bf16_file() };
            fs::write(mount.join(&name), &bytes).unwrap();
            expected.retain(|(known, _)| *known != name);
            expected.push((name, bytes));
        }
        mount.sync();
        if round % 4 == 3 {
            let at = usize::try_from(random.below(expected.len() as u64)).unwrap();
            fs::remove_file(mount.join(&expected.swap_remove(at).0)).unwrap();
        }
        let mut collection = Command::new(executable());
        collection.arg("gc").arg(mount.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let mut collection = collection.spawn().unwrap();
        if round % 5 == 4 {
            assert!(collection.wait().unwrap().success());
            longest = longest.max(started.elapsed());
        } else {
            let longest = u64::try_from(longest.as_micros()).unwrap();
            std::thread::sleep(Duration::from_micros(random.below(longest)));
        }
        mount.kill(daemon);
        cut_short += usize::from(!collection.wait().unwrap().success());
    }
    assert!(cut_short > 0, "no collection was killed in {rounds} rounds");
    mount.mount();
    mount.run(&["gc", "."]);
    mount.remount();
    for (name, bytes) in &expected {
        assert!(fs::read(mount.join(name)).unwrap() == *bytes, "{name} differs");
    }
    mount.run(&["verify", "."]);
    // What was half done is not left behind for ever.
    let again = mount.run(&["gc", "."]);
    assert!(again.starts_with("0 B given back"), "{again}");
    expected.iter().for_each(|(name, _)| fs::remove_file(mount.join(name)).unwrap());
    mount.run(&["gc", "."]);
    assert!(mount.used_bytes() < 100_000, "{} bytes are left of nothing", mount.used_bytes());
}
