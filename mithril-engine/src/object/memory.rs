//! Objects in memory: for tests, and for what need not outlive the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{
    Condition, Fetched, ObjectError, ObjectKey, ObjectMeta, ObjectStore, Page, Pending, Upload, Version,
};
use crate::range::ByteRange;

/// Objects of one page of a listing, as S3 gives them.
const PAGE_OBJECTS: usize = 1000;

/// A map under one lock, so that every call is atomic.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<ObjectKey, (Bytes, Version)>>,
    writes: AtomicU64,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, (Bytes, Version)>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &ObjectKey, body: Bytes, condition: &Condition) -> Result<Version, ObjectError> {
        let mut objects = self.lock();
        let there = objects.get(key).map(|(_, version)| version);
        if !condition.holds(there) {
            return Err(ObjectError::Lost { key: key.to_string() });
        }
        // Never the same twice, also of the same bytes.
        let version = Version::new(format!("\"{:016x}\"", self.writes.fetch_add(1, Ordering::Relaxed)));
        objects.insert(key.clone(), (body, version.clone()));
        Ok(version)
    }
}

fn missing(key: &ObjectKey) -> ObjectError {
    ObjectError::NotFound { key: key.to_string() }
}

/// The bytes of a range of an object; those that there are.
pub(super) fn cut(key: &ObjectKey, bytes: &Bytes, range: Option<ByteRange>) -> Result<Bytes, ObjectError> {
    let Some(range) = range else { return Ok(bytes.clone()) };
    let start = usize::try_from(range.offset).unwrap_or(usize::MAX);
    if start >= bytes.len() {
        return Err(ObjectError::OutOfRange { key: key.to_string(), offset: range.offset });
    }
    let end = usize::try_from(range.end()).unwrap_or(usize::MAX).min(bytes.len());
    Ok(bytes.slice(start..end))
}

impl ObjectStore for MemoryStore {
    fn get<'a>(&'a self, key: &'a ObjectKey, range: Option<ByteRange>) -> Pending<'a, Fetched> {
        Box::pin(async move {
            let (bytes, version) = self.lock().get(key).cloned().ok_or_else(|| missing(key))?;
            Ok(Fetched { bytes: cut(key, &bytes, range)?, len: bytes.len() as u64, version })
        })
    }

    fn put<'a>(&'a self, key: &'a ObjectKey, body: Bytes, condition: &'a Condition) -> Pending<'a, Version> {
        Box::pin(async move { self.write(key, body, condition) })
    }

    fn upload<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, Box<dyn Upload + 'a>> {
        Box::pin(async move {
            let upload: Box<dyn Upload + 'a> =
                Box::new(MemoryUpload { store: self, key: key.clone(), parts: Vec::new() });
            Ok(upload)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a ObjectKey>) -> Pending<'a, Page> {
        Box::pin(async move {
            let objects = self.lock();
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut found = objects
                .range::<ObjectKey, _>((from, Bound::Unbounded))
                .filter(|(key, _)| key.as_str().starts_with(prefix))
                .map(|(key, (bytes, version))| ObjectMeta {
                    key: key.clone(),
                    len: bytes.len() as u64,
                    version: version.clone(),
                });
            let page = found.by_ref().take(PAGE_OBJECTS).collect();
            Ok(Page { objects: page, more: found.next().is_some() })
        })
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ()> {
        Box::pin(async move {
            self.lock().remove(key);
            Ok(())
        })
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ObjectMeta> {
        Box::pin(async move {
            let objects = self.lock();
            let (bytes, version) = objects.get(key).ok_or_else(|| missing(key))?;
            Ok(ObjectMeta { key: key.clone(), len: bytes.len() as u64, version: version.clone() })
        })
    }
}

struct MemoryUpload<'s> {
    store: &'s MemoryStore,
    key: ObjectKey,
    parts: Vec<Bytes>,
}

impl Upload for MemoryUpload<'_> {
    fn part(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        self.parts.push(bytes);
        Box::pin(async { Ok(()) })
    }

    fn finish<'a>(self: Box<Self>, condition: &'a Condition) -> Pending<'a, Version>
    where
        Self: 'a,
    {
        Box::pin(async move { self.store.write(&self.key, self.parts.concat().into(), condition) })
    }

    fn abort<'a>(self: Box<Self>) -> Pending<'a, ()>
    where
        Self: 'a,
    {
        Box::pin(async { Ok(()) })
    }
}
