//! Reading, writing and syncing open files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::{Errno, Result};

use super::handle::{FileHandle, HandleId};
use super::node::{Content, Node};
use super::privileges::drop_special_bits;
use super::{Counters, Overlay, lower};

impl FileHandle {
    /// The lower file, with the access that the handle has.
    fn lower(&self) -> Result<&File> {
        if let Some(file) = self.lower.get() {
            return Ok(file);
        }
        let flags = if self.writable { OFlags::RDWR } else { OFlags::RDONLY };
        let file = lower::reopen(&self.node.fd, flags)?;
        Ok(self.lower.get_or_init(|| file))
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// What is copied at a time without sharing blocks takes a tenth of a second of a fast disk.
const COPY_BYTES: u64 = 128 << 20;

impl Overlay {
    /// Whether the next change through this handle has to unpack first, which takes as long as the file is big.
    pub(crate) fn must_unpack(&self, id: HandleId) -> bool {
        self.handles.file(id).is_ok_and(|handle| !matches!(*handle.node.content(), Content::Plain))
    }

    /// Hands up to `len` bytes from `offset` to `sink`, fewer only at the end of the file.
    pub(crate) fn read<T>(
        &self,
        id: HandleId,
        offset: u64,
        len: usize,
        sink: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let handle = self.handles.file(id)?;
        let mut sink = Some(sink);
        let mut count = |bytes: &[u8]| {
            Counters::add(&self.counters.read_requests, 1);
            Counters::add(&self.counters.read_bytes, bytes.len() as u64);
            sink.take().map(|sink| sink(bytes))
        };
        loop {
            let packed = match &*handle.node.content() {
                Content::Packed(file) => Some(Arc::clone(file)),
                _ => None,
            };
            let Some(file) = packed else {
                let mut buffer = vec![0; len];
                let filled = read_fully(handle.lower()?, &mut buffer, offset)?;
                return count(&buffer[..filled]).ok_or(Errno::IO);
            };
            match file.read_with(offset, len, &mut count) {
                Ok(done) => return done.ok_or(Errno::IO),
                // It was unpacked meanwhile, and the store may have given its chunks up.
                Err(_) if !matches!(&*handle.node.content(), Content::Packed(now) if Arc::ptr_eq(now, &file)) =>
                    {}
                Err(error) => return Err(self.report(&handle.node, "cannot read", &error)),
            }
        }
    }

    /// Writes all of `data` at `offset`. A packed file turns plain first.
    pub(crate) fn write(&self, id: HandleId, offset: u64, data: &[u8], drop_privileges: bool) -> Result<u32> {
        let handle = self.handles.file(id)?;
        if !handle.writable {
            return Err(Errno::BADF);
        }
        let len = u32::try_from(data.len()).map_err(|_| Errno::INVAL)?;
        self.change(&handle.node, |_| {
            handle.lower()?.write_all_at(data, offset).map_err(|error| errno(&error))?;
            if drop_privileges { drop_special_bits(&handle.node) } else { Ok(()) }
        })?;
        Counters::add(&self.counters.write_requests, 1);
        Counters::add(&self.counters.write_bytes, u64::from(len));
        Ok(len)
    }

    /// Makes a handle's file durable.
    pub(crate) fn fsync(&self, id: HandleId, data_only: bool) -> Result<()> {
        let handle = self.handles.file(id)?;
        let file = handle.lower()?;
        if data_only {
            rustix::fs::fdatasync(file)?;
        } else {
            rustix::fs::fsync(file)?;
        }
        Counters::add(&self.counters.fsync_requests, 1);
        Ok(())
    }

    /// Allocates, punches, zeroes, collapses or inserts, as the lower file system can.
    pub(crate) fn fallocate(&self, id: HandleId, offset: u64, len: u64, mode: u32) -> Result<()> {
        let handle = self.handles.file(id)?;
        let flags = FallocateFlags::from_bits_retain(mode);
        self.change(&handle.node, |_| rustix::fs::fallocate(handle.lower()?, flags, offset, len))
    }

    /// Copies between two plain files as the file system below does it, which may share their blocks; at most
    /// [`COPY_BYTES`], so that whoever is killed meanwhile ends soon. What is packed is read by the kernel instead, which
    /// takes the refusal as that.
    pub(crate) fn copy_range(
        &self,
        (from, from_offset): (HandleId, u64),
        (to, to_offset): (HandleId, u64),
        len: u64,
        drop_privileges: bool,
    ) -> Result<u32> {
        let (from, to) = (self.handles.file(from)?, self.handles.file(to)?);
        if !to.writable {
            return Err(Errno::BADF);
        }
        if !matches!(*from.node.content(), Content::Plain) {
            return Err(Errno::OPNOTSUPP);
        }
        self.change(&to.node, |_| {
            let (mut read_at, mut write_at) = (from_offset, to_offset);
            let len = usize::try_from(len.min(COPY_BYTES)).unwrap_or(usize::MAX);
            let copied = rustix::fs::copy_file_range(
                from.lower()?,
                Some(&mut read_at),
                to.lower()?,
                Some(&mut write_at),
                len,
            )?;
            if drop_privileges {
                drop_special_bits(&to.node)?;
            }
            u32::try_from(copied).map_err(|_| Errno::IO)
        })
    }

    /// `SEEK_DATA` and `SEEK_HOLE`. The lower file of a packed one is all hole: the manifest answers for it.
    pub(crate) fn seek(&self, id: HandleId, offset: u64, to_data: bool) -> Result<u64> {
        let handle = self.handles.file(id)?;
        let content = handle.node.content().clone();
        let Content::Packed(file) = content else {
            let target = if to_data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
            return rustix::fs::seek(handle.lower()?, target);
        };
        if offset >= file.len() {
            return Err(Errno::NXIO);
        }
        let data = file.next_data(offset);
        match (to_data, data) {
            (true, Some(data)) => Ok(data.offset),
            (true, None) => Err(Errno::NXIO),
            (false, Some(data)) if data.offset <= offset => Ok(data.end()),
            (false, _) => Ok(offset),
        }
    }

    /// Runs `work` on the plain file, unpacking it first if need be. The caller has a handle or holds the file, so that
    /// nobody packs it meanwhile.
    pub(crate) fn change<T>(&self, node: &Arc<Node>, work: impl FnOnce(&Node) -> Result<T>) -> Result<T> {
        if !matches!(*node.content(), Content::Plain) {
            self.unpack(node)?;
        }
        work(node)
    }
}

fn read_fully(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(&error)),
        }
    }
    Ok(filled)
}
