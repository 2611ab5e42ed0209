//! Where a daemon's socket is: in the runtime directory of its user, named by the mount's device.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The directory of a user's sockets.
fn directory_of(user: u32, own_runtime_dir: Option<PathBuf>) -> PathBuf {
    if user == 0 {
        return PathBuf::from("/run/mithril-fs");
    }
    let runtime = own_runtime_dir.or_else(|| {
        let runtime = PathBuf::from(format!("/run/user/{user}"));
        runtime.is_dir().then_some(runtime)
    });
    runtime.map_or_else(
        || PathBuf::from(format!("/tmp/mithril-fs-{user}")),
        |runtime| runtime.join("mithril-fs"),
    )
}

/// The socket of the daemon of `owner` that serves `device` (`MAJOR:MINOR`).
pub fn path(owner: u32, device: &str) -> PathBuf {
    let me = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|_| owner == me && me != 0);
    directory_of(owner, runtime).join(format!("{device}.sock"))
}

/// Makes the directory of a socket, and checks that nobody else can put anything there.
///
/// # Errors
/// Those of the system; `PermissionDenied` for a directory that is not ours alone.
pub fn prepare(socket: &Path) -> io::Result<()> {
    let directory = socket.parent().ok_or(io::ErrorKind::InvalidInput)?;
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = std::fs::symlink_metadata(directory)?;
    let mine = metadata.is_dir()
        && metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.mode() & 0o077 == 0;
    if !mine {
        let message = format!("{} is not a directory of this user alone; remove it", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_directory() {
        assert_eq!(directory_of(0, None), Path::new("/run/mithril-fs"));
        assert_eq!(directory_of(4_000_000, None), Path::new("/tmp/mithril-fs-4000000"));
        assert_eq!(directory_of(7, Some("/r".into())), Path::new("/r/mithril-fs"));
    }
}
