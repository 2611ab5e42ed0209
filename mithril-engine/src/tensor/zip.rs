//! Zip archives, as far as tensors need them: where the bytes of stored members lie. Written from APPNOTE.TXT.

use std::io;
use std::ops::Range;

use super::read;
use crate::range::ByteRange;
use crate::source::Source;

/// Bytes of directories and of ends that are read of a file: some 100 for each of [`MAX_MEMBERS`].
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;
/// Members that are looked at in a file. A pickle of the longest that is read refers to as many storages.
const MAX_MEMBERS: usize = 1 << 19;

/// What may still be read of a file's directories, however many archives it is made of.
pub(super) struct Budget {
    bytes: u64,
    members: usize,
}

impl Budget {
    /// That of a whole file.
    pub(super) const fn new() -> Self {
        Self { bytes: MAX_DIRECTORY_BYTES, members: MAX_MEMBERS }
    }

    fn read(&mut self, bytes: u64) -> Result<(), String> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or("its directory is too long")?;
        Ok(())
    }

    fn member(&mut self) -> Result<(), String> {
        self.members = self.members.checked_sub(1).ok_or("it has too many members")?;
        Ok(())
    }
}

/// A member that is stored without compression. Its name is in the directory.
pub(super) struct Member {
    name: Range<usize>,
    /// Where its own header is in the file.
    header: u64,
    /// Its bytes.
    pub(super) len: u64,
}

/// An archive.
pub(super) struct Archive {
    pub(super) members: Vec<Member>,
    /// Where it begins in the file: not at 0 if it was appended to something.
    pub(super) start: u64,
    /// Where its members end.
    end: u64,
    directory: Vec<u8>,
}

impl Archive {
    /// The name of a member, in whatever encoding.
    pub(super) fn name(&self, member: &Member) -> &[u8] {
        &self.directory[member.name.clone()]
    }

    /// Where the bytes of a member are in the file; `None` if it has no header of its own, or they are not in the archive.
    pub(super) fn data(&self, source: &dyn Source, member: &Member) -> io::Result<Option<ByteRange>> {
        let header = read(source, member.header, LOCAL_BYTES)?;
        let Some(header) = header.filter(|header| header.starts_with(&LOCAL_MAGIC)) else { return Ok(None) };
        let offset = member.header + LOCAL_BYTES as u64 + u16_at(&header, 26) + u16_at(&header, 28);
        Ok(ByteRange::new(offset, member.len).filter(|range| range.end() <= self.end))
    }
}

const LOCAL_MAGIC: [u8; 4] = *b"PK\x03\x04";
const CENTRAL_MAGIC: [u8; 4] = *b"PK\x01\x02";
const END_MAGIC: [u8; 4] = *b"PK\x05\x06";
const END64_MAGIC: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_MAGIC: [u8; 4] = *b"PK\x06\x07";
/// The end record, and the longest comment behind it.
const END_BYTES: u64 = 22;
const COMMENT_MAX_BYTES: u64 = 65_535;
const CENTRAL_ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;

/// Whether the file begins like an archive.
pub(super) fn begins(source: &dyn Source) -> io::Result<bool> {
    Ok(read(source, 0, 4)?.is_some_and(|magic| magic == LOCAL_MAGIC))
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).map_or(0, |field| u64::from(field[0]) | u64::from(field[1]) << 8)
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

/// The central directory: offset, length; and where the archive begins in the file, which is not 0 for one that was
/// appended to something.
struct Central {
    offset: u64,
    len: u64,
    start: u64,
}

/// The archive that ends at `end`, or what is wrong with it.
pub(super) fn archive(
    source: &dyn Source,
    end: u64,
    budget: &mut Budget,
) -> io::Result<Result<Archive, String>> {
    let central = match central(source, end, budget)? {
        Ok(central) => central,
        Err(reason) => return Ok(Err(reason)),
    };
    if let Err(reason) = budget.read(central.len) {
        return Ok(Err(reason));
    }
    let len = usize::try_from(central.len);
    let Some(directory) = len.ok().map(|len| read(source, central.offset, len)).transpose()?.flatten() else {
        return Ok(Err("its directory lies outside the file".to_owned()));
    };
    Ok(members(&directory, &central, budget).map(|members| Archive {
        members,
        start: central.start,
        end: central.offset,
        directory,
    }))
}

/// The stored members of a directory.
fn members(directory: &[u8], central: &Central, budget: &mut Budget) -> Result<Vec<Member>, String> {
    let mut members = Vec::new();
    let mut at = 0;
    while let Some(rest) = directory.get(at..)
        && rest.len() >= CENTRAL_ENTRY_BYTES
        && rest.starts_with(&CENTRAL_MAGIC)
    {
        budget.member()?;
        let (name_len, extra_len, comment_len) = (u16_at(rest, 28), u16_at(rest, 30), u16_at(rest, 32));
        let total = CENTRAL_ENTRY_BYTES as u64 + name_len + extra_len + comment_len;
        let entry = usize::try_from(total).ok().and_then(|total| rest.get(..total));
        let entry = entry.ok_or("its directory is cut short")?;
        members.extend(member(entry, at, central));
        at += entry.len();
    }
    if members.is_empty() {
        return Err("it has no stored members".to_owned());
    }
    members.shrink_to_fit();
    Ok(members)
}

