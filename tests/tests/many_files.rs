//! More files than the daemon may have descriptors.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::Command;

use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;

/// What the daemon may have.
const DESCRIPTORS: u32 = 512;
const DIRECTORIES: usize = 4;
const FILES: usize = 1500;

#[test]
fn a_directory_may_have_more_files_than_there_are_descriptors() {
    for flags in [&[][..], &["--no-passthrough"]] {
        let mut mount = Mount::unmounted(flags);
        for directory in 0..DIRECTORIES {
            fs::create_dir(mount.join(&format!("{directory}"))).unwrap();
            for file in 0..FILES {
                fs::write(mount.join(&format!("{directory}/{file}")), format!("{directory} {file}")).unwrap();
            }
        }
        mount.mount_with_descriptors(DESCRIPTORS);
        // What is in use stays in use: open files, a packed one, a working directory.
        let bytes = Weights::new(100_000, 1).bf16_file();
        fs::write(mount.join("packed"), &bytes).unwrap();
        mount.sync();
        let mut open = File::options().read(true).write(true).open(mount.join("0/0")).unwrap();
        let mut packed = File::open(mount.join("packed")).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", "read line && pwd -P && cat 7"])
            .current_dir(mount.join("1"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        for round in 0..2 {
            for directory in 0..DIRECTORIES {
                let mut found = 0;
                for entry in fs::read_dir(mount.join(&format!("{directory}"))).unwrap() {
                    let entry = entry.unwrap();
                    let stat = entry.metadata().unwrap_or_else(|error| panic!("{:?}: {error}", entry.path()));
                    assert!(stat.is_file());
                    found += 1;
                }
                assert_eq!(found, FILES, "round {round}");
                let read = fs::read_to_string(mount.join(&format!("{directory}/{}", FILES - 1))).unwrap();
                assert_eq!(read, format!("{directory} {}", FILES - 1));
            }
        }
        open.write_all(b"still here").unwrap();
        assert_eq!(fs::read(mount.join("0/0")).unwrap(), b"still here");
        let mut read = Vec::new();
        packed.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let said = shell.wait_with_output().unwrap().stdout;
        let there = fs::canonicalize(mount.join("1")).unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), format!("{}\n1 7", there.display()));
        let descriptors = fs::read_dir(format!("/proc/{}/fd", mount.daemon())).unwrap().count();
        assert!(descriptors < DESCRIPTORS as usize, "{descriptors} descriptors");
    }
}
