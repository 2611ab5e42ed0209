//! Bringing changes to a tree that somebody else changed meanwhile, path by path.
//!
//! Who comes last wins a path that both changed; what is lost by that is in the tree of before, and is named. What others
//! changed is not removed by who did not know of it. A directory that is moved takes along what others did in it.

use super::NodeSource;
use super::draft::{Child, Draft, Seen, spelled};
use super::entry::{Attributes, Entry, Name};
use crate::error::Result;
use crate::id::NodeId;

/// A path in a volume, name by name.
pub type Path = Vec<Name>;

/// A change that somebody made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Anything but a directory was put at a path.
    Put {
        /// Where.
        path: Path,
        /// What.
        entry: Entry,
    },
    /// A directory was made, or got other attributes.
    MakeDirectory {
        /// Where.
        path: Path,
        /// What it has.
        attributes: Attributes,
    },
    /// Something was removed: a directory only when it was empty.
    Remove {
        /// What.
        path: Path,
    },
    /// Something was moved, in the place of a file or of an empty directory.
    Rename {
        /// What.
        from: Path,
        /// To where.
        to: Path,
    },
}

/// What became of a path that others had changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Theirs was replaced: it is in the tree of before.
    Replaced(Seen),
    /// Theirs was kept, although it was removed here.
    Kept,
    /// They removed what was moved here: it is there as it was known here.
    Restored,
    /// They changed what was moved here: their change was moved. This is what was known here.
    Followed(Entry),
}

/// A path that both changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// Which.
    pub path: Path,
    /// What became of it.
    pub outcome: Outcome,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = match self.outcome {
            Outcome::Replaced(_) => "was changed elsewhere too; that is in the snapshot of before",
            Outcome::Kept => "was removed here and changed elsewhere; it was kept",
            Outcome::Restored => "was removed elsewhere and moved here; it was kept",
            Outcome::Followed(_) => {
                "was moved here and changed elsewhere; what it was before is in an earlier snapshot"
            }
        };
        write!(f, "{} {said}", spelled(&self.path))
    }
}

impl Operation {
    /// Makes the change to a tree that nobody else changed.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if it does not fit the tree; those of the source.
    pub fn apply(&self, draft: &mut Draft<'_>) -> Result<()> {
        match self {
            Operation::Put { path, entry } => draft.put(path, entry.clone()),
            Operation::MakeDirectory { path, attributes } => draft.make_directory(path, attributes.clone()),
            Operation::Remove { path } => draft.remove(path),
            Operation::Rename { from, to } => draft.rename(from, to),
        }
    }
}

/// Makes changes that were made to the tree `base` to the tree `theirs` that others made of it.
///
/// # Errors
/// [`crate::Error::Invalid`] if the changes do not fit `base`; those of the source.
pub fn rebase<'s>(
    source: &'s dyn NodeSource,
    base: Option<NodeId>,
    theirs: Option<NodeId>,
    operations: &[Operation],
) -> Result<(Draft<'s>, Vec<Conflict>)> {
    let mut rebase =
        Rebase { mine: Draft::new(source, base), result: Draft::new(source, theirs), conflicts: Vec::new() };
    if base == theirs {
        operations.iter().try_for_each(|operation| operation.apply(&mut rebase.mine))?;
        return Ok((rebase.mine, Vec::new()));
    }
    for operation in operations {
        rebase.bring(operation)?;
        operation.apply(&mut rebase.mine)?;
    }
    Ok((rebase.result, rebase.conflicts))
}

struct Rebase<'s> {
    /// The base with the changes made so far: what was known when the next one was made.
    mine: Draft<'s>,
    /// Theirs with the changes brought so far.
    result: Draft<'s>,
    conflicts: Vec<Conflict>,
}

/// Whether two things are the same as far as a file's or directory's owner cares: a directory is what it is called.
fn is_same(one: Option<&Seen>, other: Option<&Seen>) -> bool {
    match (one, other) {
        (Some(Seen::Directory(_)), Some(Seen::Directory(_))) => true,
        _ => one == other,
    }
}

