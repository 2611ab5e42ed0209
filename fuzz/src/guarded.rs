//! Buffers that end where a page begins that nobody may touch.

use std::ptr;

/// The side on which a buffer touches the guard; on the other side are bytes that must not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Edge {
    Front,
    Back,
}

impl Edge {
    pub(crate) fn of(choice: u64) -> Self {
        // Most overruns are at the end.
        if choice.is_multiple_of(8) { Edge::Front } else { Edge::Back }
    }
}

/// Bytes beyond the free side of a buffer that are looked at afterwards.
const CANARY_BYTES: usize = 512;
const CANARY: u8 = 0xc5;

/// Memory between two guard pages: one byte too far is a signal that ends the process.
pub(crate) struct Guarded {
    mapping: *mut u8,
    page: usize,
    room: usize,
    len: usize,
    edge: Edge,
}

impl Guarded {
    /// Room for buffers of up to `most` bytes. Memory is taken when it is first touched.
    pub(crate) fn new(most: usize) -> Self {
        // SAFETY: no arguments that could be wrong.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let room = (most + CANARY_BYTES).next_multiple_of(page);
        // SAFETY: a new mapping at a place of the system's choice.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                room + 2 * page,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(mapping != libc::MAP_FAILED, "no memory for a guarded buffer");
        let mapping = mapping.cast::<u8>();
        // SAFETY: whole pages of the mapping.
        let opened =
            unsafe { libc::mprotect(mapping.add(page).cast(), room, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(opened, 0, "no memory for a guarded buffer");
        Self { mapping, page, room, len: 0, edge: Edge::Back }
    }

    fn start(&self) -> usize {
        match self.edge {
            Edge::Front => self.page,
            Edge::Back => self.page + self.room - self.len,
        }
    }

    fn canary(&self) -> usize {
        match self.edge {
            Edge::Front => self.page + self.len,
            Edge::Back => self.page + self.room - self.len - CANARY_BYTES,
        }
    }

    /// A buffer of `len` bytes that are all `fill`.
    ///
    /// # Panics
    /// If it was not made for so many.
    pub(crate) fn buffer(&mut self, len: usize, fill: u8, edge: Edge) -> &mut [u8] {
        assert!(len + CANARY_BYTES <= self.room, "{len} bytes do not fit");
        (self.len, self.edge) = (len, edge);
        // SAFETY: the canary and the buffer are in the open pages, as was just checked; nobody else has them.
        unsafe {
            ptr::write_bytes(self.mapping.add(self.canary()), CANARY, CANARY_BYTES);
            let buffer = std::slice::from_raw_parts_mut(self.mapping.add(self.start()), len);
            buffer.fill(fill);
            buffer
        }
    }

    /// A buffer that holds `bytes`.
    pub(crate) fn hold(&mut self, bytes: &[u8], edge: Edge) -> &[u8] {
        let buffer = self.buffer(bytes.len(), 0, edge);
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// The buffer that was handed out last.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: in the open pages since it was handed out, and borrowed no more.
        unsafe { std::slice::from_raw_parts(self.mapping.add(self.start()), self.len) }
    }

    /// Whether nothing was written beyond the free side of the last buffer.
    pub(crate) fn is_intact(&self) -> bool {
        // SAFETY: in the open pages, and written by `buffer`.
        let canary = unsafe { std::slice::from_raw_parts(self.mapping.add(self.canary()), CANARY_BYTES) };
        canary.iter().all(|byte| *byte == CANARY)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; no borrow of it is left.
        unsafe { libc::munmap(self.mapping.cast(), self.room + 2 * self.page) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_on_the_free_side_is_noticed() {
        for edge in [Edge::Front, Edge::Back] {
            let mut guarded = Guarded::new(10_000);
            let buffer = guarded.buffer(5000, 7, edge);
            assert!(buffer.iter().all(|byte| *byte == 7));
            let start = buffer.as_mut_ptr();
            assert!(guarded.is_intact());
            // SAFETY: in the open pages: 5000 of more than 10000 bytes are used.
            unsafe {
                match edge {
                    Edge::Front => *start.add(5003) = 1,
                    Edge::Back => *start.sub(3) = 1,
                }
            }
            assert!(!guarded.is_intact());
        }
    }

    #[test]
    fn a_byte_too_far_on_the_guarded_side_is_a_signal() {
        // SAFETY: the child touches memory and ends; it takes no lock.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut guarded = Guarded::new(10_000);
            let buffer = guarded.buffer(100, 0, Edge::Back);
            // SAFETY: none; this is what must end the process.
            unsafe { buffer.as_mut_ptr().add(100).write_volatile(1) };
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the child that was just made, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV, "{status}");
    }
}
