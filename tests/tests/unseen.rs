//! What the commands do about parts of a directory that they cannot or must not look at.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use mithril_tests::data::Weights;
use mithril_tests::mount::{Mount, text};
use mithril_tests::{can_run, executable, is_root};

/// A file system mounted below, gone when dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(path: std::path::PathBuf) -> Self {
        let done = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&path).status();
        assert!(done.is_ok_and(|status| status.success()), "a tmpfs can be mounted");
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn what_cannot_be_looked_at_is_named_and_keeps_gc_from_deleting() {
    if !can_run(is_root(), "only root mounts file systems") {
        return;
    }
    let mut mount = Mount::new(&[]);
    let bytes = Weights::new(400_000, 1).bf16_file();
    fs::create_dir(mount.join("hidden")).unwrap();
    fs::write(mount.join("hidden/step_1.bin"), &bytes).unwrap();
    mount.sync();
    mount.unmount();
    let over = Mounted::tmpfs(mount.path().join("hidden"));
    let gc = mount.command(&["gc", "."]);
    assert!(!gc.status.success(), "{}", text(&gc));
    assert!(text(&gc).contains("hidden") && text(&gc).contains("unmount it"), "{}", text(&gc));
    let verify = mount.command(&["verify", "."]);
    assert!(text(&verify).contains("not looked at: hidden"), "{}", text(&verify));
    assert_eq!(verify.status.code(), Some(7));
    drop(over);
    mount.run(&["gc", "."]);
    mount.mount();
    assert!(fs::read(mount.join("hidden/step_1.bin")).unwrap() == bytes);
}

#[test]
fn a_store_inside_is_left_alone() {
    let mut mount = Mount::unmounted(&[]);
    // Mounted by itself once, and packed.
    let inner = mount.path().join("inner");
    fs::create_dir(&inner).unwrap();
    // Whatever fails below, nothing stays mounted there.
    let _unmounted = Mounted(inner.clone());
    let run = |arguments: &[&str]| {
        let output = Command::new(executable()).args(arguments).arg(&inner).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    };
    run(&["mount", "--settle", "0"]);
    let bytes = Weights::new(400_000, 1).bf16_file();
    fs::write(inner.join("step_1.bin"), &bytes).unwrap();
    run(&["sync"]);
    run(&["umount"]);
    mount.mount();
    fs::write(mount.join("outer.bin"), Weights::new(400_000, 2).bf16_file()).unwrap();
    // Written through this mount, and read through it: the other store's files are no less its own for that.
    let through = Weights::new(400_000, 3).bf16_file();
    fs::write(mount.join("inner/step_2.bin"), &through).unwrap();
    for pack in fs::read_dir(mount.join("inner/.mithril/packs")).unwrap() {
        fs::read(pack.unwrap().path()).unwrap();
    }
    mount.sync();
    let left = mount.status()["queued_files"].clone();
    assert_eq!(left, 0);
    let listed = mount.run(&["ls", "."]);
    assert!(listed.contains("outer.bin") && !listed.contains("packs/"), "{listed}");
    mount.unmount();
    run(&["mount"]);
    assert!(fs::read(inner.join("step_1.bin")).unwrap() == bytes);
    assert!(fs::read(inner.join("step_2.bin")).unwrap() == through);
    run(&["umount"]);
}

#[test]
fn a_store_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = folder.path().join(".mithril");
    fs::create_dir(&store).unwrap();
    fs::set_permissions(&store, fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink(folder.path().join("victim"), store.join("daemon.log")).unwrap();
    let output = Command::new(executable()).arg("mount").arg(folder.path()).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("chmod 700"), "{}", text(&output));
    assert!(!folder.path().join("victim").exists(), "a link was followed");
}
