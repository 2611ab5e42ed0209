//! Reading a compressed checkpoint by range.

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use rayon::prelude::*;

use super::reference::digest_of;
use crate::codec::{self, Format, Scratch};
use crate::error::{Error, Result};
use crate::format::manifest::{Extent, Manifest};
use crate::format::mcp::{
    self, Base, Footer, HEADER_BYTES, Loss, Record, ReferenceId, TRAILER_BYTES, Trailer,
};
use crate::range::ByteRange;
use crate::source::Source;
use crate::tensor::{Element, Layout};

const WHAT: &str = "compressed checkpoint";

/// Decoded chunks that are kept for the next reads.
const CACHED_CHUNKS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Chunks that are decoded before they are handed on.
const WINDOW_CHUNKS: usize = 64;

/// A compressed checkpoint, open for reading. As a [`Source`] it is the file that was compressed.
pub struct McpFile {
    source: Box<dyn Source + Send>,
    footer: Footer,
    /// First byte of each extent, and the file's length at the end.
    offsets: Vec<u64>,
    /// The record of each extent that is a chunk.
    records: Vec<Option<usize>>,
    reference: Option<Box<dyn Source + Send>>,
    cache: Mutex<LruCache<usize, Arc<Vec<u8>>>>,
}

impl std::fmt::Debug for McpFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("McpFile").field("len", &self.size()).finish_non_exhaustive()
    }
}

/// How a piece of the file is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkInfo {
    /// Where it lies in the file.
    pub range: ByteRange,
    /// What its bytes are.
    pub element: Element,
    /// Bytes of its encoding; 0 if the same bytes were met before.
    pub stored_bytes: u64,
    /// The encoding.
    pub format: Format,
    /// Whether it is based on the reference.
    pub is_delta: bool,
    /// Whether it is based on the second moments beside it.
    pub is_by_moments: bool,
}

