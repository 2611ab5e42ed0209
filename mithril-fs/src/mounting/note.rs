//! Short notes that are kept in the store's directory: one line each, replaced as a whole.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::fault::{self, Point};
use crate::overlay::lower;

/// More than any note has.
const NOTE_MAX_BYTES: u64 = 64;

/// What a note says, without the space around it; `None` if there is none.
pub(super) fn read(store: impl AsFd, name: &str) -> io::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(store, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = String::new();
    file.take(NOTE_MAX_BYTES).read_to_string(&mut text)?;
    Ok(Some(text.trim().to_owned()))
}

/// Replaces a note, durably, by what `text` says of the new file.
pub(super) fn write(
    store: impl AsFd,
    name: &str,
    text: impl FnOnce(&File) -> io::Result<String>,
) -> io::Result<()> {
    let unfinished = format!("{name}.new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&store, &unfinished, flags, Mode::from_raw_mode(0o600))?);
    let text = text(&file)?;
    file.write_all_at(format!("{text}\n").as_bytes(), 0)?;
    file.sync_all()?;
    fault::reached(Point::NoteWritten);
    rustix::fs::renameat(&store, &unfinished, &store, name)?;
    fault::reached(Point::NoteRenamed);
    Ok(rustix::fs::fsync(lower::reopen(&store, OFlags::RDONLY | OFlags::DIRECTORY)?)?)
}
