//! Limits of the file system below, of ext4: callers get its errors, what does not need more goes on, and so does packing
//! once it can.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use mithril_tests::data::{Random, weights};
use mithril_tests::disk::Ext4Disk;
use mithril_tests::mount::{Mount, text};
use mithril_tests::{can_run, eventually, is_root};
use rustix::io::Errno;

/// A disk, if there can be one here.
fn disk(mib: u64, options: &[&str]) -> Option<Ext4Disk> {
    if !can_run(is_root(), "a file system is mounted by root only") {
        return None;
    }
    let disk = Ext4Disk::new(mib, options);
    can_run(disk.is_ok(), disk.as_ref().err().map_or("", String::as_str));
    disk.ok()
}

fn waits_for(mount: &Mount, what: &str) {
    eventually("it is said what packing waits for", || {
        mount.status()["paused"].as_str().is_some_and(|why| why.contains(what))
    });
}

fn error_of<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn is(errno: Errno) -> Option<i32> {
    Some(errno.raw_os_error())
}

fn a_read_only_file_system(flags: &[&str]) {
    let Some(disk) = disk(64, &[]) else { return };
    // A log of its own would be open for writing: the kernel refuses then.
    let log = tempfile::NamedTempFile::new().unwrap();
    let flags = [&["--settle", "0.5", "--log", log.path().to_str().unwrap()], flags].concat();
    let mut mount = Mount::unmounted_in(disk.path(), &flags);
    mount.mount();
    fs::write(mount.join("packed"), weights(1)).unwrap();
    assert!(mount.is_soon_packed("packed"));
    mount.run(&["pause", "."]);
    fs::write(mount.join("plain"), weights(2)).unwrap();
    eventually("it is as the directory was closed", || disk.set_read_only(true).is_ok());
    assert_eq!(error_of(File::create(mount.join("new"))), is(Errno::ROFS));
    for name in ["packed", "plain"] {
        assert_eq!(
            error_of(OpenOptions::new().write(true).open(mount.join(name))),
            is(Errno::ROFS),
            "{name}"
        );
        assert_eq!(error_of(fs::remove_file(mount.join(name))), is(Errno::ROFS), "{name}");
        assert_eq!(error_of(fs::rename(mount.join(name), mount.join("moved"))), is(Errno::ROFS), "{name}");
    }
    let read_all = |mount: &Mount| {
        assert!(fs::read(mount.join("packed")).unwrap() == weights(1));
        assert!(fs::read(mount.join("plain")).unwrap() == weights(2));
    };
    read_all(&mount);
    mount.run(&["resume", "."]);
    waits_for(&mount, "read-only");
    assert!(mount.run(&["status", "."]).contains("paused: the file system below is read-only"));
    mount.run(&["verify", "."]);
    // It can also be mounted as it is.
    mount.remount();
    read_all(&mount);
    waits_for(&mount, "read-only");
    disk.set_read_only(false).unwrap();
    eventually("it goes on", || mount.is_packed("plain"));
    assert!(mount.status()["paused"].is_null());
    read_all(&mount);
    fs::write(mount.join("new"), "written").unwrap();
    assert_eq!(mount.status()["errors"].as_array().unwrap().len(), 0, "{}", mount.status());
}

#[test]
fn a_file_system_that_gets_read_only_is_waited_for_in_passthrough() {
    a_read_only_file_system(&[]);
}

#[test]
fn a_file_system_that_gets_read_only_is_waited_for_through_the_daemon() {
    a_read_only_file_system(&["--no-passthrough"]);
}

