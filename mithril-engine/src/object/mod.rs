//! Objects: what an S3 bucket keeps. One narrow trait, [`ObjectStore`], so that what is built on it (packs and roots of
//! volumes, blobs of a content store, checkpoints behind `s3://`) runs alike on memory, on a directory and on S3, and is
//! tested with faults that no real server shows on request.
//!
//! The contract, which one conformance suite checks for every backend: a `put` is atomic and, once answered, seen by every
//! `get`, `head` and `list`; a conditional `put` of which the condition does not hold changes nothing; keys are listed in
//! the order of their bytes. A `put` that failed with [`ObjectError::is_uncertain`] may have been applied: read back.

pub mod directory;
mod error;
pub mod faults;
mod key;
pub mod memory;
pub mod probe;
#[cfg(feature = "s3")]
pub mod s3;
pub mod throttle;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

pub use error::ObjectError;
pub use key::ObjectKey;

use crate::range::ByteRange;

/// An answer that is on its way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, ObjectError>> + Send + 'a>>;

/// Which of the contents that a key has had in the course of time: an S3 `ETag`, or what stands for it. Opaque: it is
/// compared, and given back as it came.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Version(String);

impl Version {
    /// The version that a server named.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// As the server named it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a `put` may take place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Condition {
    /// Whatever is there.
    #[default]
    Always,
    /// Only if the key does not exist: `If-None-Match: *`.
    Absent,
    /// Only if the key has this version: `If-Match`. Where versions are hashes of the content, as on S3, the same bytes have
    /// the same version again: what is replaced so must differ each time, by a number that grows or a random one.
    Matches(Version),
}

impl Condition {
    /// Whether it holds for what is there; `None`: nothing is.
    pub fn holds(&self, there: Option<&Version>) -> bool {
        match self {
            Condition::Always => true,
            Condition::Absent => there.is_none(),
            Condition::Matches(version) => there == Some(version),
        }
    }
}

/// What is known of an object without its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectMeta {
    /// Its key.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub len: u64,
    /// Which content it has.
    pub version: Version,
}

/// Bytes of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// Those asked for; fewer only where the object ends before.
    pub bytes: Bytes,
    /// The object's length.
    pub len: u64,
    /// Which content they are of.
    pub version: Version,
}

/// A part of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// In the order of the keys' bytes.
    pub objects: Vec<ObjectMeta>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// Where objects are kept. Every call ends within the backend's deadline.
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// The bytes of an object, or those of a range of it.
    ///
    /// # Errors
    /// [`ObjectError::NotFound`]; [`ObjectError::OutOfRange`] if the range begins at the object's end or behind it; those
    /// of the way there.
    fn get<'a>(&'a self, key: &'a ObjectKey, range: Option<ByteRange>) -> Pending<'a, Fetched>;

    /// Gives a key this content, as a whole or not at all, if `condition` holds.
    ///
    /// # Errors
    /// [`ObjectError::Lost`] if it does not; those of the way there.
    fn put<'a>(&'a self, key: &'a ObjectKey, body: Bytes, condition: &'a Condition) -> Pending<'a, Version>;

    /// Begins an object that is longer than one request, or of unknown length. It is there once it is finished.
    ///
    /// # Errors
    /// Those of the way there.
    fn upload<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, Box<dyn Upload + 'a>>;

    /// The first objects of which the key begins with `prefix` and comes behind `after`. As many as the backend gives at
    /// once; call again with the last key while there are [`Page::more`].
    ///
    /// # Errors
    /// Those of the way there.
    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a ObjectKey>) -> Pending<'a, Page>;

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// Those of the way there.
    fn delete<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ()>;

    /// What is known of an object.
    ///
    /// # Errors
    /// [`ObjectError::NotFound`]; those of the way there.
    fn head<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ObjectMeta>;
}

/// An object that is being put in parts.
pub trait Upload: Send {
    /// Adds the next part. All but the last have at least [`PART_MIN_BYTES`].
    ///
    /// # Errors
    /// Those of the way there. The upload can only be aborted then.
    fn part(&mut self, bytes: Bytes) -> Pending<'_, ()>;

    /// Makes the object be there, if `condition` holds.
    ///
    /// # Errors
    /// As [`ObjectStore::put`].
    fn finish<'a>(self: Box<Self>, condition: &'a Condition) -> Pending<'a, Version>
    where
        Self: 'a;

    /// Gives up, and frees what was uploaded.
    ///
    /// # Errors
    /// Those of the way there. What is left then costs space until the server's own rules remove it.
    fn abort<'a>(self: Box<Self>) -> Pending<'a, ()>
    where
        Self: 'a;
}

/// The least that a part of an upload has, but for the last one: what S3 asks for.
pub const PART_MIN_BYTES: usize = 5 << 20;

/// All objects below a prefix, page by page.
///
/// # Errors
/// Those of [`ObjectStore::list`].
pub async fn list_all(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
    let mut objects: Vec<ObjectMeta> = Vec::new();
    loop {
        let after = objects.last().map(|last| last.key.clone());
        let page = store.list(prefix, after.as_ref()).await?;
        let more = page.more && !page.objects.is_empty();
        objects.extend(page.objects);
        if !more {
            return Ok(objects);
        }
    }
}
