//! What the lower file system can do, tried out on a file of our own.

use std::fs::File;
use std::os::fd::AsFd;

use mithril_engine::id::{ManifestId, StoreId};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::overlay::lower;
use crate::stub::{self, Authority, Namespace};

const PROBE: &str = "probe";

/// Where the kind of attribute is noted that the stubs of a directory use: a daemon that looked for the other kind
/// would take stubs for plain files.
const STUBS: &str = "stubs";

/// Finds out whether packing is possible: where the stubs of this directory keep their authority, or why there can be
/// none. The first answer is noted, and holds for whoever mounts the directory later.
///
/// # Errors
/// [`Unreadable`] for a directory that may have stubs which cannot be recognised now.
pub fn stubs(store: impl AsFd) -> Result<Result<Namespace, String>, Unreadable> {
    let probed = packing(&store);
    let noted = read_note(&store).map_err(|error| Unreadable(error.to_string()))?;
    match (noted, probed) {
        (None, Ok(namespace)) => match write_note(&store, namespace) {
            Ok(()) => Ok(Ok(namespace)),
            Err(error) => Ok(Err(format!("the lower directory cannot be written to: {error}"))),
        },
        (None, Err(reason)) => Ok(Err(reason)),
        (Some(Namespace::User), Ok(_)) => Ok(Ok(Namespace::User)),
        (Some(Namespace::Trusted), Ok(Namespace::Trusted)) => Ok(Ok(Namespace::Trusted)),
        (Some(Namespace::Trusted), Ok(Namespace::User)) => {
            Err(Unreadable("its packed files were marked by root; run this as root".to_owned()))
        }
        (Some(_), Err(reason)) => Err(Unreadable(format!("it may hold packed files, but {reason}"))),
    }
}

/// Why a directory must not be used: its packed files would be taken for plain ones.
#[derive(Debug, thiserror::Error)]
#[error("the packed files of this directory cannot be recognised: {0}")]
pub struct Unreadable(String);

fn read_note(store: impl AsFd) -> std::io::Result<Option<Namespace>> {
    use std::io::Read;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(store, STUBS, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = String::new();
    file.take(64).read_to_string(&mut text)?;
    let found =
        [Namespace::Trusted, Namespace::User].into_iter().find(|namespace| namespace.name() == text.trim());
    let other = || std::io::Error::other(format!("{STUBS} says {text:?}, which this version does not know"));
    found.map(Some).ok_or_else(other)
}

fn write_note(store: impl AsFd, namespace: Namespace) -> std::io::Result<()> {
    use std::io::Write;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let unfinished = "stubs.new";
    let mut file = File::from(rustix::fs::openat(&store, unfinished, flags, Mode::from_raw_mode(0o600))?);
    writeln!(file, "{}", namespace.name())?;
    file.sync_all()?;
    rustix::fs::renameat(&store, unfinished, &store, STUBS)?;
    Ok(rustix::fs::fsync(lower::reopen(&store, OFlags::RDONLY | OFlags::DIRECTORY)?)?)
}

/// What the lower file system can do.
fn packing(store: impl AsFd) -> Result<Namespace, String> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&store, PROBE, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| format!("the lower directory cannot be written to: {error}"))?;
    let result = probe(&File::from(file));
    // Left over, it is overwritten by the next probe.
    let _ = rustix::fs::unlinkat(&store, PROBE, AtFlags::empty());
    result
}

fn probe(file: &File) -> Result<Namespace, String> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(&[1; 8192], 0)
        .map_err(|error| format!("the lower directory cannot be written to: {error}"))?;
    lower::punch(file, 8192).map_err(|error| format!("the lower file system cannot punch holes: {error}"))?;
    lower::take_lease(file).and_then(|()| lower::drop_lease(file)).map_err(|error| {
        format!("the lower file system has no leases, so files in use cannot be told: {error}")
    })?;
    namespace(file).ok_or_else(|| "the lower file system keeps no extended attributes of users".to_owned())
}

/// `trusted.*` where we may, since nobody else can forge it; else `user.*`.
fn namespace(file: &File) -> Option<Namespace> {
    let authority = Authority {
        store: StoreId::from_low_bits(0),
        manifest: ManifestId::of(b"probe"),
        size: 0,
        mtime_ns: 0,
        inode: 0,
    };
    let works = |namespace: &Namespace| {
        stub::write_attribute(file, *namespace, &authority).is_ok()
            && stub::read_attribute(file, *namespace).is_ok_and(|value| value.is_some())
            && readable_by_path(file, *namespace)
    };
    [Namespace::Trusted, Namespace::User].into_iter().find(works)
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
}
