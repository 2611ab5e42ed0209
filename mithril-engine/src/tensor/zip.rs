//! Zip archives, as far as tensors need them: where the bytes of stored members lie. Written from APPNOTE.TXT.

use std::io;

use super::read;
use crate::source::Source;

/// A member that is stored without compression.
pub(super) struct Member {
    pub(super) name: String,
    /// Where its bytes are in the file.
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// An archive.
pub(super) struct Archive {
    pub(super) members: Vec<Member>,
    /// Where it begins in the file: not at 0 if it was appended to something.
    pub(super) start: u64,
}

const LOCAL_MAGIC: [u8; 4] = *b"PK\x03\x04";
const CENTRAL_MAGIC: [u8; 4] = *b"PK\x01\x02";
const END_MAGIC: [u8; 4] = *b"PK\x05\x06";
const END64_MAGIC: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_MAGIC: [u8; 4] = *b"PK\x06\x07";
/// The end record, and the longest comment behind it.
const END_BYTES: u64 = 22;
const COMMENT_MAX_BYTES: u64 = 65_535;
/// Longest central directory that is read: some million members.
const CENTRAL_MAX_BYTES: u64 = 256 << 20;
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
pub(super) fn archive(source: &dyn Source, end: u64) -> io::Result<Result<Archive, String>> {
    let central = match central(source, end)? {
        Ok(central) => central,
        Err(reason) => return Ok(Err(reason)),
    };
    if central.len > CENTRAL_MAX_BYTES {
        return Ok(Err("its directory is too long".to_owned()));
    }
    let Ok(len) = usize::try_from(central.len) else {
        return Ok(Err("its directory is too long".to_owned()));
    };
    let Some(directory) = read(source, central.offset, len)? else {
        return Ok(Err("its directory lies outside the file".to_owned()));
    };
    let mut members = Vec::new();
    let mut rest = &directory[..];
    while rest.len() >= CENTRAL_ENTRY_BYTES && rest[..4] == CENTRAL_MAGIC {
        let (name_len, extra_len, comment_len) = (u16_at(rest, 28), u16_at(rest, 30), u16_at(rest, 32));
        let total = CENTRAL_ENTRY_BYTES as u64 + name_len + extra_len + comment_len;
        let Some((entry, next)) = usize::try_from(total).ok().and_then(|total| rest.split_at_checked(total))
        else {
            return Ok(Err("its directory is cut short".to_owned()));
        };
        rest = next;
        if let Some(member) = member(source, entry, &central)? {
            members.push(member);
        }
    }
    if members.is_empty() {
        return Ok(Err("it has no stored members".to_owned()));
    }
    Ok(Ok(Archive { members, start: central.start }))
}

/// Finds the end record before `end`, and what it says.
fn central(source: &dyn Source, end: u64) -> io::Result<Result<Central, String>> {
    let tail_len = end.min(END_BYTES + COMMENT_MAX_BYTES);
    let Some(tail) =
        usize::try_from(tail_len).ok().map(|len| read(source, end - tail_len, len)).transpose()?.flatten()
    else {
        return Ok(Err("it is too short".to_owned()));
    };
    let is_end = |at: &usize| {
        tail[*at..].starts_with(&END_MAGIC) && u16_at(&tail, at + 20) == (tail.len() - at) as u64 - END_BYTES
    };
    let last = (tail.len() + 1).saturating_sub(usize::try_from(END_BYTES).unwrap_or(22));
    let Some(at) = (0..last).rev().find(is_end) else { return Ok(Err("it has no end record".to_owned())) };
    let position = end - tail_len + at as u64;
    let (mut len, mut offset) = (u32_at(&tail, at + 12), u32_at(&tail, at + 16));
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

/// One entry of the directory; `None` for what is compressed, encrypted or does not fit.
fn member(source: &dyn Source, entry: &[u8], central: &Central) -> io::Result<Option<Member>> {
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
        return Ok(None);
    }
    let Some(header_at) = central.start.checked_add(offset) else { return Ok(None) };
    let Some(header) =
        read(source, header_at, LOCAL_BYTES)?.filter(|header| header.starts_with(&LOCAL_MAGIC))
    else {
        return Ok(None);
    };
    let data = header_at + LOCAL_BYTES as u64 + u16_at(&header, 26) + u16_at(&header, 28);
    let name = String::from_utf8_lossy(&entry[CENTRAL_ENTRY_BYTES..name_end]).into_owned();
    let fits = data.checked_add(len).is_some_and(|end| end <= source.size());
    Ok(fits.then_some(Member { name, offset: data, len }))
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
        let central = central(&&bytes[..], bytes.len() as u64).unwrap().unwrap();
        assert!(central.start <= end as u64, "it begins at {}", central.start);
    }
}
