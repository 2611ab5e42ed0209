//! Segments: the files that keep the blobs of a content store, one record after the other. `docs/FORMAT.md` specifies
//! them.
//!
//! A segment is appended to by the one process that holds its `flock`, and read by all. What changes in it afterwards are
//! two fields of a record's header: when it was last used, and that it is dead, after which its bytes are given back to
//! the file system. So processes share a store without speaking to each other.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation};

use crate::error::{Error, Result};
use crate::id::Address;

/// What a segment begins with; the last digit is the version.
const MAGIC: &[u8; 8] = b"MITHCAS1";
/// Bytes in front of the first record.
const HEADER_LEN: usize = 32;
const HEADER_BYTES: u64 = HEADER_LEN as u64;
/// Bytes in front of a blob.
const RECORD_LEN: usize = 64;
pub(super) const RECORD_BYTES: u64 = RECORD_LEN as u64;
/// What a record begins with.
const RECORD_MAGIC: u32 = 0x4d43_4231;
/// Longest blob: it is held in memory as a whole.
pub(super) const BLOB_MAX_BYTES: u64 = 4 << 30;
/// Records begin at multiples of this.
const ALIGNMENT: u64 = 8;
/// What the file system gives back are whole blocks.
const BLOCK: u64 = 4096;

/// A blob of up to so many bytes is written together with its header: copying it costs less than a call. Others may see the
/// header before the rest; they take it for a record only once the file is as long as it says.
const SMALL_BYTES: usize = 16 << 10;

const STATE_AT: u64 = 4;
const USED_AT: u64 = 8;
const LIVE: u32 = 1;
const DEAD: u32 = 2;

/// What segment files are called: this, and 32 hex digits.
pub(super) const PREFIX: &str = "segment-";

/// What one is called before it has its header and its lock.
const NEW: &str = "new-";

/// A place for a blob in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// Where its header is.
    pub(super) offset: u64,
    /// Bytes of the blob.
    pub(super) len: u64,
    /// Its name.
    pub(super) address: Address,
    /// When it was last used, in seconds since 1970.
    pub(super) used: u64,
    /// Whether it is given up.
    pub(super) dead: bool,
}

impl Record {
    /// Where the next record begins.
    fn end(&self) -> u64 {
        (self.offset + RECORD_BYTES + self.len).next_multiple_of(ALIGNMENT)
    }