/// Finds the end record before `end`, and what it says.
fn central(source: &dyn Source, end: u64, budget: &mut Budget) -> io::Result<Result<Central, String>> {
    // Torch and NumPy write no comment: without one, the record is the last there is.
    let mut found = end_record(source, end, END_BYTES)?;
    if found.is_none() {
        let tail_len = end.min(END_BYTES + COMMENT_MAX_BYTES);
        if let Err(reason) = budget.read(tail_len) {
            return Ok(Err(reason));
        }
        found = end_record(source, end, tail_len)?;
    }
    let Some((position, record)) = found else { return Ok(Err("it has no end record".to_owned())) };
    let (mut len, mut offset) = (u32_at(&record, 12), u32_at(&record, 16));
    let mut before = position;
    // Some writers put the zip64 records there although nothing needs them: the directory ends before them.
    let locator = position.checked_sub(20).map(|at| read(source, at, 20)).transpose()?.flatten();
    if let Some(locator) = locator.filter(|locator| locator.starts_with(&LOCATOR_MAGIC)) {
        // The record is where the locator says, or, in an archive that was appended, right before it.
        // Nowhere else: an archive that pretends to begin behind its own end would be found again and again.
        let last = position.checked_sub(20 + 56);
        let said = Some(u64_at(&locator, 8)).filter(|&said| last.is_some_and(|last| said <= last));
        for at in [last, said].into_iter().flatten() {
            if let Some(record) = read(source, at, 56)?.filter(|record| record.starts_with(&END64_MAGIC)) {
                (len, offset, before) = (u64_at(&record, 40), u64_at(&record, 48), at);
                break;
            }
        }
    }
    match before.checked_sub(len).and_then(|real| real.checked_sub(offset).map(|start| (real, start))) {
        Some((real, start)) => Ok(Ok(Central { offset: real, len, start })),
        None => Ok(Err("its directory lies outside the file".to_owned())),
    }
}

/// The last end record in the `tail_len` bytes before `end`, and where it is.
fn end_record(source: &dyn Source, end: u64, tail_len: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let (Some(start), Ok(len)) = (end.checked_sub(tail_len), usize::try_from(tail_len)) else {
        return Ok(None);
    };
    let Some(tail) = read(source, start, len)? else { return Ok(None) };
    let is_end = |at: &usize| {
        tail[*at..].starts_with(&END_MAGIC) && u16_at(&tail, at + 20) == (tail.len() - at) as u64 - END_BYTES
    };
    let last = (tail.len() + 1).saturating_sub(usize::try_from(END_BYTES).unwrap_or(22));
    let at = (0..last).rev().find(is_end);
    Ok(at.map(|at| (start + at as u64, tail[at..].to_vec())))
}

/// The entry at `at` of the directory; `None` for what is compressed, encrypted or does not fit.
fn member(entry: &[u8], at: usize, central: &Central) -> Option<Member> {
    let (flags, method) = (u16_at(entry, 8), u16_at(entry, 10));
    let (mut packed, mut len, mut offset) = (u32_at(entry, 20), u32_at(entry, 24), u32_at(entry, 42));
    let name_end = CENTRAL_ENTRY_BYTES + usize::try_from(u16_at(entry, 28)).unwrap_or(0);
    let extra_end = name_end + usize::try_from(u16_at(entry, 30)).unwrap_or(0);
    let mut extra = &entry[name_end..extra_end];
    while extra.len() >= 4 {
        let field_len = usize::try_from(u16_at(extra, 2)).unwrap_or(0);
        let Some(field) = extra.get(4..4 + field_len) else { break };
        if u16_at(extra, 0) == 1 {
            // Zip64: those of the fields that did not fit, in this order.
            let mut at = 0;
            for value in [&mut len, &mut packed, &mut offset] {
                if *value == u64::from(u32::MAX) && field.len() >= at + 8 {
                    *value = u64_at(field, at);
                    at += 8;
                }
            }
        }
        extra = &extra[4 + field_len..];
    }
    if method != 0 || flags & 1 != 0 || packed != len {
        return None;
    }
    let header = central.start.checked_add(offset).filter(|&header| header < central.offset)?;
    Some(Member { name: at + CENTRAL_ENTRY_BYTES..at + name_end, header, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_does_not_begin_behind_its_own_end() {
        // A locator that points into the comment, where there is a zip64 record of an empty directory.
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.resize(100, 0);
        let end = bytes.len() + 20;
        bytes.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        bytes.extend_from_slice(&(end as u64 + 22).to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
        assert_eq!(bytes.len(), end);
        bytes.extend_from_slice(b"PK\x05\x06");
        bytes.resize(end + 20, 0);
        bytes.extend_from_slice(&56u16.to_le_bytes());
        bytes.extend_from_slice(b"PK\x06\x06");
        bytes.resize(end + 22 + 56, 0);
        let central = central(&&bytes[..], bytes.len() as u64, &mut Budget::new()).unwrap().unwrap();
        assert!(central.start <= end as u64, "it begins at {}", central.start);
    }
}
