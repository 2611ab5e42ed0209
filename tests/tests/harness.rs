//! What the other tests rely on: a test that cannot run is heard of, and what tests make is gone after them.

use std::collections::HashSet;
use std::fs;
use std::process::{Command, Output};

use mithril_tests::{c_program, can_run};

/// Set for the test that is run inside the test.
const INNER: &str = "MITHRIL_TEST_INNER";

#[test]
fn a_test_that_cannot_run_says_so_and_fails_in_ci() {
    if std::env::var_os(INNER).is_some() {
        can_run(false, "on purpose");
        return;
    }
    // The same test as its own child, as cargo runs it: what passing tests print is captured.
    let run = |ci: &str| -> Output {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_test_that_cannot_run_says_so_and_fails_in_ci"])
            .envs([(INNER, "1"), ("MITHRIL_CI", ci)])
            .output()
            .unwrap()
    };
    let said = run("0");
    assert!(said.status.success());
    let loudly = "!!! DID NOT RUN: a_test_that_cannot_run_says_so_and_fails_in_ci: on purpose\n";
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert!(stderr.contains(loudly), "{stderr}");
    assert!(!run("1").status.success(), "it passes in CI");
}

#[test]
fn c_programs_are_compiled_once_and_leave_nothing_behind() {
    let place = std::env::temp_dir();
    let names =
        || -> HashSet<_> { fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
    let before = names();
    let program = c_program("load");
    let compiled = fs::metadata(&program).unwrap().modified().unwrap();
    assert_eq!(c_program("load"), program);
    assert_eq!(fs::metadata(&program).unwrap().modified().unwrap(), compiled);
    // Others make directories there meanwhile, but none with this in it.
    let left = names().into_iter().filter(|name| !before.contains(name));
    let left: Vec<_> = left.filter(|name| place.join(name).join("load").exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}
