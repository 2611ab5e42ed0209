//! Files in both states, plain and packed: what is read and written is the same. Run with passthrough and without.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use mithril_tests::data::{Random, Weights, digest};
use mithril_tests::mount::{Mount, drop_caches};

use super::FLAGS;

const COUNT: usize = 300_000;

fn packed_file(mount: &Mount, name: &str, seed: u64) -> Vec<u8> {
    let bytes = Weights::new(COUNT, seed).bf16_file();
    fs::write(mount.join(name), &bytes).unwrap();
    mount.sync();
    assert!(mount.is_packed(name), "{name}");
    bytes
}

#[test]
fn a_sequence_of_checkpoints_shrinks_and_reads_back_identically() {
    let mut mount = Mount::new(FLAGS);
    let mut weights = Weights::new(COUNT, 1);
    let mut expected = Vec::new();
    for step in 1..=12 {
        weights.step(1e-5);
        let name = format!("step_{step}.safetensors");
        fs::write(mount.join(&name), weights.bf16_file()).unwrap();
        expected.push((name, blake3::hash(&weights.bf16_file())));
    }
    mount.sync();
    let status = mount.status();
    assert_eq!(status["packed_files"], 12);
    assert!(
        status["stored_bytes"].as_f64().unwrap() * 3.0 < status["logical_bytes"].as_f64().unwrap(),
        "{status}"
    );
    assert_eq!(mount.entry("step_2.safetensors")["base"], "step_1.safetensors");
    for depth in expected.iter().map(|(name, _)| mount.entry(name)["chain_depth"].as_u64().unwrap()) {
        assert!(depth <= 8, "a chain of {depth}");
    }
    mount.remount();
    for (name, hash) in &expected {
        assert_eq!(digest(&mount.join(name)), *hash, "{name}");
    }
    mount.run(&["verify", "."]);
}

#[test]
fn packing_keeps_size_times_mode_and_inode() {
    let mount = Mount::new(FLAGS);
    fs::write(mount.join("w.safetensors"), Weights::new(COUNT, 1).bf16_file()).unwrap();
    let before = fs::metadata(mount.join("w.safetensors")).unwrap();
    mount.sync();
    assert!(mount.is_packed("w.safetensors"));
    let after = fs::metadata(mount.join("w.safetensors")).unwrap();
    assert_eq!(
        (before.len(), before.mtime_nsec(), before.mtime(), before.mode(), before.ino()),
        (after.len(), after.mtime_nsec(), after.mtime(), after.mode(), after.ino())
    );
    assert!(after.blocks() * 512 <= 8192, "{} blocks are left", after.blocks());
    // Below, a notice says what this is.
    let below = fs::read(mount.lower("w.safetensors")).unwrap();
    assert!(below.starts_with(b"This file is packed by mithril."));
}

#[test]
fn a_packed_file_turns_plain_at_its_first_change_and_not_before() {
    let mount = Mount::new(FLAGS);
    let mut expected = packed_file(&mount, "w", 2);
    let file = OpenOptions::new().read(true).write(true).open(mount.join("w")).unwrap();
    assert!(mount.is_packed("w"), "opening for writing must not unpack");
    let reader = File::open(mount.join("w")).unwrap();
    file.write_all_at(b"changed", 1000).unwrap();
    expected[1000..1007].copy_from_slice(b"changed");
    assert!(!mount.is_packed("w"));
    let mut seen = vec![0; expected.len()];
    reader.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == expected, "a reader that was open sees the change");
    drop((file, reader));
    assert!(fs::read(mount.join("w")).unwrap() == expected);
    mount.sync();
    assert!(mount.is_packed("w"));
    assert!(fs::read(mount.join("w")).unwrap() == expected, "packed again");
}

