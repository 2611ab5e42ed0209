//! The root of a volume: the one object that changes, and how it is changed by one at a time.
//!
//! A root names a tree. It is replaced by a conditional `put` only, so that of two who replace the same one, one wins and
//! the other learns it. Everything that a root names is stored before it. Where no answer comes, the root is read back: a
//! commit that is in its history took place, whoever came after it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::NodeId;
use crate::object::{Condition, ObjectError, ObjectKey, ObjectStore, Version};
use crate::range::ByteRange;

/// The key of the root below a volume's prefix.
pub const ROOT_KEY: &str = "root";

/// The layout's version.
const FORMAT: u32 = 1;

/// Commits before this one that a root remembers: more than are made while anybody waits for an answer.
const HISTORY: usize = 256;

/// Longest root that is read.
const ROOT_MAX_BYTES: usize = 1 << 20;

/// How often somebody asks again whether a commit took place.
const LOOKS: u32 = 8;

/// The random name of a commit.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct CommitId(String);

impl CommitId {
    /// A new one.
    ///
    /// # Errors
    /// That the system gives no random bytes.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::io("name a commit of", ROOT_KEY, error))?;
        Ok(Self(bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))))
    }
}

impl std::fmt::Display for CommitId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A state of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    /// How many commits there were before.
    pub sequence: u64,
    /// How often garbage was collected: whoever pinned something in an earlier epoch has to look again.
    pub epoch: u64,
    /// What made it this.
    pub commit: CommitId,
    /// The commits before it, the latest first, as far as they are remembered.
    pub history: Vec<CommitId>,
    /// The tree.
    pub tree: NodeId,
}

/// As it is stored: a line of JSON, and a line with the BLAKE3 of the first.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    sequence: u64,
    epoch: u64,
    commit: CommitId,
    history: Vec<CommitId>,
    tree: String,
}

/// The least that is read of a root of a later version.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Root {
    /// The first root of a volume.
    ///
    /// # Errors
    /// That the system gives no random bytes.
    pub fn first(tree: NodeId) -> Result<Self> {
        Ok(Self { sequence: 0, epoch: 0, commit: CommitId::random()?, history: Vec::new(), tree })
    }

    /// The root that follows this one with another tree.
    ///
    /// # Errors
    /// That the system gives no random bytes.
    pub fn next(&self, tree: NodeId) -> Result<Self> {
        let history = std::iter::once(&self.commit).chain(&self.history).take(HISTORY).cloned().collect();
        Ok(Self {
            sequence: self.sequence.saturating_add(1),
            epoch: self.epoch,
            commit: CommitId::random()?,
            history,
            tree,
        })
    }

    /// Whether a commit took place before this one, or is this one.
    pub fn includes(&self, commit: &CommitId) -> bool {
        self.commit == *commit || self.history.contains(commit)
    }

    /// As it is stored.
    ///
    /// # Errors
    /// None that can be helped.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let stored = Stored {
            format: FORMAT,
            sequence: self.sequence,
            epoch: self.epoch,
            commit: self.commit.clone(),
            history: self.history.clone(),
            tree: self.tree.to_string(),
        };
        let mut bytes =
            serde_json::to_vec(&stored).map_err(|error| Error::invalid(ROOT_KEY, error.to_string()))?;
        let digest = blake3::hash(&bytes).to_hex();
        bytes.extend(format!("\n{digest}\n").into_bytes());
        Ok(bytes)
    }

    /// Reads a root.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Unsupported`] for a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let corrupt = |reason: &str| Error::corrupt("the root of the volume", reason);
        if bytes.len() > ROOT_MAX_BYTES {
            return Err(corrupt("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| corrupt("it is no text"))?;
        let (line, digest) = text
            .strip_suffix('\n')
            .and_then(|text| text.split_once('\n'))
            .ok_or_else(|| corrupt("it has no two lines"))?;
        if blake3::hash(line.as_bytes()).to_hex().as_str() != digest {
            return Err(corrupt("its digest is another one"));
        }
        let format: Format = serde_json::from_str(line).map_err(|error| corrupt(&error.to_string()))?;
        if format.format != FORMAT {
            let detail = format!("root format {}", format.format);
            return Err(Error::Unsupported { what: "the root of the volume".to_owned(), detail });
        }
        let stored: Stored = serde_json::from_str(line).map_err(|error| corrupt(&error.to_string()))?;
        let tree = blake3::Hash::from_hex(&stored.tree).map_err(|_| corrupt("its tree has no name"))?;
        Ok(Self {
            sequence: stored.sequence,
            epoch: stored.epoch,
            commit: stored.commit,
            history: stored.history,
            tree: NodeId::from_bytes(*tree.as_bytes()),
        })
    }
}

/// A root as it is in the object store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// The root.
    pub root: Root,
    /// What a `put` that replaces it has to name.
    pub version: Version,
}

