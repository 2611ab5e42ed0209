//! The commands' side of the socket.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::protocol::{Answer, CommandError, Progress, Request};
use super::socket;
use crate::exit::ExitCode;
use crate::mounting::mountinfo::OurMount;

/// How long a process may take to end after it closed its connections.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// A connection to the daemon of a mount.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
    mountpoint: PathBuf,
    /// The daemon, if it can be seen from here.
    pub daemon: Option<u32>,
}

impl Connection {
    /// Connects to the daemon of a mount.
    ///
    /// # Errors
    /// That it cannot be reached.
    pub fn open(mount: &OurMount) -> Result<Self, CommandError> {
        let places = socket::places(mount.owner, &mount.device);
        let (stream, peer) = socket::connect(&places, mount.owner).map_err(|(place, error)| {
            unreachable(&mount.mountpoint, &format!("{}: {error}", place.display()))
        })?;
        let mountpoint = mount.mountpoint.clone();
        Ok(Self { stream: BufReader::new(stream), mountpoint, daemon: peer.process })
    }

    /// Sends a request and waits for its answer; `progress` is told how far it is.
    ///
    /// # Errors
    /// What the daemon answered, or that it cannot be reached.
    pub fn ask(
        &mut self,
        request: &Request,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Answer, CommandError> {
        let Self { stream, mountpoint, .. } = self;
        let unreachable = |error: &dyn Display| unreachable(mountpoint, error);
        let mut line = serde_json::to_string(request).map_err(|error| unreachable(&error))?;
        line.push('\n');
        // Who is refused may be told so before the request was sent.
        let sent = stream.get_mut().write_all(line.as_bytes());
        sent.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
            .map_err(|error| unreachable(&error))?;
        for line in stream.lines() {
            let line = line.map_err(|error| unreachable(&error))?;
            match serde_json::from_str(&line).map_err(|error| unreachable(&error))? {
                Answer::Progress(now) => progress(&now),
                Answer::Failed(error) => return Err(error),
                answer => return Ok(answer),
            }
        }
        Err(unreachable(&"it ended before it answered"))
    }

    /// After [`Answer::Stopping`], waits for the daemon to let go of the directory. Returns whether it did.
    pub fn wait_for_end(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.get_ref().set_read_timeout(Some(left)).is_err() {
                return false;
            }
            match self.stream.read(&mut [0; 256]) {
                // It says nothing more.
                Ok(1..) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Ok(0) | Err(_) => return self.daemon.is_none_or(is_soon_gone),
            }
        }
    }
}

/// Sends a request to the daemon of a mount and waits for its answer; `progress` is told how far it is.
///
/// # Errors
/// What the daemon answered, or that it cannot be reached.
pub fn ask(
    mount: &OurMount,
    request: &Request,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Answer, CommandError> {
    Connection::open(mount)?.ask(request, progress)
}

fn unreachable(mountpoint: &Path, error: &dyn Display) -> CommandError {
    CommandError {
        message: format!(
            "cannot reach the daemon of {}: {error}; run this as the user who mounted it, or as root",
            mountpoint.display()
        ),
        exit_code: ExitCode::NotMounted as u8,
    }
}

/// Waits until no thread of a process runs that closes its connections: its locks are gone then too.
fn is_soon_gone(process: u32) -> bool {
    let runs = || {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
        threads.flatten().any(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat"));
            stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X'])))
        })
    };
    let deadline = Instant::now() + LAST_BREATH;
    while runs() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    !runs()
}
