//! `torch.save`: a zip of `*/data.pkl` and one stored member a storage. Also several of them one after the other, as
//! DCP writes `.distcp` files.

use std::collections::HashMap;
use std::io;

use super::pickle::{self, Found};
use super::zip::{self, Archive};
use super::{Element, Parsed, Tensor, bytes_of, read};
use crate::range::ByteRange;
use crate::source::Source;

/// Longest pickle that is read. It holds names and shapes; what is longer is data of another kind.
const PICKLE_MAX_BYTES: u64 = 64 << 20;

/// Archives in one file.
const MAX_ARCHIVES: usize = 1 << 16;

/// A `torch.save` file, or several in one.
pub(super) fn parse(source: &dyn Source) -> Parsed {
    if !zip::begins(source)? {
        return Ok(None);
    }
    let mut archives = Vec::new();
    let mut end = source.size();
    // From the last archive, which the file ends with, to the one before it.
    while end > 0 && archives.len() < MAX_ARCHIVES {
        match zip::archive(source, end)? {
            Ok(archive) => {
                end = archive.start;
                archives.push(archive);
            }
            Err(reason) => return Ok(Some(Err(reason))),
        }
    }
    archives.reverse();
    let several = archives.len() > 1;
    let mut tensors = Vec::new();
    for (index, archive) in archives.iter().enumerate() {
        match storages(source, archive)? {
            None if several => {}
            None => return Ok(None),
            Some(Err(reason)) => return Ok(Some(Err(reason))),
            Some(Ok(found)) => tensors.extend(found.into_iter().map(|tensor| Tensor {
                name: if several { format!("{index}.{}", tensor.name) } else { tensor.name },
                ..tensor
            })),
        }
    }
    Ok((!tensors.is_empty() || !several).then_some(Ok(tensors)))
}

/// The storages of one archive, named by the tensors that see them; `None` if it is no `torch.save`.
fn storages(source: &dyn Source, archive: &Archive) -> io::Result<Option<Result<Vec<Tensor>, String>>> {
    let Some(data) = archive.members.iter().find(|member| member.name.ends_with("/data.pkl")) else {
        return Ok(None);
    };
    let prefix = data.name.trim_end_matches("data.pkl");
    if data.len > PICKLE_MAX_BYTES {
        return Ok(Some(Err("its pickle is too long".to_owned())));
    }
    let Ok(len) = usize::try_from(data.len) else { return Ok(None) };
    let Some(bytes) = read(source, data.offset, len)? else { return Ok(None) };
    let pickle = match pickle::read(&bytes) {
        Ok(pickle) => pickle,
        Err(reason) => return Ok(Some(Err(reason.to_owned()))),
    };
    let places: HashMap<&str, ByteRange> = archive
        .members
        .iter()
        .filter_map(|member| {
            let key = member.name.strip_prefix(prefix)?.strip_prefix("data/")?;
            Some((key, ByteRange { offset: member.offset, len: member.len }))
        })
        .collect();
    Ok(Some(Ok(in_storages(pickle.tensors(), |key| places.get(key).copied()))))
}

/// One tensor a storage: named by the first that sees all of it, or else by the first that sees any.
pub(super) fn in_storages(found: Vec<Found<'_>>, place: impl Fn(&str) -> Option<ByteRange>) -> Vec<Tensor> {
    let mut tensors: HashMap<&str, (bool, Tensor)> = HashMap::new();
    for view in found {
        let Some(range) = place(view.storage) else { continue };
        let width = view.element.width() as u64;
        let whole = view.first == 0 && bytes_of(&view.shape, width) == Some(range.len);
        let known = tensors.get(view.storage).map(|(whole, _)| *whole);
        if known == Some(true) || (known == Some(false) && !whole) {
            continue;
        }
        let shape = if whole { view.shape } else { vec![range.len / width] };
        let element = if range.len.is_multiple_of(width) { view.element } else { Element::Bytes };
        let tensor = Tensor { name: view.name, element, shape, range };
        tensors.insert(view.storage, (whole, tensor));
    }
    tensors.into_values().map(|(_, tensor)| tensor).collect()
}
