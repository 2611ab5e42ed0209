//! Helpers of the end-to-end tests: a scratch directory with a mount that is always taken down, data that looks like
//! training, other users, and a disk whose power is cut.

pub mod conformance;
pub mod data;
pub mod disk;
pub mod mount;
pub mod power;
pub mod s3;
pub mod users;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether tests that cannot run fail instead of saying so.
fn is_ci() -> bool {
    std::env::var_os("MITHRIL_CI").is_some_and(|value| !value.is_empty() && value != "0")
}

/// How many rounds a test with random moments has: `scripts/torture.sh` sets a factor.
pub fn rounds(normal: usize) -> usize {
    let factor: usize =
        std::env::var("MITHRIL_TORTURE").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1);
    normal * factor.max(1)
}

/// Says loudly that a test cannot run here; under `MITHRIL_CI=1`, fails. Returns `condition`.
///
/// # Panics
/// In CI, if the condition does not hold.
pub fn can_run(condition: bool, reason: &str) -> bool {
    if !condition {
        assert!(!is_ci(), "this test cannot run here, and CI wants it: {reason}");
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        say(&format!("!!! DID NOT RUN: {test}: {reason}\n"));
    }
    condition
}

/// Says something past libtest, which keeps what passing tests print to itself. In one piece: others speak too.
fn say(line: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Waits for something to become so.
///
/// # Panics
/// If it does not within half a minute.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The `mithril-fs` executable: `$MITHRIL_FS_BIN`, or the one of the same profile as the caller, built if it
/// is missing.
///
/// # Panics
/// If it cannot be built.
pub fn executable() -> PathBuf {
    static BUILT: std::sync::Once = std::sync::Once::new();
    if let Some(path) = std::env::var_os("MITHRIL_FS_BIN") {
        return path.into();
    }
    let profile = built();
    let path = profile.join("mithril-fs");
    BUILT.call_once(|| {
        // Cheap if nothing changed; without it, a test would run against yesterday's daemon.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "mithril-fs"]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status();
        assert!(status.is_ok_and(|status| status.success()), "mithril-fs cannot be built");
    });
    path
}

/// Where what was built with this test lies.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its executable");
    // Tests lie in `target/PROFILE/deps`, programs in `target/PROFILE`.
    let folder = test.parent().expect("an executable lies in a directory");
    if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_owned()
}

/// Compiles a C program of `tests/c`, if it changed, and returns its path: beside what cargo built.
///
/// # Panics
/// If it cannot be compiled.
pub fn c_program(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(format!("{name}.c"));
    let folder = built().join("c");
    let program = folder.join(name);
    let changed = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let source_changed = changed(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    if changed(&program).is_ok_and(|compiled| compiled > source_changed) {
        return program;
    }
    std::fs::create_dir_all(&folder).expect("cargo could build there");
    // Others may compile it too, and run it meanwhile.
    let own = tempfile::tempdir_in(&folder).expect("cargo could build there");
    let fresh = own.path().join(name);
    let status = Command::new("cc").args(["-O1", "-o"]).arg(&fresh).arg(&source).arg("-ldl").status();
    assert!(status.is_ok_and(|status| status.success()), "{} cannot be compiled", source.display());
    std::fs::rename(&fresh, &program).expect("a rename in one directory");
    program
}