#[test]
fn truncations_appends_and_overwriting_are_right_in_both_states() {
    let mount = Mount::new(FLAGS);
    for packed in [false, true] {
        let original = Weights::new(COUNT, 3).bf16_file();
        let make = |name: &str| {
            fs::write(mount.join(name), &original).unwrap();
            if packed {
                mount.sync();
                assert!(mount.is_packed(name));
            }
        };
        for len in [0, 1, 4096, 70_000, original.len() - 1, original.len(), original.len() + 5000] {
            make("t");
            OpenOptions::new().write(true).open(mount.join("t")).unwrap().set_len(len as u64).unwrap();
            let mut expected = original.clone();
            expected.resize(len, 0);
            assert!(fs::read(mount.join("t")).unwrap() == expected, "truncated to {len}, packed: {packed}");
        }
        make("a");
        OpenOptions::new().append(true).open(mount.join("a")).unwrap().write_all(b"tail").unwrap();
        assert!(
            fs::read(mount.join("a")).unwrap() == [&original[..], b"tail"].concat(),
            "append, packed: {packed}"
        );
        make("o");
        fs::write(mount.join("o"), b"short").unwrap();
        assert_eq!(fs::read(mount.join("o")).unwrap(), b"short", "O_TRUNC, packed: {packed}");
        make("r");
        fs::write(mount.join("r.new"), b"new content").unwrap();
        let open = File::open(mount.join("r")).unwrap();
        fs::rename(mount.join("r.new"), mount.join("r")).unwrap();
        assert_eq!(fs::read(mount.join("r")).unwrap(), b"new content", "renamed over, packed: {packed}");
        let mut seen = vec![0; original.len()];
        open.read_exact_at(&mut seen, 0).unwrap();
        assert!(seen == original, "the replaced file is still open, packed: {packed}");
    }
    // A truncated stub does not come back when the file grows again.
    packed_file(&mount, "grow", 9);
    fs::write(mount.join("grow"), b"").unwrap();
    let fresh = Random::new(4).bytes(200_000);
    fs::write(mount.join("grow"), &fresh).unwrap();
    assert!(fs::read(mount.join("grow")).unwrap() == fresh);
}

#[test]
fn unlinked_and_linked_files_live_as_long_as_they_should() {
    // What a collection takes away must not come back from the daemon's cache.
    let mount = Mount::new(&[FLAGS, &["--cache-size", "0"]].concat());
    let expected = Weights::new(3_000_000, 5).fp32_file();
    fs::write(mount.join("one"), &expected).unwrap();
    mount.sync();
    assert!(mount.is_packed("one"));
    fs::hard_link(mount.join("one"), mount.join("two")).unwrap();
    assert_eq!(fs::metadata(mount.join("two")).unwrap().nlink(), 2);
    let open = File::open(mount.join("one")).unwrap();
    fs::remove_file(mount.join("one")).unwrap();
    let mut last = [0; 10];
    let end = expected.len() - last.len();
    File::open(mount.join("two")).unwrap().read_exact_at(&mut last, end as u64).unwrap();
    assert_eq!(last, expected[end..]);
    fs::remove_file(mount.join("two")).unwrap();
    // Nothing names it any more, but it is open: its chunks must survive a collection.
    mount.run(&["gc", "."]);
    drop_caches();
    let mut seen = vec![0; expected.len()];
    open.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == expected);
    drop(open);
}

#[test]
fn holes_are_found_in_packed_files_and_survive_them() {
    let mount = Mount::new(FLAGS);
    let data = Weights::new(100_000, 6).fp32_file();
    let (first, second, len) = (1u64 << 20, 1u64 << 30, 5u64 << 30);
    let file = File::create(mount.join("sparse")).unwrap();
    file.set_len(len).unwrap();
    file.write_all_at(&data, first).unwrap();
    file.write_all_at(&data, second).unwrap();
    drop(file);
    mount.sync();
    assert!(mount.is_packed("sparse"));
    let mut file = File::open(mount.join("sparse")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), len);
    let seek = |file: &File, from| rustix::fs::seek(file, from).unwrap();
    use rustix::fs::SeekFrom::{Data, Hole};
    assert_eq!(seek(&file, Data(0)), first);
    let end = seek(&file, Hole(first));
    assert!(end >= first + data.len() as u64 && end < second, "{end}");
    assert_eq!(seek(&file, Data(end)), second);
    assert_eq!(seek(&file, Hole(end)), end);
    assert_eq!(rustix::fs::seek(&file, Data(len - 10)), Err(rustix::io::Errno::NXIO));
    assert_eq!(rustix::fs::seek(&file, Data(len)), Err(rustix::io::Errno::NXIO));
    let mut seen = vec![1; data.len()];
    file.read_exact_at(&mut seen, second).unwrap();
    assert!(seen == data);
    file.seek(SeekFrom::Start(len - 4)).unwrap();
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0; 4]);
    drop(file);
    mount.run(&["unpack", "./sparse"]);
    assert!(!mount.is_packed("sparse"));
    assert!(fs::metadata(mount.join("sparse")).unwrap().blocks() * 512 < 4 << 20, "its holes were filled");
    let file = File::open(mount.join("sparse")).unwrap();
    file.read_exact_at(&mut seen, first).unwrap();
    assert!(seen == data);
}

