//! The one error type of the engine.
//!
//! Each variant says who has to act: `Io` the machine, `Corrupt` the user (from a copy), `NotFound` and `Invalid` the
//! caller, `Unsupported` an upgrade.

use std::io;
use std::path::PathBuf;

/// A result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed on something that belongs to the store or is being packed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "write".
        action: &'static str,
        /// What it was tried on, relative to the store where it lies in it.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// Stored bytes are not what was written. Never turned into zeros or a short read.
    #[error("{what} is damaged: {reason}")]
    Corrupt {
        /// Which object: a pack, a chunk id, a manifest id.
        what: String,
        /// What disagreed.
        reason: String,
    },
    /// A chunk, manifest or pack that something refers to is not in the store.
    #[error("{what} is not in the store")]
    NotFound {
        /// Which object.
        what: String,
    },
    /// A format version or feature of a later release.
    #[error("{what} was written by a later version of mithril ({detail}); upgrade to read it")]
    Unsupported {
        /// Which object.
        what: String,
        /// Which version or feature.
        detail: String,
    },
    /// What the caller gave does not fit what it was given for.
    #[error("{what}: {reason}")]
    Invalid {
        /// Which argument or file.
        what: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The work was cancelled by its owner (an unmount, a file that was opened meanwhile).
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// An `Io` error with its context.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Error::Io { action, path: path.into(), source: source.into() }
    }

    /// An `Invalid` error with its context.
    pub fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Invalid { what: what.into(), reason: reason.into() }
    }

    /// A `Corrupt` error with its context.
    pub fn corrupt(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Corrupt { what: what.into(), reason: reason.into() }
    }
}
