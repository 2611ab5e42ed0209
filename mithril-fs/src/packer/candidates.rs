//! Which earlier files a file may be packed against: the directories around it, listed and ranked by lineage.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mithril_engine::file::lineage::{self, Neighbour, Pattern};
use mithril_engine::format::manifest::Manifest;
use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::overlay::{Overlay, lower};
use crate::stub::{self, Authority};

/// Candidates that are tried: each costs encoding a sample.
const MAX_CANDIDATES: usize = 3;

/// Earlier names that are looked at in one directory, since some of them may be plain.
const NEAREST: usize = 4;

/// Levels above a file at which the directory of another step may be: `global_step100/mp_rank_00/model.pt`.
const LEVELS_UP: usize = 3;

/// The manifests of earlier files, likeliest first. What cannot be looked at is no candidate.
pub(super) fn manifests(overlay: &Overlay, path: &Path, size: u64, mtime_ns: i64) -> Vec<Manifest> {
    let mut manifests = Vec::new();
    for candidate in candidates(overlay, path, size, mtime_ns) {
        if let Some(manifest) = manifest_of(overlay, &candidate)
            && !manifests.contains(&manifest)
        {
            tracing::debug!(file = %path.display(), base = %candidate.display(), "a candidate");
            manifests.push(manifest);
        }
        if manifests.len() == MAX_CANDIDATES {
            break;
        }
    }
    manifests
}

/// Paths of earlier files, likeliest first.
fn candidates(overlay: &Overlay, path: &Path, size: u64, mtime_ns: i64) -> Vec<PathBuf> {
    let Some(name) = path.file_name().map(OsStr::as_bytes) else { return Vec::new() };
    let dir = path.parent().unwrap_or(Path::new(""));
    let beside = list(overlay, dir).unwrap_or_default();
    let names = || beside.iter().map(|entry| &entry.name[..]);
    let here =
        lineage::earlier(name, names(), NEAREST).into_iter().map(|name| dir.join(OsStr::from_bytes(name)));
    let elsewhere = in_earlier_directories(overlay, path);
    let pattern = Pattern::of(name);
    // The numbers of a shard say which part it is: its earlier version is in another step's directory.
    let mut found: Vec<PathBuf> = if pattern.has_numbers() && !pattern.is_shard() {
        here.chain(elsewhere).collect()
    } else {
        elsewhere.into_iter().chain(here).collect()
    };
    let others = beside.iter().filter_map(|entry| {
        let (size, mtime_ns) = entry.file(overlay, dir)?;
        Some(Neighbour { name: &entry.name, size, mtime_ns })
    });
    // Listing sizes costs a call a file: only where names did not tell.
    if found.is_empty()
        && let Some(name) = lineage::alike(Neighbour { name, size, mtime_ns }, others)
    {
        found.push(dir.join(OsStr::from_bytes(name)));
    }
    found
}

/// The same name below directories whose own names have an earlier number.
fn in_earlier_directories(overlay: &Overlay, path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for step in path.ancestors().skip(1).take(LEVELS_UP) {
        let (Some(step_name), Some(above), Ok(rest)) =
            (step.file_name(), step.parent(), path.strip_prefix(step))
        else {
            break;
        };
        let Some(siblings) = list(overlay, above) else { continue };
        let directories = siblings.iter().filter(|entry| entry.is_dir).map(|entry| &entry.name[..]);
        for name in lineage::earlier(step_name.as_bytes(), directories, NEAREST) {
            found.push(above.join(OsStr::from_bytes(name)).join(rest));
        }
    }
    found
}

struct Entry {
    name: Vec<u8>,
    is_dir: bool,
}

impl Entry {
    /// Size and time of a regular file.
    fn file(&self, overlay: &Overlay, dir: &Path) -> Option<(u64, i64)> {
        if self.is_dir {
            return None;
        }
        let fd = locate(overlay, &dir.join(OsStr::from_bytes(&self.name)))?;
        let stat = lower::stat(&fd).ok()?;
        Some((u64::try_from(stat.st_size).ok()?, lower::mtime_ns(&stat)))
    }
}

fn locate(overlay: &Overlay, path: &Path) -> Option<OwnedFd> {
    lower::locate_path(&overlay.nodes.root().fd, path).ok()
}

fn list(overlay: &Overlay, dir: &Path) -> Option<Vec<Entry>> {
    let located = locate(overlay, dir)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&located, c".", flags, Mode::empty()).ok()?;
    let entries = Dir::read_from(&opened).ok()?.flatten();
    let entry = |entry: rustix::fs::DirEntry| Entry {
        name: entry.file_name().to_bytes().to_vec(),
        is_dir: entry.file_type() == FileType::Directory,
    };
    Some(entries.map(entry).collect())
}

/// The names in a directory; none if it cannot be looked at.
pub(super) fn names(overlay: &Overlay, dir: &Path) -> Vec<Vec<u8>> {
    list(overlay, dir).unwrap_or_default().into_iter().map(|entry| entry.name).collect()
}

/// The manifest of a packed file; `None` for any other.
fn manifest_of(overlay: &Overlay, path: &Path) -> Option<Manifest> {
    let fd = locate(overlay, path)?;
    let stat = lower::stat(&fd).ok()?;
    let mut value = [0; stub::AUTHORITY_BYTES];
    let name = overlay.namespace?.name();
    let len = rustix::fs::getxattr(lower::proc_path(&fd), name, &mut value[..]).ok()?;
    let authority = Authority::decode(&value[..len]).ok()?;
    authority.check(overlay.store.id(), stat.st_ino, u64::try_from(stat.st_size).ok()?).ok()?;
    overlay.store.read_manifest(&authority.manifest).ok()
}
