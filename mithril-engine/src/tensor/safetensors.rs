//! safetensors: a length, a JSON header, the data.

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};

use super::{Element, Parsed, Tensor, bytes_of, read};
use crate::range::ByteRange;
use crate::source::Source;

/// The format's own limit.
const HEADER_MAX_BYTES: u64 = 100_000_000;

/// One entry of the header.
#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header in its order, duplicates included: they are an error, not the last one's.
struct Header(Vec<(String, Info)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<de::IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn element(dtype: &str) -> Option<(Element, u64)> {
    let element = match dtype {
        "BOOL" => Element::Bool,
        "U8" => Element::U8,
        "I8" => Element::I8,
        "F8_E5M2" => Element::F8E5M2,
        "F8_E4M3" => Element::F8E4M3,
        "F8_E5M2FNUZ" => Element::F8E5M2Fnuz,
        "F8_E4M3FNUZ" => Element::F8E4M3Fnuz,
        "F8_E8M0" => Element::F8E8M0,
        "I16" => Element::I16,
        "U16" => Element::U16,
        "F16" => Element::F16,
        "BF16" => Element::Bf16,
        "I32" => Element::I32,
        "U32" => Element::U32,
        "F32" => Element::F32,
        "C64" => Element::Complex64,
        "F64" => Element::F64,
        "I64" => Element::I64,
        "U64" => Element::U64,
        _ => return None,
    };
    Some((element, element.width() as u64 * 8))
}

/// Bits of packed types that have no element of their own.
fn packed_bits(dtype: &str) -> Option<u64> {
    match dtype {
        "F4" => Some(4),
        "F6_E2M3" | "F6_E3M2" => Some(6),
        _ => None,
    }
}

/// Reads the header.
pub(super) fn parse(source: &dyn Source) -> Parsed {
    let Some(start) = read(source, 0, 9)? else { return Ok(None) };
    let header_len = u64::from_le_bytes(std::array::from_fn(|i| start[i]));
    if start[8] != b'{' {
        return Ok(None);
    }
    let room = source.size() - 8;
    if header_len > HEADER_MAX_BYTES || header_len > room {
        return Ok(Some(Err(format!("its header claims {header_len} bytes"))));
    }
    let Ok(len) = usize::try_from(header_len) else { return Ok(None) };
    let Some(header) = read(source, 8, len)? else { return Ok(None) };
    Ok(Some(tensors(&header, 8 + header_len, room - header_len)))
}

fn tensors(header: &[u8], data: u64, data_len: u64) -> Result<Vec<Tensor>, String> {
    let Header(entries) = serde_json::from_slice(header).map_err(|error| error.to_string())?;
    let mut names = std::collections::HashSet::new();
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, info) in entries {
        let (begin, end) = info.data_offsets;
        let (element, bits) = element(&info.dtype)
            .or_else(|| packed_bits(&info.dtype).map(|bits| (Element::Bytes, bits)))
            .unwrap_or((Element::Bytes, 0));
        let expected = bytes_of(&info.shape, bits).filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
        if begin > end || end > data_len {
            return Err(format!("tensor {name:?} lies outside the file"));
        }
        // A type of a later version: its size cannot be checked, and its bytes are bytes.
        if bits > 0 && expected != Some(end - begin) {
            return Err(format!("tensor {name:?} has a shape of another size"));
        }
        let range = ByteRange { offset: data + begin, len: end - begin };
        tensors.push(Tensor { name: name.clone(), element, shape: info.shape, range });
        if !names.insert(name) {
            return Err("two tensors have one name".to_owned());
        }
    }
    Ok(tensors)
}
