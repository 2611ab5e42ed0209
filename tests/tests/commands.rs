//! The commands: what they refuse, what they say, how they end.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mithril_tests::data::{Random, Weights};
use mithril_tests::mount::{Mount, text};
use mithril_tests::users::{NOBODY, open_fuse_to_users};
use mithril_tests::{can_run, executable, is_root};

#[test]
fn a_directory_is_mounted_once() {
    let mut mount = Mount::new(&[]);
    let second = mount.command(&["mount", "."]);
    assert_eq!(second.status.code(), Some(4));
    assert!(text(&second).contains("umount"), "{}", text(&second));
    assert!(text(&second).contains(&format!("process {}", mount.daemon())), "{}", text(&second));
    // At another mount point the lock of the directory speaks, and names the process.
    mount.unmount();
    let elsewhere = tempfile::tempdir_in("/var/tmp").unwrap();
    let elsewhere = elsewhere.path().to_str().unwrap();
    assert!(mount.command(&["mount", ".", elsewhere]).status.success());
    fs::write(format!("{elsewhere}/file"), b"through the mount").unwrap();
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"through the mount");
    let refused = mount.command(&["mount", "."]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    assert!(text(&refused).contains("process "), "{}", text(&refused));
    assert!(mount.command(&["umount", elsewhere]).status.success());
}

#[test]
fn unmounting_keeps_what_is_queued_and_the_next_mount_goes_on() {
    let mut mount = Mount::new(&[]);
    let bytes = Weights::new(200_000, 1).bf16_file();
    fs::write(mount.join("queued.safetensors"), &bytes).unwrap();
    let started = Instant::now();
    let said = mount.run(&["umount", "."]);
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(said.contains("queued.safetensors"), "{said}");
    mount.mount();
    assert_eq!(mount.status()["queued_files"].as_u64().map(|queued| queued <= 1), Some(true));
    mount.sync();
    assert!(mount.is_packed("queued.safetensors"));
    fs::write(mount.join("drained.safetensors"), &bytes).unwrap();
    let said = mount.run(&["umount", ".", "--drain"]);
    assert!(!said.contains("drained"), "{said}");
    mount.mount();
    assert!(mount.is_packed("drained.safetensors"));
}

#[test]
fn a_busy_mount_is_refused_with_its_user_unless_lazy() {
    let mount = Mount::new(&[]);
    fs::write(mount.join("file"), b"x").unwrap();
    let mut holder = Command::new("sleep").arg("60").current_dir(mount.path()).spawn().unwrap();
    let busy = mount.command(&["umount", "."]);
    assert_eq!(busy.status.code(), Some(6), "{}", text(&busy));
    assert!(text(&busy).contains("sleep"), "{}", text(&busy));
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"x", "it still serves");
    // Lazily it is taken out of the tree, and serves those that are in it until they end.
    let daemon = mount.daemon();
    mount.run(&["umount", ".", "--lazy"]);
    assert_eq!(mount.command(&["umount", "."]).status.code(), Some(3), "it is mounted still");
    let inside = format!("/proc/{}/cwd/file", holder.id());
    let seen = fs::read(inside);
    let serves = fs::exists(format!("/proc/{daemon}")).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(seen.unwrap(), b"x");
    assert!(serves, "the daemon ended under its user");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !mount.is_free() {
        assert!(Instant::now() < deadline, "the daemon goes on without a user");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"x", "below");
}