impl Rebase<'_> {
    fn bring(&mut self, operation: &Operation) -> Result<()> {
        match operation {
            Operation::Put { path, entry } => {
                self.make_room(path)?;
                self.put_over(path, Child::Leaf(entry.clone().checked()?))
            }
            Operation::MakeDirectory { path, attributes } => {
                self.make_room(path)?;
                if matches!(self.result.get(path)?, Some(Seen::Leaf(_))) {
                    self.note_replaced(path, None)?;
                    self.result.take(path)?;
                }
                self.result.make_directory(path, attributes.clone())
            }
            Operation::Remove { path } => self.remove(path),
            Operation::Rename { from, to } => self.rename(from, to),
        }
    }

    /// Notes what others put at a path that is about to be replaced, and below it, if it is not known here.
    fn note_replaced(&mut self, path: &[Name], new: Option<&Seen>) -> Result<()> {
        let mut paths = vec![path.to_vec()];
        while let Some(path) = paths.pop() {
            let Some(lost) = self.result.get(&path)? else { continue };
            if let Some(children) = self.result.list(&path)? {
                let below = |(name, _): (Name, Seen)| path.iter().cloned().chain([name]).collect();
                paths.extend(children.into_iter().map(below));
            }
            if !is_same(Some(&lost), self.mine.get(&path)?.as_ref()) && Some(&lost) != new {
                self.conflicts.push(Conflict { path, outcome: Outcome::Replaced(lost) });
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &[Name]) -> Result<()> {
        let Some(there) = self.result.get(path)? else { return Ok(()) };
        let known = self.mine.get(path)?;
        let is_empty = self.result.list(path)?.is_none_or(|children| children.is_empty());
        if is_empty && is_same(Some(&there), known.as_ref()) {
            self.result.take(path)?;
        } else {
            self.conflicts.push(Conflict { path: path.to_vec(), outcome: Outcome::Kept });
        }
        Ok(())
    }

    fn rename(&mut self, from: &[Name], to: &[Name]) -> Result<()> {
        if from == to {
            return Ok(());
        }
        let known = self.mine.copy(from)?;
        let there = self.result.copy(from)?;
        let moved = match (known, there) {
            (Some(Child::Directory(..)), Some(theirs @ Child::Directory(..))) => {
                self.result.take(from)?;
                theirs
            }
            (Some(Child::Leaf(known)), Some(Child::Leaf(theirs))) => {
                self.result.take(from)?;
                if known != theirs {
                    self.conflicts.push(Conflict { path: to.to_vec(), outcome: Outcome::Followed(known) });
                }
                Child::Leaf(theirs)
            }
            (Some(known), _) => {
                self.conflicts.push(Conflict { path: to.to_vec(), outcome: Outcome::Restored });
                known
            }
            // It does not fit what is known here: making the change there says so.
            (None, _) => return Ok(()),
        };
        self.make_room(to)?;
        self.put_over(to, moved)
    }

    /// Puts something at a path. Where both have a directory, everything of both is in it then.
    fn put_over(&mut self, path: &[Name], new: Child) -> Result<()> {
        let there = self.result.get(path)?;
        match (new, there) {
            (Child::Directory(attributes, mut folder), Some(Seen::Directory(_))) => {
                self.result.make_directory(path, attributes)?;
                for (name, child) in std::mem::take(folder.open(self.result.source)?) {
                    let below: Path = path.iter().cloned().chain([name]).collect();
                    self.put_over(&below, child)?;
                }
                Ok(())
            }
            (new, _) => {
                let seen = new.seen();
                self.note_replaced(path, Some(&seen))?;
                self.result.place(path, new)
            }
        }
    }

    /// Makes the directories above a path that others removed, and replaces files that they put there.
    fn make_room(&mut self, path: &[Name]) -> Result<()> {
        for end in 1..path.len() {
            let above = &path[..end];
            let attributes = match self.mine.get(above)? {
                Some(Seen::Directory(attributes)) => attributes,
                _ => Attributes { permissions: 0o755, ..Attributes::default() },
            };
            match self.result.get(above)? {
                Some(Seen::Directory(_)) => {}
                Some(Seen::Leaf(_)) => {
                    self.note_replaced(above, None)?;
                    self.result.take(above)?;
                    self.result.make_directory(above, attributes)?;
                }
                None => self.result.make_directory(above, attributes)?,
            }
        }
        Ok(())
    }
}
