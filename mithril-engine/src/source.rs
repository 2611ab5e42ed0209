//! What is packed: bytes that are read by position, with the holes known.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::range::ByteRange;

/// A file, or anything like one, that is read at offsets by many threads at once.
pub trait Source: Sync {
    /// Bytes in total.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`; `UnexpectedEof` if the source is shorter than that.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// The next range at or after `offset` that may hold data; `None` if only holes follow. A source that
    /// knows no holes says that everything is data.
    fn next_data(&self, offset: u64) -> io::Result<Option<ByteRange>> {
        Ok((offset < self.size()).then(|| ByteRange { offset, len: self.size() - offset }))
    }

    /// The range was read and will not be needed again: what is kept of it in memory may go. A hint.
    fn done_with(&self, range: ByteRange) {
        let _ = range;
    }
}

/// The ranges of a source that are no holes, in order.
///
/// # Errors
/// Those of the source.
pub fn data_spans(source: &dyn Source) -> io::Result<Vec<ByteRange>> {
    let mut spans = Vec::new();
    let mut position = 0;
    while let Some(span) = source.next_data(position)? {
        position = span.end();
        spans.push(span);
    }
    Ok(spans)
}

impl Source for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file whose size was taken when it was opened: one that grows later is seen as it was.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    size: u64,
}

impl FileSource {
    /// Takes the file's size now.
    pub fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Source for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<ByteRange>> {
        use rustix::fs::{SeekFrom, seek};
        if offset >= self.size {
            return Ok(None);
        }
        let start = match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) if start >= self.size => return Ok(None),
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            // A file system that knows no holes says so with EINVAL: everything is data.
            Err(rustix::io::Errno::INVAL) => offset,
            Err(error) => return Err(error.into()),
        };
        let end = match seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(self.size),
            Err(rustix::io::Errno::INVAL) => self.size,
            Err(error) => return Err(error.into()),
        };
        Ok(Some(ByteRange { offset: start, len: end - start }))
    }

    fn done_with(&self, range: ByteRange) {
        let len = std::num::NonZeroU64::new(range.len);
        let _ = rustix::fs::fadvise(&self.file, range.offset, len, rustix::fs::Advice::DontNeed);
    }
}
