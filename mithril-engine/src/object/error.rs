//! What can go wrong on the way to an object.

/// An error of an object store. Each variant says what the caller can do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// There is no such object.
    #[error("{key} is not there")]
    NotFound {
        /// Which.
        key: String,
    },
    /// The range begins at the object's end or behind it.
    #[error("{key} has no byte at {offset}")]
    OutOfRange {
        /// Of which object.
        key: String,
        /// Where the range begins.
        offset: u64,
    },
    /// The condition of a `put` did not hold (412): somebody else was first, and nothing was changed.
    #[error("somebody else was first to write {key}")]
    Lost {
        /// Which object.
        key: String,
    },
    /// Others write the same key at the moment (409): try again.
    #[error("{key} is being written by others")]
    Conflict {
        /// Which object.
        key: String,
    },
    /// The server asks for fewer requests (429, 503): try again later.
    #[error("the server asks to slow down: {detail}")]
    Busy {
        /// In the server's words.
        detail: String,
    },
    /// No answer in time, or none at all: it may have been done or not.
    #[error("no answer from {server}: {detail}; check the network and --endpoint-url")]
    Unreachable {
        /// Which server.
        server: String,
        /// What went wrong.
        detail: String,
    },
    /// The server failed (5xx): it may have been done or not.
    #[error("the server failed: {detail}")]
    Server {
        /// In the server's words.
        detail: String,
    },
    /// The credentials are missing, wrong or not enough.
    #[error("not allowed: {detail}; check the credentials and the policy of the bucket")]
    Denied {
        /// In the server's words.
        detail: String,
    },
    /// There is no room: a full disk, a quota of the bucket.
    #[error("no room: {detail}")]
    Full {
        /// In the server's words.
        detail: String,
    },
    /// The bytes that came are not those that the server has.
    #[error("{key} came damaged: {detail}")]
    Damaged {
        /// Which object.
        key: String,
        /// What disagreed.
        detail: String,
    },
    /// What was asked for can never work: a bad name, a bucket that is not there, a request that the server refuses.
    #[error("{detail}")]
    Invalid {
        /// What is wrong, and what to do.
        detail: String,
    },
}

impl ObjectError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        use ObjectError as E;
        matches!(
            self,
            E::Conflict { .. }
                | E::Busy { .. }
                | E::Unreachable { .. }
                | E::Server { .. }
                | E::Damaged { .. }
        )
    }

    /// Whether a request that changes something may have done so all the same.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, ObjectError::Unreachable { .. } | ObjectError::Server { .. })
    }
}
