//! Going to the background: the command starts itself again, detached, and waits until that process is ready or
//! says why not.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

use crate::control::protocol::CommandError;

/// The variable by which the detached process knows its pipe.
const READY_FD: &str = "MITHRIL_READY_FD";

/// What the detached process says, as JSON.
#[derive(Serialize, Deserialize)]
enum Said {
    /// It serves; what its user should know.
    Serving(Vec<String>),
    /// It does not.
    Failed(CommandError),
}

/// Tells the waiting command how the start went. Does nothing in the foreground.
pub(super) struct Ready(Option<File>);

impl Ready {
    /// The pipe that this process was given, if it was started by [`detach`].
    pub(super) fn inherited() -> Self {
        let number =
            std::env::var(READY_FD).ok().and_then(|value| value.parse::<i32>().ok()).filter(|&fd| fd > 2);
        // SAFETY: `detach` opened this descriptor for this process and nobody else in it knows of it.
        Self(number.map(|fd| unsafe { File::from(OwnedFd::from_raw_fd(fd)) }))
    }

    /// Whether this process was started by [`detach`].
    pub(super) fn is_detached(&self) -> bool {
        self.0.is_some()
    }

    /// It serves (with what its user should know), or it failed.
    pub(super) fn tell(&mut self, result: Result<&[String], &CommandError>) {
        let Some(mut pipe) = self.0.take() else { return };
        let said = match result {
            Ok(notices) => Said::Serving(notices.to_vec()),
            Err(error) => Said::Failed(error.clone()),
        };
        let text = serde_json::to_string(&said).unwrap_or_default();
        // The command that waited may be gone: nobody is left to be told.
        let _ = pipe.write_all(text.as_bytes());
    }
}

/// Starts this very command again in the background, and waits until it is ready. Returns what its user should know.
///
/// # Errors
/// What the process in the background said, or that it ended without a word.
pub(super) fn detach() -> Result<Vec<String>, CommandError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| CommandError {
        message: format!("cannot go to the background: {what}: {error}; use --foreground"),
        exit_code: 1,
    };
    let (reader, writer) = rustix::pipe::pipe().map_err(|error| failed("pipe", &error))?;
    rustix::io::fcntl_setfd(&reader, FdFlags::CLOEXEC).map_err(|error| failed("pipe", &error))?;
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).env(READY_FD, writer.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: setsid is async-signal-safe, and the only thing done between fork and exec.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
    }
    command.spawn().map_err(|error| failed("start", &error))?;
    drop(writer);
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).map_err(|error| failed("pipe", &error))?;
    match serde_json::from_str(&text) {
        Ok(Said::Serving(notices)) => Ok(notices),
        Ok(Said::Failed(error)) => Err(error),
        Err(_) => Err(CommandError {
            message: "the daemon ended while it started; run it with --foreground to see why".to_owned(),
            exit_code: 1,
        }),
    }
}
