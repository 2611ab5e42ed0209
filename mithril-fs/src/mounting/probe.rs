//! What the lower file system can do, tried out on a file of our own.

use std::fs::File;
use std::os::fd::AsFd;

use mithril_engine::id::{ManifestId, StoreId};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::note;
use crate::overlay::lower;
use crate::stub::{self, Authority, Namespace};

const PROBE: &str = "probe";

/// Where the kind of attribute is noted that the stubs of a directory use: a daemon that looked for the other kind
/// would take stubs for plain files.
const STUBS: &str = "stubs";

/// What can be done with the packed files of a directory.
#[derive(Debug)]
pub struct Stubs {
    /// Where they keep their authority; `None` if there can be none.
    pub namespace: Option<Namespace>,
    /// Whether there can be more of them; if not, why.
    pub packing: Result<(), Obstacle>,
}

/// Why there can be no more packed files.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Obstacle {
    /// Something is lacking that may be there again later: room, say.
    #[error("the lower directory cannot be written to: {0}")]
    Lack(Errno),
    /// Something that does not go away while it is mounted.
    #[error("{0}")]
    Lasting(String),
}

impl Obstacle {
    /// What kept the probe from being written.
    fn to_writing(error: &std::io::Error) -> Self {
        const PASSING: [Errno; 5] = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::MFILE, Errno::NFILE];
        match Errno::from_io_error(error).filter(|errno| PASSING.contains(errno)) {
            Some(errno) => Obstacle::Lack(errno),
            None => Obstacle::Lasting(format!("the lower directory cannot be written to: {error}")),
        }
    }
}

/// Finds out whether packing is possible: where the stubs of this directory keep their authority, or why there can be
/// none. The first answer is noted, and holds for whoever mounts the directory later: who cannot write now, since the
/// disk is full, can still read.
///
/// # Errors
/// [`Unreadable`] for a directory that may have stubs which cannot be recognised now.
pub fn stubs(store: impl AsFd) -> Result<Stubs, Unreadable> {
    let noted = reading(&store)?;
    let probed = packing(&store);
    let packing = match (noted, probed) {
        (None, Ok(namespace)) => match note::write(&store, STUBS, |_| Ok(namespace.name().to_owned())) {
            Ok(()) => return Ok(Stubs { namespace: Some(namespace), packing: Ok(()) }),
            Err(error) => Err(Obstacle::to_writing(&error)),
        },
        (Some(Namespace::Trusted), Ok(Namespace::User)) => {
            Err(Obstacle::Lasting("the lower file system keeps no trusted attributes now".to_owned()))
        }
        (_, probed) => probed.map(drop),
    };
    Ok(Stubs { namespace: noted, packing })
}

/// Where the stubs of this directory keep their authority, `None` if it has none. Writes nothing.
///
/// # Errors
/// [`Unreadable`] for a directory that may have stubs which cannot be recognised now.
pub fn reading(store: impl AsFd) -> Result<Option<Namespace>, Unreadable> {
    let noted = read_note(&store).map_err(|error| Unreadable(error.to_string()))?;
    if let Some(namespace) = noted {
        recognises(&store, namespace).map_err(Unreadable)?;
    }
    Ok(noted)
}

/// Whether attributes of this kind would be seen if they were there. The kernel hides `trusted.*` from those who may
/// not have them, as if there were none; but it refuses to remove one, whether it is there or not.
fn recognises(store: impl AsFd, namespace: Namespace) -> Result<(), String> {
    // Of the store's own directory, which has no such attribute.
    match rustix::fs::removexattr(lower::proc_path(&store), namespace.name()) {
        Err(Errno::PERM | Errno::ACCESS) if namespace == Namespace::Trusted => {
            Err("its packed files were marked by root; run this as root".to_owned())
        }
        Err(Errno::OPNOTSUPP) => Err("the lower file system keeps no extended attributes now".to_owned()),
        _ => Ok(()),
    }
}

/// Why a directory must not be used: its packed files would be taken for plain ones.
#[derive(Debug, thiserror::Error)]
#[error("the packed files of this directory cannot be recognised: {0}")]
pub struct Unreadable(String);

fn read_note(store: impl AsFd) -> std::io::Result<Option<Namespace>> {
    let Some(text) = note::read(store, STUBS)? else { return Ok(None) };
    let found = [Namespace::Trusted, Namespace::User].into_iter().find(|namespace| namespace.name() == text);
    let other = || std::io::Error::other(format!("{STUBS} says {text:?}, which this version does not know"));
    found.map(Some).ok_or_else(other)
}

/// What the lower file system can do.
fn packing(store: impl AsFd) -> Result<Namespace, Obstacle> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&store, PROBE, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| Obstacle::to_writing(&error.into()))?;
    let result = probe(&File::from(file));
    // Left over, it is overwritten by the next probe.
    let _ = rustix::fs::unlinkat(&store, PROBE, AtFlags::empty());
    result
}

fn probe(file: &File) -> Result<Namespace, Obstacle> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(&[1; 8192], 0).map_err(|error| Obstacle::to_writing(&error))?;
    lower::punch(file, 8192)
        .map_err(|error| Obstacle::Lasting(format!("the lower file system cannot punch holes: {error}")))?;
    lower::take_lease(file).and_then(|()| lower::drop_lease(file)).map_err(|error| {
        Obstacle::Lasting(format!(
            "the lower file system has no leases, so files in use cannot be told: {error}"
        ))
    })?;
    namespace(file)
}

/// `trusted.*` where we may, since nobody else can forge it; else `user.*`.
fn namespace(file: &File) -> Result<Namespace, Obstacle> {
    let authority = Authority {
        store: StoreId::from_low_bits(0),
        manifest: ManifestId::of(b"probe"),
        size: 0,
        mtime_ns: 0,
        inode: 0,
    };
    for namespace in [Namespace::Trusted, Namespace::User] {
        match stub::write_attribute(file, namespace, &authority) {
            Ok(()) => {}
            // Not for us, or not at all. A full disk says nothing about the other kind.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
                return Err(Obstacle::to_writing(&error));
            }
            Err(_) => continue,
        }
        if stub::read_attribute(file, namespace).is_ok_and(|value| value.is_some())
            && readable_by_path(file, namespace)
        {
            return Ok(namespace);
        }
    }
    Err(Obstacle::Lasting("the lower file system keeps no extended attributes of users".to_owned()))
}

/// The attribute is read through `/proc` later, where a file system may behave otherwise.
fn readable_by_path(file: &File, namespace: Namespace) -> bool {
    let mut value = [0; stub::AUTHORITY_BYTES];
    let read = rustix::fs::getxattr(lower::proc_path(file), namespace.name(), &mut value[..]);
    !matches!(read, Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM)) && read.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let _ = packing(File::open(dir.path()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_noted_can_be_read_where_nothing_can_be_written() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = File::open(dir.path()).unwrap();
        assert_eq!(reading(&store).unwrap(), None);
        let first = stubs(&store).unwrap();
        assert_eq!((first.namespace.is_some(), &first.packing), (true, &Ok(())));
        // A directory in the place of the probe's file fails as a full disk does.
        std::fs::create_dir(dir.path().join(PROBE)).unwrap();
        let second = stubs(&store).unwrap();
        assert_eq!(second.namespace, first.namespace);
        assert!(second.packing.is_err_and(|reason| reason.to_string().contains("cannot be written to")));
        assert_eq!(reading(&store).unwrap(), first.namespace);
    }
}
