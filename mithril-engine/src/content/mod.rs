//! A content store: blobs by the BLAKE3 of their bytes, on a local disk up to a budget, and behind it, if wanted, in an
//! object store that many machines share.
//!
//! ```
//! # use mithril_engine::content::{blocking, ContentError};
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path();
//! let store = blocking::ContentStore::new(path)?;
//! let address = store.put(b"some bytes")?;
//! assert_eq!(store.get(&address)?, b"some bytes");
//! # Ok::<(), ContentError>(())
//! ```
//!
//! Blobs are appended to segments (`docs/FORMAT.md`), by several processes at a time. What is read is what was stored: its
//! address is computed again. A blob that was stored is there for others at once; [`ContentStore::sync`] makes it outlive a
//! power cut. The budget is kept by giving up what was used longest ago, by whatever process.

pub mod blocking;
mod eviction;
mod index;
mod local;
mod segment;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub use crate::id::Address;
#[cfg(feature = "s3")]
use crate::object::s3::{S3Config, S3Store};
use crate::object::{Condition, ObjectError, ObjectKey, ObjectStore, list_all};
pub use local::ContentStats;
use local::LocalStore;

/// Where blobs are below the prefix of an object store: this, the first two digits of the address, and the address.
const PREFIX: &str = "blobs/";

/// Bytes of a part, where a blob is put in parts.
const PART_BYTES: usize = 16 << 20;

