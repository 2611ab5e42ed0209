//! The daemon's log, in the lower `.mithril`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::printable::printable;

const LOG: &str = "daemon.log";
const OLD_LOG: &str = "daemon.log.1";

/// A log that is longer than this is put aside when a daemon starts.
pub const LOG_MAX_BYTES: u64 = 4 << 20;

/// Opens the log in the store's directory, which was locked and so is known to be ours alone.
///
/// # Errors
/// Those of the system.
pub fn open(store: impl AsFd) -> io::Result<File> {
    let is_long = rustix::fs::statat(&store, LOG, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| u64::try_from(stat.st_size).is_ok_and(|size| size > LOG_MAX_BYTES));
    if is_long {
        let _ = rustix::fs::renameat(&store, LOG, &store, OLD_LOG);
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(&store, LOG, flags, Mode::from_raw_mode(0o600))?))
}

/// Writes records that end with a line feed, and escapes all other control characters.
#[derive(Debug)]
pub struct Escaped<W>(pub W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let line = record.strip_suffix(b"\n").unwrap_or(record);
        let mut escaped = printable(&String::from_utf8_lossy(line));
        if line.len() < record.len() {
            escaped.push('\n');
        }
        self.0.write_all(escaped.as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_record() {
        let mut log = Escaped(Vec::new());
        log.write_all("packed a\nERROR b\u{1b}[2J\u{9b}c \u{e9}\n".as_bytes()).unwrap();
        log.write_all(b"next\n").unwrap();
        let text = String::from_utf8(log.0).unwrap();
        assert_eq!(text, "packed a\\nERROR b\\u{1b}[2J\\u{9b}c \u{e9}\nnext\n");
    }

    #[test]
    fn a_link_is_not_followed_and_a_long_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = File::open(dir.path()).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.path().join(LOG)).unwrap();
        assert!(open(&store).is_err());
        assert!(!dir.path().join("elsewhere").exists());
        std::fs::remove_file(dir.path().join(LOG)).unwrap();
        open(&store).unwrap().set_len(LOG_MAX_BYTES + 1).unwrap();
        assert_eq!(open(&store).unwrap().metadata().unwrap().len(), 0);
        assert_eq!(dir.path().join(OLD_LOG).metadata().unwrap().len(), LOG_MAX_BYTES + 1);
    }
}
