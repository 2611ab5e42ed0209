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

/// A directory that this process has to itself.
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
    pub fn open(path: &Path) -> Result<Self, CommandError> {
        let failed = |code: ExitCode, error: &dyn std::fmt::Display| CommandError {
            message: format!("{}: {error}", path.display()),
            exit_code: code as u8,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(ExitCode::Failed, &e))?;
        let locked = lock::lock(&root, "a command", false).map_err(|error| match error {
            LockError::Held { .. } => failed(ExitCode::AlreadyMounted, &error),
            LockError::Missing => failed(ExitCode::NotMounted, &error),
            _ => failed(ExitCode::Failed, &error),
        })?;
        let namespace = probe::stubs(&locked.store).map_err(|e| failed(ExitCode::Failed, &e))?.ok();
        let store = Store::open(locked.store.as_fd()).map_err(|e| failed(ExitCode::Failed, &e))?;
        Ok(Self { root, store: Arc::new(store), namespace, _lock: locked })
    }

    /// For the operations.
    pub fn directory(&self) -> Directory<'_> {
        Directory { root: self.root.as_fd(), store: Arc::clone(&self.store), namespace: self.namespace }
    }
}
