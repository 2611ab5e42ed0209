//! What a server keeps of its promises. Conditions are the only thing that keeps writers of one volume apart, and some
//! servers ignore them without a word: they write, and answer 200.

use bytes::Bytes;

use super::{Condition, ObjectError, ObjectKey, ObjectStore, PART_MIN_BYTES, Version};

/// What a store does.
///
/// A volume that several machines write needs [`Capabilities::conditions`], and refuses to be shared without: two
/// writers would each believe to have been first, and one of them would lose what it wrote. One writer at a time, that
/// somebody else sees to, and any number of readers need none of this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// A `put` with [`Condition::Absent`] of a key that is there loses.
    pub put_absent: bool,
    /// A `put` with [`Condition::Matches`] wins with the version that is there and loses with every other.
    pub put_matches: bool,
    /// A listing has what was just written, and not what was just deleted.
    pub lists_at_once: bool,
    /// A listing has the key `a/b` also while `a` is an object. Where it has not, `a/b` can be read and is never found:
    /// what is built on such a store gives no key that begins with another and a slash.
    pub lists_below: bool,
}

impl Capabilities {
    /// Whether `put` keeps writers apart.
    pub fn conditions(&self) -> bool {
        self.put_absent && self.put_matches
    }
}

/// What a store does at the end of an upload in parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UploadCapabilities {
    /// With [`Condition::Absent`], one of a key that is there loses.
    pub absent: bool,
    /// With [`Condition::Matches`], one wins with the version that is there and loses with every other.
    pub matches: bool,
}

impl UploadCapabilities {
    /// Whether uploads keep writers apart.
    pub fn conditions(&self) -> bool {
        self.absent && self.matches
    }
}

/// Finds out by writing a key of a random name below `prefix` (itself no key: empty, or with a slash at its end), and
/// deletes it. Takes about fifteen requests.
///
/// # Errors
/// Those of the store, but for the refusal of a condition.
pub async fn probe(store: &dyn ObjectStore, prefix: &str) -> Result<Capabilities, ObjectError> {
    let key = random_key(prefix)?;
    let below = ObjectKey::new(format!("{key}/below"))?;
    let found = explore(store, &key, &below).await;
    let deleted = (store.delete(&below).await, store.delete(&key).await);
    let mut found = found?;
    deleted.0.and(deleted.1)?;
    found.lists_at_once &= !is_listed(store, &key, &key).await?;
    Ok(found)
}

/// Whether the end of an upload heeds its condition, as `put` may do and this not. It sends a little over 5 MiB three
/// times, since what is shorter is a `put`.
///
/// # Errors
/// Those of the store, but for the refusal of a condition.
pub async fn probe_uploads(store: &dyn ObjectStore, prefix: &str) -> Result<UploadCapabilities, ObjectError> {
    let key = random_key(prefix)?;
    let found = explore_uploads(store, &key).await;
    store.delete(&key).await?;
    found
}

async fn explore(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    below: &ObjectKey,
) -> Result<Capabilities, ObjectError> {
    let one = Bytes::from_static(b"one");
    let two = Bytes::from_static(b"two");
    // There is no such key: who loses here, or is told that this cannot be done, has no conditions.
    let first = won(store.put(key, one.clone(), &Condition::Absent).await)?;
    let old = store.put(key, one, &Condition::Always).await?;
    let lists_at_once = is_listed(store, key, key).await?;
    store.put(below, Bytes::from_static(b"below"), &Condition::Always).await?;
    let lists_below = is_listed(store, key, below).await? && is_listed(store, below, below).await?;
    let second = won(store.put(key, two.clone(), &Condition::Absent).await)?;
    let put_absent = first == Outcome::Won && second == Outcome::Lost;

    let new = store.put(key, two, &Condition::Always).await?;
    let three = Bytes::from_static(b"three");
    let stale = won(store.put(key, three.clone(), &Condition::Matches(old)).await)?;
    // The stale one may have been written.
    let current = if stale == Outcome::Won { store.head(key).await?.version } else { new };
    let fresh = won(store.put(key, three, &Condition::Matches(current.clone())).await)?;
    store.delete(key).await?;
    let gone = won(store.put(key, Bytes::from_static(b"four"), &Condition::Matches(current)).await)?;
    let put_matches = stale == Outcome::Lost && fresh == Outcome::Won && gone == Outcome::Lost;
    Ok(Capabilities { put_absent, put_matches, lists_at_once, lists_below })
}

async fn explore_uploads(
    store: &dyn ObjectStore,
    key: &ObjectKey,
) -> Result<UploadCapabilities, ObjectError> {
    let old = store.put(key, Bytes::from_static(b"one"), &Condition::Always).await?;
    let absent = won(upload(store, key, &Condition::Absent).await)?;
    let current = store.put(key, Bytes::from_static(b"two"), &Condition::Always).await?;
    let stale = won(upload(store, key, &Condition::Matches(old)).await)?;
    let current = if stale == Outcome::Won { store.head(key).await?.version } else { current };
    let fresh = won(upload(store, key, &Condition::Matches(current)).await)?;
    let matches = stale == Outcome::Lost && fresh == Outcome::Won;
    Ok(UploadCapabilities { absent: absent == Outcome::Lost, matches })
}

async fn upload(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    condition: &Condition,
) -> Result<Version, ObjectError> {
    let mut upload = store.upload(key).await?;
    upload.part(vec![0; PART_MIN_BYTES].into()).await?;
    upload.part(Bytes::from_static(b"more")).await?;
    upload.finish(condition).await
}

#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Won,
    Lost,
    /// The server does not know such conditions.
    Refused,
}

fn won(put: Result<Version, ObjectError>) -> Result<Outcome, ObjectError> {
    match put {
        Ok(_) => Ok(Outcome::Won),
        Err(ObjectError::Lost { .. }) => Ok(Outcome::Lost),
        // Were it the bucket or the name that is wrong, the next request without a condition fails too.
        Err(ObjectError::Invalid { .. }) => Ok(Outcome::Refused),
        Err(error) => Err(error),
    }
}

async fn is_listed(
    store: &dyn ObjectStore,
    prefix: &ObjectKey,
    key: &ObjectKey,
) -> Result<bool, ObjectError> {
    let page = store.list(prefix.as_str(), None).await?;
    Ok(page.objects.iter().any(|object| object.key == *key))
}

/// A name that nobody else uses.
fn random_key(prefix: &str) -> Result<ObjectKey, ObjectError> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| ObjectError::Invalid { detail: format!("no random numbers: {error}") })?;
    ObjectKey::new(format!("{prefix}.mithril-probe-{:032x}", u128::from_le_bytes(random)))
}
