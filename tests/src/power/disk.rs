//! Making, logging and mounting disks.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::device::IMAGE;
use crate::mount::text;

/// Bytes of a disk: xfs takes none that is much smaller.
const DISK_BYTES: u64 = 320 << 20;

/// What is on a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// ext4, as `mkfs.ext4` makes it: with `data=ordered`.
    Ext4,
    /// xfs, as `mkfs.xfs` makes it.
    Xfs,
}

impl FileSystem {
    /// As `mount -t` takes it.
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    /// The one of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        [FileSystem::Ext4, FileSystem::Xfs].into_iter().find(|file_system| file_system.name() == name)
    }

    /// Makes a fresh disk.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn make(self, path: &Path) {
        let disk = std::fs::File::create_new(path).expect("a disk can be made");
        disk.set_len(DISK_BYTES).expect("a disk can be made");
        let mut make = Command::new(format!("mkfs.{}", self.name()));
        match self {
            // All that a later mount would still do in the background is done now.
            FileSystem::Ext4 => make.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]),
            FileSystem::Xfs => make.args(["-q", "-f"]),
        };
        succeed(make.arg(path));
    }

    fn options(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "loop",
            // All disks here have the same name.
            FileSystem::Xfs => "loop,nouuid",
        }
    }
}

/// A mounted file system. Dropped, it is unmounted.
#[derive(Debug)]
pub struct Mounted {
    at: TempDir,
}

impl Mounted {
    /// Mounts the file system on the disk `image`, by a loop device that goes with the mount.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn new(file_system: FileSystem, image: &Path) -> Result<Self, String> {
        let at = scratch();
        let mut mount = Command::new("mount");
        mount.args(["-t", file_system.name(), "-o", file_system.options()]).arg(image).arg(at.path());
        let output = mount.output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(Self { at }) } else { Err(text(&output)) }
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.at.path().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(self.at.path());
    }
}

/// A disk that logs what is done to it. Dropped, it is taken away.
#[derive(Debug)]
pub struct LoggedDisk {
    at: TempDir,
    log: PathBuf,
    process: Child,
}

impl LoggedDisk {
    /// Logs to `log` what is done to `image`, which changes.
    ///
    /// # Panics
    /// If that process does not start.
    pub fn new(image: &Path, log: PathBuf) -> Self {
        let at = scratch();
        let program = std::env::current_exe().expect("a program knows its executable");
        let mut serve = Command::new(program);
        serve.arg("--serve").arg(at.path()).arg(image).arg(&log);
        let process = serve.spawn().expect("this program can be started again");
        let disk = Self { at, log, process };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !disk.image().exists() {
            assert!(Instant::now() < deadline, "the disk is not there");
            std::thread::sleep(Duration::from_millis(2));
        }
        disk
    }

    /// What is to be mounted.
    pub fn image(&self) -> PathBuf {
        self.at.path().join(IMAGE)
    }

    /// The position that the log has come to.
    ///
    /// # Panics
    /// If the log is gone.
    pub fn position(&self) -> u64 {
        std::fs::metadata(&self.log).expect("the log is there").len()
    }
}

impl Drop for LoggedDisk {
    fn drop(&mut self) {
        unmount(self.at.path());
        let _ = self.process.wait();
    }
}

/// Copies a file that is mostly hole.
///
/// # Errors
/// Those of reading and writing.
pub fn copy_sparse(from: &std::fs::File, to: &std::fs::File) -> io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    to.set_len(0)?;
    to.set_len(from.metadata()?.len())?;
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    loop {
        position = match seek(from, SeekFrom::Data(position)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = seek(from, SeekFrom::Hole(position))?;
        while position < end {
            let len = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
            from.read_exact_at(&mut buffer[..len], position)?;
            to.write_all_at(&buffer[..len], position)?;
            position += len as u64;
        }
    }
}

fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("mithril-power-").tempdir().expect("a scratch directory")
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output));
}

/// Whoever just closed something may keep a mount busy a little longer.
fn unmount(path: &Path) {
    for _ in 0..200 {
        if Command::new("umount").arg(path).output().is_ok_and(|output| output.status.success()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = Command::new("umount").arg("-l").arg(path).output();
}
