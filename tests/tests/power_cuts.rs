//! A disk whose power is cut loses nothing that was promised. More of it: `cargo run --release -p mithril-tests --bin
//! power_cuts`.

use std::process::{Command, Output};

use mithril_tests::mount::text;
use mithril_tests::{can_run, executable, is_root};

/// Whether there is what it takes; another test says which of it is missing.
fn possible() -> bool {
    let has = |program: &str| Command::new(program).arg("-V").output().is_ok();
    can_run(is_root(), "only root may mount disks")
        && can_run(std::path::Path::new("/dev/loop-control").exists(), "there are no loop devices")
        && can_run(has("mkfs.ext4") && has("unshare"), "mkfs.ext4 or unshare is missing")
}

fn power_cuts(options: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_power_cuts"));
    program.env("MITHRIL_FS_BIN", executable()).args(["--file-system", "ext4"]).args(options);
    program.output().unwrap()
}

#[test]
fn what_was_synced_outlives_a_power_cut() {
    if possible() {
        let cut = power_cuts(&["--images", "10"]);
        assert!(cut.status.success(), "{}", text(&cut));
    }
}

#[test]
fn a_disk_that_flushes_less_than_it_says_is_found_out() {
    if possible() {
        let cut = power_cuts(&["--images", "10", "--lying", "--plain"]);
        assert_eq!(cut.status.code(), Some(1), "{}", text(&cut));
    }
}
