//! Changing a file by storing to memory.

use std::fs::File;

/// A shared mapping of a file.
#[derive(Debug)]
pub struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    /// Maps the first `len` bytes, which the file has as long as this lives.
    ///
    /// # Panics
    /// If that cannot be.
    pub fn new(file: &File, len: usize) -> Self {
        use std::os::fd::AsRawFd;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, where the kernel has room.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert!(start != libc::MAP_FAILED, "it cannot be mapped: {}", std::io::Error::last_os_error());
        Self { start: start.cast(), len }
    }

    /// Changes the file, without a call.
    ///
    /// # Panics
    /// If that is outside.
    pub fn store(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        // SAFETY: inside the mapping, and the file is as long: nobody else has it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(at), bytes.len()) };
    }

    /// Makes what was stored durable.
    ///
    /// # Panics
    /// If that fails.
    pub fn sync(&self) {
        // SAFETY: the mapping is there.
        let synced = unsafe { libc::msync(self.start.cast(), self.len, libc::MS_SYNC) };
        assert!(synced == 0, "it cannot be synced: {}", std::io::Error::last_os_error());
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is there, and nobody uses it any more.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
