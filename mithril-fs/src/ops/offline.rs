//! A directory that is not mounted, opened for a command.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use mithril_engine::store::Store;
use rustix::fs::{Mode, OFlags};

use super::Directory;
use crate::control::protocol::CommandError;
use crate::exit::ExitCode;
use crate::mounting::lock::{self, LockError, Locked};
use crate::mounting::probe;
use crate::stub::Namespace;

/// What a command does with a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It looks, beside others who look.
    Read,
    /// It changes the store, and must have it alone.
    Change,
}

/// A directory that no daemon has.
#[derive(Debug)]
pub struct Offline {
    root: OwnedFd,
    store: Arc<Store>,
    namespace: Option<Namespace>,
    _lock: Locked,
}

impl Offline {
    /// Opens `path`, which is a directory that was mounted before and is not now.
    ///
    /// # Errors
    /// That it is not; what keeps its store from being opened.
    pub fn open(path: &Path, usage: Use) -> Result<Self, CommandError> {
        let failed = |code: ExitCode, error: &dyn std::fmt::Display| CommandError {
            message: format!("{}: {error}", path.display()),
            exit_code: code as u8,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(ExitCode::Failed, &e))?;
        let locked = match usage {
            Use::Read => lock::lock_to_read(&root),
            Use::Change => lock::lock(&root, "a command", false),
        };
        let locked = locked.map_err(|error| match error {
            LockError::Held { .. } => failed(ExitCode::AlreadyMounted, &error),
            LockError::Missing => failed(ExitCode::NotMounted, &error),
            _ => failed(ExitCode::Failed, &error),
        })?;
        // Readers try nothing out, which would disturb each other; but without a note nothing is known otherwise.
        let noted = if usage == Use::Read { probe::reading(&locked.store) } else { Ok(None) };
        let namespace = match noted.map_err(|e| failed(ExitCode::Failed, &e))? {
            Some(namespace) => Some(namespace),
            None => probe::stubs(&locked.store).map_err(|e| failed(ExitCode::Failed, &e))?.namespace,
        };
        let store = Store::open(locked.store.as_fd()).map_err(|e| failed(ExitCode::Failed, &e))?;
        if usage == Use::Read {
            locked.share().map_err(|e| failed(ExitCode::Failed, &e))?;
        }
        Ok(Self { root, store: Arc::new(store), namespace, _lock: locked })
    }

    /// For the operations.
    pub fn directory(&self) -> Directory<'_> {
        Directory { root: self.root.as_fd(), store: Arc::clone(&self.store), namespace: self.namespace }
    }
}
