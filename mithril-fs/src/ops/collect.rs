//! Giving back what no file needs.

use std::path::Path;

use mithril_engine::Error;
use mithril_engine::id::ManifestId;
use mithril_engine::store::{BrokenOff, Collected};
use rustix::io::Errno;

use super::Directory;
use super::walk::{State, walk};
use crate::control::protocol::{CommandError, GcReport};
use crate::exit::ExitCode;

/// The manifests that the stubs of a directory name. A stub that does not fit its file still counts: its bytes may be
/// all that is left of something.
///
/// # Errors
/// Those of walking the directory, and that something could not be looked at: what an incomplete answer lacks would be
/// deleted.
pub fn roots(directory: &Directory<'_>) -> mithril_engine::Result<Vec<ManifestId>> {
    let mut roots = Vec::new();
    let walked = walk(directory, Path::new(""), &mut |found| {
        roots.extend(root(directory, &found.state));
        true
    })
    .map_err(|error| Error::io("walk", ".", error))?;
    match walked.unseen.into_iter().next() {
        None => Ok(roots),
        Some((path, Errno::XDEV)) => {
            let hidden = "another file system is mounted there and may hide packed files; unmount it first";
            Err(Error::io("look at", path, std::io::Error::other(hidden)))
        }
        Some((path, error)) => Err(Error::io("look at", path, error)),
    }
}

/// The manifest that a file in this state needs, if there is one. A stub that does not fit may name one that was never
/// here.
pub(crate) fn root(directory: &Directory<'_>, state: &State) -> Option<ManifestId> {
    state.manifest().filter(|manifest| {
        matches!(state, State::Packed(_)) || directory.store.manifest_len(manifest).is_some()
    })
}

/// Collects what `roots` do not need. They are asked for once nothing can be packed meanwhile.
///
/// # Errors
/// Those of the roots and of the store. Nothing is deleted unless every root could be read.
pub fn collect(
    directory: &Directory<'_>,
    dry_run: bool,
    roots: impl FnOnce() -> mithril_engine::Result<Vec<ManifestId>>,
) -> Result<GcReport, CommandError> {
    let collected = directory.store.collect(roots, dry_run).map_err(|broken_off| {
        let BrokenOff { done, error } = broken_off;
        let hint = match error {
            Error::Corrupt { .. } | Error::NotFound { .. } => "; run mithril-fs verify",
            _ => "",
        };
        let Collected { freed_bytes, deleted_packs, rewritten_packs, .. } = done;
        let message = if deleted_packs + rewritten_packs == 0 {
            format!("nothing was collected: {error}{hint}")
        } else {
            format!(
                "only a part was collected: {freed_bytes} bytes given back, {deleted_packs} packs deleted, \
                 {rewritten_packs} rewritten; then: {error}{hint}. The next gc does the rest"
            )
        };
        CommandError { message, exit_code: ExitCode::Failed as u8 }
    })?;
    Ok(GcReport {
        dead_blobs: collected.dead_blobs,
        deleted_packs: collected.deleted_packs,
        rewritten_packs: collected.rewritten_packs,
        freed_bytes: collected.freed_bytes,
        kept_bytes: collected.kept_bytes,
    })
}