impl McpFile {
    /// Whether a file begins like a compressed checkpoint.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_one(source: &dyn Source) -> Result<bool> {
        let mut header = [0; HEADER_BYTES];
        if source.size() < HEADER_BYTES as u64 {
            return Ok(false);
        }
        source.read_exact_at(&mut header, 0).map_err(|e| Error::io("read", "a file", e))?;
        Ok(mcp::begins_like_one(&header))
    }

    /// Opens a compressed checkpoint. What needs a reference cannot be read before
    /// [`set_reference`](Self::set_reference).
    ///
    /// # Errors
    /// `Invalid` if it is none; `Corrupt` if it is cut short or damaged; `Unsupported` for a later version; `Io`.
    pub fn open(source: Box<dyn Source + Send>) -> Result<Self> {
        let read = |buffer: &mut [u8], offset: u64| {
            source.read_exact_at(buffer, offset).map_err(|e| Error::io("read", "a compressed checkpoint", e))
        };
        let len = source.size();
        if len < HEADER_BYTES as u64 {
            return Err(Error::invalid(WHAT, "it does not begin like one"));
        }
        let mut header = [0; HEADER_BYTES];
        read(&mut header, 0)?;
        mcp::check_header(&header)?;
        if len < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(Error::corrupt(WHAT, "it was cut short"));
        }
        let mut trailer = [0; TRAILER_BYTES];
        read(&mut trailer, len - TRAILER_BYTES as u64)?;
        let trailer = Trailer::decode(&trailer, len)?;
        let mut stored = vec![0; trailer.stored_len];
        read(&mut stored, trailer.footer_offset)?;
        let footer = Footer::decode(&stored, &trailer)?;
        let by_id: std::collections::HashMap<_, _> =
            footer.records.iter().enumerate().map(|(index, record)| (record.id, index)).collect();
        let (mut offsets, mut records) = (Vec::new(), Vec::new());
        let mut position = 0;
        for extent in &footer.manifest.extents {
            offsets.push(position);
            position += extent.len();
            records.push(match extent {
                Extent::Hole { .. } => None,
                Extent::Chunk { id, .. } => by_id.get(id).copied(),
            });
        }
        offsets.push(position);
        let cache = Mutex::new(LruCache::new(CACHED_CHUNKS));
        Ok(Self { source, footer, offsets, records, reference: None, cache })
    }

    /// Which file it is a delta against; `None` if it stands alone.
    pub fn reference(&self) -> Option<&ReferenceId> {
        self.footer.reference.as_ref()
    }

    /// Gives it the file that it is a delta against. Only the length is compared here: a file with other bytes is
    /// noticed at the first chunk that is read, since each is checked against its digest.
    ///
    /// # Errors
    /// `Invalid` if it has another length.
    pub fn set_reference(&mut self, source: Box<dyn Source + Send>) -> Result<()> {
        let Some(wanted) = &self.footer.reference else { return Ok(()) };
        if source.size() != wanted.len {
            return Err(Error::invalid(
                "reference",
                format!(
                    "it has {} bytes, and {:?} had {} when the delta was made",
                    source.size(),
                    String::from_utf8_lossy(&wanted.name),
                    wanted.len
                ),
            ));
        }
        self.reference = Some(source);
        Ok(())
    }

    /// The BLAKE3 of the file that was compressed.
    pub fn digest(&self) -> &[u8; 32] {
        &self.footer.digest
    }

    /// The tensors of the file, as they were recognised when it was compressed.
    pub fn layout(&self) -> Layout {
        let Manifest { container, tensors, .. } = &self.footer.manifest;
        Layout { container: *container, tensors: tensors.clone(), note: None }
    }

    /// What was lost when it was compressed, tensor by tensor; empty if it is what it was.
    pub fn losses(&self) -> &[Loss] {
        &self.footer.losses
    }

    /// Bytes of the compressed file.
    pub fn compressed_bytes(&self) -> u64 {
        self.source.size()
    }

    /// How each piece is stored, in the order of the file; holes are left out.
    ///
    /// # Errors
    /// `Io`; `Corrupt` for an encoding of no known format.
    pub fn chunks(&self) -> Result<Vec<ChunkInfo>> {
        let mut seen = vec![false; self.footer.records.len()];
        let mut chunks = Vec::new();
        for (index, extent) in self.footer.manifest.extents.iter().enumerate() {
            let (Extent::Chunk { len, element, .. }, Some(record)) = (extent, self.records[index]) else {
                continue;
            };
            let Record { stored, base, .. } = self.footer.records[record];
            let mut tag = [0; 1];
            self.read_source(&mut tag, stored.offset)?;
            let format = Format::of(&tag)
                .ok_or_else(|| Error::corrupt(WHAT, "a chunk is encoded in an unknown way"))?;
            chunks.push(ChunkInfo {
                range: ByteRange { offset: self.offsets[index], len: u64::from(*len) },
                element: *element,
                stored_bytes: if std::mem::replace(&mut seen[record], true) { 0 } else { stored.len },
                format,
                is_delta: matches!(base, Base::Reference(_)),
                is_by_moments: matches!(base, Base::Moments(_)),
            });
        }
        Ok(chunks)
    }

    /// Hands the whole file on in order: data, or the length of a hole. Decodes with the threads of the current pool.
    ///
    /// # Errors
    /// Those of reading; those of `sink`.
    pub fn read_all(&self, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        let extents = &self.footer.manifest.extents;
        for start in (0..extents.len()).step_by(WINDOW_CHUNKS) {
            let window = start..(start + WINDOW_CHUNKS).min(extents.len());
            let decoded: Vec<Result<Option<Vec<u8>>>> = window
                .clone()
                .into_par_iter()
                .map_init(Scratch::default, |scratch, index| {
                    self.records[index].map(|record| self.decode(record, scratch)).transpose()
                })
                .collect();
            for (index, bytes) in window.zip(decoded) {
                match bytes? {
                    Some(bytes) => sink(Piece::Data(&bytes))?,
                    None => sink(Piece::Hole(extents[index].len()))?,
                }
            }
        }
        Ok(())
    }

    /// Reads and checks everything, the digest of the whole file included.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<()> {
        if digest_of(self)? == self.footer.digest {
            return Ok(());
        }
        Err(Error::corrupt(WHAT, "its bytes do not match the digest of the whole"))
    }

    fn read_source(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.source.read_exact_at(buffer, offset).map_err(|e| Error::io("read", "a compressed checkpoint", e))
    }

    fn decode(&self, record: usize, scratch: &mut Scratch) -> Result<Vec<u8>> {
        let Record { id, raw_len, stored, base } = self.footer.records[record];
        let base = match base {
            Base::None => None,
            Base::Reference(range) => Some(self.read_reference(range)?),
            Base::Own(range) => Some(self.decode(self.own_record(range)?, scratch)?),
            Base::Moments(range) => Some(self.decode(self.moments_record(range)?, scratch)?),
        };
        let mut encoded = vec![0; usize::try_from(stored.len).map_err(|_| Error::corrupt(WHAT, "too long"))?];
        self.read_source(&mut encoded, stored.offset)?;
        let mut out = vec![0; raw_len as usize];
        codec::decode(&encoded, base.as_deref(), scratch, &mut out)
            .map_err(|e| Error::corrupt(format!("chunk {id}"), e.to_string()))?;
        if crate::id::ChunkId::of(&out) != id {
            let reason = if matches!(self.footer.records[record].base, Base::Reference(_)) {
                "its plaintext does not match its digest: it is damaged, or the reference is another file"
            } else {
                "its plaintext does not match its digest"
            };
            return Err(Error::corrupt(format!("chunk {id}"), reason));
        }
        Ok(out)
    }

    /// The chunk that is at a range of the file.
    fn own_record(&self, range: ByteRange) -> Result<usize> {
        let index = self.offsets.partition_point(|&start| start < range.offset);
        let chunk = self.records.get(index).copied().flatten().filter(|_| {
            self.offsets[index] == range.offset && self.offsets.get(index + 1) == Some(&range.end())
        });
        chunk.ok_or_else(|| Error::corrupt(WHAT, "the base of a chunk is no chunk of the file"))
    }

    /// The chunk of second moments at a range of the file. It is as long as what is based on it: that it is based on no
    /// other chunk of the file keeps it from leading back.
    fn moments_record(&self, range: ByteRange) -> Result<usize> {
        let record = self.own_record(range)?;
        match self.footer.records[record].base {
            Base::None | Base::Reference(_) => Ok(record),
            Base::Own(_) | Base::Moments(_) => {
                Err(Error::corrupt(WHAT, "second moments are based on another chunk of the file"))
            }
        }
    }

    fn read_reference(&self, range: ByteRange) -> Result<Vec<u8>> {
        let reference = self.reference.as_ref().ok_or_else(|| {
            let name =
                self.reference().map(|reference| String::from_utf8_lossy(&reference.name).into_owned());
            Error::invalid(
                "delta",
                format!("give the file {:?} that it was made against", name.unwrap_or_default()),
            )
        })?;
        let mut bytes = vec![0; usize::try_from(range.len).map_err(|_| Error::corrupt(WHAT, "too long"))?];
        reference
            .read_exact_at(&mut bytes, range.offset)
            .map_err(|e| Error::io("read", "the reference", e))?;
        Ok(bytes)
    }

    fn cached(&self, record: usize) -> Result<Arc<Vec<u8>>> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = lock().get(&record) {
            return Ok(Arc::clone(bytes));
        }
        let bytes = Arc::new(self.decode(record, &mut Scratch::default())?);
        lock().put(record, Arc::clone(&bytes));
        Ok(bytes)
    }
}

