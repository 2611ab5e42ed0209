//! `torch.save` before 1.6: pickles one after the other, then the storages, each with its length.

use std::collections::HashMap;

use super::pickle::{self, Pickle};
use super::torch_zip::in_storages;
use super::{Parsed, read};
use crate::range::ByteRange;
use crate::source::Source;

/// The pickle of the magic number 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 15] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// How much of the file is read for its pickles: a little first, for most it is enough.
const HEADS_BYTES: [u64; 2] = [1 << 20, 64 << 20];

/// A legacy file.
pub(super) fn parse(source: &dyn Source) -> Parsed {
    if read(source, 0, MAGIC.len())?.is_none_or(|start| start != MAGIC) {
        return Ok(None);
    }
    let mut reason = pickle::CUT_SHORT;
    for head in HEADS_BYTES {
        let Ok(len) = usize::try_from(head.min(source.size())) else { break };
        let Some(bytes) = read(source, 0, len)? else { break };
        match heads(&bytes) {
            Ok((object, keys, end)) => {
                let found = object.tensors();
                let mut widths = HashMap::new();
                for view in &found {
                    widths.entry(view.storage).or_insert(view.element.width() as u64);
                }
                let mut places = HashMap::new();
                let mut position = end as u64;
                for key in keys.texts() {
                    // Elements, then their bytes: the width is that of the storage's element.
                    let (Some(count), Some(&width)) = (read(source, position, 8)?, widths.get(key)) else {
                        break;
                    };
                    let count = u64::from_le_bytes(std::array::from_fn(|i| count[i]));
                    let Some(len) = count.checked_mul(width) else { break };
                    let range = ByteRange { offset: position + 8, len };
                    let Some(next) = range.offset.checked_add(len).filter(|&end| end <= source.size()) else {
                        break;
                    };
                    places.insert(key, range);
                    position = next;
                }
                return Ok(Some(Ok(in_storages(found, |key| places.get(key).copied()))));
            }
            Err(error) => reason = error,
        }
    }
    Ok(Some(Err(reason.to_owned())))
}

/// The object, the keys of its storages in their order, and where these begin.
fn heads(bytes: &[u8]) -> Result<(Pickle<'_>, Pickle<'_>, usize), pickle::Refused> {
    let mut at = 0;
    let mut next = || -> Result<Pickle<'_>, pickle::Refused> {
        let pickle = pickle::read(bytes.get(at..).unwrap_or_default())?;
        at += pickle.len;
        Ok(pickle)
    };
    // Magic number, protocol version, what the system was.
    for _ in 0..3 {
        next()?;
    }
    let (object, keys) = (next()?, next()?);
    Ok((object, keys, at))
}