/// What can go wrong with a content store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// There is no such blob, as far as this store reaches.
    #[error("there is no blob {0}")]
    NotFound(Address),
    /// The local disk, or what is on it.
    #[error(transparent)]
    Local(#[from] crate::Error),
    /// The object store behind it.
    #[error(transparent)]
    Remote(#[from] ObjectError),
}

/// Blobs by the BLAKE3 of their bytes. Cheap to clone; shared by all threads, and by processes that open the same path.
///
/// Its work on the local disk is done by the thread that calls.
#[derive(Clone, Debug)]
pub struct ContentStore {
    local: Arc<LocalStore>,
    remote: Option<Arc<dyn ObjectStore>>,
}

impl ContentStore {
    /// A store in a directory, which is made if it is not there, without a budget.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, ContentError> {
        Self::with_budget(path, u64::MAX)
    }

    /// A store that keeps at most `bytes` of blobs (64 more are counted for each), and gives up those that were used
    /// longest ago.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn with_budget(path: impl AsRef<Path>, bytes: u64) -> Result<Self, ContentError> {
        Ok(Self { local: Arc::new(LocalStore::open(path.as_ref(), bytes)?), remote: None })
    }

    /// A store that keeps everything in an object store, and up to `budget` bytes of it in the directory `cache`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn with_remote(
        remote: Arc<dyn ObjectStore>,
        cache: impl AsRef<Path>,
        budget: u64,
    ) -> Result<Self, ContentError> {
        Ok(Self { remote: Some(remote), ..Self::with_budget(cache, budget)? })
    }

    /// A store that keeps everything on S3, as `config` says, and up to `budget` bytes of it in the directory `cache`.
    ///
    /// # Errors
    /// Those of the configuration and of the file system. Nothing is asked of the server yet.
    #[cfg(feature = "s3")]
    pub async fn with_s3(
        config: S3Config,
        cache: impl AsRef<Path>,
        budget: u64,
    ) -> Result<Self, ContentError> {
        Self::with_remote(Arc::new(S3Store::connect(config).await?), cache, budget)
    }

    /// Keeps a blob, and tells its address. With an object store behind, it is there when this returns.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if the blob is longer than the budget and there is nothing behind; those of the disk and
    /// of the object store.
    pub async fn put(&self, content: &[u8]) -> Result<Address, ContentError> {
        let address = Address::of(content);
        let Some(remote) = &self.remote else {
            self.local.put(address, content)?;
            return Ok(address);
        };
        // The cache comes second: what it has, others can get.
        send(remote.as_ref(), &key(&address)?, content).await?;
        if let Err(error) = self.local.put(address, content) {
            tracing::warn!(%error, "a blob is not cached");
        }
        Ok(address)
    }

    /// The bytes of a blob, which have this address.
    ///
    /// # Errors
    /// [`ContentError::NotFound`]; [`crate::Error::Corrupt`] or [`ObjectError::Damaged`] if the bytes that are there have
    /// another address; those of the disk and of the object store.
    pub async fn get(&self, address: &Address) -> Result<Vec<u8>, ContentError> {
        let found = self.local.get(address);
        let Some(remote) = &self.remote else {
            return found?.ok_or(ContentError::NotFound(*address));
        };
        match found {
            Ok(Some(content)) => return Ok(content),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a blob is fetched again"),
        }
        let fetched = remote.get(&key(address)?, None).await;
        let content = match fetched {
            Err(ObjectError::NotFound { .. }) => return Err(ContentError::NotFound(*address)),
            other => other?.bytes,
        };
        if Address::of(&content) != *address {
            let detail = "its bytes have another address".to_owned();
            return Err(ObjectError::Damaged { key: key(address)?.to_string(), detail }.into());
        }
        if let Err(error) = self.local.put(*address, &content) {
            tracing::warn!(%error, "a blob is not cached");
        }
        Ok(content.into())
    }

    /// Whether there is such a blob.
    ///
    /// # Errors
    /// Those of the disk and of the object store.
    pub async fn contains(&self, address: &Address) -> Result<bool, ContentError> {
        let here = self.local.contains(address);
        let Some(remote) = &self.remote else { return Ok(here?) };
        if here.is_ok_and(|is_here| is_here) {
            return Ok(true);
        }
        match remote.head(&key(address)?).await {
            Ok(_) => Ok(true),
            Err(ObjectError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a blob. Whether it was there is not said: others may store it again at any time.
    ///
    /// # Errors
    /// Those of the disk and of the object store.
    pub async fn delete(&self, address: &Address) -> Result<(), ContentError> {
        self.local.delete(address)?;
        if let Some(remote) = &self.remote {
            remote.delete(&key(address)?).await?;
        }
        Ok(())
    }

    /// The addresses of all blobs, in order: of those in the object store if there is one, else of those on the disk.
    ///
    /// # Errors
    /// Those of the disk and of the object store.
    pub async fn list(&self) -> Result<Vec<Address>, ContentError> {
        let Some(remote) = &self.remote else { return Ok(self.local.list()?) };
        let objects = list_all(remote.as_ref(), PREFIX).await?;
        let address = |key: &ObjectKey| key.as_str().rsplit('/').next().and_then(|name| name.parse().ok());
        Ok(objects.iter().filter_map(|object| address(&object.key)).collect())
    }

    /// What was asked for, and what is on the disk.
    pub fn stats(&self) -> ContentStats {
        self.local.stats()
    }

    /// Makes what is on the disk outlive a power cut.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn sync(&self) -> Result<(), ContentError> {
        Ok(self.local.sync()?)
    }
}

fn key(address: &Address) -> Result<ObjectKey, ObjectError> {
    let digits = address.to_string();
    ObjectKey::new(format!("{PREFIX}{}/{digits}", &digits[..2]))
}

/// Puts a blob, in parts if it is long. One that is there already stays, unless it has another length.
async fn send(remote: &dyn ObjectStore, key: &ObjectKey, content: &[u8]) -> Result<(), ObjectError> {
    let is_whole = async || match remote.head(key).await {
        Ok(there) => Ok(there.len == content.len() as u64),
        Err(ObjectError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    };
    if content.len() <= 4 * PART_BYTES {
        let body = Bytes::copy_from_slice(content);
        return match remote.put(key, body.clone(), &Condition::Absent).await {
            Err(ObjectError::Lost { .. }) if !is_whole().await? => {
                remote.put(key, body, &Condition::Always).await.map(drop)
            }
            Err(ObjectError::Lost { .. }) => Ok(()),
            put => put.map(drop),
        };
    }
    if is_whole().await? {
        return Ok(());
    }
    let mut upload = remote.upload(key).await?;
    for part in content.chunks(PART_BYTES) {
        if let Err(error) = upload.part(Bytes::copy_from_slice(part)).await {
            let _ = upload.abort().await;
            return Err(error);
        }
    }
    upload.finish(&Condition::Always).await.map(drop)
}