/// What became of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Swap {
    /// It took place. The root may be a later one by now.
    Won(Published),
    /// Somebody else was first. `None`: there is no root any more.
    Lost(Option<Published>),
}

/// What can go wrong with a root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// What is stored.
    #[error(transparent)]
    Root(#[from] Error),
    /// The way to it.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// So many commits took place since that it is not remembered whether this one did.
    #[error("commit {0} was tried too long ago to know whether it took place; look for it in the snapshots")]
    Forgotten(CommitId),
}

/// The root of a volume as it is now; `None` if it has none yet.
///
/// # Errors
/// Those of the object store, and of what is there.
pub async fn read(remote: &dyn ObjectStore) -> Result<Option<Published>, RootError> {
    // No more than it may have, whatever is there.
    let range = ByteRange { offset: 0, len: ROOT_MAX_BYTES as u64 + 1 };
    match remote.get(&ObjectKey::new(ROOT_KEY)?, Some(range)).await {
        Err(ObjectError::NotFound { .. }) => Ok(None),
        fetched => {
            let fetched = fetched?;
            Ok(Some(Published { root: Root::decode(&fetched.bytes)?, version: fetched.version }))
        }
    }
}

/// Replaces the root `base`, or makes the first one. Ends with an answer, or with an error while it is not known: then
/// `new` is to be tried again, with the same commit, or looked for in a later root.
///
/// # Errors
/// Those of the object store, and of what is there.
pub async fn replace(
    remote: &dyn ObjectStore,
    base: Option<&Published>,
    new: &Root,
) -> Result<Swap, RootError> {
    let key = ObjectKey::new(ROOT_KEY)?;
    let condition = base.map_or(Condition::Absent, |base| Condition::Matches(base.version.clone()));
    let body = Bytes::from(new.encode()?);
    let mut last = None;
    for _ in 0..LOOKS {
        match remote.put(&key, body.clone(), &condition).await {
            Ok(version) => return Ok(Swap::Won(Published { root: new.clone(), version })),
            // The one who was first may be ourselves, in a request of which the answer was lost.
            Err(ObjectError::Lost { .. }) => {}
            Err(error) if error.is_transient() => last = Some(error),
            Err(error) => return Err(error.into()),
        }
        match read(remote).await {
            Ok(Some(there)) if there.root.includes(&new.commit) => return Ok(Swap::Won(there)),
            Ok(Some(there)) if there.root.sequence > new.sequence.saturating_add(HISTORY as u64) => {
                return Err(RootError::Forgotten(new.commit.clone()));
            }
            Ok(there) if there.as_ref().map(|there| &there.version) != base.map(|base| &base.version) => {
                return Ok(Swap::Lost(there));
            }
            // It is as it was: once more.
            Ok(_) => {}
            Err(RootError::Object(error)) if error.is_transient() => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    let gone = || ObjectError::Conflict { key: ROOT_KEY.to_owned() };
    Err(last.unwrap_or_else(gone).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_read_as_it_was_written_and_nothing_else_is() {
        let mut root = Root::first(NodeId::of(b"tree")).unwrap();
        for step in 0..300_u32 {
            root = root.next(NodeId::of(&step.to_le_bytes())).unwrap();
        }
        assert_eq!((root.sequence, root.history.len()), (300, HISTORY));
        assert!(root.includes(&root.history[255]) && !root.includes(&CommitId::random().unwrap()));
        let bytes = root.encode().unwrap();
        assert_eq!(Root::decode(&bytes).unwrap(), root);
        for at in (0..bytes.len()).step_by(13) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(matches!(Root::decode(&flipped), Err(Error::Corrupt { .. })), "{at}");
            assert!(Root::decode(&bytes[..at]).is_err());
        }
        let later = br#"{"format":2,"more":true}"#;
        let later = [&later[..], b"\n", blake3::hash(later).to_hex().as_bytes(), b"\n"].concat();
        assert!(matches!(Root::decode(&later), Err(Error::Unsupported { .. })));
    }
}
