//! Since when a directory is one of ours: files that did not change since then were there before, and are not packed
//! unless somebody wants that. Noted in the lower `.mithril`, so that what waits at the end of a mount, or at a crash, is
//! told from them at the next one.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::note;
use crate::overlay::lower;

const SINCE: &str = "since";

/// The time, in ns since 1970 by the clock of the file system below, since when files are packed. A directory that has
/// none yet gets the present; or the beginning of all time, if it `has_packs` already, or if `all` are wanted: from then
/// on too.
///
/// # Errors
/// Those of the system.
pub fn since(store: impl AsFd, has_packs: bool, all: bool) -> io::Result<i64> {
    let noted = read(&store)?;
    match noted {
        Some(since) if !all || since == 0 => Ok(since),
        _ => note(&store, all || has_packs),
    }
}

fn read(store: impl AsFd) -> io::Result<Option<i64>> {
    let Some(text) = note::read(store, SINCE)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| io::Error::other(format!("{SINCE} says {text:?}, which is no time")))
}

fn note(store: impl AsFd, from_the_beginning: bool) -> io::Result<i64> {
    let mut since = 0;
    note::write(store, SINCE, |file| {
        if !from_the_beginning {
            // Its own time: other clocks may be ahead of that of the files.
            file.write_all_at(b" ", 0)?;
            since = lower::ctime_ns(&lower::stat(file)?);
        }
        Ok(since.to_string())
    })?;
    Ok(since)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn it_is_noted_once_and_forgotten_where_all_are_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let store = File::open(dir.path()).unwrap();
        let first = since(&store, false, false).unwrap();
        assert!(first > 0);
        assert_eq!(since(&store, true, false).unwrap(), first);
        std::fs::write(dir.path().join("later"), "").unwrap();
        assert!(lower::ctime_ns(&rustix::fs::stat(dir.path().join("later")).unwrap()) >= first);
        assert_eq!(since(&store, true, true).unwrap(), 0);
        assert_eq!(since(&store, false, false).unwrap(), 0);
        std::fs::remove_file(dir.path().join(SINCE)).unwrap();
        assert_eq!(since(&store, true, false).unwrap(), 0, "a store of an earlier version");
    }
}
