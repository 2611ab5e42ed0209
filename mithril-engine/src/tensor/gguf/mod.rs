//! GGUF: counts, metadata, what the tensors are, their data. Versions 2 and 3, little-endian. Written from `docs/gguf.md`
//! of ggml.
//!
//! The header says nowhere how long it is: metadata is skipped value by value, and kept only where it says how tensors
//! lie.

mod header;
mod kind;

use std::collections::HashSet;

use super::{Parsed, Tensor};
use crate::range::ByteRange;
use crate::source::Source;
use header::{Header, Stop};
use kind::Kind;

const MAGIC: [u8; 4] = *b"GGUF";
/// Longest header, as of safetensors: most of it is the vocabulary, some MB.
const HEADER_MAX_BYTES: u64 = 100_000_000;
/// Most tensors: models have thousands.
const MAX_TENSORS: u64 = 1 << 18;
/// Longest name of a tensor. The format has 64 bytes.
const NAME_MAX_BYTES: u64 = 1024;
/// Most dimensions. The format has 4.
const MAX_DIMENSIONS: u32 = 8;
/// Arrays inside of each other.
const MAX_DEPTH: usize = 8;
const ALIGNMENT_KEY: &[u8] = b"general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;

/// Types of metadata.
const UINT32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A GGUF file.
pub(super) fn parse(source: &dyn Source) -> Parsed {
    let mut header = Header::new(source, HEADER_MAX_BYTES);
    match header.array::<4>() {
        Ok(MAGIC) => {}
        Ok(_) | Err(Stop::Malformed(_)) => return Ok(None),
        Err(Stop::Io(error)) => return Err(error),
    }
    match tensors(&mut header, source.size()) {
        Ok(tensors) => Ok(Some(Ok(tensors))),
        Err(Stop::Malformed(reason)) => Ok(Some(Err(reason))),
        Err(Stop::Io(error)) => Err(error),
    }
}

/// What the header says of a tensor.
struct Info {
    name: String,
    /// As rows of rows: the last dimension is the one whose elements lie side by side. GGUF has it first.
    shape: Vec<u64>,
    kind: Option<Kind>,
    /// First byte in the file.
    offset: u64,
}

/// Reads what is behind the magic number.
fn tensors(header: &mut Header<'_>, size: u64) -> Result<Vec<Tensor>, Stop> {
    let version = header.u32()?;
    if version.swap_bytes() == 3 {
        return Err("its numbers are big-endian".into());
    }
    if !(2..=3).contains(&version) {
        return Err(format!("it has version {version}").into());
    }
    let (count, values) = (header.u64()?, header.u64()?);
    if count > MAX_TENSORS {
        return Err(format!("it claims {count} tensors").into());
    }
    let mut alignment = None;
    for _ in 0..values {
        let key_len = header.u64()?;
        let is_alignment = key_len == ALIGNMENT_KEY.len() as u64 && header.peek(key_len)? == ALIGNMENT_KEY;
        header.skip(key_len)?;
        let kind = header.u32()?;
        if !is_alignment {
            skip_value(header, kind, 0)?;
        } else if kind != UINT32 || alignment.replace(u64::from(header.u32()?)).is_some() {
            return Err("its alignment is not one number".into());
        }
    }
    let alignment = alignment.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment == 0 {
        return Err("its alignment is 0".into());
    }
    let mut infos = Vec::new();
    for _ in 0..count {
        infos.push(info(header)?);
    }
    // The header ends far below what 64 bits hold.
    let data = header.position().next_multiple_of(alignment);
    for info in &mut infos {
        if !info.offset.is_multiple_of(alignment) {
            return Err(format!("tensor {:?} is not aligned", info.name).into());
        }
        info.offset = data
            .checked_add(info.offset)
            .filter(|&offset| offset <= size)
            .ok_or_else(|| outside(&info.name))?;
    }
    if infos.iter().map(|info| &info.name).collect::<HashSet<_>>().len() < infos.len() {
        return Err("two tensors have one name".into());
    }
    place(infos, size)
}

fn outside(name: &str) -> Stop {
    format!("tensor {name:?} lies outside the file").into()
}

/// Skips a value of metadata. Every value takes a byte at least, so that the header's length bounds their number.
fn skip_value(header: &mut Header<'_>, kind: u32, depth: usize) -> Result<(), Stop> {
    match kind {
        STRING => {
            let len = header.u64()?;
            header.skip(len)
        }
        ARRAY if depth == MAX_DEPTH => Err("its metadata is nested too deeply".into()),
        ARRAY => {
            let (kind, len) = (header.u32()?, header.u64()?);
            match width(kind) {
                Some(width) => header.skip(len.checked_mul(width).ok_or("its metadata is too long")?),
                None => (0..len).try_for_each(|_| skip_value(header, kind, depth + 1)),
            }
        }
        _ => header.skip(width(kind).ok_or_else(|| format!("its metadata has type {kind}"))?),
    }
}

/// Bytes of a value of metadata that has a fixed length.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn info(header: &mut Header<'_>) -> Result<Info, Stop> {
    let name_len = header.u64()?;
    if name_len > NAME_MAX_BYTES {
        return Err("the name of a tensor is too long".into());
    }
    let name =
        std::str::from_utf8(header.peek(name_len)?).map_err(|_| "the name of a tensor is not UTF-8")?;
    let name = name.to_owned();
    header.skip(name_len)?;
    let dimensions = header.u32()?;
    if dimensions > MAX_DIMENSIONS {
        return Err(format!("tensor {name:?} has {dimensions} dimensions").into());
    }
    let mut shape = (0..dimensions).map(|_| header.u64()).collect::<Result<Vec<_>, _>>()?;
    shape.reverse();
    let kind = Kind::of(header.u32()?);
    Ok(Info { name, shape, kind, offset: header.u64()? })
}

/// Infos to tensors. One of an unknown type has the bytes up to the next one.
fn place(infos: Vec<Info>, size: u64) -> Result<Vec<Tensor>, Stop> {
    let mut starts: Vec<u64> = infos.iter().map(|info| info.offset).collect();
    starts.sort_unstable();
    let mut tensors = Vec::with_capacity(infos.len());
    for Info { name, shape, kind, offset } in infos {
        let len = match &kind {
            Some(kind) => {
                kind.bytes(&shape).ok_or_else(|| format!("tensor {name:?} has an impossible shape"))?
            }
            None => {
                let next = starts.get(starts.partition_point(|&start| start <= offset)).copied();
                next.unwrap_or(size) - offset
            }
        };
        let range = ByteRange::new(offset, len).ok_or_else(|| outside(&name))?;
        let element = kind.map_or(super::Element::Bytes, |kind| kind.element);
        tensors.push(Tensor { name, element, shape, range });
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests;
