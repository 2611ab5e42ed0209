//! What each file takes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use mithril_engine::format::manifest::Extent;
use mithril_engine::id::ChunkId;

use super::Directory;
use super::walk::{Found, State, walk};
use crate::control::protocol::{CommandError, FileEntry, FileState, Listing, RelPath, Unseen};
use crate::exit::ExitCode;

/// Levels above a file in which its base may be.
const BASE_LEVELS_UP: usize = 3;

/// Sums over a whole directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Files in the packed state.
    pub packed_files: u64,
    /// Their bytes as users see them.
    pub logical_bytes: u64,
    /// What is not in the sums.
    pub unseen: Unseen,
}

fn failed(path: &Path, error: rustix::io::Errno) -> CommandError {
    let message = match error {
        rustix::io::Errno::NOENT => format!("{} does not exist", path.display()),
        other => format!("cannot list {}: {other}", path.display()),
    };
    CommandError { message, exit_code: ExitCode::Failed as u8 }
}

/// Sums over the packed files. `plain` is called with each plain one.
///
/// # Errors
/// Those of walking the directory.
pub fn totals(directory: &Directory<'_>, plain: &mut dyn FnMut(Found)) -> Result<Totals, CommandError> {
    let mut totals = Totals::default();
    let mut visit = |found: Found| {
        match &found.state {
            State::Plain => plain(found),
            State::Packed(authority) => {
                totals.packed_files += 1;
                totals.logical_bytes += authority.size;
            }
            State::Damaged(..) => {}
        }
        true
    };
    let walked = walk(directory, Path::new(""), &mut visit).map_err(|error| failed(Path::new("."), error))?;
    totals.unseen = walked.report();
    Ok(totals)
}

/// Lists the file at `path`, or those below it.
///
/// # Errors
/// Those of walking the directory.
pub fn list(directory: &Directory<'_>, path: &RelPath) -> Result<Listing, CommandError> {
    let start = path.as_path();
    let mut files = Vec::new();
    let walked = walk(directory, start, &mut |found| {
        files.push(found);
        true
    })
    .map_err(|error| failed(start, error))?;
    let owners = owners_around(directory, start, &files)?;
    let mut counted = HashSet::new();
    let files = files.into_iter().map(|found| entry(directory, found, &owners, &mut counted)).collect();
    Ok(Listing { files, unseen: walked.report() })
}

/// The first file that has each chunk that is a base: of the files around those that are listed.
fn owners_around(
    directory: &Directory<'_>,
    start: &Path,
    files: &[Found],
) -> Result<HashMap<ChunkId, PathBuf>, CommandError> {
    let mut bases = HashSet::new();
    for found in files {
        for_chunks(directory, found, |id, _| {
            bases.extend(directory.store.chunk(&id).and_then(|stat| stat.base));
        });
    }
    let mut owners = HashMap::new();
    if bases.is_empty() {
        return Ok(owners);
    }
    let top = start.ancestors().nth(BASE_LEVELS_UP).unwrap_or(Path::new(""));
    // What cannot be looked at is no base that could be named.
    let _ = walk(directory, top, &mut |found| {
        for_chunks(directory, &found, |id, _| {
            if bases.contains(&id) {
                owners.entry(id).or_insert_with(|| found.path.clone());
            }
        });
        true
    })
    .map_err(|error| failed(top, error))?;
    Ok(owners)
}

/// Calls `visit` with the chunks of a packed file. A manifest that cannot be read has none; `verify` tells.
fn for_chunks(directory: &Directory<'_>, found: &Found, mut visit: impl FnMut(ChunkId, u32)) {
    let State::Packed(authority) = &found.state else { return };
    let Ok(manifest) = directory.store.read_manifest(&authority.manifest) else { return };
    for extent in &manifest.extents {
        if let Extent::Chunk { id, len, .. } = extent {
            visit(*id, *len);
        }
    }
}

fn entry(
    directory: &Directory<'_>,
    found: Found,
    owners: &HashMap<ChunkId, PathBuf>,
    counted: &mut HashSet<ChunkId>,
) -> FileEntry {
    let mut stored_bytes = u64::try_from(found.stat.st_blocks).unwrap_or(0) * 512;
    let mut chain_depth = 0;
    let mut votes: HashMap<&PathBuf, u64> = HashMap::new();
    let (state, manifest) = match &found.state {
        State::Plain => (FileState::Plain, None),
        State::Packed(authority) => (FileState::Packed, Some(authority.manifest)),
        State::Damaged(..) => (FileState::Damaged, None),
    };
    if let Some(manifest) = manifest {
        stored_bytes += directory.store.manifest_len(&manifest).map_or(0, u64::from);
        for_chunks(directory, &found, |id, len| {
            let Some(stat) = directory.store.chunk(&id) else { return };
            if counted.insert(id) {
                stored_bytes += u64::from(stat.stored_len);
            }
            chain_depth = chain_depth.max(stat.depth);
            if let Some(owner) = stat.base.and_then(|base| owners.get(&base)) {
                *votes.entry(owner).or_default() += u64::from(len);
            }
        });
    }
    let base = votes.into_iter().filter(|(path, _)| **path != found.path).max_by_key(|(_, bytes)| *bytes);
    FileEntry {
        logical_bytes: found.logical_bytes(),
        base: base.map(|(path, _)| RelPath::from(path.clone())),
        path: RelPath::from(found.path),
        stored_bytes,
        state,
        plain_because: None,
        chain_depth,
    }
}
