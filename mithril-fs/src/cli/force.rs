//! `umount --force`: the way out of a mount whose daemon hangs. Neither of them is asked for anything.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Outcome;
use crate::control::client::Connection;
use crate::control::protocol::CommandError;
use crate::exit::ExitCode;
use crate::mounting::lock;
use crate::mounting::mountinfo::{self, OurMount};
use crate::mounting::unmount;
use crate::overlay::STORE_DIR;

/// How long a mount may take to answer before it is said that it does not.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a daemon may take to end by itself once its mount is gone: one that packs does its last step.
const GRACE: Duration = Duration::from_secs(3);

/// How long one may take that was killed.
const LAST_BREATH: Duration = Duration::from_secs(5);

fn failed(message: String) -> CommandError {
    CommandError { message, exit_code: ExitCode::Failed as u8 }
}

/// Does what asks a mount; `None` if that takes too long. It is not waited for any more then.
pub(super) fn unless_it_hangs<T: Send + 'static>(asking: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = mpsc::channel();
    std::thread::spawn(move || answer.send(asking()));
    answered.recv_timeout(ANSWER).ok()
}

pub(super) fn umount(path: &Path) -> Outcome {
    let place = Place::of(path)?;
    let daemon = place.daemon().and_then(open_process);
    let taken = place.mount.as_ref().map_or(Ok(()), unmount::abort);
    let shown = place.path.display();
    let Some(daemon) = daemon else {
        return match (&place.mount, taken) {
            (None, _) => Err(CommandError {
                message: format!("{shown} is not mounted, and no process is seen that has it"),
                exit_code: ExitCode::NotMounted as u8,
            }),
            (Some(_), Ok(())) => {
                println!(
                    "{shown} is not mounted any more; its daemon is not seen from here, and was not ended"
                );
                Ok(ExitCode::Ok)
            }
            (Some(_), Err(error)) => Err(failed(format!("cannot end the mount at {shown}: {error:?}"))),
        };
    };
    if !has_ended_within(&daemon, GRACE) {
        match pidfd_send_signal(&daemon, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(failed(format!("cannot kill the daemon of {shown}: {error}"))),
        }
        if !has_ended_within(&daemon, LAST_BREATH) {
            return Err(failed(format!(
                "the daemon of {shown} was killed, and waits for the disk: it ends once that answers"
            )));
        }
        println!("the daemon did not end by itself, and was killed");
    }
    // Without privileges, the mount may be there until its daemon has ended.
    if let (Some(mount), Err(_)) = (&place.mount, taken) {
        unmount::abort(mount)
            .map_err(|error| failed(format!("cannot end the mount at {shown}: {error:?}")))?;
    }
    println!("{shown} is free; what is not packed yet is found by the next mount");
    Ok(ExitCode::Ok)
}

/// What is to be ended.
struct Place {
    /// The mount point, or the directory that a daemon has without a mount in the tree.
    path: PathBuf,
    mount: Option<OurMount>,
}

impl Place {
    /// Finds out by the list of mounts what `path` is: below a mount that hangs, nothing can be looked at.
    fn of(path: &Path) -> Result<Self, CommandError> {
        let unlisted = |error: std::io::Error| failed(format!("{}: {error}", path.display()));
        let named = std::path::absolute(path).map_err(unlisted)?;
        let mut mount = mountinfo::covering(&named).map_err(unlisted)?;
        let mut directory = named;
        if mount.is_none()
            && let (Some(parent), Some(name)) = (directory.parent(), directory.file_name())
        {
            directory = parent.canonicalize().map_err(unlisted)?.join(name);
            mount = mountinfo::covering(&directory).map_err(unlisted)?;
        }
        if mount.is_none() {
            directory = directory.canonicalize().map_err(unlisted)?;
            let above = directory.ancestors().find(|above| above.join(STORE_DIR).is_dir());
            directory = above.map_or_else(|| directory.clone(), Path::to_owned);
            let mut mounts = mountinfo::of_directory(&directory).map_err(unlisted)?.into_iter();
            mount = mounts.find(|mount| lock::says_mounted_at(&directory, &mount.mountpoint));
        }
        Ok(Self { path: mount.as_ref().map_or(directory, |mount| mount.mountpoint.clone()), mount })
    }

    /// The process that has it.
    fn daemon(&self) -> Option<u32> {
        match &self.mount {
            Some(mount) => Connection::open(mount).ok()?.daemon,
            None => lock::holding_process(&self.path),
        }
    }
}

/// A descriptor, so that no other process of the same number is killed.
fn open_process(process: u32) -> Option<OwnedFd> {
    let process = Pid::from_raw(i32::try_from(process).ok()?)?;
    pidfd_open(process, PidfdFlags::empty()).ok()
}

fn has_ended_within(process: &OwnedFd, patience: Duration) -> bool {
    let patience = Timespec { tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut waited = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut waited, Some(&patience)), Ok(1..))
}
