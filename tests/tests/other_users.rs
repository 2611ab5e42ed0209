//! A mount of root's that other users use: what they make is theirs, and they may do what modes allow, no more.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;
use mithril_tests::users::{NOBODY, as_user};
use mithril_tests::{can_run, is_root};

/// Another user than that.
const SOMEBODY: u32 = 54_321;

const COUNT: usize = 200_000;

/// A mount in which everybody may make files, as in `/tmp`; `None` where there are no other users to be.
fn shared(flags: &[&str]) -> Option<Mount> {
    if !can_run(is_root(), "only root may become another user") {
        return None;
    }
    let mut mount = Mount::unmounted(flags);
    fs::set_permissions(mount.path(), Permissions::from_mode(0o1777)).unwrap();
    mount.mount();
    Some(mount)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn is_denied<T>(result: &std::io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

#[test]
fn only_the_user_who_mounted_enters_a_mount_unless_all_may() {
    let Some(mount) = shared(&[]) else { return };
    fs::write(mount.join("file"), b"x").unwrap();
    set_mode(&mount.join("file"), 0o666);
    let (read, list) =
        as_user(NOBODY, || (fs::read(mount.join("file")), fs::read_dir(mount.path()).map(drop)));
    assert!(is_denied(&read) && is_denied(&list), "{read:?} {list:?}");
}

#[test]
fn what_a_user_makes_belongs_to_them() {
    for flags in [&["--allow-other"][..], &["--allow-other", "--no-passthrough"]] {
        let Some(mount) = shared(flags) else { return };
        let bytes = Weights::new(COUNT, 1).bf16_file();
        as_user(NOBODY, || {
            let mut made = OpenOptions::new();
            made.write(true)
                .create_new(true)
                .mode(0o640)
                .open(mount.join("w"))
                .unwrap()
                .write_all(&bytes)
                .unwrap();
            fs::DirBuilder::new().mode(0o750).create(mount.join("dir")).unwrap();
            fs::write(mount.join("dir/inner"), b"inner").unwrap();
            std::os::unix::fs::symlink("w", mount.join("link")).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                mount.join("pipe"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o600),
                0,
            )
            .unwrap();
        });
        for name in ["w", "dir", "dir/inner", "link", "pipe"] {
            for path in [mount.join(name), mount.lower(name)] {
                let metadata = fs::symlink_metadata(&path).unwrap();
                assert_eq!(
                    (metadata.uid(), metadata.gid()),
                    (NOBODY, NOBODY),
                    "{flags:?} {}",
                    path.display()
                );
            }
        }
        assert_eq!((mode(&mount.join("w")), mode(&mount.join("dir"))), (0o640, 0o750));
        mount.sync();
        assert!(mount.is_packed("w"));
        let metadata = fs::metadata(mount.join("w")).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (NOBODY, NOBODY, 0o640));
        // Packed, it is still theirs to read and to change.
        as_user(NOBODY, || {
            assert!(fs::read(mount.join("w")).unwrap() == bytes);
            let file = OpenOptions::new().write(true).open(mount.join("w")).unwrap();
            file.write_all_at(b"changed", 1000).unwrap();
        });
        let changed = fs::read(mount.join("w")).unwrap();
        assert!(changed.len() == bytes.len() && changed[1000..1007] == *b"changed");
    }
}

