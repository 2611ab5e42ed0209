//! Where a daemon's socket is, and who is at its other end.
//!
//! It is named by the mount's device, in the runtime directory of its user. That goes when the user logs out, and a
//! command may be started where another one is set, or none: so there are more places than one. A daemon listens in the
//! first that it can use; commands look in all of them.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The places for the socket of the daemon of `owner` that serves `device` (`MAJOR:MINOR`), the best one first.
pub fn places(owner: u32, device: &str) -> Vec<PathBuf> {
    let me = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|_| owner == me && me != 0);
    let directories = directories_of(owner, runtime);
    directories.into_iter().map(|directory| directory.join(format!("{device}.sock"))).collect()
}

/// The directories for a user's sockets.
fn directories_of(user: u32, own_runtime_dir: Option<PathBuf>) -> Vec<PathBuf> {
    let anywhere = PathBuf::from(format!("/tmp/mithril-fs-{user}"));
    if user == 0 {
        return vec![PathBuf::from("/run/mithril-fs"), anywhere];
    }
    let logged_in = PathBuf::from(format!("/run/user/{user}"));
    let runtime = own_runtime_dir.into_iter().filter(|dir| dir.is_absolute() && *dir != logged_in);
    let mut directories: Vec<_> = runtime.collect();
    directories.push(logged_in);
    directories.iter_mut().for_each(|directory| directory.push("mithril-fs"));
    directories.push(anywhere);
    directories
}

/// Listens in the first of these places where nobody else can put anything.
///
/// # Errors
/// Why not in the first one, if there is none.
pub fn listen(places: &[PathBuf]) -> io::Result<(UnixListener, PathBuf)> {
    let mut first = None;
    for place in places {
        match listen_at(place) {
            Ok(listener) => return Ok((listener, place.clone())),
            Err(error) => {
                let error = io::Error::new(error.kind(), format!("{}: {error}", place.display()));
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::InvalidInput.into()))
}

fn listen_at(socket: &Path) -> io::Result<UnixListener> {
    prepare(socket)?;
    // In one step, whatever is there: the mount that had this device number before, or nothing.
    let fresh = socket.with_extension(format!("{}", std::process::id()));
    remove(&fresh)?;
    let listener = UnixListener::bind(&fresh)?;
    std::fs::rename(&fresh, socket).inspect_err(|_| drop(remove(&fresh)))?;
    Ok(listener)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the directory of a socket, and checks that nobody else can put anything there.
fn prepare(socket: &Path) -> io::Result<()> {
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
        let message = "its directory is not of this user alone; remove it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// Connects to the daemon of `owner` in the first of these places where it is, or root.
///
/// # Errors
/// The most telling one, with its place: nobody there is the least.
pub fn connect(places: &[PathBuf], owner: u32) -> Result<(UnixStream, Peer), (PathBuf, io::Error)> {
    let mut failed: Option<(PathBuf, io::Error)> = None;
    for place in places {
        match connect_at(place, owner) {
            Ok(connected) => return Ok(connected),
            Err(error) => {
                let tells_less = |known: &(PathBuf, io::Error)| {
                    known.1.kind() == io::ErrorKind::NotFound && error.kind() != io::ErrorKind::NotFound
                };
                if failed.as_ref().is_none_or(tells_less) {
                    failed = Some((place.clone(), error));
                }
            }
        }
    }
    Err(failed.unwrap_or_else(|| (PathBuf::new(), io::ErrorKind::InvalidInput.into())))
}

fn connect_at(socket: &Path, owner: u32) -> io::Result<(UnixStream, Peer)> {
    let stream = UnixStream::connect(socket)?;
    let peer = Peer::of(&stream)?;
    // Before a word is said: what is there may be anybody's, in a directory that all may write to.
    if !may_serve(peer.user, owner) {
        let message = format!("user {} listens there, not the one who mounted", peer.user);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok((stream, peer))
}

/// Whether a process of `user` may be the daemon of a mount of `owner`.
fn may_serve(user: u32, owner: u32) -> bool {
    user == owner || user == 0
}

/// The process at the other end of a connection, when it connected or began to listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its effective user.
    pub user: u32,
    /// Its id, if it can be seen from here.
    pub process: Option<u32>,
}

impl Peer {
    /// Who is at the other end.
    ///
    /// # Errors
    /// Those of the system.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `len` bytes of a `ucred` to a live one; the descriptor is open.
        let result = unsafe {
            let to = (&raw mut credentials).cast();
            libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, to, &raw mut len)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // A process of another namespace has the id 0 here.
        let process = u32::try_from(credentials.pid).ok().filter(|&pid| pid != 0);
        Ok(Self { user: credentials.uid, process })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn each_user_has_directories() {
        let paths = |user, runtime: Option<&str>| -> Vec<String> {
            let directories = directories_of(user, runtime.map(PathBuf::from));
            directories.iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(paths(0, None), ["/run/mithril-fs", "/tmp/mithril-fs-0"]);
        assert_eq!(paths(7, None), ["/run/user/7/mithril-fs", "/tmp/mithril-fs-7"]);
        assert_eq!(paths(7, Some("/run/user/7")), paths(7, None));
        assert_eq!(paths(7, Some("relative")), paths(7, None));
        assert_eq!(paths(7, Some("/r"))[..2], ["/r/mithril-fs", "/run/user/7/mithril-fs"]);
    }

    #[test]
    fn the_first_place_that_can_be_used_is() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name).join("0:1.sock");
        std::fs::create_dir(dir.path().join("open")).unwrap();
        let places = [place("missing/deeper"), place("open"), place("good"), place("later")];
        let (listener, chosen) = listen(&places).unwrap();
        assert_eq!(chosen, place("good"));
        let (_, peer) = connect(&places, me()).unwrap();
        assert_eq!(peer, Peer { user: me(), process: Some(std::process::id()) });
        // What is there of a daemon that ended is replaced.
        drop(listener);
        let (place_failed, error) = connect(&places, me()).unwrap_err();
        assert_eq!((place_failed, error.kind()), (place("good"), io::ErrorKind::ConnectionRefused));
        let (_listener, chosen) = listen(&places).unwrap();
        assert_eq!(chosen, place("good"));
        connect(&places, me()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("good")).unwrap().count(), 1, "nothing is left over");
        let refused = listen(&places[1..2]).unwrap_err().to_string();
        assert!(refused.contains("open/0:1.sock: its directory is not"), "{refused}");
    }

    #[test]
    fn only_the_owner_and_root_may_serve() {
        assert!(may_serve(7, 7) && may_serve(0, 7) && may_serve(0, 0));
        assert!(!may_serve(7, 0) && !may_serve(8, 7));
    }
}
