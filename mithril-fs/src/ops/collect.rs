//! Giving back what no file needs.

use std::path::Path;

use mithril_engine::id::ManifestId;

use super::Directory;
use super::walk::{State, walk};
use crate::control::protocol::{CommandError, GcReport};
use crate::exit::ExitCode;

/// The manifests that the stubs of a directory name. A stub that does not fit its file still counts: its bytes may be
/// all that is left of something.
///
/// # Errors
/// Those of walking the directory: an incomplete answer would delete what is needed.
pub fn roots(directory: &Directory<'_>) -> rustix::io::Result<Vec<ManifestId>> {
    let mut roots = Vec::new();
    walk(directory, Path::new(""), &mut |found| {
        match found.state {
            State::Packed(authority) => roots.push(authority.manifest),
            State::Damaged(_, Some(manifest)) if directory.store.manifest_len(&manifest).is_some() => {
                roots.push(manifest);
            }
            _ => {}
        }
        true
    })?;
    Ok(roots)
}

/// Collects what `roots` do not need. They are asked for once nothing can be packed meanwhile.
///
/// # Errors
/// Those of the roots and of the store. Nothing is deleted unless every root could be read.
pub fn collect(
    directory: &Directory<'_>,
    dry_run: bool,
    roots: impl FnOnce() -> rustix::io::Result<Vec<ManifestId>>,
) -> Result<GcReport, CommandError> {
    let roots = || roots().map_err(|error| mithril_engine::Error::io("walk", ".", error));
    let collected = directory.store.collect(roots, dry_run).map_err(|error| CommandError {
        message: format!("nothing was collected: {error}; run mithril-fs verify"),
        exit_code: ExitCode::Failed as u8,
    })?;
    Ok(GcReport {
        dead_blobs: collected.dead_blobs,
        deleted_packs: collected.deleted_packs,
        rewritten_packs: collected.rewritten_packs,
        freed_bytes: collected.freed_bytes,
        kept_bytes: collected.kept_bytes,
    })
}
