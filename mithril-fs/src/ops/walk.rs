//! Walking the lower tree: every regular file with its state. Follows no symlink, enters no other file system, and
//! opens no file: an open would break the leases of a packer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mithril_engine::id::{ManifestId, StoreId};
use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Directory;
use crate::overlay::{STORE_DIR, lower};
use crate::stub::{self, Authority, Namespace};

/// The state of a file, as its stub says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// No stub.
    Plain,
    /// A stub that fits.
    Packed(Authority),
    /// A stub that does not: the reason, and the manifest that it names if it is of our store.
    Damaged(String, Option<ManifestId>),
}

/// A regular file.
#[derive(Clone, Debug)]
pub struct Found {
    /// Below the directory.
    pub path: PathBuf,
    /// The lower file.
    pub stat: Stat,
    /// Its state.
    pub state: State,
}

impl Found {
    /// Its size as users see it.
    pub fn logical_bytes(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }
}

/// Calls `visit` for the file at `start`, or for every regular file below it, sorted within each directory; until it
/// returns `false`. What vanishes meanwhile is passed over.
///
/// # Errors
/// Those of finding `start`, and of reading a directory.
pub fn walk(
    directory: &Directory<'_>,
    start: &Path,
    visit: &mut dyn FnMut(Found) -> bool,
) -> rustix::io::Result<()> {
    let located = lower::locate_path(directory.root, start)?;
    let stat = lower::stat(&located)?;
    let device = lower::stat(directory.root)?.st_dev;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            let state = state_of(&located, &stat, directory.store.id(), directory.namespace)?;
            visit(Found { path: start.to_owned(), stat, state });
        }
        return Ok(());
    }
    let mut todo = vec![start.to_owned()];
    while let Some(dir) = todo.pop() {
        let mut children = Vec::new();
        match list(directory, &dir, device, &mut children, visit) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV) if dir != start => continue,
            Err(error) => return Err(error),
        }
        children.reverse();
        todo.extend(children);
    }
    Ok(())
}

fn list(
    directory: &Directory<'_>,
    dir: &Path,
    device: u64,
    children: &mut Vec<PathBuf>,
    visit: &mut dyn FnMut(Found) -> bool,
) -> rustix::io::Result<bool> {
    let located = lower::locate_path(directory.root, dir)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&located, c".", flags, Mode::empty())?;
    let mut names: Vec<Vec<u8>> = Vec::new();
    for entry in Dir::read_from(&opened)? {
        let name = entry?.file_name().to_bytes().to_vec();
        let ours = dir.as_os_str().is_empty() && name == STORE_DIR.as_bytes();
        if name != b"." && name != b".." && !ours {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let name = OsStr::from_bytes(&name);
        let Ok(fd) = lower::locate(&opened, name) else { continue };
        let stat = lower::stat(&fd)?;
        let path = if dir.as_os_str().is_empty() { PathBuf::from(name) } else { dir.join(name) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if stat.st_dev == device => children.push(path),
            FileType::RegularFile if stat.st_dev == device => {
                let state = state_of(&fd, &stat, directory.store.id(), directory.namespace)?;
                if !visit(Found { path, stat, state }) {
                    return Ok(false);
                }
            }
            _ => {}
        }
    }
    Ok(true)
}

/// The state of a located file.
fn state_of(
    fd: &std::os::fd::OwnedFd,
    stat: &Stat,
    store: StoreId,
    namespace: Option<Namespace>,
) -> rustix::io::Result<State> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    // An interrupted truncation leaves the attribute at size 0: that is an empty file, and plain.
    let Some(namespace) = namespace.filter(|_| size > 0) else { return Ok(State::Plain) };
    let mut value = [0; stub::AUTHORITY_BYTES + 1];
    let len = match rustix::fs::getxattr(lower::proc_path(fd), namespace.name(), &mut value[..]) {
        Ok(len) => len,
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(State::Plain),
        Err(Errno::RANGE) => value.len(),
        Err(error) => return Err(error),
    };
    Ok(match Authority::decode(&value[..len]) {
        Err(distrust) => State::Damaged(distrust.to_string(), None),
        Ok(authority) => match authority.check(store, stat.st_ino, size) {
            Ok(()) => State::Packed(authority),
            Err(distrust) => {
                State::Damaged(distrust.to_string(), (authority.store == store).then_some(authority.manifest))
            }
        },
    })
}
