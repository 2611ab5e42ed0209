//! The log of a disk: what was done to it, in the order in which it heard of it.
//!
//! A position in it is a number of bytes. The disk appends a record before it answers, so that all that was answered
//! lies before the length that the log has then.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a disk is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write bytes.
    Write,
    /// Make bytes zero, or give them up, which on this disk is the same.
    Zero,
    /// Make durable what was written before.
    Flush,
}

/// A record; the bytes of a write are in the log.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// What was asked for.
    pub action: Action,
    /// Where on the disk.
    pub offset: u64,
    /// How much.
    pub len: u64,
    /// Where in the log the bytes of a write begin.
    pub bytes_at: u64,
    /// The position after it.
    pub end: u64,
}

/// Three words: the action, the offset and the length.
const HEADER_BYTES: usize = 24;

/// Appends a record, in one write: whoever sees the log's length grow may see half of one, but none out of order.
///
/// # Errors
/// Those of writing.
pub fn append(mut log: &File, action: Action, offset: u64, len: u64, bytes: &[u8]) -> io::Result<()> {
    let kind = match action {
        Action::Write => 0u64,
        Action::Zero => 1,
        Action::Flush => 2,
    };
    let mut record = Vec::with_capacity(HEADER_BYTES + bytes.len());
    [kind, offset, len].iter().for_each(|word| record.extend_from_slice(&word.to_le_bytes()));
    record.extend_from_slice(bytes);
    log.write_all(&record)
}

/// Reads what the log has, without the bytes.
///
/// # Errors
/// Those of reading, and one for a record that is none.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let (mut records, mut position) = (Vec::new(), 0);
    while position < len {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, position)?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[8 * at + i]));
        let action = match word(0) {
            0 => Action::Write,
            1 => Action::Zero,
            2 => Action::Flush,
            other => return Err(io::Error::other(format!("there is no action {other}"))),
        };
        let bytes_at = position + HEADER_BYTES as u64;
        let end = bytes_at + if action == Action::Write { word(2) } else { 0 };
        records.push(Record { action, offset: word(1), len: word(2), bytes_at, end });
        position = end;
    }
    Ok(records)
}
