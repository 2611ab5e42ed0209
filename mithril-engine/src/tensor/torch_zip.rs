//! `torch.save`: a zip of `*/data.pkl` and one stored member a storage. Also several of them one after the other, as
//! DCP writes `.distcp` files.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use super::pickle::{self, Found};
use super::zip::{self, Archive, Member};
use super::{Element, Parsed, Tensor, bytes_of, read};
use crate::range::ByteRange;
use crate::source::Source;

/// Bytes of pickles that are read of a file. They hold names and shapes; what is longer is data of another kind.
const PICKLES_MAX_BYTES: u64 = 64 << 20;

/// Archives in one file.
const MAX_ARCHIVES: usize = 1 << 16;

/// A `torch.save` file, or several in one.
pub(super) fn parse(source: &dyn Source) -> Parsed {
    if !zip::begins(source)? {
        return Ok(None);
    }
    let mut archives = Vec::new();
    let mut end = source.size();
    let mut budget = zip::Budget::new();
    // From the last archive, which the file ends with, to the one before it.
    while end > 0 && archives.len() < MAX_ARCHIVES {
        match zip::archive(source, end, &mut budget)? {
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
    let mut pickles = PICKLES_MAX_BYTES;
    for (index, archive) in archives.iter().enumerate() {
        match storages(source, archive, &mut pickles)? {
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

/// The storages of one archive, named by the tensors that see them; `None` if it is no `torch.save`. `left` is how many
/// bytes of pickles may still be read.
fn storages(
    source: &dyn Source,
    archive: &Archive,
    left: &mut u64,
) -> io::Result<Option<Result<Vec<Tensor>, String>>> {
    let mut members = archive.members.iter();
    let Some(data) = members.find(|member| archive.name(member).ends_with(b"/data.pkl")) else {
        return Ok(None);
    };
    let prefix = archive.name(data).strip_suffix(b"data.pkl").unwrap_or_default();
    *left = match left.checked_sub(data.len) {
        Some(left) => left,
        None => return Ok(Some(Err("its pickles are too long".to_owned()))),
    };
    let (Some(place), Ok(len)) = (archive.data(source, data)?, usize::try_from(data.len)) else {
        return Ok(None);
    };
    let Some(bytes) = read(source, place.offset, len)? else { return Ok(None) };
    let pickle = match pickle::read(&bytes) {
        Ok(pickle) => pickle,
        Err(reason) => return Ok(Some(Err(reason.to_owned()))),
    };
    let key = |member| archive.name(member).strip_prefix(prefix)?.strip_prefix(b"data/");
    let members: HashMap<&[u8], &Member> =
        archive.members.iter().filter_map(|member| Some((key(member)?, member))).collect();
    let found = pickle.tensors();
    // Where a member's bytes are stands in its own header: only those of the tensors are read.
    let mut places = HashMap::new();
    for view in &found {
        if let Entry::Vacant(place) = places.entry(view.storage)
            && let Some(member) = members.get(view.storage.as_bytes())
        {
            place.insert(archive.data(source, member)?);
        }
    }
    Ok(Some(Ok(in_storages(found, |key| places.get(key).copied().flatten()))))
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
