//! Reading a header whose length is not known.

use std::io;

use crate::source::Source;
use crate::tensor::read;

/// Bytes that are read at a time.
const WINDOW_BYTES: u64 = 64 << 10;

/// Why reading ended.
pub(super) enum Stop {
    Io(io::Error),
    Malformed(String),
}

impl From<&str> for Stop {
    fn from(reason: &str) -> Self {
        Self::Malformed(reason.to_owned())
    }
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Malformed(reason)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The front of a file, read in windows.
pub(super) struct Header<'a> {
    source: &'a dyn Source,
    position: u64,
    /// Where it must have ended.
    end: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> Header<'a> {
    /// The header at the front of `source`, of at most `longest` bytes.
    pub(super) fn new(source: &'a dyn Source, longest: u64) -> Self {
        let end = source.size().min(longest);
        Self { source, position: 0, end, window: Vec::new(), window_start: 0 }
    }

    /// Bytes that were read or skipped.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    fn left(&self) -> u64 {
        self.end - self.position
    }

    fn too_long(&self) -> Stop {
        if self.end < self.source.size() { "its header is too long" } else { "its header is cut short" }
            .into()
    }

    /// Passes over `len` bytes.
    pub(super) fn skip(&mut self, len: u64) -> Result<(), Stop> {
        if len > self.left() {
            return Err(self.too_long());
        }
        self.position += len;
        Ok(())
    }

    /// The next `len` bytes, without passing over them; at most a window.
    pub(super) fn peek(&mut self, len: u64) -> Result<&[u8], Stop> {
        if len > self.left() || len > WINDOW_BYTES {
            return Err(self.too_long());
        }
        let window_end = self.window_start + self.window.len() as u64;
        if self.position < self.window_start || self.position + len > window_end {
            let window_len = usize::try_from(self.left().min(WINDOW_BYTES)).unwrap_or(0);
            self.window = read(self.source, self.position, window_len)?.unwrap_or_default();
            self.window_start = self.position;
        }
        let start = usize::try_from(self.position - self.window_start).unwrap_or(usize::MAX);
        let window = self.window.get(start..).unwrap_or_default();
        window
            .get(..usize::try_from(len).unwrap_or(usize::MAX))
            .ok_or_else(|| "its header is cut short".into())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let bytes = self.peek(N as u64)?;
        let array = std::array::from_fn(|i| bytes[i]);
        self.skip(N as u64)?;
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Stop> {
        self.array().map(u64::from_le_bytes)
    }
}
