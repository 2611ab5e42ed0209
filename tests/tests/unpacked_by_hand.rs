//! What somebody unpacked stays plain until it changes, or until somebody wants it packed.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;

fn weights(seed: u64) -> Vec<u8> {
    Weights::new(200_000, seed).bf16_file()
}

#[test]
fn unpacked_files_stay_plain_until_they_change() {
    let mut mount = Mount::new(&["--settle", "0"]);
    let bytes = weights(4);
    fs::write(mount.join("w.safetensors"), &bytes).unwrap();
    mount.sync();
    mount.run(&["unpack", "./w.safetensors"]);
    assert!(!mount.is_packed("w.safetensors"));
    assert!(fs::read(mount.join("w.safetensors")).unwrap() == bytes);
    mount.sync();
    assert!(!mount.is_packed("w.safetensors"), "sync packed what was unpacked by hand");
    mount.remount();
    mount.sync();
    assert!(!mount.is_packed("w.safetensors"), "the next mount packed what was unpacked by hand");
    fs::write(mount.join("w.safetensors"), weights(5)).unwrap();
    mount.sync();
    assert!(mount.is_packed("w.safetensors"), "it changed");
    mount.run(&["unpack", "."]);
    mount.run(&["pack", "./w.safetensors"]);
    assert!(mount.is_packed("w.safetensors"), "it was asked for");
}

#[test]
fn what_was_unpacked_is_not_said_to_wait() {
    let mut mount = Mount::new(&[]);
    fs::write(mount.join("by_hand"), weights(8)).unwrap();
    mount.sync();
    mount.run(&["unpack", "./by_hand"]);
    assert!(fs::read(mount.join("by_hand")).unwrap() == weights(8));
    assert_eq!(mount.status()["queued_files"], 0);
    assert_eq!(mount.run(&["umount", "."]), "");
    mount.mount();
}

#[test]
fn what_is_unpacked_where_nothing_is_packed_stays_plain_where_it_is() {
    let mut mount = Mount::new(&[]);
    for name in ["by_hand", "other"] {
        fs::write(mount.join(name), weights(6)).unwrap();
    }
    mount.sync();
    mount.remount_with(&["--no-packing"]);
    mount.run(&["unpack", "./by_hand"]);
    assert!(!mount.is_packed("by_hand") && mount.is_packed("other"));
    mount.remount_with(&[]);
    mount.sync();
    assert!(!mount.is_packed("by_hand"));
    mount.run(&["pack", "./by_hand"]);
    assert!(mount.is_packed("by_hand"));
}

#[test]
fn a_file_that_waits_to_be_packed_can_be_kept_plain() {
    let mut mount = Mount::new(&[]);
    fs::create_dir(mount.join("dir")).unwrap();
    fs::write(mount.join("dir/waiting"), weights(7)).unwrap();
    mount.run(&["unpack", "./dir"]);
    mount.sync();
    assert!(!mount.is_packed("dir/waiting"));
    // As the same file under another name, in another mount.
    fs::rename(mount.join("dir/waiting"), mount.join("renamed")).unwrap();
    mount.remount();
    mount.sync();
    assert!(!mount.is_packed("renamed"));
    let time = SystemTime::now() + Duration::from_secs(1);
    File::options().append(true).open(mount.join("renamed")).unwrap().set_modified(time).unwrap();
    mount.sync();
    assert!(mount.is_packed("renamed"), "it changed");
    // Nothing is left of the note, which would take a block beside the stub's attribute.
    for name in ["trusted.mithril.plain", "user.mithril.plain"] {
        let noted = rustix::fs::getxattr_query(mount.lower("renamed"), name);
        assert!(noted.is_err(), "{name}: {noted:?}");
    }
    assert!(fs::read(mount.join("renamed")).unwrap() == weights(7));
}
