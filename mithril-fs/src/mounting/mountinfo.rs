//! Finding our mounts in `/proc/self/mountinfo`: a directory that is covered cannot be asked itself, since `.mithril`
//! is not seen from above.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What the sources of our mounts begin with.
const SOURCE_PREFIX: &str = "mithril-fs:";

/// A mount of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OurMount {
    /// Where it is.
    pub mountpoint: PathBuf,
    /// What it shows as its source: the directory below.
    pub source: PathBuf,
    /// Its device, `MAJOR:MINOR`: also the name of the daemon's socket.
    pub device: String,
    /// The user whose daemon serves it.
    pub owner: u32,
}

/// Mounts of ours, in the order in which they were made.
///
/// # Errors
/// Those of reading `/proc/self/mountinfo`.
pub fn ours() -> io::Result<Vec<OurMount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The mount of ours that `path` is on or below, if the topmost mount there is one.
///
/// # Errors
/// Those of reading `/proc/self/mountinfo`.
pub fn covering(path: &Path) -> io::Result<Option<OurMount>> {
    let all = all_mounts(&std::fs::read("/proc/self/mountinfo")?);
    // The longest mount point that is a prefix; of equal ones the last, which covers the others.
    let top = all.into_iter().filter(|mount| path.starts_with(&mount.mountpoint)).enumerate();
    let top = top.max_by_key(|(order, mount)| (mount.mountpoint.as_os_str().len(), *order));
    Ok(top.and_then(|(_, mount)| mount.ours))
}

/// Mounts of ours whose source is that of `directory`, the last one first. Directories whose names differ only in what a
/// source cannot hold have the same: [`super::lock::says_mounted_at`] tells them apart.
///
/// # Errors
/// Those of reading `/proc/self/mountinfo`.
pub fn of_directory(directory: &Path) -> io::Result<Vec<OurMount>> {
    let source = OsString::from(source_of(directory));
    Ok(ours()?.into_iter().rev().filter(|mount| mount.source.as_os_str() == source).collect())
}

struct Line {
    mountpoint: PathBuf,
    ours: Option<OurMount>,
}

fn parse(mountinfo: &[u8]) -> Vec<OurMount> {
    all_mounts(mountinfo).into_iter().filter_map(|line| line.ours).collect()
}

fn all_mounts(mountinfo: &[u8]) -> Vec<Line> {
    mountinfo.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`, see proc_pid_mountinfo(5).
fn parse_line(line: &[u8]) -> Option<Line> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let separator = fields.iter().position(|field| *field == b"-")?;
    let mountpoint = PathBuf::from(unescape(fields.get(4)?));
    let device = String::from_utf8(fields.get(2)?.to_vec()).ok()?;
    let (kind, source, options) =
        (fields.get(separator + 1)?, fields.get(separator + 2)?, fields.get(separator + 3)?);
    // Who mounts with the system call has no subtype: the source tells ours from others.
    let source = unescape(source);
    let source =
        source.as_bytes().strip_prefix(SOURCE_PREFIX.as_bytes()).filter(|_| kind.starts_with(b"fuse"));
    let owner = options.split(|&byte| byte == b',').find_map(|option| option.strip_prefix(b"user_id="));
    let owner = owner.and_then(|owner| std::str::from_utf8(owner).ok()?.parse().ok()).unwrap_or(0);
    let ours = source.map(|source| OurMount {
        mountpoint: mountpoint.clone(),
        source: PathBuf::from(OsStr::from_bytes(source)),
        device,
        owner,
    });
    Some(Line { mountpoint, ours })
}

/// Blanks, tabs, newlines and backslashes are written as `\040` and so on.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        let value = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match value {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

/// `path` as the kernel sees it, without asking a mount that may be dead: only its parent is resolved.
///
/// # Errors
/// Those of resolving the parent.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            let name = path.file_name().unwrap_or(OsStr::new(""));
            let parent =
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(parent.canonicalize()?.join(name))
        }
        Err(error) => Err(error),
    }
}

/// Whether a mount's daemon is gone. Opened, since attributes may be cached for a while.
pub fn is_dead(mountpoint: &Path) -> bool {
    let gone = |error: io::Error| matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED));
    std::fs::File::open(mountpoint).is_err_and(gone)
}

/// What a mount of `directory` shows as its source. `fusermount3` takes options apart at commas.
pub fn source_name(directory: &Path) -> String {
    SOURCE_PREFIX.to_owned() + &source_of(directory)
}

fn source_of(directory: &Path) -> String {
    String::from_utf8_lossy(directory.as_os_str().as_bytes()).replace([',', '\n', '\\'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        60 22 0:45 / /ck\\040pt rw,nosuid - fuse.mithril-fs mithril-fs:/ck\\040pt rw,user_id=1000,group_id=1000,allow_other\n\
        61 22 0:46 / /other rw - fuse.sshfs host: rw,user_id=0\n\
        62 22 0:47 / /direct rw - fuse mithril-fs:/direct rw,user_id=0\n";

    #[test]
    fn ours_are_told_from_others() {
        let mounts = parse(MOUNTS);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[1].source, Path::new("/direct"));
        assert_eq!(mounts[0].mountpoint, Path::new("/ck pt"));
        assert_eq!((mounts[0].device.as_str(), mounts[0].owner), ("0:45", 1000));
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        for line in [&b""[..], b"1 2 3", b"1 2 0:1 / /x rw - ", b"1 2 0:1 / /x\\04"] {
            assert!(parse(line).is_empty());
        }
        assert_eq!(unescape(b"a\\134b\\9"), OsString::from("a\\b\\9"));
    }
}