#[test]
fn signals_unmount() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mount = Mount::unmounted(&[]);
        let mut child = Command::new(executable())
            .args(["mount", "--foreground"])
            .arg(mount.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !mount.command(&["status", "."]).status.success() {
            assert!(Instant::now() < deadline, "it does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::write(mount.join("file"), b"kept").unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        let started = Instant::now();
        assert!(child.wait().unwrap().success());
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(fs::read(mount.lower("file")).unwrap(), b"kept");
    }
}

#[test]
fn the_commands_work_without_a_mount() {
    let mut mount = Mount::new(&[]);
    let bytes = Weights::new(200_000, 2).fp32_file();
    fs::write(mount.join("w.safetensors"), &bytes).unwrap();
    mount.sync();
    let through = mount.command(&["cat", "./w.safetensors"]);
    assert!(through.stdout == bytes, "cat on the mount");
    mount.unmount();
    let without = mount.command(&["cat", "./w.safetensors"]);
    assert!(without.stdout == bytes, "cat without a mount: {}", String::from_utf8_lossy(&without.stderr));
    assert!(mount.run(&["ls", "."]).contains("packed"));
    assert!(mount.run(&["status", "."]).contains("1 files"));
    mount.run(&["verify", "."]);
    mount.run(&["gc", "."]);
    for arguments in [&["sync", "."][..], &["pack", "./w.safetensors"], &["pause", "."], &["umount", "."]] {
        let refused = mount.command(arguments);
        assert_eq!(refused.status.code(), Some(3), "{arguments:?}: {}", text(&refused));
    }
    mount.mount();
    assert!(fs::read(mount.join("w.safetensors")).unwrap() == bytes);
}

#[test]
fn errors_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| Command::new(executable()).args(arguments).output().unwrap();
    let path = dir.path().to_str().unwrap();
    for (arguments, code, hint) in [
        (&["status", path][..], 3, "mithril-fs mount"),
        (&["mount", "/nonexistent/directory"], 1, "/nonexistent/directory"),
        (&["frobnicate"], 2, "Usage"),
        (&["mount"], 2, "DIRECTORY"),
        (&["cat", path], 3, "mount"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(hint), "{arguments:?}: {}", text(&output));
    }
}

#[test]
fn a_dead_mount_is_healed_by_the_next_one() {
    let mut mount = Mount::new(&[]);
    let bytes = Weights::new(200_000, 3).bf16_file();
    fs::write(mount.join("w.safetensors"), &bytes).unwrap();
    mount.sync();
    let daemon = mount.daemon();
    mount.kill(daemon);
    assert!(fs::read(mount.join("w.safetensors")).is_err(), "the mount is dead");
    mount.mount();
    assert!(fs::read(mount.join("w.safetensors")).unwrap() == bytes);
}

#[test]
fn fsync_of_files_and_directories_works() {
    let mount = Mount::new(&[]);
    // The daemon counts what it did: of a call that a file system does not know, the kernel makes a success.
    let served =
        || ["fsync_requests", "fsyncdir_requests"].map(|name| mount.status()[name].as_u64().unwrap());
    let file = fs::File::create(mount.join("f")).unwrap();
    std::io::Write::write_all(&mut &file, b"durable").unwrap();
    assert_eq!(served(), [0, 0]);
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    assert_eq!(served(), [2, 0]);
    fs::create_dir(mount.join("d")).unwrap();
    for directory in [mount.path(), &mount.join("d")] {
        fs::File::open(directory).unwrap().sync_all().unwrap();
    }
    assert_eq!(served(), [2, 2]);
}

