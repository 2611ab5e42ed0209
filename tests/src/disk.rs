//! Small file systems, to be filled.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

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
        let unmounted = Command::new("umount").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}
