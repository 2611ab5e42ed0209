//! One daemon a directory: a lock in the lower `.mithril`, held as long as its process lives.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::overlay::STORE_DIR;

const LOCK: &str = "lock";

/// How long a process that was killed may take to end.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// A directory that is ours alone.
#[derive(Debug)]
pub struct Locked {
    /// The lower `.mithril`.
    pub store: OwnedFd,
    file: File,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the directory is in use by {holder}; end that process first (mithril-fs umount)")]
    Held {
        /// What the lock file says of it.
        holder: String,
    },
    /// The name is taken by something else.
    #[error(".mithril is there, but is no directory of ours; move it away")]
    Foreign,
    /// There is no store, and none was to be made.
    #[error("the directory has no .mithril: it was never mounted")]
    Missing,
    /// The system refused.
    #[error("cannot {action} .mithril: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's own error.
        source: std::io::Error,
    },
}

fn system(action: &'static str) -> impl Fn(Errno) -> LockError {
    move |error| LockError::System { action, source: error.into() }
}

/// Locks `root`; `purpose` is what others are told. With `create`, a directory that was never mounted gets its
/// `.mithril`.
///
/// # Errors
/// [`LockError`].
pub fn lock(root: impl AsFd, purpose: &str, create: bool) -> Result<Locked, LockError> {
    if create {
        match rustix::fs::mkdirat(&root, STORE_DIR, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(system("create")(error)),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let store = rustix::fs::openat(&root, STORE_DIR, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => LockError::Missing,
        Errno::NOTDIR | Errno::LOOP => LockError::Foreign,
        other => system("open")(other),
    })?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&store, LOCK, flags, Mode::from_raw_mode(0o600))
        .map_err(system("open the lock in"))?;
    let file = File::from(file);
    let deadline = Instant::now() + LAST_BREATH;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) => {
                let holder = holder(&file);
                if !is_ending(&holder) || Instant::now() > deadline {
                    return Err(LockError::Held { holder });
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(system("lock")(error)),
        }
    }
    let text = format!("process {} ({purpose})\n", std::process::id());
    // Only for the message of the next one: a full disk must not keep a directory from being mounted.
    let _ = file.set_len(0).and_then(|()| file.write_all_at(text.as_bytes(), 0));
    Ok(Locked { store, file })
}

fn holder(file: &File) -> String {
    let mut text = [0; 4096];
    let len = file.read_at(&mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..len]).trim().to_owned();
    if text.is_empty() { "another process".to_owned() } else { text }
}

/// Whether the process that a lock names is dead, and only its last threads still have the lock: one that was killed
/// while it waited for a disk.
fn is_ending(holder: &str) -> bool {
    let Some(pid) = holder.strip_prefix("process ").and_then(|rest| rest.split(' ').next()) else {
        return false;
    };
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

impl Locked {
    /// Tells others what it is used for from here on.
    pub fn describe(&self, mountpoint: &Path) {
        let text = format!("process {} (mounted at {})\n", std::process::id(), mountpoint.display());
        let _ = self.file.set_len(0).and_then(|()| self.file.write_all_at(text.as_bytes(), 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        assert!(matches!(lock(&root, "test", false), Err(LockError::Missing)));
        let held = lock(&root, "test", true).unwrap();
        let refused = lock(&root, "test", true).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(held);
        lock(&root, "test", true).unwrap();
    }

    #[test]
    fn a_foreign_name_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".mithril"), "mine").unwrap();
        let root = File::open(dir.path()).unwrap();
        assert!(matches!(lock(&root, "test", true), Err(LockError::Foreign)));
        assert_eq!(std::fs::read_to_string(dir.path().join(".mithril")).unwrap(), "mine");
    }
}
