//! What a command that failed says.

use std::path::Path;

use mithril_engine::Error;

use crate::exit::ExitCode;

/// A message and the exit code that goes with it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) code: ExitCode,
}

impl Failure {
    /// Something that is the caller's to mend.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: ExitCode::Failed }
    }

    /// What went wrong with a file.
    pub(super) fn at(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::new(format!("{}: {error}", path.display()))
    }

    /// The same, with the exit code that the engine's error asks for.
    pub(super) fn of(path: &Path, error: &Error) -> Self {
        let code = if is_damage(error) { ExitCode::Damaged } else { ExitCode::Failed };
        Self { message: format!("{}: {error}", path.display()), code }
    }
}

/// Whether an error means that stored bytes are not what was written. What a reader met inside of another one is
/// wrapped into an error of the system.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } => true,
        Error::Io { source, .. } => {
            source.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).is_some_and(is_damage)
        }
        _ => false,
    }
}