#[test]
fn small_and_incompressible_files_stay_plain_and_whole() {
    let mount = Mount::new(FLAGS);
    let noise = Random::new(7).bytes(3_000_000);
    for (name, bytes) in [("empty", &[][..]), ("byte", b"x"), ("small", &noise[..60_000]), ("noise", &noise)]
    {
        fs::write(mount.join(name), bytes).unwrap();
    }
    let said = mount.run(&["sync", "."]);
    assert!(said.contains("hardly compressible"), "{said}");
    for (name, bytes) in [("empty", &[][..]), ("byte", b"x"), ("small", &noise[..60_000]), ("noise", &noise)]
    {
        assert!(fs::read(mount.join(name)).unwrap() == bytes, "{name}");
        assert!(!mount.is_packed(name), "{name}");
    }
}

#[test]
fn two_files_with_the_same_content_are_stored_once() {
    let mount = Mount::new(FLAGS);
    packed_file(&mount, "a", 8);
    let before = mount.used_bytes();
    fs::copy(mount.join("a"), mount.join("b")).unwrap();
    mount.sync();
    assert!(mount.is_packed("b"));
    assert!(mount.used_bytes() - before < 20_000, "{} bytes more", mount.used_bytes() - before);
}

#[test]
fn our_directory_and_our_attributes_are_not_there() {
    let mount = Mount::new(FLAGS);
    packed_file(&mount, "w", 9);
    assert!(!mount.join(".mithril").exists());
    assert!(fs::read_dir(mount.path()).unwrap().flatten().all(|entry| entry.file_name() != ".mithril"));
    for result in [
        fs::create_dir(mount.join(".mithril")),
        fs::rename(mount.join("w"), mount.join(".mithril")),
        fs::write(mount.join(".mithril"), b"x"),
        fs::hard_link(mount.join("w"), mount.join(".mithril")),
        fs::read_dir(mount.join(".mithril")).map(drop),
        File::open(mount.join(".mithril/index")).map(drop),
    ] {
        assert!(result.is_err());
    }
    for name in ["trusted.mithril", "user.mithril"] {
        let mut value = [0; 100];
        assert!(rustix::fs::getxattr(mount.join("w"), name, &mut value[..]).is_err());
        assert!(
            rustix::fs::setxattr(mount.join("w"), name, b"forged", rustix::fs::XattrFlags::empty()).is_err()
        );
    }
    let mut names = [0; 1000];
    let len = rustix::fs::listxattr(mount.join("w"), &mut names[..]).unwrap();
    assert!(!String::from_utf8_lossy(&names[..len]).contains("mithril"));
}

#[test]
fn attributes_of_users_are_kept_in_both_states() {
    let mount = Mount::new(FLAGS);
    let expected = packed_file(&mount, "w", 14);
    let set =
        |value| rustix::fs::setxattr(mount.join("w"), "user.note", value, rustix::fs::XattrFlags::empty());
    for value in [&b"packed"[..], b"plain"] {
        set(value).unwrap();
        assert_eq!(rustix::fs::getxattr_query(mount.join("w"), "user.note"), Ok(value.len()));
        let mut seen = [0; 100];
        let len = rustix::fs::getxattr(mount.join("w"), "user.note", &mut seen[..]).unwrap();
        assert_eq!(&seen[..len], value);
        assert!(fs::read(mount.join("w")).unwrap() == expected);
        mount.run(&["unpack", "./w"]);
    }
    rustix::fs::removexattr(mount.join("w"), "user.note").unwrap();
    assert_eq!(rustix::fs::getxattr_query(mount.join("w"), "user.note"), Err(rustix::io::Errno::NODATA));
}

