//! Helpers of the end-to-end tests: a scratch directory with a mount that is always taken down, data that looks like
//! training, and other users.

pub mod data;
pub mod mount;
pub mod users;

use std::path::PathBuf;
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
    let test = std::env::current_exe().expect("a test knows its executable");
    // Tests lie in `target/PROFILE/deps`, programs in `target/PROFILE`.
    let folder = test.parent().expect("an executable lies in a directory");
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
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

/// Compiles a C program of `tests/c` once and returns its path.
///
/// # Panics
/// If it cannot be compiled.
pub fn c_program(name: &str) -> PathBuf {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(format!("{name}.c"));
    let folder = tempfile::tempdir().expect("a temporary directory").keep();
    let program = folder.join(name);
    let status = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&source).arg("-ldl").status();
    assert!(status.is_ok_and(|status| status.success()), "{} cannot be compiled", source.display());
    program
}
