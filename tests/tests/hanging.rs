//! A daemon that hangs at some call: others go on, and there is a way out.

#![cfg(debug_assertions)]

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mithril_tests::data::Weights;
use mithril_tests::mount::{Mount, text};
use mithril_tests::users::{NOBODY, open_fuse_to_users};
use mithril_tests::{can_run, executable, is_root};

/// As `umount` promises.
const UMOUNT: Duration = Duration::from_secs(10);

/// A lookup of a name that begins with `fault-` is not answered for ten minutes.
const HANGS: &str = "Lookup=600000";

/// Processes that wait for the daemon. Killed when they are dropped.
struct Waiting(Vec<Child>);

impl Waiting {
    fn new(mount: &Mount, count: usize) -> Self {
        // Others cannot make names in a directory while a name is looked up in it: the kernel has it locked.
        fs::create_dir(mount.join("hangs")).unwrap();
        let mut waiting = Waiting(Vec::new());
        for number in 0..count {
            let mut client = Command::new("stat");
            client
                .arg(mount.join(&format!("hangs/fault-{number}")))
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            waiting.0.push(client.spawn().unwrap());
        }
        std::thread::sleep(Duration::from_millis(500));
        waiting
    }

    fn kill(&mut self) {
        self.0.iter_mut().for_each(|client| client.kill().unwrap());
    }

    /// Whether all of them end within some seconds.
    fn end(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.0.iter_mut().all(|client| client.try_wait().unwrap().is_some()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|client| drop(client.kill()));
    }
}

/// Runs a command that must end in time.
fn in_time(mount: &Mount, arguments: &[&str]) -> Output {
    let started = Instant::now();
    let output = mount.command(arguments);
    let took = started.elapsed();
    assert!(took < UMOUNT, "{arguments:?} took {took:?}: {}", text(&output));
    output
}

fn ends_by_force(mount: &Mount) {
    let forced = in_time(mount, &["umount", ".", "--force"]);
    assert_eq!(forced.status.code(), Some(0), "{}", text(&forced));
    assert!(text(&forced).contains("is free"), "{}", text(&forced));
    assert!(mount.is_free(), "the daemon has it still");
}

fn weights() -> Vec<u8> {
    Weights::new(100_000, 1).bf16_file()
}

/// Ends a mount by force; who waited is answered, and the directory is as it was.
fn forced_and_mounted_again(mount: &mut Mount, waiting: &mut Waiting) {
    ends_by_force(mount);
    assert!(waiting.end(), "who waited waits still");
    mount.without_fault();
    mount.mount();
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"bytes");
}

#[test]
fn a_call_that_hangs_holds_nobody_else_up_and_is_ended_by_force() {
    if !can_run(is_root(), "to end a connection by force takes root") {
        return;
    }
    let mut mount = Mount::with_fault(HANGS, &[]);
    let daemon = mount.daemon();
    fs::write(mount.join("packed"), weights()).unwrap();
    mount.sync();
    let mut waiting = Waiting::new(&mount, 3);
    // Everything else goes on.
    let started = Instant::now();
    assert!(mount.is_packed("packed"));
    assert!(fs::read(mount.join("packed")).unwrap() == weights());
    fs::write(mount.join("plain"), b"plain").unwrap();
    fs::rename(mount.join("plain"), mount.join("renamed")).unwrap();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 3);
    fs::write(mount.join("later"), weights()).unwrap();
    mount.sync();
    assert!(mount.is_packed("later"));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    // It is in use, and the way out is named.
    let refused = in_time(&mount, &["umount", "."]);
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused));
    assert!(text(&refused).contains("--force"), "{}", text(&refused));
    // The kernel waits for an answer to what the daemon has read, also for a process that is killed.
    waiting.kill();
    ends_by_force(&mount);
    assert!(waiting.end(), "who waited waits still");
    mount.wait_for_death(daemon);
    mount.without_fault();
    mount.mount();
    for name in ["packed", "later"] {
        assert!(mount.is_packed(name) && fs::read(mount.join(name)).unwrap() == weights());
    }
    assert_eq!(fs::read(mount.join("renamed")).unwrap(), b"plain");
    mount.run(&["verify", "."]);
}

#[test]
fn a_daemon_that_hangs_after_its_mount_was_detached_is_ended_by_force() {
    if !can_run(is_root(), "to end a connection by force takes root") {
        return;
    }
    let mut mount = Mount::with_fault(HANGS, &[]);
    fs::write(mount.join("file"), b"bytes").unwrap();
    let mut waiting = Waiting::new(&mount, 1);
    let detached = in_time(&mount, &["umount", ".", "--lazy"]);
    assert_eq!(detached.status.code(), Some(0), "{}", text(&detached));
    // Its daemon has the directory until then.
    let refused = mount.command(&["mount", "."]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    forced_and_mounted_again(&mut mount, &mut waiting);
}

#[test]
fn a_mount_that_answers_nobody_is_ended_by_force() {
    if !can_run(is_root(), "to end a connection by force takes root") {
        return;
    }
    let mut mount = Mount::with_fault(HANGS, &[]);
    fs::write(mount.join("file"), b"bytes").unwrap();
    // More than there are threads that answer.
    let mut waiting = Waiting::new(&mount, 12);
    let refused = in_time(&mount, &["umount", "."]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(
        text(&refused).contains("does not answer") && text(&refused).contains("--force"),
        "{}",
        text(&refused)
    );
    forced_and_mounted_again(&mut mount, &mut waiting);
}

#[test]
fn force_is_no_harm_where_nothing_hangs() {
    let mut mount = Mount::new(&["--settle", "0"]);
    for round in 0..3 {
        fs::write(mount.join(&format!("w{round}")), weights()).unwrap();
        ends_by_force(&mount);
        mount.mount();
        assert!(fs::read(mount.join(&format!("w{round}"))).unwrap() == weights());
    }
    mount.run(&["verify", "."]);
    mount.unmount();
    let refused = mount.command(&["umount", ".", "--force"]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
}

#[test]
fn without_privileges_the_end_of_the_daemon_ends_the_connection() {
    if !can_run(is_root(), "changing to another user needs root") {
        return;
    }
    let fuse = open_fuse_to_users();
    if !can_run(fuse.is_ok(), "/dev/fuse is not open to users, and cannot be opened") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let mount = Mount::unmounted(&[]);
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    for path in [place.path(), mount.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = place.path().join("mithril-fs");
    fs::copy(executable(), &program).unwrap();
    std::os::unix::fs::chown(mount.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let script = r#"set -e
        MITHRIL_FAULT=Lookup=600000 "$1" mount "$2"
        trap '"$1" umount "$2" || true' EXIT
        mkdir "$2/hangs"
        stat "$2/hangs/fault-0" & waiting=$!
        sleep 0.5
        timeout 20 "$1" umount --force "$2"
        wait $waiting || true
        "$1" mount "$2"
        test -d "$2/hangs""#;
    let mut shell = Command::new("timeout");
    shell.args(["60", "sh", "-c", script, "sh"]).args([&program, mount.path()]);
    let shell = shell.env_remove("XDG_RUNTIME_DIR").current_dir("/").uid(NOBODY).gid(NOBODY);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("is free") && mount.is_free(), "{}", text(&output));
}
