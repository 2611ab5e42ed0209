//! Objects in a directory: a bucket on a disk or a network file system, for those who have no S3, and for tests. Its calls
//! are for the threads of a tokio runtime, which does the blocking work beside its own.
//!
//! The key `a/b` is the file `a.d/b.o`: with different endings, `a` and `a/b` can both be there. A `put` writes a new file
//! and renames it, durably; who checks a condition holds a lock on the directory from the check to the rename.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::FlockOperation;
use rustix::io::retry_on_intr;

use super::{
    Condition, Fetched, ObjectError, ObjectKey, ObjectMeta, ObjectStore, Page, Pending, Upload, Version,
};
use crate::range::ByteRange;

/// Endings of files that are objects, and of directories for what comes behind a slash.
const OBJECT: &str = ".o";
const DIRECTORY: &str = ".d";

/// What is being written. No key leads here: what keys lead to has an ending.
const NEW: &str = "new";
const LOCK: &str = "lock";

/// Longest part of a key between slashes, so that it fits a name with its ending.
const SEGMENT_BYTES: usize = 253;

/// A directory that keeps objects. Several processes may use one at a time.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    root: PathBuf,
    /// Tells apart what is being written by one process at a time.
    writes: Arc<AtomicU64>,
}

impl DirectoryStore {
    /// The store in `root`, which is made if it is not there. What writers that died left behind is removed.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ObjectError> {
        let root = root.into();
        let new = root.join(NEW);
        std::fs::create_dir_all(&new).map_err(|error| failed(&root, &error))?;
        let store = Self { root, writes: Arc::default() };
        let lock = store.lock()?;
        for entry in std::fs::read_dir(&new).map_err(|error| failed(&new, &error))?.flatten() {
            // A writer holds a lock on its file as long as it lives.
            if let Ok(file) = File::open(entry.path())
                && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        drop(lock);
        // What is put is durable: so is where it is.
        if let Some(above) = store.root.parent().filter(|above| !above.as_os_str().is_empty()) {
            sync_directory(above)?;
        }
        sync_directory(&store.root)?;
        Ok(store)
    }

