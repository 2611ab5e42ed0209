//! A tree that is being changed: directories are opened as they are needed, and only those are written anew.

use std::collections::{BTreeMap, HashSet};

use super::NodeSource;
use super::entry::{Attributes, Content, Entry, Name};
use super::node::{Node, directory};
use crate::error::{Error, Result};
use crate::id::NodeId;

/// What is at a path, without what is below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A directory.
    Directory(Attributes),
    /// Anything else.
    Leaf(Entry),
}

/// What a name stands for in a draft.
#[derive(Clone, Debug)]
pub(super) enum Child {
    Directory(Attributes, Folder),
    Leaf(Entry),
}

impl Child {
    pub(super) fn seen(&self) -> Seen {
        match self {
            Child::Directory(attributes, _) => Seen::Directory(attributes.clone()),
            Child::Leaf(entry) => Seen::Leaf(entry.clone()),
        }
    }
}

/// A directory, as it is stored or as it will be.
#[derive(Clone, Debug)]
pub(super) enum Folder {
    Stored(NodeId),
    Open {
        children: BTreeMap<Name, Child>,
        /// Nodes that it was read from, which need not be stored again.
        stored: HashSet<NodeId>,
    },
}

impl Folder {
    fn empty() -> Self {
        Folder::Open { children: BTreeMap::new(), stored: HashSet::new() }
    }

    /// What is in it.
    pub(super) fn open(&mut self, source: &dyn NodeSource) -> Result<&mut BTreeMap<Name, Child>> {
        if let Folder::Stored(id) = self {
            let mut stored = HashSet::from([*id]);
            let entries = match source.node(id)? {
                Node::Entries(entries) => entries,
                Node::Pages(pages) => {
                    let mut all: Vec<(Name, Entry)> = Vec::new();
                    for (first, id) in pages {
                        stored.insert(id);
                        let Node::Entries(page) = source.node(&id)? else {
                            return Err(Error::corrupt(format!("node {id}"), "a page has pages"));
                        };
                        let fits = page.first().is_some_and(|(name, _)| *name == first)
                            && all.last().is_none_or(|(last, _)| *last < first);
                        if !fits {
                            return Err(Error::corrupt(
                                format!("node {id}"),
                                "it is not the page that it should be",
                            ));
                        }
                        all.extend(page);
                    }
                    all
                }
            };
            let child = |entry: Entry| match entry.content {
                Content::Directory(node) => Child::Directory(entry.attributes, Folder::Stored(node)),
                _ => Child::Leaf(entry),
            };
            let children = entries.into_iter().map(|(name, entry)| (name, child(entry))).collect();
            *self = Folder::Open { children, stored };
        }
        match self {
            Folder::Open { children, .. } => Ok(children),
            Folder::Stored(id) => Err(Error::corrupt(format!("node {id}"), "it cannot be opened")),
        }
    }

    /// Writes what is open; returns the node that stands for it.
    fn store(self, new: &mut Vec<(NodeId, Vec<u8>)>) -> NodeId {
        let (children, stored) = match self {
            Folder::Stored(id) => return id,
            Folder::Open { children, stored } => (children, stored),
        };
        let mut entries = Vec::with_capacity(children.len());
        for (name, child) in children {
            let entry = match child {
                Child::Leaf(entry) => entry,
                Child::Directory(attributes, folder) => {
                    Entry { content: Content::Directory(folder.store(new)), attributes }
                }
            };
            entries.push((name, entry));
        }
        let nodes = directory(entries);
        let id = nodes.last().map_or_else(|| NodeId::of(b""), |(id, _)| *id);
        new.extend(nodes.into_iter().filter(|(id, _)| !stored.contains(id)));
        id
    }
}

/// A tree that is being changed.
#[derive(Clone)]
pub struct Draft<'s> {
    pub(super) source: &'s dyn NodeSource,
    root: Folder,
}

impl<'s> Draft<'s> {
    /// The tree with this root; an empty one without.
    pub fn new(source: &'s dyn NodeSource, root: Option<NodeId>) -> Self {
        Self { source, root: root.map_or_else(Folder::empty, Folder::Stored) }
    }

    /// What is at a path; `None` if nothing is. The top is at the empty path.
    ///
    /// # Errors
    /// Those of the source.
    pub fn get(&mut self, path: &[Name]) -> Result<Option<Seen>> {
        let Some((name, above)) = path.split_last() else {
            return Ok(Some(Seen::Directory(Attributes::default())));
        };
        Ok(self.folder(above)?.and_then(|children| children.get(name).map(Child::seen)))
    }

    /// What is in the directory at a path, in the order of the names; `None` if no directory is there.
    ///
    /// # Errors
    /// Those of the source.
    pub fn list(&mut self, path: &[Name]) -> Result<Option<Vec<(Name, Seen)>>> {
        let children = self.folder(path)?;
        Ok(children
            .map(|children| children.iter().map(|(name, child)| (name.clone(), child.seen())).collect()))
    }

