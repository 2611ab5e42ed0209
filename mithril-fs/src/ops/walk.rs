//! Walking the lower tree: every regular file with its state. Follows no symlink, enters no other file system, and
//! opens no file: an open would break the leases of a packer.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mithril_engine::id::{ManifestId, StoreId};
use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Directory;
use crate::control::protocol::{RelPath, Unseen};
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

impl State {
    /// The manifest of our store that the stub names, whether it fits its file or not.
    pub fn manifest(&self) -> Option<ManifestId> {
        match self {
            State::Plain => None,
            State::Packed(authority) => Some(authority.manifest),
            State::Damaged(_, manifest) => *manifest,
        }
    }
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

/// Names that are kept of what a walk could not look at, and of nested stores.
const NAMED: usize = 100;

/// What a walk came past without visiting it.
#[derive(Clone, Debug, Default)]
#[must_use = "stubs may be among what was not looked at"]
pub struct Walked {
    /// What could not be looked at, as far as it is named, and why.
    pub unseen: Vec<(PathBuf, Errno)>,
    /// How much more there was.
    pub unseen_more: u64,
    /// Directories that have a store of their own.
    pub nested: Vec<PathBuf>,
}

impl Walked {
    fn could_not_see(&mut self, path: PathBuf, error: Errno) {
        if self.unseen.len() < NAMED {
            self.unseen.push((path, error));
        } else {
            self.unseen_more += 1;
        }
    }

    /// For the reports.
    pub fn report(&self) -> Unseen {
        let named = |(path, error): &(PathBuf, Errno)| (RelPath::from(path.clone()), why_unseen(*error));
        Unseen { named: self.unseen.iter().map(named).collect(), more: self.unseen_more }
    }
}

/// Why something could not be looked at, for people.
pub fn why_unseen(error: Errno) -> String {
    match error {
        Errno::XDEV => "another file system is mounted there".to_owned(),
        other => other.to_string(),
    }
}

/// Calls `visit` for the file at `start`, or for every regular file below it, sorted within each directory; until it
/// returns `false`. What vanishes meanwhile is passed over; what cannot be looked at is in the answer.
///
/// A directory below the top that has a store of its own is that store's: of its files, only stubs of ours are
/// visited. They were packed before the other store was made, and our chunks are still all that there is of them.
///
/// # Errors
/// Those of finding and reading `start`.
pub fn walk(
    directory: &Directory<'_>,
    start: &Path,
    visit: &mut dyn FnMut(Found) -> bool,
) -> rustix::io::Result<Walked> {
    let located = lower::locate_path(directory.root, start)?;
    let stat = lower::stat(&located)?;
    let device = lower::stat(directory.root)?.st_dev;
    let mut walk = Walk { directory, device, visit, walked: Walked::default() };
    let nested = store_above(directory.root, start).is_some();
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => drop(walk.file(&located, start.to_owned(), stat, nested)?),
        FileType::Directory => walk.tree(start, nested)?,
        _ => {}
    }
    Ok(walk.walked)
}

/// The directory with a store of its own that `path` lies in, other than the top.
pub(crate) fn store_above(root: impl AsFd, path: &Path) -> Option<PathBuf> {
    let parents = path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty());
    parents.filter(|dir| has_store(&root, dir)).last().map(Path::to_owned)
}

/// Whether the directory `dir` below `root` has a store.
fn has_store(root: impl AsFd, dir: &Path) -> bool {
    let packs = dir.join(STORE_DIR).join("packs");
    lower::locate_path(root, &packs)
        .and_then(|fd| lower::stat(&fd))
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// A walk under way.
struct Walk<'a> {
    directory: &'a Directory<'a>,
    device: u64,
    visit: &'a mut dyn FnMut(Found) -> bool,
    walked: Walked,
}

impl Walk<'_> {
    fn tree(&mut self, start: &Path, nested: bool) -> rustix::io::Result<()> {
        let mut todo = vec![(start.to_owned(), nested)];
        while let Some((dir, nested)) = todo.pop() {
            let mut children = Vec::new();
            match self.list(&dir, nested, &mut children) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if dir == start => return Err(error),
                // It is gone, whatever has its name now.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => self.walked.could_not_see(dir, error),
            }
            children.reverse();
            todo.extend(children);
        }
        Ok(())
    }

    /// Visits the files of one directory and finds its subdirectories. `false` if the visitor has enough.
    fn list(
        &mut self,
        dir: &Path,
        mut nested: bool,
        children: &mut Vec<(PathBuf, bool)>,
    ) -> rustix::io::Result<bool> {
        let located = lower::locate_path(self.directory.root, dir)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&located, c".", flags, Mode::empty())?;
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in Dir::read_from(&opened)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        let top = dir.as_os_str().is_empty();
        let ours = |name: &Vec<u8>| name == STORE_DIR.as_bytes();
        if top || (names.iter().any(ours) && has_store(&opened, Path::new(""))) {
            names.retain(|name| !ours(name));
            if !top {
                nested = true;
                if self.walked.nested.len() < NAMED {
                    self.walked.nested.push(dir.to_owned());
                }
            }
        }
        names.sort();
        for name in names {
            let name = OsStr::from_bytes(&name);
            let path = if top { PathBuf::from(name) } else { dir.join(name) };
            match self.entry(&opened, name, &path, nested) {
                Ok(Entry::Directory) => children.push((path, nested)),
                Ok(Entry::Other { enough: false }) | Err(Errno::NOENT) => {}
                Ok(Entry::Other { enough: true }) => return Ok(false),
                Err(error) => self.walked.could_not_see(path, error),
            }
        }
        Ok(true)
    }

    fn entry(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path, nested: bool) -> rustix::io::Result<Entry> {
        let fd = lower::locate(dir, name)?;
        let stat = lower::stat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory | FileType::RegularFile if stat.st_dev != self.device => Err(Errno::XDEV),
            FileType::Directory => Ok(Entry::Directory),
            FileType::RegularFile => {
                Ok(Entry::Other { enough: !self.file(&fd, path.to_owned(), stat, nested)? })
            }
            _ => Ok(Entry::Other { enough: false }),
        }
    }

    /// Visits a file. `false` if the visitor has enough.
    fn file(&mut self, fd: &OwnedFd, path: PathBuf, stat: Stat, nested: bool) -> rustix::io::Result<bool> {
        let state = state_of(fd, &stat, self.directory.store.id(), self.directory.namespace)?;
        Ok((nested && state.manifest().is_none()) || (self.visit)(Found { path, stat, state }))
    }
}

/// What has a name.
enum Entry {
    Directory,
    Other { enough: bool },
}

/// The state of a located file.
pub(crate) fn state_of(
    fd: &OwnedFd,
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
