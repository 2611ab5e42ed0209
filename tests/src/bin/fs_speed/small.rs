//! Many files of 4 KiB on the mount and on bindfs, which is what people use to pass a directory through FUSE.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use mithril_tests::data::Random;
use mithril_tests::mount::Mount;

use super::paired::Paired;

/// A directory through bindfs, as long as this lives.
struct Bindfs {
    source: tempfile::TempDir,
    mountpoint: tempfile::TempDir,
}

impl Bindfs {
    /// `None`: there is none here.
    fn new(beside: &Path) -> Option<Self> {
        let source = tempfile::tempdir_in(beside).ok()?;
        let mountpoint = tempfile::tempdir_in(beside).ok()?;
        let status = Command::new("bindfs").args([source.path(), mountpoint.path()]).status().ok()?;
        status.success().then_some(Self { source, mountpoint })
    }
}

impl Drop for Bindfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.mountpoint.path()).status();
        let _ = &self.source;
    }
}

/// What is done to all files, one after the other.
#[derive(Clone, Copy, Debug)]
enum Action {
    CreateAndRename,
    Stat,
    OpenReadClose,
    Unlink,
}

impl Action {
    fn run(self, directory: &Path, count: usize, bytes: &[u8]) -> f64 {
        let paths: Vec<PathBuf> = (0..count).map(|index| directory.join(format!("{index}"))).collect();
        let new = directory.join("new");
        let mut buffer = vec![0; bytes.len()];
        let started = Instant::now();
        for path in &paths {
            match self {
                Action::CreateAndRename => {
                    File::create(&new).and_then(|mut file| file.write_all(bytes)).expect("it can be written");
                    fs::rename(&new, path).expect("it can be renamed");
                }
                Action::Stat => drop(fs::metadata(path).expect("it is there")),
                Action::OpenReadClose => File::open(path)
                    .and_then(|mut file| file.read_exact(&mut buffer))
                    .expect("it can be read"),
                Action::Unlink => fs::remove_file(path).expect("it can be removed"),
            }
        }
        started.elapsed().as_secs_f64()
    }
}

pub(crate) fn measure(count: usize, pairs: usize) {
    let mount = Mount::new(&[]);
    let Some(bindfs) = Bindfs::new(mount.path().parent().expect("it lies in a directory")) else {
        println!("small files: bindfs is missing, and nothing to compare with");
        return;
    };
    let bytes = Random::new(3).bytes(4096);
    let place = |mounted: bool| if mounted { mount.path() } else { bindfs.mountpoint.path() };
    let report = |what: &str, measured: &Paired| {
        let microseconds = 1e6 / count as f64;
        let (mounted, other) = measured.medians();
        println!(
            "{what} of 4 KiB files: mount {:.1} us, bindfs {:.1} us; ratio {}",
            mounted * microseconds,
            other * microseconds,
            measured.ratio()
        );
    };
    // Each turn needs the files gone first.
    let created = Paired::measure(pairs, |mounted| {
        let seconds = Action::CreateAndRename.run(place(mounted), count, &bytes);
        Action::Unlink.run(place(mounted), count, &bytes);
        rustix::fs::sync();
        seconds
    });
    report("create + write + rename", &created);
    for mounted in [true, false] {
        Action::CreateAndRename.run(place(mounted), count, &bytes);
    }
    for (what, action) in [("stat", Action::Stat), ("open + read + close", Action::OpenReadClose)] {
        report(what, &Paired::measure(pairs, |mounted| action.run(place(mounted), count, &bytes)));
    }
}
