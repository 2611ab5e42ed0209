//! The bytes of a pickle, read from the front.

use super::value::Span;
use super::{CUT_SHORT, Refused};

/// A pickle and how far it was read.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Refused> {
        // A span has 32 bits.
        u32::try_from(bytes.len()).map_err(|_| "the pickle is too long")?;
        Ok(Self { bytes, at: 0 })
    }

    /// Bytes that were read.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Refused> {
        let end = self.at.checked_add(len).ok_or(CUT_SHORT)?;
        let bytes = self.bytes.get(self.at..end).ok_or(CUT_SHORT)?;
        self.at = end;
        Ok(bytes)
    }

    pub(super) fn span(&mut self, len: u64) -> Result<Span, Refused> {
        let start = self.at;
        let bytes = self.take(usize::try_from(len).map_err(|_| CUT_SHORT)?)?;
        Ok(to_span(start, bytes.len()))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let bytes = self.take(N)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    /// A number of `width` bytes.
    pub(super) fn number(&mut self, width: usize) -> Result<u64, Refused> {
        Ok(self.take(width)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// Up to the next line feed, which is left out.
    pub(super) fn line(&mut self) -> Result<Span, Refused> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(CUT_SHORT)?;
        self.at += len + 1;
        Ok(to_span(start, len))
    }

    /// A line without the quotes around it.
    pub(super) fn quoted(&mut self) -> Result<Span, Refused> {
        let is_quote = |byte: &u8| matches!(byte, b'\'' | b'"');
        let start = self.at;
        let line = self.line()?;
        let bytes = &self.bytes[start..start + line.len as usize];
        let before = bytes.iter().take_while(|byte| is_quote(byte)).count();
        let behind = bytes[before..].iter().rev().take_while(|byte| is_quote(byte)).count();
        Ok(to_span(start + before, bytes.len() - before - behind))
    }

    /// A number that is spelled out in a line; `None` if it is none, or not of 64 bits.
    pub(super) fn spelled(&mut self) -> Result<Option<i64>, Refused> {
        let start = self.at;
        let line = self.line()?;
        let text = self.bytes[start..start + line.len as usize].trim_ascii();
        // How protocol 0 writes long integers.
        let text = text.strip_suffix(b"L").unwrap_or(text);
        Ok(std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()))
    }

    /// An integer of so many bytes; `None` if it does not fit 64 bits.
    pub(super) fn long(&mut self, len: u64) -> Result<Option<i64>, Refused> {
        let bytes = self.take(usize::try_from(len).map_err(|_| CUT_SHORT)?)?;
        let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
        Ok((bytes.len() <= 8).then(|| {
            let mut all = [if negative { 0xff } else { 0 }; 8];
            all[..bytes.len()].copy_from_slice(bytes);
            i64::from_le_bytes(all)
        }))
    }
}

/// What is longer than a span can say was refused at the front.
fn to_span(start: usize, len: usize) -> Span {
    let short = |value| u32::try_from(value).unwrap_or(u32::MAX);
    Span { start: short(start), len: short(len) }
}