    fn encode(&self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&if self.dead { DEAD } else { LIVE }.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.used.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        bytes[24..56].copy_from_slice(self.address.as_bytes());
        let check = checksum(&bytes[16..56], self.offset);
        bytes[56..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// `None`: there is no record here, or not yet.
    fn decode(bytes: &[u8; RECORD_LEN], offset: u64) -> Option<Self> {
        let word = |at: usize| bytes[at..].first_chunk::<8>().map(|word| u64::from_le_bytes(*word));
        let half = |at: usize| bytes[at..].first_chunk::<4>().map(|half| u32::from_le_bytes(*half));
        let state = half(4)?;
        let is_one = half(0)? == RECORD_MAGIC
            && word(56)? == checksum(&bytes[16..56], offset)
            && matches!(state, LIVE | DEAD);
        let record = Self {
            offset,
            len: word(16)?,
            address: Address::from_bytes(*bytes[24..].first_chunk()?),
            used: word(8)?,
            dead: state == DEAD,
        };
        is_one.then_some(record)
    }
}

/// What the segment with an id is called.
fn name_of(id: &[u8]) -> String {
    id.iter().fold(PREFIX.to_owned(), |name, byte| name + &format!("{byte:02x}"))
}

/// Of what does not change in a header, and where it is.
fn checksum(fixed: &[u8], offset: u64) -> u64 {
    twox_hash::XxHash3_64::oneshot_with_seed(offset, fixed)
}

/// A segment, open.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    path: PathBuf,
    /// The process that appends to it, if it is this one: a child that has this from its parent does not. 0 for none.
    owner: AtomicU32,
    /// One past the last record that is known.
    end: AtomicU64,
}

impl Segment {
    /// Makes a new one in a directory, to append to.
    pub(super) fn create(directory: &Path) -> Result<Self> {
        let mut id = [0; 16];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::io("name", directory, error))?;
        // It gets its name once it is locked: before, others might take it for one that nobody appends to.
        let (new, path) = (directory.join(format!("{NEW}{}", name_of(&id))), directory.join(name_of(&id)));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&new)
            .map_err(|error| Error::io("create", &new, error))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| Error::io("lock", &new, error))?;
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(MAGIC);
        header[8..24].copy_from_slice(&id);
        let named = file.write_all_at(&header, 0).and_then(|()| std::fs::rename(&new, &path));
        if let Err(error) = named {
            let _ = std::fs::remove_file(&new);
            return Err(Error::io("write", &path, error));
        }
        Ok(Self { file, path, owner: AtomicU32::new(std::process::id()), end: AtomicU64::new(HEADER_BYTES) })
    }

    /// Opens one that is there. `None`: it has no header yet, or is gone.
    pub(super) fn open(path: PathBuf) -> Result<Option<Self>> {
        let file = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| Error::io("open", &path, error))?,
        };
        let mut header = [0; HEADER_LEN];
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(|error| Error::io("read", &path, error))?,
        }
        if header[..7] != MAGIC[..7] {
            return Err(Error::corrupt(path.display().to_string(), "it does not begin as a segment does"));
        }
        if path.file_name().and_then(|name| name.to_str()) != Some(&name_of(&header[8..24])) {
            return Err(Error::corrupt(path.display().to_string(), "it is the copy of another segment"));
        }
        if header[7] != MAGIC[7] {
            let detail = format!("segment version {}", char::from(header[7]).escape_default());
            return Err(Error::Unsupported { what: path.display().to_string(), detail });
        }
        Ok(Some(Self { file, path, owner: AtomicU32::new(0), end: AtomicU64::new(HEADER_BYTES) }))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes up to the end of the last record that is known.
    pub(super) fn len(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Takes the lock, if nobody has it and the file still has its name: then nobody else appends to it, or removes it.
    pub(super) fn lock(&self) -> bool {
        if rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return false;
        }
        // Whoever had it before may have removed it.
        let is_there = self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        if !is_there {
            self.unlock();
        }
        is_there
    }

    /// Others may append to it, or remove it.
    pub(super) fn unlock(&self) {
        self.owner.store(0, Ordering::Release);
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }

    /// Takes a segment over to append to it, once it is locked: all of its records. They are looked for from the start,
    /// since whoever had it before may have written anew what it began, and what is no record is cut off.
    pub(super) fn take_over(&self) -> Result<Vec<Record>> {
        let (records, end) = self.scan(HEADER_BYTES)?;
        self.file.set_len(end).map_err(|error| Error::io("cut", &self.path, error))?;
        self.end.store(end, Ordering::Release);
        self.owner.store(std::process::id(), Ordering::Release);
        Ok(records)
    }

    /// Records that others appended since the last call.
    pub(super) fn read_new(&self) -> Result<Vec<Record>> {
        if self.owner.load(Ordering::Acquire) == std::process::id() {
            return Ok(Vec::new());
        }
        let (records, end) = self.scan(self.len())?;
        self.end.fetch_max(end, Ordering::AcqRel);
        Ok(records)
    }

    /// All records, those that are dead too.
    pub(super) fn read_all(&self) -> Result<Vec<Record>> {
        Ok(self.scan(HEADER_BYTES)?.0)
    }

    /// The records from a place on that are there as a whole, and where they end.
    fn scan(&self, mut at: u64) -> Result<(Vec<Record>, u64)> {
        let fail = |error| Error::io("read", &self.path, error);
        let size = self.file.metadata().map_err(fail)?.size();
        let mut records = Vec::new();
        while at + RECORD_BYTES <= size {
            let mut header = [0; RECORD_LEN];
            self.file.read_exact_at(&mut header, at).map_err(fail)?;
            // One of which the blob is not there yet is being written.
            let fits = |record: &Record| record.len <= BLOB_MAX_BYTES.min(size - at - RECORD_BYTES);
            let Some(record) = Record::decode(&header, at).filter(fits) else { break };
            at = record.end();
            records.push(record);
        }
        Ok((records, at))
    }

    /// Appends a blob. Call with no other call under way.
    pub(super) fn append(&self, address: Address, bytes: &[u8], used: u64) -> Result<Record> {
        let fail = |error| Error::io("write", &self.path, error);
        let record = Record { offset: self.len(), len: bytes.len() as u64, address, used, dead: false };
        let written = if bytes.len() <= SMALL_BYTES {
            self.file.write_all_at(&[&record.encode()[..], bytes].concat(), record.offset)
        } else {
            // The blob first: whoever finds the header finds the blob.
            self.file
                .write_all_at(bytes, record.offset + RECORD_BYTES)
                .and_then(|()| self.file.write_all_at(&record.encode(), record.offset))
        };
        if let Err(error) = written {
            // Nobody is to find the half of it.
            let _ = self.file.set_len(record.offset);
            return Err(fail(error));
        }
        self.end.store(record.end(), Ordering::Release);
        Ok(record)
    }

    /// Reads a blob, and its record as it is now; `None` if that is dead, or no record of it any more.
    pub(super) fn read(&self, record: &Record) -> Result<Option<(Record, Vec<u8>)>> {
        let corrupt = |reason: &str| Error::corrupt(self.path.display().to_string(), reason);
        let fail = |error| Error::io("read", &self.path, error);
        let len = usize::try_from(record.len).map_err(|_| corrupt("a blob is longer than memory"))?;
        let (mut header, mut bytes) = ([0; RECORD_LEN], vec![0; len]);
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(&mut bytes)];
        let read =
            rustix::io::preadv(&self.file, &mut parts, record.offset).map_err(|error| fail(error.into()))?;
        if read < header.len() {
            return Ok(None);
        }
        // The kernel may give less at a time than was asked for.
        let rest = read - header.len();
        match self.file.read_exact_at(&mut bytes[rest..], record.offset + read as u64) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(corrupt("it ends within a blob"));
            }
            other => other.map_err(fail)?,
        }
        let now = Record::decode(&header, record.offset);
        Ok(now.filter(|now| now.address == record.address && !now.dead).map(|now| (now, bytes)))
    }

    /// A record's header as it is now; `None` if it is no record any more.
    pub(super) fn reread(&self, record: &Record) -> Option<Record> {
        let mut header = [0; RECORD_LEN];
        self.file.read_exact_at(&mut header, record.offset).ok()?;
        Record::decode(&header, record.offset).filter(|now| now.address == record.address)
    }

    /// Notes when a record was last used.
    pub(super) fn touch(&self, record: &Record, used: u64) {
        // Lost, it is only forgotten sooner.
        let _ = self.file.write_all_at(&used.to_le_bytes(), record.offset + USED_AT);
    }

    /// Gives a blob up, and its bytes back, if its record is still there.
    pub(super) fn kill(&self, record: &Record) -> Result<()> {
        if self.reread(record).is_none_or(|now| now.dead || now.len != record.len) {
            return Ok(());
        }
        self.file
            .write_all_at(&DEAD.to_le_bytes(), record.offset + STATE_AT)
            .map_err(|error| Error::io("write", &self.path, error))?;
        let start = (record.offset + RECORD_BYTES).next_multiple_of(BLOCK);
        let end = (record.offset + RECORD_BYTES + record.len) / BLOCK * BLOCK;
        if start < end {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where the file system cannot, the bytes go with the segment.
            let _ = rustix::fs::fallocate(&self.file, punch, start, end - start);
        }
        Ok(())
    }

    /// Makes everything that was appended durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }
}
