//! The case that is being executed, where the supervisor finds it if the executor dies of it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest case, as a file.
const ROOM: usize = 24 << 20;
/// Executions begun u64, length of the case u64.
const HEADER_BYTES: usize = 16;

/// A file that both processes have mapped.
pub(crate) struct Slot {
    mapping: *mut u8,
}

impl Slot {
    /// Maps the file, which is made if there is none.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len((HEADER_BYTES + ROOM) as u64)?;
        // SAFETY: a new mapping at a place of the system's choice.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                HEADER_BYTES + ROOM,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self { mapping: mapping.cast() })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: the header is in the mapping, aligned to its page, and only used as these words.
        unsafe { AtomicU64::from_ptr(self.mapping.cast::<u64>().add(index)) }
    }

    /// Executions that were begun.
    pub(crate) fn begun(&self) -> u64 {
        self.word(0).load(Ordering::Acquire)
    }

    /// Puts a case there, before it is executed.
    pub(crate) fn put(&self, case: &[u8]) {
        let case = &case[..case.len().min(ROOM)];
        // SAFETY: within the mapping; the supervisor only reads it when this process is gone.
        unsafe { ptr::copy_nonoverlapping(case.as_ptr(), self.mapping.add(HEADER_BYTES), case.len()) };
        self.word(1).store(case.len() as u64, Ordering::Release);
        self.word(0).fetch_add(1, Ordering::AcqRel);
    }

    /// The case that was there when the executor died.
    pub(crate) fn get(&self) -> Vec<u8> {
        let len = usize::try_from(self.word(1).load(Ordering::Acquire)).unwrap_or(0).min(ROOM);
        // SAFETY: within the mapping; whoever wrote it is gone.
        unsafe { std::slice::from_raw_parts(self.mapping.add(HEADER_BYTES), len) }.to_vec()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made; no borrow of it is left.
        unsafe { libc::munmap(self.mapping.cast(), HEADER_BYTES + ROOM) };
    }
}
