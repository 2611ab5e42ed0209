//! What is told of a file's attributes is never older than what was done through the mount.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;
use mithril_tests::{can_run, is_root};

const PAGE_BYTES: usize = 4096;

/// A shared mapping of the first pages of a file.
struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(file: &File, pages: usize) -> Self {
        let (len, rights) = (pages * PAGE_BYTES, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping of an open file, which is given back when this is dropped.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, rights, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert!(start != libc::MAP_FAILED);
        Self { start: start.cast(), len }
    }

    /// Writes a byte to a page.
    fn touch(&self, page: usize) {
        assert!(page * PAGE_BYTES < self.len);
        // SAFETY: the page is within the mapping, and the file is longer.
        unsafe { self.start.add(page * PAGE_BYTES).write_volatile(7) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what was mapped above.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// Time enough that a change has another time.
fn a_moment() {
    std::thread::sleep(Duration::from_millis(25));
}

fn times(mount: &Mount) -> ((i64, i64), (i64, i64)) {
    let of = |stat: fs::Metadata| (stat.mtime(), stat.mtime_nsec());
    (of(fs::metadata(mount.join("w")).unwrap()), of(fs::metadata(mount.lower("w")).unwrap()))
}

#[test]
fn a_change_through_a_mapping_is_seen_at_once() {
    if !can_run(is_root(), "only passthrough writes unseen, and only root has that") {
        return;
    }
    let mount = Mount::new(&["--no-packing"]);
    fs::write(mount.join("w"), Weights::new(100_000, 1).bf16_file()).unwrap();
    // From here on the kernel may believe what it is told.
    let (before, below) = times(&mount);
    assert_eq!(before, below);
    let mut file = Some(OpenOptions::new().read(true).write(true).open(mount.join("w")).unwrap());
    let mapping = Mapping::new(file.as_ref().unwrap(), 4);
    let mut last = before;
    for page in 0..4 {
        if page == 2 {
            // From here on only the mapping is left.
            drop(file.take());
        }
        a_moment();
        mapping.touch(page);
        let (above, below) = times(&mount);
        assert_eq!(above, below, "page {page}");
        assert!(above > last, "page {page}: the time stands still");
        last = above;
    }
    drop(mapping);
    let (above, below) = times(&mount);
    assert_eq!(above, below);
}