/// What [`McpFile::read_all`] hands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// So many zeros, which a file system may keep as a hole.
    Hole(u64),
}

impl Source for McpFile {
    fn size(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(0)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= self.size());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut position = offset;
        while position < end {
            let index = self.offsets.partition_point(|&start| start <= position) - 1;
            let (from, to) = (self.offsets[index], self.offsets[index + 1].min(end));
            let target =
                usize::try_from(position - offset).unwrap_or(0)..usize::try_from(to - offset).unwrap_or(0);
            match self.records[index] {
                None => buf[target].fill(0),
                Some(record) => {
                    let bytes = self.cached(record).map_err(io::Error::other)?;
                    let start = usize::try_from(position - from).unwrap_or(0);
                    let source = bytes.get(start..start + target.len());
                    buf[target].copy_from_slice(source.ok_or(io::ErrorKind::InvalidData)?);
                }
            }
            position = to;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<ByteRange>> {
        let extents = self.records.len();
        let first = self.offsets.partition_point(|&start| start <= offset).saturating_sub(1);
        let Some(from) =
            (first..extents).find(|&i| self.records[i].is_some() && self.offsets[i + 1] > offset)
        else {
            return Ok(None);
        };
        let to = (from..extents).find(|&i| self.records[i].is_none()).unwrap_or(extents);
        let start = self.offsets[from].max(offset);
        Ok(Some(ByteRange { offset: start, len: self.offsets[to] - start }))
    }
}
