//! The daemon's side of the socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::backend::{Backend, ProgressSink};
use super::protocol::{Answer, CommandError, Progress, Request};
use super::socket::{self, Peer};

/// Longest request: a path and a few words.
const REQUEST_MAX_BYTES: u64 = 64 << 10;

/// Connections at once; more are closed.
const MAX_CONNECTIONS: usize = 32;

/// How often it is looked whether the socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often progress is told at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A socket that is listened on, for as long as it is there: one that somebody removed is made anew.
///
/// Its name stays when it is dropped: as soon as the mount is gone, its device number may be another mount's, whose
/// socket has the same name by then. The next one of that name takes its place.
pub struct Server {
    active: Arc<Active>,
}

/// The connections that are being answered.
#[derive(Default)]
struct Active {
    count: Mutex<usize>,
    changed: Condvar,
    /// No socket is made any more.
    ends: AtomicBool,
}

impl Active {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Listens in the first of `places` that will do, and answers with `backend`, each connection on a thread of its
    /// own. `report` is told if there is none; it is tried again all the while.
    ///
    /// # Errors
    /// That there can be no thread for it.
    pub fn start(
        places: Vec<PathBuf>,
        backend: Arc<dyn Backend>,
        report: impl Fn(String) + Send + 'static,
    ) -> io::Result<Self> {
        let active = Arc::<Active>::default();
        let shared = Arc::clone(&active);
        let mut listening = try_to_listen(&places, &report);
        std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            while !shared.ends.load(Ordering::SeqCst) {
                match &listening {
                    Some((listener, path)) => match listener.accept() {
                        Ok((stream, _)) => answer(stream, &backend, &shared),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            // Never one that is there: it may be another mount's since ours is gone.
                            if is_gone(path) {
                                tracing::warn!("somebody removed {}; listening anew", path.display());
                                listening = try_to_listen(&places, &report);
                            }
                        }
                        // Too many descriptors, say.
                        Err(_) => std::thread::sleep(PROGRESS_EVERY),
                    },
                    None => {
                        std::thread::sleep(LOOK_EVERY);
                        listening = try_to_listen(&places, &|_| {});
                    }
                }
            }
        })?;
        Ok(Self { active })
    }

    /// Waits until the connections that are open were answered, but not for long.
    pub fn finish(&self, patience: Duration) {
        self.active.ends.store(true, Ordering::SeqCst);
        let active = self.active.lock();
        drop(self.active.changed.wait_timeout_while(active, patience, |active| *active > 0));
    }
}

fn try_to_listen(places: &[PathBuf], report: &dyn Fn(String)) -> Option<(UnixListener, PathBuf)> {
    // `accept` gives up after a while, so that its thread can look whether the socket is still there.
    let listened = socket::listen(places).and_then(|(listener, path)| {
        set_socket_timeout(&listener, Timeout::Recv, Some(LOOK_EVERY))?;
        Ok((listener, path))
    });
    match listened {
        Ok(listening) => Some(listening),
        Err(error) => {
            report(format!("commands do not reach this daemon: {error}"));
            None
        }
    }
}

fn is_gone(path: &Path) -> bool {
    let gone = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    std::fs::symlink_metadata(path).is_err_and(|error| gone.contains(&error.kind()))
}

/// Answers a connection on a thread of its own, unless there are too many.
fn answer(stream: UnixStream, backend: &Arc<dyn Backend>, active: &Arc<Active>) {
    let mut count = active.lock();
    if *count >= MAX_CONNECTIONS {
        return;
    }
    *count += 1;
    drop(count);
    let (backend, counted) = (Arc::clone(backend), Arc::clone(active));
    let spawned = std::thread::Builder::new().spawn(move || {
        match catch_unwind(AssertUnwindSafe(|| serve(&stream, &*backend))) {
            Ok(Then::Close) => {}
            // The end of this process closes it.
            Ok(Then::KeepOpen) => std::mem::forget(stream),
            Err(_) => tracing::error!("a command panicked"),
        }
        *counted.lock() -= 1;
        counted.changed.notify_all();
    });
    if spawned.is_err() {
        *active.lock() -= 1;
    }
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
    let caller = Peer::of(stream).map(|peer| peer.user);
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
        Request::Estimate { path } => backend.estimate(&path, progress).map(Answer::Estimated),
        Request::Unpack { path } => backend.unpack(&path, progress).map(Answer::Unpacked),
        Request::Verify { repair_index } => backend.verify(repair_index, progress).map(Answer::Verified),
        Request::Gc { dry_run } => backend.gc(dry_run).map(Answer::Collected),
        Request::Pause => backend.pause().map(Answer::Packing),
        Request::Resume => backend.resume().map(Answer::Packing),
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