#[test]
fn a_user_may_do_what_modes_allow_and_no_more() {
    for flags in [&["--allow-other"][..], &["--allow-other", "--no-passthrough"]] {
        let Some(mount) = shared(flags) else { return };
        let bytes = Weights::new(COUNT, 2).bf16_file();
        for name in ["packed", "plain"] {
            fs::write(mount.join(name), &bytes).unwrap();
            set_mode(&mount.join(name), 0o644);
            let secret = format!("{name}.secret");
            fs::write(mount.join(&secret), &bytes).unwrap();
            set_mode(&mount.join(&secret), 0o600);
            if name == "packed" {
                mount.sync();
                assert!(mount.is_packed(name) && mount.is_packed(&secret));
            }
        }
        fs::create_dir(mount.join("closed")).unwrap();
        set_mode(&mount.join("closed"), 0o700);
        fs::write(mount.join("closed/file"), b"x").unwrap();
        as_user(NOBODY, || {
            fs::write(mount.join("own"), b"own").unwrap();
            for name in ["packed", "plain"] {
                let (path, secret) = (mount.join(name), mount.join(&format!("{name}.secret")));
                assert!(fs::read(&path).unwrap() == bytes, "{flags:?} {name}: everybody may read it");
                for (what, result) in [
                    ("read a secret", fs::read(&secret).map(drop)),
                    ("write", OpenOptions::new().write(true).open(&path).map(drop)),
                    ("truncate", OpenOptions::new().write(true).truncate(true).open(&path).map(drop)),
                ] {
                    assert!(is_denied(&result), "{flags:?} {name}: {what}: {result:?}");
                }
                let not_ours = [
                    ("chmod", fs::set_permissions(&path, Permissions::from_mode(0o666))),
                    ("chown", std::os::unix::fs::chown(&path, Some(NOBODY), None)),
                    ("unlink in a sticky directory", fs::remove_file(&path)),
                    ("rename in a sticky directory", fs::rename(&path, mount.join("taken"))),
                ];
                for (what, result) in not_ours {
                    assert!(is_denied(&result), "{flags:?} {name}: {what}: {result:?}");
                }
            }
            assert!(is_denied(&fs::read(mount.join("closed/file"))));
            assert!(is_denied(&fs::read_dir(mount.join("closed"))));
            assert!(is_denied(&std::os::unix::fs::chown(mount.join("own"), Some(0), None)), "given away");
        });
        let theirs = as_user(SOMEBODY, || OpenOptions::new().write(true).open(mount.join("own")));
        assert!(is_denied(&theirs), "{theirs:?}");
        assert!(mount.is_packed("packed") && mount.is_packed("packed.secret"), "nothing was unpacked by it");
        assert!(fs::read(mount.join("packed")).unwrap() == bytes);
    }
}

#[test]
fn another_users_write_takes_set_user_and_group_id_off() {
    for flags in [&["--allow-other"][..], &["--allow-other", "--no-passthrough"]] {
        let Some(mount) = shared(flags) else { return };
        let bytes = Weights::new(COUNT, 3).bf16_file();
        for packed in [false, true] {
            for truncates in [false, true] {
                let path = mount.join("program");
                fs::write(&path, &bytes).unwrap();
                set_mode(&path, 0o6777);
                if packed {
                    mount.sync();
                    assert!(mount.is_packed("program"));
                }
                assert_eq!(mode(&path), 0o6777, "packing keeps them");
                as_user(NOBODY, || {
                    let file = OpenOptions::new().write(true).open(&path).unwrap();
                    if truncates {
                        file.set_len(70_000).unwrap();
                    } else {
                        file.write_all_at(b"x", 10).unwrap();
                    }
                });
                for (path, what) in [(path.clone(), "the mount"), (mount.lower("program"), "below")] {
                    assert_eq!(
                        mode(&path),
                        0o777,
                        "{flags:?} packed {packed}, truncates {truncates}: {what}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_daemon_obeys_no_other_user() {
    let Some(mount) = shared(&["--allow-other"]) else { return };
    fs::write(mount.join("w"), Weights::new(COUNT, 4).bf16_file()).unwrap();
    let device = fs::metadata(mount.path()).unwrap().dev();
    let socket = format!("/run/mithril-fs/{}:{}.sock", rustix::fs::major(device), rustix::fs::minor(device));
    // The directory of the socket is closed to others.
    let direct = as_user(NOBODY, || UnixStream::connect(&socket).map(drop));
    assert!(is_denied(&direct), "{direct:?}");
    // Who gets past that, here by a descriptor of root's, is refused by the daemon.
    let inside = rustix::fs::open(
        &socket,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let ask = || {
        let mut stream = UnixStream::connect(format!("/proc/self/fd/{}", inside.as_raw_fd())).unwrap();
        let mut answer = String::new();
        // Refused by whom it is from, it may be answered before it was sent.
        let _ = stream.write_all(b"{\"command\":\"status\"}\n");
        // A line, as the commands read: what follows a refusal is the end of the connection, request unread.
        BufReader::new(stream).read_line(&mut answer).map(|_| answer)
    };
    let refused = as_user(NOBODY, ask).unwrap();
    assert!(refused.contains("only root and the user who mounted it"), "{refused}");
    assert!(!refused.contains("pid"), "{refused}");
    let granted = ask().unwrap();
    assert!(granted.contains("\"pid\""), "the same request of root is answered: {granted}");
}