    /// Puts anything but a directory at a path, in the place of anything but a directory.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no directory above it, one in its place, or the entry is none; those of the source.
    pub fn put(&mut self, path: &[Name], entry: Entry) -> Result<()> {
        if entry.is_directory() || matches!(self.get(path)?, Some(Seen::Directory(_))) {
            return Err(impossible(path, "a directory is put or replaced as a file"));
        }
        self.place(path, Child::Leaf(entry.checked()?))
    }

    /// Makes an empty directory at a path, or gives the one that is there these attributes.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no directory above it, or something else in its place; those of the source.
    pub fn make_directory(&mut self, path: &[Name], attributes: Attributes) -> Result<()> {
        let attributes = attributes.checked()?;
        let (name, children) = self.parent(path)?;
        match children.get_mut(name) {
            Some(Child::Directory(there, _)) => *there = attributes,
            Some(Child::Leaf(_)) => return Err(impossible(path, "a file is in the place of a directory")),
            None => drop(children.insert(name.clone(), Child::Directory(attributes, Folder::empty()))),
        }
        Ok(())
    }

    /// Removes what is at a path.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is a directory that is not empty, or nothing is there; those of the source.
    pub fn remove(&mut self, path: &[Name]) -> Result<()> {
        if self.list(path)?.is_some_and(|children| !children.is_empty()) {
            return Err(impossible(path, "a directory that is not empty is removed"));
        }
        let taken = self.take(path)?;
        taken.map(drop).ok_or_else(|| impossible(path, "what is not there is removed"))
    }

    /// Moves what is at a path to another, in the place of a file or of an empty directory.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `rename(2)` fails; those of the source.
    pub fn rename(&mut self, from: &[Name], to: &[Name]) -> Result<()> {
        if from == to {
            return Ok(());
        }
        if to.starts_with(from) {
            return Err(impossible(to, "a directory is moved into itself"));
        }
        let moved = self.get(from)?.ok_or_else(|| impossible(from, "what is not there is moved"))?;
        let fits = match (&moved, self.get(to)?) {
            (_, None) | (Seen::Leaf(_), Some(Seen::Leaf(_))) => true,
            (Seen::Directory(_), Some(Seen::Directory(_))) => {
                self.list(to)?.is_some_and(|there| there.is_empty())
            }
            _ => false,
        };
        if !fits {
            return Err(impossible(to, "what is there cannot be replaced by what is moved"));
        }
        self.parent(to)?;
        let child = self.take(from)?.ok_or_else(|| impossible(from, "what is not there is moved"))?;
        self.place(to, child)
    }

    /// The root of the tree as it is now, and the nodes that are new in it.
    pub fn store(self) -> (NodeId, Vec<(NodeId, Vec<u8>)>) {
        let mut new = Vec::new();
        let root = self.root.store(&mut new);
        (root, new)
    }

    /// What is in a directory; `None` if there is none.
    fn folder(&mut self, path: &[Name]) -> Result<Option<&mut BTreeMap<Name, Child>>> {
        let mut children = self.root.open(self.source)?;
        for name in path {
            let Some(Child::Directory(_, folder)) = children.get_mut(name) else { return Ok(None) };
            children = folder.open(self.source)?;
        }
        Ok(Some(children))
    }

    fn parent<'p>(&mut self, path: &'p [Name]) -> Result<(&'p Name, &mut BTreeMap<Name, Child>)> {
        let (name, above) = path.split_last().ok_or_else(|| impossible(path, "the top is changed"))?;
        let children =
            self.folder(above)?.ok_or_else(|| impossible(path, "there is no directory above it"))?;
        Ok((name, children))
    }

    /// Takes out what is at a path, with all below it.
    pub(super) fn take(&mut self, path: &[Name]) -> Result<Option<Child>> {
        let Some((name, above)) = path.split_last() else { return Ok(None) };
        Ok(self.folder(above)?.and_then(|children| children.remove(name)))
    }

    /// Puts something at a path, whatever is there.
    pub(super) fn place(&mut self, path: &[Name], child: Child) -> Result<()> {
        let (name, children) = self.parent(path)?;
        children.insert(name.clone(), child);
        Ok(())
    }

    /// What is at a path, with all below it.
    pub(super) fn copy(&mut self, path: &[Name]) -> Result<Option<Child>> {
        let Some((name, above)) = path.split_last() else { return Ok(None) };
        Ok(self.folder(above)?.and_then(|children| children.get(name).cloned()))
    }
}

impl std::fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").field("root", &self.root).finish_non_exhaustive()
    }
}

fn impossible(path: &[Name], reason: &str) -> Error {
    Error::invalid(spelled(path), reason)
}

/// A path for people.
pub(super) fn spelled(path: &[Name]) -> String {
    let names: Vec<String> = path.iter().map(Name::to_string).collect();
    if names.is_empty() { "the top".to_owned() } else { names.join("/") }
}
