//! The contract of [`ObjectStore`], as one suite that every backend passes. It works below a prefix of a random name, so
//! that it can run on a bucket that has other objects, and removes what it wrote.

mod conditions;
mod contents;

use bytes::Bytes;
use mithril_engine::object::probe::{probe, probe_uploads};
use mithril_engine::object::{Condition, ObjectError, ObjectKey, ObjectStore, Version, list_all};

use crate::data::Random;

/// What is expected of a store beyond what every store does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expect {
    /// `put` heeds conditions.
    pub conditions: bool,
    /// The end of an upload heeds conditions.
    pub uploads: bool,
    /// Listings have `a/b` also while `a` is an object.
    pub nested: bool,
}

impl Expect {
    /// All that the contract says.
    pub const ALL: Self = Self { conditions: true, uploads: true, nested: true };

    /// What a server says of itself: for servers that are known to lack something, so that the rest is checked.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn probed(store: &dyn ObjectStore) -> Result<Self, ObjectError> {
        let found = probe(store, "").await?;
        let uploads = probe_uploads(store, "").await?.conditions();
        Ok(Self { conditions: found.conditions(), uploads, nested: found.lists_below })
    }
}

/// Checks the whole contract.
///
/// # Panics
/// If the store breaks it; the message says where.
pub async fn conforms(store: &dyn ObjectStore) {
    conforms_as(store, Expect::ALL).await;
}

/// Checks the contract, but for what is not expected.
///
/// # Panics
/// If the store breaks it.
pub async fn conforms_as(store: &dyn ObjectStore, expect: Expect) {
    for (name, part) in parts(expect) {
        let suite = Suite::new(store);
        part(&suite).await;
        suite.clean(name).await;
    }
}

/// A part of the suite.
pub type Part = for<'s> fn(&'s Suite<'_>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 's>>;

/// The parts, for who wants to run them one by one and hear of all that fail.
pub fn parts(expect: Expect) -> Vec<(&'static str, Part)> {
    let mut parts: Vec<(&'static str, Part)> = vec![
        ("put, get, head, delete", |suite| Box::pin(contents::basics(suite))),
        ("empty objects", |suite| Box::pin(contents::empty(suite))),
        ("ranges", |suite| Box::pin(contents::ranges(suite))),
        ("keys of all kinds", |suite| Box::pin(contents::keys(suite))),
        ("listings", |suite| Box::pin(contents::listings(suite))),
        ("what is not there", |suite| Box::pin(contents::absent(suite))),
        ("uploads", |suite| Box::pin(contents::uploads(suite))),
    ];
    if expect.nested {
        parts.push(("keys below keys", |suite| Box::pin(contents::nested(suite))));
    }
    if expect.conditions {
        parts.push(("absent", |suite| Box::pin(conditions::absent(suite))));
        parts.push(("matches", |suite| Box::pin(conditions::matches(suite))));
        parts.push(("races", |suite| Box::pin(conditions::races(suite))));
        parts.push(("races to replace", |suite| Box::pin(conditions::races_to_replace(suite))));
        parts.push(("short uploads with conditions", |suite| Box::pin(conditions::short_uploads(suite))));
    }
    if expect.uploads {
        parts.push(("uploads with conditions", |suite| Box::pin(conditions::uploads(suite))));
    }
    parts
}

/// A store, and a place in it that nobody else uses.
pub struct Suite<'s> {
    store: &'s dyn ObjectStore,
    prefix: String,
}

impl<'s> Suite<'s> {
    /// A new place.
    ///
    /// # Panics
    /// If the system has no random numbers.
    pub fn new(store: &'s dyn ObjectStore) -> Self {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).expect("random numbers");
        Self { store, prefix: format!("conformance-{:016x}", u64::from_le_bytes(random)) }
    }

    /// Removes what was written, and checks that this is seen.
    ///
    /// # Panics
    /// If something stays.
    pub async fn clean(&self, part: &str) {
        for object in list_all(self.store, &self.prefix).await.expect("a listing") {
            self.store.delete(&object.key).await.expect("a deletion");
        }
        let left = list_all(self.store, &self.prefix).await.expect("a listing");
        assert!(left.is_empty(), "{part}: deleted objects are listed: {left:?}");
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(format!("{}/{name}", self.prefix)).expect("a key")
    }

    async fn put(&self, name: &str, body: &[u8]) -> Version {
        let put = self.store.put(&self.key(name), Bytes::copy_from_slice(body), &Condition::Always).await;
        put.unwrap_or_else(|error| panic!("put of {name:?}: {error}"))
    }

    async fn put_if(&self, name: &str, body: &[u8], condition: &Condition) -> Result<Version, ObjectError> {
        self.store.put(&self.key(name), Bytes::copy_from_slice(body), condition).await
    }

    /// That the object has this content, in every answer.
    async fn has(&self, name: &str, body: &[u8], version: Option<&Version>) {
        let key = self.key(name);
        let got = self.store.get(&key, None).await.unwrap_or_else(|error| panic!("get of {name:?}: {error}"));
        assert!(got.bytes == body, "{name:?} has {} bytes that are others", got.bytes.len());
        assert_eq!(got.len, body.len() as u64, "the length of {name:?}");
        let head = self.store.head(&key).await.unwrap_or_else(|error| panic!("head of {name:?}: {error}"));
        assert_eq!((&head.key, head.len), (&key, got.len), "head of {name:?}");
        assert_eq!(head.version, got.version, "head and get name the same version of {name:?}");
        let page = self.store.list(key.as_str(), None).await.expect("a listing");
        let listed = page.objects.iter().find(|object| object.key == key);
        assert_eq!(listed, Some(&head), "the listing says the same of {name:?} as head");
        if let Some(version) = version {
            assert_eq!(&got.version, version, "put and get name the same version of {name:?}");
        }
    }

    async fn has_not(&self, name: &str) {
        let key = self.key(name);
        let got = self.store.get(&key, None).await;
        assert!(matches!(got, Err(ObjectError::NotFound { .. })), "get of {name:?}: {got:?}");
        let head = self.store.head(&key).await;
        assert!(matches!(head, Err(ObjectError::NotFound { .. })), "head of {name:?}: {head:?}");
        let page = self.store.list(key.as_str(), None).await.expect("a listing");
        assert!(page.objects.iter().all(|object| object.key != key), "{name:?} is listed");
    }

    async fn upload(
        &self,
        name: &str,
        parts: &[&[u8]],
        condition: &Condition,
    ) -> Result<Version, ObjectError> {
        let key = self.key(name);
        let mut upload = self.store.upload(&key).await?;
        for part in parts {
            upload.part(Bytes::copy_from_slice(part)).await?;
        }
        upload.finish(condition).await
    }
}

/// Bytes that do not repeat.
fn noise(len: usize) -> Vec<u8> {
    Random::new(len as u64).bytes(len)
}

fn lost<T: std::fmt::Debug>(result: &Result<T, ObjectError>) -> bool {
    matches!(result, Err(ObjectError::Lost { .. }))
}

/// All at once, in one task.
async fn at_once<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut left = 0;
        for (future, done) in &mut futures {
            if done.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *done = Some(value),
                    std::task::Poll::Pending => left += 1,
                }
            }
        }
        if left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    futures.into_iter().filter_map(|(_, done)| done).collect()
}