    fn path(&self, key: &ObjectKey) -> Result<PathBuf, ObjectError> {
        let mut path = self.root.clone();
        let mut segments = key.as_str().split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment.len() > SEGMENT_BYTES {
                let detail =
                    format!("the key {key} has a part of more than {SEGMENT_BYTES} bytes between slashes");
                return Err(ObjectError::Invalid { detail });
            }
            let ending = if segments.peek().is_some() { DIRECTORY } else { OBJECT };
            path.push(format!("{segment}{ending}"));
        }
        Ok(path)
    }

    /// Held by whoever checks what is there and changes it.
    fn lock(&self) -> Result<File, ObjectError> {
        let path = self.root.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|error| failed(&path, &error))?;
        retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))
            .map_err(|error| failed(&path, &error.into()))?;
        Ok(lock)
    }

    /// A file to write to, which no other process takes for one that was left behind.
    fn begin(&self) -> Result<(File, PathBuf), ObjectError> {
        let _lock = self.lock()?;
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(NEW).join(format!(
            "{}-{number}-{:p}",
            std::process::id(),
            &raw const *self.writes
        ));
        let file = File::options()
            .create_new(true)
            .write(true)
            .open(&path)
            .map_err(|error| failed(&path, &error))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| failed(&path, &error.into()))?;
        Ok((file, path))
    }

    /// Gives what was written its name, if the condition holds; else removes it.
    fn publish(
        &self,
        key: &ObjectKey,
        new: &Path,
        file: &File,
        condition: &Condition,
    ) -> Result<Version, ObjectError> {
        let place = || {
            let path = self.path(key)?;
            let fail = |error: std::io::Error| failed(&path, &error);
            stamp(file).and_then(|()| file.sync_all()).map_err(fail)?;
            let _lock = self.lock()?;
            let there = match std::fs::metadata(&path) {
                Ok(metadata) => Some(version(&metadata)),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(fail(error)),
            };
            if !condition.holds(there.as_ref()) {
                return Err(ObjectError::Lost { key: key.to_string() });
            }
            let directory = path.parent().unwrap_or(&self.root);
            self.make_directories(directory)?;
            std::fs::rename(new, &path).map_err(fail)?;
            sync_directory(directory)?;
            Ok(version(&file.metadata().map_err(fail)?))
        };
        place().inspect_err(|_| drop(std::fs::remove_file(new)))
    }

    /// Makes a directory and those above it, durably. Directories are never removed, so that nobody loses one.
    fn make_directories(&self, directory: &Path) -> Result<(), ObjectError> {
        if directory == self.root || directory.is_dir() {
            return Ok(());
        }
        let above = directory.parent().unwrap_or(&self.root);
        self.make_directories(above)?;
        match std::fs::create_dir(directory) {
            Ok(()) => sync_directory(above),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(failed(directory, &error)),
        }
    }

    fn read(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Fetched, ObjectError> {
        let path = self.path(key)?;
        let file = File::open(&path).map_err(|error| missing_or(key, &path, &error))?;
        let fail = |error: std::io::Error| failed(&path, &error);
        let metadata = file.metadata().map_err(fail)?;
        let (len, version) = (metadata.len(), version(&metadata));
        if let Some(range) = range
            && range.offset >= len
        {
            return Err(ObjectError::OutOfRange { key: key.to_string(), offset: range.offset });
        }
        let range = range.unwrap_or(ByteRange { offset: 0, len });
        let wanted = usize::try_from(range.end().min(len) - range.offset).unwrap_or(usize::MAX);
        let mut bytes = vec![0; wanted];
        // An object that has its name never changes: a file that ends before was damaged.
        file.read_exact_at(&mut bytes, range.offset).map_err(fail)?;
        Ok(Fetched { bytes: bytes.into(), len, version })
    }

    fn meta(&self, key: &ObjectKey) -> Result<ObjectMeta, ObjectError> {
        let path = self.path(key)?;
        let metadata = std::fs::metadata(&path).map_err(|error| missing_or(key, &path, &error))?;
        Ok(ObjectMeta { key: key.clone(), len: metadata.len(), version: version(&metadata) })
    }

    /// Every key below a directory, in no order. What vanishes meanwhile is passed over.
    fn keys(&self, directory: &Path, above: &str, found: &mut Vec<ObjectKey>) -> Result<(), ObjectError> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(directory, &error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| failed(directory, &error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(segment) = name.strip_suffix(DIRECTORY) {
                self.keys(&entry.path(), &format!("{above}{segment}/"), found)?;
            } else if let Some(segment) = name.strip_suffix(OBJECT)
                && let Ok(key) = ObjectKey::new(format!("{above}{segment}"))
            {
                found.push(key);
            }
        }
        Ok(())
    }

    fn page(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Page, ObjectError> {
        // Only the directories that the prefix leads to are looked through.
        let (above, _) = prefix.rsplit_once('/').map_or(("", prefix), |(above, rest)| (above, rest));
        let mut directory = self.root.clone();
        above.split('/').filter(|segment| !segment.is_empty()).for_each(|segment| {
            directory.push(format!("{segment}{DIRECTORY}"));
        });
        let mut keys = Vec::new();
        let above = if above.is_empty() { String::new() } else { format!("{above}/") };
        self.keys(&directory, &above, &mut keys)?;
        keys.retain(|key| key.as_str().starts_with(prefix) && after.is_none_or(|after| key > after));
        keys.sort_unstable();
        let objects = keys.iter().map(|key| self.meta(key));
        // One that is gone by now is not there.
        let objects: Result<Vec<_>, _> =
            objects.filter(|meta| !matches!(meta, Err(ObjectError::NotFound { .. }))).collect();
        // All at once: another page would look through the directories again.
        Ok(Page { objects: objects?, more: false })
    }
}

/// Does what blocks beside the threads that everything else runs on.
fn beside<'a, T: Send + 'static>(
    store: &DirectoryStore,
    work: impl FnOnce(&DirectoryStore) -> Result<T, ObjectError> + Send + 'static,
) -> Pending<'a, T> {
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || work(&store));
    Box::pin(async {
        done.await.unwrap_or_else(|error| Err(ObjectError::Server { detail: error.to_string() }))
    })
}

