//! The commands' side of the socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use super::protocol::{Answer, CommandError, Progress, Request};
use super::socket;
use crate::exit::ExitCode;
use crate::mounting::mountinfo::OurMount;

/// Sends a request to the daemon of a mount and waits for its answer; `progress` is told how far it is.
///
/// # Errors
/// What the daemon answered, or that it cannot be reached.
pub fn ask(
    mount: &OurMount,
    request: &Request,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Answer, CommandError> {
    let path = socket::path(mount.owner, &mount.device);
    let unreachable = |error: &dyn std::fmt::Display| CommandError {
        message: format!(
            "cannot reach the daemon of {} at {}: {error}; run this as the user who mounted it, or as root",
            mount.mountpoint.display(),
            path.display()
        ),
        exit_code: ExitCode::NotMounted as u8,
    };
    let mut stream = UnixStream::connect(&path).map_err(|error| unreachable(&error))?;
    let mut line = serde_json::to_string(request).map_err(|error| unreachable(&error))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(|error| unreachable(&error))?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|error| unreachable(&error))?;
        match serde_json::from_str(&line).map_err(|error| unreachable(&error))? {
            Answer::Progress(now) => progress(&now),
            Answer::Failed(error) => return Err(error),
            answer => return Ok(answer),
        }
    }
    Err(unreachable(&"it ended before it answered"))
}

/// The process that serves a mount, as its socket says; `None` if it cannot be reached.
pub fn daemon_of(mount: &OurMount) -> Option<u32> {
    let stream = UnixStream::connect(socket::path(mount.owner, &mount.device)).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
}
