//! The errors since the mount, for `status`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

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
