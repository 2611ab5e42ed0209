//! Commands reach the daemon, whatever becomes of its socket, and speak to nobody else.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use mithril_tests::mount::{Mount, text};
use mithril_tests::users::{NOBODY, as_user, open_fuse_to_users};
use mithril_tests::{can_run, executable, is_root};

/// The socket of root's daemon.
fn socket_of(mount: &Mount) -> PathBuf {
    let device = fs::metadata(mount.path()).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    PathBuf::from(format!("/run/mithril-fs/{major}:{minor}.sock"))
}

/// Repeats a command until it works, for a while.
fn is_soon_answered(mut command: impl FnMut() -> Output) -> Output {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let output = command();
        if output.status.success() || Instant::now() > deadline {
            return output;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_socket_that_is_removed_is_made_anew() {
    if !can_run(is_root(), "the sockets of other users may be elsewhere") {
        return;
    }
    let mount = Mount::new(&[]);
    for _ in 0..2 {
        fs::remove_file(socket_of(&mount)).unwrap();
        let answered = is_soon_answered(|| mount.command(&["status", "."]));
        assert!(answered.status.success(), "{}", text(&answered));
    }
}

#[test]
fn nobody_but_the_daemon_is_spoken_to() {
    if !can_run(is_root(), "only root may become another user") {
        return;
    }
    let mount = Mount::new(&[]);
    let place = tempfile::tempdir_in("/run").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let forged = place.path().join("forged");
    let listener = as_user(NOBODY, || UnixListener::bind(&forged).unwrap());
    let socket = socket_of(&mount);
    fs::rename(&forged, &socket).unwrap();
    let refused = mount.command(&["status", "."]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    assert!(text(&refused).contains(&format!("user {NOBODY} listens there")), "{}", text(&refused));
    let (mut connection, _) = listener.accept().unwrap();
    let mut heard = Vec::new();
    connection.read_to_end(&mut heard).unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), "");
    // It is not taken back from another: the daemon cannot know whose it is by now.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(mount.command(&["status", "."]).status.code(), Some(3));
    fs::remove_file(&socket).unwrap();
    let answered = is_soon_answered(|| mount.command(&["status", "."]));
    assert!(answered.status.success(), "{}", text(&answered));
}

#[test]
fn a_mount_outlives_the_session_of_its_user() {
    if !can_run(is_root(), "changing to another user needs root") {
        return;
    }
    let fuse = open_fuse_to_users();
    if !can_run(fuse.is_ok(), "/dev/fuse is not open to users, and cannot be opened") {
        return;
    }
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("mithril-fs");
    fs::copy(executable(), &program).unwrap();
    // What systemd-logind makes for a session, and takes away after it.
    let (runtime, directory) = (place.path().join("run"), place.path().join("checkpoints"));
    for path in [&runtime, &directory] {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let run = |arguments: &[&str], runtime: Option<&Path>, user: u32| {
        let mut command = Command::new(&program);
        command.args(arguments).arg(&directory).current_dir("/").uid(user).gid(user);
        command.env_remove("XDG_RUNTIME_DIR").envs(runtime.map(|path| ("XDG_RUNTIME_DIR", path)));
        command.output().unwrap()
    };
    let mounted = run(&["mount", "--settle", "3600"], Some(&runtime), NOBODY);
    assert!(mounted.status.success(), "{}", text(&mounted));
    let in_session = run(&["status"], Some(&runtime), NOBODY);
    let listened = fs::read_dir(runtime.join("mithril-fs")).map(Iterator::count);
    let logged_out = fs::remove_dir_all(&runtime);
    let after: Vec<Output> = [(Some(&*runtime), NOBODY), (None, NOBODY), (None, 0)]
        .map(|(runtime, user)| is_soon_answered(|| run(&["status"], runtime, user)))
        .into();
    let unmounted = run(&["umount"], None, NOBODY);
    if !unmounted.status.success() {
        let _ = Command::new("umount").arg("-l").arg(&directory).status();
    }
    drop(fuse);
    assert!(in_session.status.success(), "{}", text(&in_session));
    assert_eq!(listened.ok(), Some(1), "it did not listen in the runtime directory");
    logged_out.unwrap();
    for output in &after {
        assert!(output.status.success(), "{}", text(output));
    }
    assert!(unmounted.status.success(), "{}", text(&unmounted));
}
