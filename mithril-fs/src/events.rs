//! What the file system tells the rest of the daemon: files that may be packed, names that change, errors.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::overlay::node::Node;

/// Is told what happens to files. Called from the threads that answer the kernel: must return at once.
pub(crate) trait Watcher: Send + Sync {
    /// The last handle of a plain regular file was released.
    fn closed(&self, node: &Arc<Node>, written: bool);

    /// A file or directory has another path now; with `exchanged`, the other one has the old path.
    fn renamed(&self, from: &Path, to: &Path, exchanged: bool);

    /// Runs a system call that moves or adds names, in a way that a walk of the whole tree can notice.
    fn names_change(&self, call: &mut dyn FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()>;
}

/// Errors that are kept for `status`.
const KEPT_ERRORS: usize = 32;

/// The errors since the mount, the latest ones.
#[derive(Debug, Default)]
pub(crate) struct Events {
    errors: Mutex<VecDeque<String>>,
}

impl Events {
    /// Logs an error and keeps it.
    pub(crate) fn error(&self, message: String) {
        tracing::error!("{message}");
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() == KEPT_ERRORS {
            errors.pop_front();
        }
        errors.push_back(message);
    }

    /// The errors that are kept, latest last.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
