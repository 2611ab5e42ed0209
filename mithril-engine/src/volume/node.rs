//! The nodes of a tree, and how they are written. `docs/FORMAT.md` specifies them.

use super::entry::{ENTRY_LEAST_BYTES, Entry, Name, put_bytes, take_bytes};
use crate::error::{Error, Result};
use crate::format::bytes::{Reader, put_varint};
use crate::id::NodeId;

const VERSION: u8 = 1;
const ENTRIES: u8 = 0;
const PAGES: u8 = 1;

/// Bytes that a name takes at least, with its length.
const NAME_LEAST_BYTES: usize = 2;
const NAME_MAX_BYTES: usize = 255;

/// Names at which a page ends, on average: one in so many. A power of two.
const PAGE_ENTRIES: u16 = 256;
/// Entries at which a page ends whatever its names are.
const PAGE_MAX_ENTRIES: usize = 4096;

/// A directory, or a page of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// Entries, in the order of their names.
    Entries(Vec<(Name, Entry)>),
    /// The pages of a large directory, each with its first name, in their order. Pages hold entries.
    Pages(Vec<(Name, NodeId)>),
}

impl Node {
    /// Reads a node that is named `id`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes have another name or are no node, [`Error::Unsupported`] for a later version.
    pub fn decode(id: &NodeId, bytes: &[u8]) -> Result<Self> {
        let what = format!("node {id}");
        if NodeId::of(bytes) != *id {
            return Err(Error::corrupt(what, "its bytes have another name"));
        }
        let mut reader = Reader::new(bytes, &what);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Error::Unsupported { what, detail: format!("node version {version}") });
        }
        let node = match reader.u8()? {
            ENTRIES => {
                let count = reader.count(NAME_LEAST_BYTES + ENTRY_LEAST_BYTES)?;
                Node::Entries(named(&mut reader, count, Entry::decode)?)
            }
            PAGES => {
                let count = reader.count(NAME_LEAST_BYTES + NodeId::LEN)?;
                if count < 2 {
                    return Err(reader.corrupt("a directory of pages has two or more"));
                }
                Node::Pages(named(&mut reader, count, |reader| Ok(NodeId::from_bytes(reader.array()?)))?)
            }
            _ => return Err(reader.corrupt("it is of no kind that is known")),
        };
        reader.end()?;
        Ok(node)
    }

    /// The node as it is stored, and its name.
    pub fn encode(&self) -> (NodeId, Vec<u8>) {
        let mut out = vec![VERSION];
        match self {
            Node::Entries(entries) => {
                out.push(ENTRIES);
                put_varint(&mut out, entries.len() as u64);
                for (name, entry) in entries {
                    put_bytes(&mut out, name.as_bytes());
                    entry.encode(&mut out);
                }
            }
            Node::Pages(pages) => {
                out.push(PAGES);
                put_varint(&mut out, pages.len() as u64);
                for (name, page) in pages {
                    put_bytes(&mut out, name.as_bytes());
                    out.extend(page.as_bytes());
                }
            }
        }
        (NodeId::of(&out), out)
    }
}

/// Things with names, in the order of these.
fn named<T>(
    reader: &mut Reader<'_>,
    count: usize,
    mut decode: impl FnMut(&mut Reader<'_>) -> Result<T>,
) -> Result<Vec<(Name, T)>> {
    let mut things: Vec<(Name, T)> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = take_bytes(reader, NAME_MAX_BYTES)?;
        let name = Name::new(&name).map_err(|_| reader.corrupt("a name is none"))?;
        if things.last().is_some_and(|(last, _)| *last >= name) {
            return Err(reader.corrupt("names are out of order"));
        }
        things.push((name, decode(reader)?));
    }
    Ok(things)
}

/// Whether a page ends behind this name: so the same names are always in the same pages.
fn ends_page(name: &Name) -> bool {
    let hash = blake3::hash(name.as_bytes());
    let [low, high, ..] = hash.as_bytes();
    u16::from_le_bytes([*low, *high]).is_multiple_of(PAGE_ENTRIES)
}

/// The nodes of a directory, the one that stands for it last.
pub(super) fn directory(entries: Vec<(Name, Entry)>) -> Vec<(NodeId, Vec<u8>)> {
    if entries.len() <= usize::from(PAGE_ENTRIES) {
        return vec![Node::Entries(entries).encode()];
    }
    let mut pages: Vec<Vec<(Name, Entry)>> = vec![Vec::new()];
    for (name, entry) in entries {
        let ends = ends_page(&name);
        if let Some(page) = pages.last_mut() {
            page.push((name, entry));
            if ends || page.len() == PAGE_MAX_ENTRIES {
                pages.push(Vec::new());
            }
        }
    }
    pages.retain(|page| !page.is_empty());
    let mut nodes = Vec::new();
    let mut firsts = Vec::new();
    for page in pages {
        let first = page[0].0.clone();
        let node = Node::Entries(page).encode();
        firsts.push((first, node.0));
        nodes.push(node);
    }
    if firsts.len() > 1 {
        nodes.push(Node::Pages(firsts).encode());
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::entry::{Attributes, Content};

    fn file(number: u64) -> Entry {
        let attributes = Attributes {
            mtime_ns: -1,
            extended: vec![(b"user.a".into(), b"1".into())],
            ..Attributes::default()
        };
        Entry { content: Content::Symlink(number.to_le_bytes().to_vec()), attributes }
    }

    fn entries(count: u64) -> Vec<(Name, Entry)> {
        (0..count)
            .map(|number| (Name::new(format!("{number:06}").as_bytes()).unwrap(), file(number)))
            .collect()
    }

    #[test]
    fn one_change_of_a_large_directory_touches_one_page() {
        let before = directory(entries(10_000));
        assert!((20..80).contains(&before.len()), "{}", before.len());
        let mut changed = entries(10_000);
        changed.remove(5000);
        let after = directory(changed);
        let new = after.iter().filter(|node| !before.contains(node)).count();
        assert!(new <= 3, "{new}");
    }

    #[test]
    fn nodes_are_read_as_they_were_written_and_nothing_else_is() {
        for node in [Node::Entries(Vec::new()), Node::Entries(entries(3))] {
            let (id, bytes) = node.encode();
            assert_eq!(Node::decode(&id, &bytes).unwrap(), node);
            assert!(matches!(Node::decode(&NodeId::of(b""), &bytes), Err(Error::Corrupt { .. })));
            // Under the right name too: no bytes but those that a node is written as are one.
            for at in 0..bytes.len() {
                for cut in [&bytes[..at], &[&bytes[..], &[0]].concat()] {
                    assert!(Node::decode(&NodeId::of(cut), cut).is_err());
                }
                for bit in 0..8 {
                    let mut other = bytes.clone();
                    other[at] ^= 1 << bit;
                    let id = NodeId::of(&other);
                    if let Ok(node) = Node::decode(&id, &other) {
                        assert_eq!(node.encode().1, other, "{at}");
                    }
                }
            }
        }
    }
}