#[test]
fn without_inodes_nothing_is_created_and_everything_else_goes_on() {
    let Some(disk) = disk(64, &["-N", "64"]) else { return };
    let mut mount = Mount::unmounted_in(disk.path(), &["--settle", "0.5"]);
    mount.mount();
    fs::write(mount.join("packed"), weights(1)).unwrap();
    assert!(mount.is_soon_packed("packed"));
    fs::write(mount.join("plain"), b"before").unwrap();
    mount.run(&["pause", "."]);
    fs::write(mount.join("waits"), weights(2)).unwrap();
    fs::create_dir(mount.join("taken")).unwrap();
    let taken = (0..100).map(|number| mount.join(&format!("taken/{number}")));
    let error = taken.map(File::create).find_map(Result::err).expect("inodes are used up");
    assert_eq!(error.raw_os_error(), is(Errno::NOSPC));
    assert_eq!(error_of(fs::create_dir(mount.join("dir"))), is(Errno::NOSPC));
    fs::write(mount.join("plain"), b"after").unwrap();
    fs::rename(mount.join("plain"), mount.join("moved")).unwrap();
    assert_eq!(fs::read(mount.join("moved")).unwrap(), b"after");
    // Unpacking needs none.
    let file = OpenOptions::new().write(true).open(mount.join("packed")).unwrap();
    file.write_all_at(b"changed", 5000).unwrap();
    drop(file);
    let mut expected = weights(1);
    expected[5000..5007].copy_from_slice(b"changed");
    assert!(fs::read(mount.join("packed")).unwrap() == expected);
    mount.run(&["resume", "."]);
    waits_for(&mount, "inodes");
    fs::remove_dir_all(mount.join("taken")).unwrap();
    eventually("it goes on by itself", || mount.is_packed("waits") && mount.is_packed("packed"));
    assert!(fs::read(mount.join("packed")).unwrap() == expected);
    mount.run(&["verify", "."]);
}

/// Writes until there is no room, as any user of the mount would.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for step in [1 << 20, 4096] {
        let noise = Random::new(1).bytes(step);
        let error = (0..(64 << 20) / step).find_map(|_| file.write_all(&noise).err());
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::StorageFull));
    }
}

#[test]
fn a_full_disk_is_waited_for_also_by_a_mount_that_begins_on_it() {
    let Some(disk) = disk(48, &["-m", "0"]) else { return };
    let mut mount = Mount::unmounted_in(disk.path(), &["--settle", "0.5"]);
    mount.mount();
    fs::write(mount.join("packed"), weights(1)).unwrap();
    assert!(mount.is_soon_packed("packed"));
    mount.run(&["pause", "."]);
    fs::write(mount.join("waits"), weights(2)).unwrap();
    fill(&mount.join("filler"));
    mount.run(&["resume", "."]);
    waits_for(&mount, "the disk is full");
    // It is packed once something was deleted, and nothing else done.
    fs::remove_file(mount.join("filler")).unwrap();
    eventually("it goes on by itself", || mount.is_packed("waits"));
    mount.run(&["pause", "."]);
    fs::write(mount.join("later"), weights(3)).unwrap();
    fill(&mount.join("filler"));
    mount.unmount();
    let mounted = mount.command(&["mount", ".", "--settle", "0.5", "--exclude", "filler"]);
    assert!(mounted.status.success(), "{}", text(&mounted));
    assert!(text(&mounted).contains("packing waits, and goes on by itself"), "{}", text(&mounted));
    let unmounted_in_the_end = Unmounted(mount.path());
    waits_for(&mount, "the disk is full");
    for (name, seed) in [("packed", 1), ("waits", 2), ("later", 3)] {
        assert!(fs::read(mount.join(name)).unwrap() == weights(seed), "{name}");
    }
    fs::remove_file(mount.join("filler")).unwrap();
    eventually("it begins by itself", || mount.is_packed("later"));
    assert!(mount.status()["paused"].is_null());
    assert!(fs::read(mount.join("later")).unwrap() == weights(3));
    mount.run(&["verify", "."]);
    drop(unmounted_in_the_end);
}

/// Unmounts, also if the test fails.
struct Unmounted<'a>(&'a Path);

impl Drop for Unmounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new(mithril_tests::executable()).arg("umount").arg(self.0).output();
    }
}
