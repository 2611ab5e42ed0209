//! A directory that is mounted somewhere else: commands that are given the directory mean its mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mithril_tests::data::Weights;
use mithril_tests::executable;
use mithril_tests::mount::text;
use serde_json::Value;

/// A directory and its mount, which is gone when dropped.
struct Elsewhere {
    directory: PathBuf,
    mountpoint: PathBuf,
}

fn run(arguments: &[&str], path: &Path) -> Output {
    Command::new(executable()).args(arguments).arg(path).output().unwrap()
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Elsewhere {
    fn mount(place: &Path, name: &str) -> Self {
        let new = Self { directory: place.join(name), mountpoint: place.join(format!("{name} at")) };
        fs::create_dir(&new.directory).unwrap();
        fs::create_dir(&new.mountpoint).unwrap();
        let mut mount = Command::new(executable());
        mount.args(["mount", "--settle", "3600"]).args([&new.directory, &new.mountpoint]);
        done(&mount.output().unwrap());
        new
    }

    fn is_mounted(&self) -> bool {
        run(&["status"], &self.mountpoint).status.success()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // Nothing is mounted there any more, unless something went wrong.
        if !run(&["umount"], &self.mountpoint).status.success() {
            let _ = Command::new("umount").arg("-l").arg(&self.mountpoint).output();
        }
    }
}

#[test]
fn the_directory_stands_for_its_mount() {
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let mount = Elsewhere::mount(place.path(), "ckpt");
    let bytes = Weights::new(100_000, 1).bf16_file();
    fs::create_dir(mount.mountpoint.join("run")).unwrap();
    fs::write(mount.mountpoint.join("run/w"), &bytes).unwrap();
    let (directory, file) = (&mount.directory, mount.directory.join("run/w"));
    done(&run(&["sync"], directory));
    let status: Value = serde_json::from_str(&done(&run(&["status", "--json"], directory))).unwrap();
    assert_eq!(status["mountpoint"], mount.mountpoint.to_str().unwrap());
    assert_eq!(status["packed_files"], 1);
    // Below it there is a stub.
    assert!(fs::read(&file).unwrap() != bytes);
    assert!(run(&["cat"], &file).stdout == bytes);
    assert!(done(&run(&["ls"], &directory.join("run"))).contains("packed"));
    assert!(done(&run(&["unpack"], &file)).starts_with("1 files"));
    assert!(fs::read(&file).unwrap() == bytes);
    done(&run(&["pack"], &file));
    done(&run(&["verify"], directory));
    done(&run(&["gc"], directory));
    done(&run(&["umount"], &directory.join("run")));
    assert!(!mount.is_mounted());
    assert_eq!(run(&["umount"], directory).status.code(), Some(3), "nothing is mounted any more");
    assert!(run(&["cat"], &file).stdout == bytes, "without a mount");
}

#[test]
fn directories_whose_mounts_look_alike_are_told_apart() {
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    // A source of a mount cannot hold a comma.
    let comma = Elsewhere::mount(place.path(), "a,b");
    let line = Elsewhere::mount(place.path(), "a_b");
    for mount in [&comma, &line] {
        let status: Value =
            serde_json::from_str(&done(&run(&["status", "--json"], &mount.directory))).unwrap();
        assert_eq!(status["mountpoint"], mount.mountpoint.to_str().unwrap());
    }
    done(&run(&["umount"], &comma.directory));
    assert!(!comma.is_mounted() && line.is_mounted());
    assert_eq!(run(&["umount"], &comma.directory).status.code(), Some(3));
    assert!(line.is_mounted());
    done(&run(&["umount"], &line.directory));
}

#[test]
fn a_mount_whose_daemon_died_is_found_by_its_directory() {
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let mount = Elsewhere::mount(place.path(), "ckpt");
    let status: Value = serde_json::from_str(&done(&run(&["status", "--json"], &mount.directory))).unwrap();
    let daemon = i32::try_from(status["pid"].as_i64().unwrap()).unwrap();
    let daemon = rustix::process::Pid::from_raw(daemon).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    while fs::File::open(&mount.mountpoint).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let said = done(&run(&["umount"], &mount.directory));
    assert!(said.contains("the daemon had died"), "{said}");
    assert_eq!(fs::read_dir(&mount.mountpoint).unwrap().count(), 0);
}