#[test]
fn names_that_are_not_utf8_work_everywhere() {
    use std::os::unix::ffi::OsStrExt;
    let mut mount = Mount::new(FLAGS);
    let dir = mount.path().join(std::ffi::OsStr::from_bytes(b"d\xff"));
    fs::create_dir(&dir).unwrap();
    let expected = Weights::new(COUNT, 10).bf16_file();
    let path = dir.join(std::ffi::OsStr::from_bytes(b"w\xfe_1.safetensors"));
    fs::write(&path, &expected).unwrap();
    mount.sync();
    assert_eq!(mount.status()["packed_files"], 1);
    mount.remount();
    assert!(fs::read(&path).unwrap() == expected);
    mount.run(&["ls", "."]);
}

#[test]
fn a_directory_that_existed_before_is_adopted() {
    let mut mount = Mount::unmounted(&[FLAGS, &["--settle", "0", "--pack-existing"]].concat());
    let expected = Weights::new(COUNT, 11).fp32_file();
    fs::create_dir(mount.join("old")).unwrap();
    fs::write(mount.join("old/w.safetensors"), &expected).unwrap();
    mount.mount();
    mount.sync();
    assert!(mount.is_packed("old/w.safetensors"));
    assert!(fs::read(mount.join("old/w.safetensors")).unwrap() == expected);
}

#[test]
fn touching_a_packed_file_lasts() {
    let mut mount = Mount::new(FLAGS);
    packed_file(&mount, "w", 12);
    let file = OpenOptions::new().write(true).custom_flags(0).open(mount.join("w")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(time).unwrap();
    drop(file);
    assert!(mount.is_packed("w"));
    mount.remount();
    mount.sync();
    assert_eq!(fs::metadata(mount.join("w")).unwrap().modified().unwrap(), time);
}

#[test]
fn a_mapping_of_a_file_that_is_open_for_appending_writes_where_it_is() {
    let mount = Mount::new(FLAGS);
    let mut expected = packed_file(&mount, "w", 14);
    let mut file = OpenOptions::new().read(true).append(true).open(mount.join("w")).unwrap();
    let len = 4096;
    // SAFETY: a new mapping of the first page of an open file that is longer; it is used and given back right here.
    unsafe {
        use std::os::fd::AsRawFd;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let mapped =
            libc::mmap(std::ptr::null_mut(), len, rights, libc::MAP_SHARED, file.as_raw_fd(), 0).cast::<u8>();
        assert!(mapped.cast() != libc::MAP_FAILED);
        mapped.add(100).copy_from_nonoverlapping(b"mapped".as_ptr(), 6);
        libc::munmap(mapped.cast(), len);
    }
    file.write_all(b"appended").unwrap();
    drop(file);
    expected[100..106].copy_from_slice(b"mapped");
    expected.extend_from_slice(b"appended");
    mount.sync();
    assert!(fs::read(mount.join("w")).unwrap() == expected);
}

#[test]
fn reads_are_cached_by_the_kernel_and_sendfile_works() {
    let mount = Mount::new(FLAGS);
    let expected = packed_file(&mount, "w", 13);
    let requests = || mount.status()["read_requests"].as_u64().unwrap();
    assert!(fs::read(mount.join("w")).unwrap() == expected);
    let before = requests();
    assert!(before > 0);
    assert!(fs::read(mount.join("w")).unwrap() == expected);
    assert_eq!(requests(), before, "an unchanged file was read again");
    let (from, to) = (File::open(mount.join("w")).unwrap(), File::create(mount.join("copy")).unwrap());
    let mut sent = 0;
    while sent < expected.len() {
        use std::os::fd::AsRawFd;
        // SAFETY: both descriptors are open, and the offset is the kernel's own.
        let count = unsafe {
            libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), std::ptr::null_mut(), expected.len() - sent)
        };
        sent += usize::try_from(count).expect("sendfile works");
    }
    drop((from, to));
    assert!(fs::read(mount.join("copy")).unwrap() == expected);
    if mithril_tests::is_root() {
        let device = fs::metadata(mount.path()).unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let ahead = fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb")).unwrap();
        assert_eq!(ahead.trim(), "1024");
    }
}
