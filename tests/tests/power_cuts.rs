//! A disk whose power is cut loses nothing that was promised. More cuts, and xfs: `cargo run --release -p mithril-tests
//! --bin power_cuts`.

use std::process::{Command, Output};

use mithril_tests::mount::text;
use mithril_tests::{can_run, executable};

/// What the program says that cannot do its work here.
const CANNOT_RUN: i32 = 77;

/// Runs it, if it can.
fn power_cuts(options: &[&str]) -> Option<Output> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_power_cuts"));
    program.env("MITHRIL_FS_BIN", executable()).args(["--file-system", "ext4"]).args(options);
    let output = program.output().unwrap();
    can_run(output.status.code() != Some(CANNOT_RUN), text(&output).trim()).then_some(output)
}

#[test]
fn what_was_synced_outlives_a_power_cut() {
    if let Some(cut) = power_cuts(&["--images", "10"]) {
        assert!(cut.status.success(), "{}", text(&cut));
    }
}

/// What the other test finds to be right could be found to be wrong.
#[test]
fn a_disk_that_flushes_less_than_it_says_is_found_out() {
    for options in [&["--images", "10", "--lying"][..], &["--images", "10", "--lying", "--plain"]] {
        if let Some(cut) = power_cuts(options) {
            let said = text(&cut);
            assert!(cut.status.code() == Some(1) && said.contains(" instead of "), "{said}");
        }
    }
}
