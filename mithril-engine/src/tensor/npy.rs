//! NumPy arrays, alone or in a zip.

use std::io;

use super::{Element, Parsed, Tensor, bytes_of, read, zip};
use crate::range::ByteRange;
use crate::source::Source;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header: version 1 cannot have more, and later ones do not need it.
const HEADER_MAX_BYTES: usize = 64 << 10;

/// A `.npy` file.
pub(super) fn parse(source: &dyn Source) -> Parsed {
    Ok(array(source, 0, source.size(), "")?.map(|array| array.map(|tensor| vec![tensor])))
}

/// A `.npz` file: a zip whose members are arrays.
pub(super) fn parse_npz(source: &dyn Source) -> Parsed {
    if !zip::begins(source)? {
        return Ok(None);
    }
    let Ok(archive) = zip::archive(source, source.size())? else { return Ok(None) };
    let mut tensors = Vec::new();
    for member in archive.members.iter().filter(|member| member.name.ends_with(".npy")) {
        let name = member.name.trim_end_matches(".npy");
        if let Some(Ok(tensor)) = array(source, member.offset, member.len, name)? {
            tensors.push(tensor);
        }
    }
    Ok((!tensors.is_empty()).then_some(Ok(tensors)))
}

/// The array in `len` bytes at `offset`; `None` if there is none.
fn array(
    source: &dyn Source,
    offset: u64,
    len: u64,
    name: &str,
) -> io::Result<Option<Result<Tensor, String>>> {
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
    Some((element, shape.map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()?))
}
