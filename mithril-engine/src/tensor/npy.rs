//! NumPy arrays, alone or in a zip.

use std::io;

use super::{Element, Parsed, Tensor, bytes_of, read, zip};
use crate::range::ByteRange;
use crate::source::Source;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header: version 1 cannot have more, and later ones do not need it.
const HEADER_MAX_BYTES: usize = 64 << 10;
/// Most dimensions of an array: NumPy has the same limit.
const MAX_DIMENSIONS: usize = 64;

/// A `.npy` file.
pub(super) fn parse(source: &dyn Source) -> Parsed {
    let range = ByteRange { offset: 0, len: source.size() };
    Ok(array(source, range, "", &mut source.size())?.map(|array| array.map(|tensor| vec![tensor])))
}

/// A `.npz` file: a zip whose members are arrays.
pub(super) fn parse_npz(source: &dyn Source) -> Parsed {
    if !zip::begins(source)? {
        return Ok(None);
    }
    let Ok(archive) = zip::archive(source, source.size(), &mut zip::Budget::new())? else { return Ok(None) };
    let mut tensors = Vec::new();
    // Headers of different members are different bytes, unless someone means to have one read again and again.
    let mut left = source.size();
    for member in &archive.members {
        let Some(name) = archive.name(member).strip_suffix(b".npy") else { continue };
        let Some(range) = archive.data(source, member)? else { continue };
        let name = String::from_utf8_lossy(name);
        if let Some(Ok(tensor)) = array(source, range, &name, &mut left)? {
            tensors.push(tensor);
        }
    }
    Ok((!tensors.is_empty()).then_some(Ok(tensors)))
}

/// The array in a range of the file; `None` if there is none. `left` is how many bytes of headers may still be read.
fn array(
    source: &dyn Source,
    range: ByteRange,
    name: &str,
    left: &mut u64,
) -> io::Result<Option<Result<Tensor, String>>> {
    let ByteRange { offset, len } = range;
    let Some(start) = read(source, offset, 12)?.filter(|start| start.starts_with(MAGIC)) else {
        return Ok(None);
    };
    let (header_len, header_at) = match start[6] {
        1 => (usize::from(start[8]) | usize::from(start[9]) << 8, 10),
        _ => (u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize, 12),
    };
    if header_len > HEADER_MAX_BYTES {
        return Ok(Some(Err("its header is too long".to_owned())));
    }
    *left = match left.checked_sub(header_len as u64) {
        Some(left) => left,
        None => return Ok(Some(Err("its headers are longer than the file".to_owned()))),
    };
    let Some(header) = read(source, offset + header_at, header_len)? else {
        return Ok(Some(Err("its header lies outside the file".to_owned())));
    };
    let header = String::from_utf8_lossy(&header).into_owned();
    let Some((element, shape)) = describe(&header) else {
        return Ok(Some(Err("its header is not understood".to_owned())));
    };
    let data = header_at + header_len as u64;
    let expected = bytes_of(&shape, element.width() as u64);
    if expected.is_none_or(|bytes| data.checked_add(bytes).is_none_or(|end| end > len)) {
        return Ok(Some(Err("its array lies outside the file".to_owned())));
    }
    let range = ByteRange { offset: offset + data, len: expected.unwrap_or(0) };
    Ok(Some(Ok(Tensor { name: name.to_owned(), element, shape, range })))
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`
fn describe(header: &str) -> Option<(Element, Vec<u64>)> {
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    let descr = after("'descr'")?.strip_prefix('\'')?.split('\'').next()?;
    let element = match descr.get(1..)? {
        "b1" => Element::Bool,
        "u1" => Element::U8,
        "i1" => Element::I8,
        "u2" => Element::U16,
        "i2" => Element::I16,
        "f2" => Element::F16,
        "u4" => Element::U32,
        "i4" => Element::I32,
        "f4" => Element::F32,
        "u8" => Element::U64,
        "i8" => Element::I64,
        "f8" => Element::F64,
        "c8" => Element::Complex64,
        "c16" => Element::Complex128,
        _ => return None,
    };
    let shape = after("'shape'")?.strip_prefix('(')?.split(')').next()?;
    let shape = shape.split(',').map(str::trim).filter(|field| !field.is_empty());
    let shape =
        shape.take(MAX_DIMENSIONS + 1).map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()?;
    (shape.len() <= MAX_DIMENSIONS).then_some((element, shape))
}
