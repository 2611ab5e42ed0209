//! Ending a mount.

use std::io;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::mountinfo::OurMount;

/// Why a mount is still there.
#[derive(Debug)]
pub enum Failure {
    /// Somebody uses it.
    Busy,
    /// Something else.
    Other(String),
}

/// Unmounts; with `lazy`, out of the tree at once although files are open.
///
/// # Errors
/// [`Failure`].
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), Failure> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::NOFOLLOW };
    match rustix::mount::unmount(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(Failure::Busy),
        // Nothing is mounted there any more.
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(Errno::PERM) => by_helper(mountpoint, lazy),
        Err(error) => Err(Failure::Other(error.to_string())),
    }
}

/// Ends the connection between the kernel and a daemon that may hang, and takes its mount out of the tree: whoever waits
/// for an answer gets an error.
///
/// # Errors
/// [`Failure`]. Without privileges it may be that the connection ends only with the daemon.
pub fn abort(mount: &OurMount) -> Result<(), Failure> {
    let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(&mount.mountpoint, flags) {
        // Or nothing is mounted there any more.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(Errno::PERM) => {
            if let Some((_, minor)) = mount.device.split_once(':') {
                // Not everywhere mounted; it belongs to whoever made the mount.
                let _ = std::fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
            }
            by_helper(&mount.mountpoint, true)
        }
        Err(error) => Err(Failure::Other(error.to_string())),
    }
}

/// Without privileges the setuid helper of fuse3 does it.
fn by_helper(mountpoint: &Path, lazy: bool) -> Result<(), Failure> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(mountpoint).output().map_err(|error| {
        Failure::Other(match error.kind() {
            io::ErrorKind::NotFound => "fusermount3 is missing: install the package fuse3".to_owned(),
            _ => format!("fusermount3: {error}"),
        })
    })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("busy") { Err(Failure::Busy) } else { Err(Failure::Other(message)) }
}