#[test]
fn without_privileges_the_daemon_does_the_io() {
    if !can_run(is_root(), "changing to another user needs root") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let fuse = open_fuse_to_users();
    if !can_run(fuse.is_ok(), "/dev/fuse is not open to users, and cannot be opened") {
        return;
    }
    let mount = Mount::unmounted(&[]);
    // The directory and the executable must be within another user's reach.
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("mithril-fs");
    fs::copy(executable(), &program).unwrap();
    std::os::unix::fs::chown(mount.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let bytes = Weights::new(200_000, 6).bf16_file();
    let source = place.path().join("w.safetensors");
    fs::write(&source, &bytes).unwrap();
    let script = r#"set -e
        "$1" mount "$2" --settle 3600
        trap '"$1" umount "$2" >&2' EXIT
        cp "$3" "$2/step_1.safetensors"
        "$1" sync "$2" >&2
        "$1" status "$2" --json
        cmp "$3" "$2/step_1.safetensors"
        printf changed | dd of="$2/step_1.safetensors" bs=1 seek=1000 conv=notrunc status=none
        dd if="$2/step_1.safetensors" bs=1 skip=1000 count=7 status=none >&2
        (umask 777; printf mine >"$2/closed")
        touch "$2/closed"
        test "$(stat -c '%a %s' "$2/closed")" = "0 4"
        rm -f "$2/closed"
        "$1" verify "$2" >&2"#;
    let output = {
        use std::os::unix::process::CommandExt;
        Command::new("sh")
            .args(["-c", script, "sh"])
            .args([&program, mount.path(), &source])
            .env("XDG_RUNTIME_DIR", "")
            .env_remove("XDG_RUNTIME_DIR")
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap()
    };
    drop(fuse);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let status: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(status["packed_files"], 1, "{said}");
    assert_eq!(status["passthrough_opens"], 0, "{said}");
    assert!(status["write_requests"].as_u64().unwrap() > 0, "{said}");
    assert!(said.contains("changed"), "{said}");
}

#[test]
fn where_stubs_are_impossible_files_stay_plain_and_mount_says_so() {
    if !can_run(is_root(), "a file system without attributes is mounted by root only") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    // ramfs keeps neither extended attributes nor holes.
    assert!(Command::new("mount").args(["-t", "ramfs", "ramfs", path]).status().unwrap().success());
    let run = |arguments: &[&str]| Command::new(executable()).args(arguments).output().unwrap();
    let mounted = run(&["mount", path]);
    let said = text(&mounted);
    let bytes = Weights::new(200_000, 7).bf16_file();
    fs::write(dir.path().join("w.safetensors"), &bytes).unwrap();
    let synced = run(&["sync", path]);
    let read = fs::read(dir.path().join("w.safetensors")).unwrap();
    let unmounted = run(&["umount", path]);
    let lower = Command::new("umount").arg(path).output().unwrap();
    if !lower.status.success() {
        let _ = Command::new("umount").args(["-l", path]).status();
    }
    assert!(lower.status.success(), "umount returned before its daemon ended: {}", text(&lower));
    assert!(mounted.status.success() && said.contains("files stay plain"), "{said}");
    assert!(text(&synced).contains("packing is off"), "{}", text(&synced));
    assert!(read == bytes && unmounted.status.success(), "{}", text(&unmounted));
}

#[test]
fn file_systems_mounted_inside_are_listed_and_not_entered() {
    if !can_run(is_root(), "another file system is mounted by root only") {
        return;
    }
    let mut mount = Mount::unmounted(&[]);
    let inside = mount.join("inside");
    fs::create_dir(&inside).unwrap();
    assert!(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&inside).status().unwrap().success());
    mount.mount();
    let names: Vec<_> = fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let entered = fs::metadata(&inside).map_err(|error| error.raw_os_error());
    mount.unmount();
    assert!(Command::new("umount").arg(&inside).status().unwrap().success());
    assert_eq!(names, ["inside"]);
    assert_eq!(entered.map(drop), Err(Some(rustix::io::Errno::XDEV.raw_os_error())));
}

#[test]
fn a_process_that_is_there_already_is_named() {
    let mut mount = Mount::unmounted(&[]);
    let mut bystander = Command::new("sleep").arg("60").current_dir(mount.path()).spawn().unwrap();
    let mounted = mount.command(&["mount", "."]);
    let said = text(&mounted);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    mount.run(&["status", "."]);
    mount.unmount();
    assert!(said.contains("sleep") && said.contains("will not see the mount"), "{said}");
}

#[test]
fn names_steer_no_terminal() {
    let mount = Mount::new(&[]);
    fs::write(mount.join("a\u{1b}[2J\nerror: b"), Random::new(3).bytes(100_000)).unwrap();
    for arguments in [["sync", "."], ["status", "."], ["ls", "."], ["pack", "."]] {
        let said = text(&mount.command(&arguments));
        assert!(said.contains("a\\u{1b}[2J\\nerror: b"), "{arguments:?}: {said:?}");
        assert!(!said.contains('\u{1b}') && !said.contains("\nerror"), "{arguments:?}: {said:?}");
    }
}

/// The formats of `fast` are those that every machine writes; `max` also codes 16-bit changes in context.
#[test]
fn the_level_of_a_mount_chooses_between_time_and_ratio() {
    let mut weights = Weights::new(400_000, 6);
    let first = weights.bf16_file();
    weights.step(3e-4);
    let second = weights.bf16_file();
    let stored = ["fast", "max"].map(|level| {
        let mut mount = Mount::new(&["--level", level]);
        for (name, bytes) in [("step_1.safetensors", &first), ("step_2.safetensors", &second)] {
            fs::write(mount.join(name), bytes).unwrap();
            mount.sync();
        }
        // What one level wrote, every other reads.
        mount.remount_with(&["--level", "default"]);
        assert!(fs::read(mount.join("step_1.safetensors")).unwrap() == first);
        assert!(fs::read(mount.join("step_2.safetensors")).unwrap() == second);
        mount.entry("step_2.safetensors")["stored_bytes"].as_u64().unwrap()
    });
    assert!(stored[1] * 100 < stored[0] * 97, "{stored:?}");
    let refused = Mount::unmounted(&[]).command(&["mount", ".", "--level", "best"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("fast, default or max"), "{}", text(&refused));
}
