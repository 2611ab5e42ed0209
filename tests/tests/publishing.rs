//! However a file gets the name that it stays under, it is packed there.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
#[cfg(debug_assertions)]
use std::time::Duration;

use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;

/// With passthrough and without: closing and looking up are told differently.
const FLAGS: [&[&str]; 2] = [&[], &["--no-passthrough"]];

fn weights(seed: u64) -> Vec<u8> {
    Weights::new(100_000, seed).bf16_file()
}

#[test]
fn a_file_that_is_published_by_linking_is_packed() {
    for flags in FLAGS {
        let mount = Mount::new(flags);
        fs::create_dir(mount.join("final")).unwrap();
        for (seed, is_open) in [(1, false), (2, true)] {
            let mut file = File::create(mount.join("tmp")).unwrap();
            file.write_all(&weights(seed)).unwrap();
            let kept = is_open.then_some(file);
            let name = format!("final/w{seed}");
            fs::hard_link(mount.join("tmp"), mount.join(&name)).unwrap();
            fs::remove_file(mount.join("tmp")).unwrap();
            drop(kept);
            mount.run(&["sync", "."]);
            assert!(mount.is_packed(&name), "{flags:?}: {name}");
            // Its inode was found under a name that is gone.
            let mut file = OpenOptions::new().append(true).open(mount.join(&name)).unwrap();
            file.write_all(b"more").unwrap();
            drop(file);
            assert!(!mount.is_packed(&name), "{flags:?}: {name} changed");
            mount.run(&["sync", "."]);
            assert!(mount.is_packed(&name), "{flags:?}: {name} after a change");
            assert!(fs::read(mount.join(&name)).unwrap() == [&weights(seed)[..], b"more"].concat());
        }
    }
}

#[test]
fn a_file_that_is_published_by_linking_is_packed_without_being_asked_for() {
    let mount = Mount::new(&["--settle", "0.3"]);
    let mut file = File::create(mount.join("tmp")).unwrap();
    file.write_all(&weights(1)).unwrap();
    fs::hard_link(mount.join("tmp"), mount.join("final")).unwrap();
    fs::remove_file(mount.join("tmp")).unwrap();
    drop(file);
    assert!(mount.is_soon_packed("final"));
    let mut file = OpenOptions::new().append(true).open(mount.join("final")).unwrap();
    file.write_all(b"more").unwrap();
    drop(file);
    assert!(!mount.is_packed("final"), "it changed");
    assert!(mount.is_soon_packed("final"), "after a change");
}

#[test]
fn a_name_that_looks_deleted_is_a_name() {
    const NAME: &str = "weights (deleted)";
    for flags in [&["--settle", "0"][..], &["--settle", "0", "--no-passthrough"]] {
        let mount = Mount::new(flags);
        fs::create_dir(mount.join("step (deleted)")).unwrap();
        for name in [NAME, "step (deleted)/w", "step (deleted)/w (deleted)"] {
            fs::write(mount.join(name), weights(3)).unwrap();
            assert!(mount.is_soon_packed(name), "{flags:?}: {name}");
        }
        // A name that is gone, beside another file that has what the kernel makes of it.
        let file = File::create(mount.join("weights")).unwrap();
        (&file).write_all(&weights(4)).unwrap();
        fs::remove_file(mount.join("weights")).unwrap();
        drop(file);
        let said = mount.run(&["sync", "."]);
        assert!(!said.contains("plain"), "{said}");
        assert!(fs::read(mount.join(NAME)).unwrap() == weights(3));
    }
}

#[test]
fn what_a_sync_is_not_told_of_it_finds() {
    for flags in FLAGS {
        let mut mount = Mount::new(flags);
        fs::write(mount.join("w"), weights(5)).unwrap();
        mount.sync();
        let name = std::ffi::CString::new(mount.join("w").as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the name is a string with its NUL.
        assert_eq!(unsafe { libc::truncate(name.as_ptr(), 150_000) }, 0);
        assert!(!mount.is_packed("w"), "it was truncated");
        mount.run(&["sync", "."]);
        assert!(mount.is_packed("w"), "{flags:?}: truncated by path");
        // Made and moved below the mount, where nobody tells the daemon.
        fs::write(mount.lower("below"), weights(6)).unwrap();
        mount.run(&["sync", "."]);
        assert!(mount.is_packed("below"), "{flags:?}: written below");
        fs::write(mount.lower("drained"), weights(7)).unwrap();
        mount.run(&["umount", ".", "--drain"]);
        assert!(mount.is_packed("drained"), "{flags:?}: drained");
        mount.mount();
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_file_that_is_renamed_as_the_packer_looks_for_it_is_packed() {
    // The packer takes its time between taking a file from the queue and looking for it.
    let mount = Mount::with_fault("Taken=400", &["--settle", "0"]);
    for (from, to) in [("tmp", "step_1"), ("step_1", "step_2")] {
        fs::create_dir_all(mount.join(from)).unwrap();
        fs::write(mount.join(from).join("w"), weights(8)).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        fs::rename(mount.join(from), mount.join(to)).unwrap();
        assert!(mount.is_soon_packed(&format!("{to}/w")), "{to}");
    }
}