impl ObjectStore for DirectoryStore {
    fn get<'a>(&'a self, key: &'a ObjectKey, range: Option<ByteRange>) -> Pending<'a, Fetched> {
        let key = key.clone();
        beside(self, move |store| store.read(&key, range))
    }

    fn put<'a>(&'a self, key: &'a ObjectKey, body: Bytes, condition: &'a Condition) -> Pending<'a, Version> {
        let (key, condition) = (key.clone(), condition.clone());
        beside(self, move |store| {
            store.path(&key)?;
            let (mut file, new) = store.begin()?;
            let written = file.write_all(&body).map_err(|error| failed(&new, &error));
            if written.is_err() {
                let _ = std::fs::remove_file(&new);
            }
            written.and_then(|()| store.publish(&key, &new, &file, &condition))
        })
    }

    fn upload<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, Box<dyn Upload + 'a>> {
        let key = key.clone();
        let begun = beside(self, move |store| {
            store.path(&key)?;
            let (file, new) = store.begin()?;
            Ok(DirectoryUpload { store: store.clone(), key, file: Arc::new(file), new })
        });
        Box::pin(async { begun.await.map(|upload| -> Box<dyn Upload + 'a> { Box::new(upload) }) })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a ObjectKey>) -> Pending<'a, Page> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        beside(self, move |store| store.page(&prefix, after.as_ref()))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ()> {
        let key = key.clone();
        beside(self, move |store| {
            let path = store.path(&key)?;
            let _lock = store.lock()?;
            match std::fs::remove_file(&path) {
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    Err(failed(&path, &error))
                }
                Ok(()) => sync_directory(path.parent().unwrap_or(&store.root)),
                Err(_) => Ok(()),
            }
        })
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ObjectMeta> {
        let key = key.clone();
        beside(self, move |store| store.meta(&key))
    }
}

struct DirectoryUpload {
    store: DirectoryStore,
    key: ObjectKey,
    file: Arc<File>,
    new: PathBuf,
}

impl Upload for DirectoryUpload {
    fn part(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        let (file, new) = (Arc::clone(&self.file), self.new.clone());
        beside(&self.store, move |_| (&*file).write_all(&bytes).map_err(|error| failed(&new, &error)))
    }

    fn finish<'a>(self: Box<Self>, condition: &'a Condition) -> Pending<'a, Version>
    where
        Self: 'a,
    {
        let condition = condition.clone();
        let store = self.store.clone();
        beside(&store, move |store| store.publish(&self.key, &self.new, &self.file, &condition))
    }

    fn abort<'a>(self: Box<Self>) -> Pending<'a, ()>
    where
        Self: 'a,
    {
        let store = self.store.clone();
        beside(&store, move |_| std::fs::remove_file(&self.new).map_err(|error| failed(&self.new, &error)))
    }
}

/// Gives a new file a time of its own, to the second the real one: the next file may get the inode of the last but one
/// within a tick of the clock.
fn stamp(file: &File) -> std::io::Result<()> {
    let mut noise = [0; 4];
    rustix::rand::getrandom(&mut noise, rustix::rand::GetRandomFlags::empty())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = u32::from_le_bytes(noise) % 1_000_000_000;
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(now.as_secs(), nanoseconds))
}

/// Which file it is, and when it was written.
fn version(metadata: &std::fs::Metadata) -> Version {
    Version::new(format!(
        "{}-{}.{:09}-{}",
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len()
    ))
}

fn sync_directory(directory: &Path) -> Result<(), ObjectError> {
    let synced = File::open(directory).and_then(|opened| opened.sync_all());
    synced.map_err(|error| failed(directory, &error))
}

fn missing_or(key: &ObjectKey, path: &Path, error: &std::io::Error) -> ObjectError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => ObjectError::NotFound { key: key.to_string() },
        _ => failed(path, error),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> ObjectError {
    let detail = format!("{}: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ObjectError::Full { detail },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => ObjectError::Denied { detail },
        ErrorKind::UnexpectedEof => ObjectError::Damaged { key: path.display().to_string(), detail },
        _ => ObjectError::Server { detail },
    }
}
