//! The content store for those who wait: the same, without `await`.

use std::path::Path;
use std::sync::Arc;

use super::{Address, ContentError, ContentStats};
use crate::object::ObjectStore;
#[cfg(feature = "s3")]
use crate::object::s3::S3Config;

/// [`super::ContentStore`], each call of which returns when it is done. Not for the threads of an async runtime.
#[derive(Clone, Debug)]
pub struct ContentStore {
    inner: super::ContentStore,
    /// What drives the object store, if there is one.
    runtime: Option<Arc<tokio::runtime::Runtime>>,
}

impl ContentStore {
    /// As [`super::ContentStore::new`].
    ///
    /// # Errors
    /// As there.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, ContentError> {
        Ok(Self { inner: super::ContentStore::new(path)?, runtime: None })
    }

    /// As [`super::ContentStore::with_budget`].
    ///
    /// # Errors
    /// As there.
    pub fn with_budget(path: impl AsRef<Path>, bytes: u64) -> Result<Self, ContentError> {
        Ok(Self { inner: super::ContentStore::with_budget(path, bytes)?, runtime: None })
    }

    /// As [`super::ContentStore::with_remote`].
    ///
    /// # Errors
    /// As there, and those of starting a thread.
    pub fn with_remote(
        remote: Arc<dyn ObjectStore>,
        cache: impl AsRef<Path>,
        budget: u64,
    ) -> Result<Self, ContentError> {
        let runtime = runtime(cache.as_ref())?;
        let inner = super::ContentStore::with_remote(remote, cache, budget)?;
        Ok(Self { inner, runtime: Some(Arc::new(runtime)) })
    }

    /// As [`super::ContentStore::with_s3`].
    ///
    /// # Errors
    /// As there, and those of starting a thread.
    #[cfg(feature = "s3")]
    pub fn with_s3(config: S3Config, cache: impl AsRef<Path>, budget: u64) -> Result<Self, ContentError> {
        let runtime = runtime(cache.as_ref())?;
        let inner = runtime.block_on(super::ContentStore::with_s3(config, cache, budget))?;
        Ok(Self { inner, runtime: Some(Arc::new(runtime)) })
    }

    /// As [`super::ContentStore::put`].
    ///
    /// # Errors
    /// As there.
    pub fn put(&self, content: &[u8]) -> Result<Address, ContentError> {
        self.wait(self.inner.put(content))
    }

    /// As [`super::ContentStore::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, address: &Address) -> Result<Vec<u8>, ContentError> {
        self.wait(self.inner.get(address))
    }

    /// As [`super::ContentStore::contains`].
    ///
    /// # Errors
    /// As there.
    pub fn contains(&self, address: &Address) -> Result<bool, ContentError> {
        self.wait(self.inner.contains(address))
    }

    /// As [`super::ContentStore::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, address: &Address) -> Result<(), ContentError> {
        self.wait(self.inner.delete(address))
    }

    /// As [`super::ContentStore::list`].
    ///
    /// # Errors
    /// As there.
    pub fn list(&self) -> Result<Vec<Address>, ContentError> {
        self.wait(self.inner.list())
    }

    /// As [`super::ContentStore::stats`].
    pub fn stats(&self) -> ContentStats {
        self.inner.stats()
    }

    /// As [`super::ContentStore::sync`].
    ///
    /// # Errors
    /// As there.
    pub fn sync(&self) -> Result<(), ContentError> {
        self.inner.sync()
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            // Nothing in it waits for anybody else.
            None => ready(work),
        }
    }
}

/// What drives an object store while somebody waits for it.
fn runtime(cache: &Path) -> Result<tokio::runtime::Runtime, ContentError> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    Ok(built.map_err(|error| crate::Error::io("start the threads of", cache, error))?)
}

/// The result of a future that never waits.
fn ready<T>(work: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut work = std::pin::pin!(work);
    loop {
        if let std::task::Poll::Ready(result) = work.as_mut().poll(&mut context) {
            return result;
        }
    }
}
