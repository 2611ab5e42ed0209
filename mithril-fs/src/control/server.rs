//! The daemon's side of the socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::{Backend, ProgressSink};
use super::protocol::{Answer, CommandError, Progress, Request};
use super::socket;

/// Longest request: a path and a few words.
const REQUEST_MAX_BYTES: u64 = 64 << 10;

/// Connections at once; more are closed.
const MAX_CONNECTIONS: usize = 32;

/// How often progress is told at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A socket that is listened on. Its name stays when it is dropped: as soon as the mount is gone, its device number may
/// be another mount's, whose socket has the same name by then. The next one of that name takes its place.
pub struct Server {
    active: Arc<(Mutex<usize>, Condvar)>,
}

impl Server {
    /// Listens at `path` and answers with `backend`, each connection on a thread of its own.
    ///
    /// # Errors
    /// Those of making the socket.
    pub fn start(path: &Path, backend: Arc<dyn Backend>) -> io::Result<Self> {
        socket::prepare(path)?;
        let listener = UnixListener::bind(path)?;
        let active = Arc::new((Mutex::new(0), Condvar::new()));
        let shared = Arc::clone(&active);
        let connections = AtomicUsize::new(0);
        std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            let connections = Arc::new(connections);
            for stream in listener.incoming().flatten() {
                if connections.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
                    connections.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                let (backend, shared, connections) =
                    (Arc::clone(&backend), Arc::clone(&shared), Arc::clone(&connections));
                std::thread::spawn(move || {
                    count(&shared, 1);
                    let served = catch_unwind(AssertUnwindSafe(|| serve(&stream, &*backend)));
                    match served {
                        Ok(Then::Close) => {}
                        // The end of this process closes it.
                        Ok(Then::KeepOpen) => std::mem::forget(stream),
                        Err(_) => tracing::error!("a command panicked"),
                    }
                    count(&shared, -1);
                    connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        })?;
        Ok(Self { active })
    }

    /// Waits until the connections that are open were answered, but not for long.
    pub fn finish(&self, patience: Duration) {
        let (active, changed) = &*self.active;
        let active = active.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_timeout_while(active, patience, |active| *active > 0));
    }
}

fn count(shared: &(Mutex<usize>, Condvar), change: isize) {
    let mut active = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
    *active = active.saturating_add_signed(change);
    shared.1.notify_all();
}

/// Whether a caller may command a daemon of `me`: the same user, or root.
fn may_command(caller: u32, me: u32) -> bool {
    caller == me || caller == 0
}

/// What becomes of a connection that was answered.
enum Then {
    Close,
    /// Whoever asked waits for this process to end.
    KeepOpen,
}

fn serve(stream: &UnixStream, backend: &dyn Backend) -> Then {
    let mut then = Then::Close;
    let caller = rustix::net::sockopt::socket_peercred(stream).map(|peer| peer.uid.as_raw());
    let me = rustix::process::geteuid().as_raw();
    let answer = match caller {
        Ok(caller) if may_command(caller, me) => read_request(stream).map_or_else(
            |error| {
                Answer::Failed(CommandError { message: format!("unreadable request: {error}"), exit_code: 1 })
            },
            |request| {
                let ends = matches!(request, Request::Stop { lazy: false, .. });
                let answer = carry_out(backend, request, stream);
                if ends && matches!(answer, Answer::Stopping(_)) {
                    then = Then::KeepOpen;
                }
                answer
            },
        ),
        _ => Answer::Failed(CommandError {
            message: "only root and the user who mounted it may do this".to_owned(),
            exit_code: 1,
        }),
    };
    let _ = send(stream, &answer);
    then
}

fn read_request(stream: &UnixStream) -> io::Result<Request> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_MAX_BYTES)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn send(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}

fn carry_out(backend: &dyn Backend, request: Request, stream: &UnixStream) -> Answer {
    let mut last = Instant::now();
    let mut tell = |now: Progress| {
        if last.elapsed() < PROGRESS_EVERY {
            return ControlFlow::Continue(());
        }
        last = Instant::now();
        match send(stream, &Answer::Progress(now)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    let progress: ProgressSink<'_> = &mut tell;
    let answer = match request {
        Request::Status => backend.status().map(|status| Answer::Status(Box::new(status))),
        Request::Sync => backend.sync(progress).map(Answer::Packed),
        Request::List { path } => backend.list(&path).map(Answer::Files),
        Request::Pack { path } => backend.pack(&path, progress).map(Answer::Packed),
        Request::Unpack { path } => backend.unpack(&path, progress).map(Answer::Unpacked),
        Request::Verify { repair_index } => backend.verify(repair_index, progress).map(Answer::Verified),
        Request::Gc { dry_run } => backend.gc(dry_run).map(Answer::Collected),
        Request::Stop { drain, lazy } => backend.stop(drain, lazy, progress).map(Answer::Stopping),
    };
    answer.unwrap_or_else(Answer::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_and_root_may_command() {
        assert!(may_command(0, 1000) && may_command(1000, 1000) && may_command(0, 0));
        assert!(!may_command(1000, 0) && !may_command(1001, 1000));
    }
}
