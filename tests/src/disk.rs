//! Small file systems, to be filled.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::{NamedTempFile, TempDir};

use crate::mount::text;

/// A file system of a few MiB in memory. Only root can have one. Gone when it is dropped: what is mounted in it must
/// be dropped before.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// With so many MiB, and these options.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn new(mib: u32, options: &str) -> Self {
        let dir = tempfile::tempdir().expect("a place to mount at");
        let options = format!("size={mib}m,mode=755{options}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "a tmpfs cannot be mounted");
        Self(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it but for some MiB, with a file that is returned: removed, it gives the room back. With 0, to the last block.
    ///
    /// # Panics
    /// If something else happens than that it gets full.
    pub fn fill_but(&self, mib: usize) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = std::fs::File::create(&path).expect("there are inodes");
        for step in [1 << 20, 4096] {
            let error = std::iter::repeat_with(|| file.write_all(&vec![1; step])).find_map(Result::err);
            let kind = error.map(|error| error.kind());
            assert_eq!(kind, Some(std::io::ErrorKind::StorageFull));
        }
        let len = file.metadata().expect("it is open").len();
        file.set_len(len.saturating_sub((mib << 20) as u64)).expect("it gets shorter");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

/// An ext4 on a file, by a loop device. Gone when it is dropped: what is mounted in it must be dropped before.
#[derive(Debug)]
pub struct Ext4Disk {
    at: TempDir,
    /// What the file system is on. The loop device keeps it.
    _image: NamedTempFile,
}

impl Ext4Disk {
    /// With so many MiB, made with these options of `mkfs.ext4`.
    ///
    /// # Errors
    /// Why there can be none here.
    pub fn new(mib: u64, options: &[&str]) -> Result<Self, String> {
        let place = tempfile::Builder::new();
        let image = place.tempfile_in("/var/tmp").map_err(|error| error.to_string())?;
        image.as_file().set_len(mib << 20).map_err(|error| error.to_string())?;
        // All that a later mount would still do in the background is done now.
        let options = [&["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"], options].concat();
        succeed(Command::new("mkfs.ext4").args(options).arg(image.path()))?;
        let at = tempfile::tempdir().map_err(|error| error.to_string())?;
        succeed(Command::new("mount").args(["-o", "loop"]).arg(image.path()).arg(at.path()))?;
        Ok(Self { at, _image: image })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.at.path()
    }

    /// Makes it read-only, or writable again.
    ///
    /// # Errors
    /// What `mount` said: that somebody has a file open for writing, say.
    pub fn set_read_only(&self, is_read_only: bool) -> Result<(), String> {
        let options = if is_read_only { "remount,ro" } else { "remount,rw" };
        succeed(Command::new("mount").args(["-o", options]).arg(self.path()))
    }
}

impl Drop for Ext4Disk {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", text(&output))) }
}

fn unmount(path: &Path) {
    let unmounted = Command::new("umount").arg(path).status();
    if !unmounted.is_ok_and(|status| status.success()) {
        let _ = Command::new("umount").arg("-l").arg(path).status();
    }
}
