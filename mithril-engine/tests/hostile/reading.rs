//! A source that counts what is read of it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use mithril_engine::source::Source;

/// Bytes, and what was read of them.
pub(crate) struct Counted<'a> {
    bytes: &'a [u8],
    read: AtomicU64,
    reads: AtomicU64,
}

impl<'a> Counted<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, read: AtomicU64::new(0), reads: AtomicU64::new(0) }
    }

    /// Bytes that were read.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Times that something was read.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

impl Source for Counted<'_> {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.bytes.read_exact_at(buffer, offset)
    }
}
