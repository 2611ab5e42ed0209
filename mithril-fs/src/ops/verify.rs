//! Reading and checking everything: packs, then what each file needs of them.

use std::path::Path;

use mithril_engine::format::manifest::Extent;
use mithril_engine::settings::PACK_MIN_BYTES;
use mithril_engine::store::Verified;
use rustix::fs::OFlags;

use super::Directory;
use super::walk::{Found, State, walk};
use crate::control::backend::ProgressSink;
use crate::control::protocol::{CommandError, Progress, RelPath, VerifyReport};
use crate::exit::ExitCode;
use crate::overlay::lower;
use crate::stub::{self, ORPHAN};

/// Verifies the store and every packed file. With `repair_index`, the index is written anew from the packs first.
///
/// # Errors
/// Only those that keep it from looking; what it finds is in the report.
pub fn verify(
    directory: &Directory<'_>,
    repair_index: bool,
    progress: ProgressSink<'_>,
) -> Result<VerifyReport, CommandError> {
    let failed = |error: &dyn std::fmt::Display| CommandError {
        message: format!("cannot verify: {error}"),
        exit_code: ExitCode::Failed as u8,
    };
    if repair_index {
        directory.store.rebuild_index().map_err(|error| failed(&error))?;
    }
    let verified = directory.store.verify(&mut |done, total| {
        progress(Progress { path: None, done_bytes: done, total_bytes: total, stored_bytes: done })
    });
    let mut report = VerifyReport {
        packs: verified.packs,
        chunks: verified.chunks,
        store_errors: verified.errors.clone(),
        ..VerifyReport::default()
    };
    let walked = walk(directory, Path::new(""), &mut |found| {
        check(directory, &verified, &found, &mut report);
        true
    })
    .map_err(|error| failed(&error))?;
    report.unseen = walked.report();
    Ok(report)
}

fn check(directory: &Directory<'_>, verified: &Verified, found: &Found, report: &mut VerifyReport) {
    let reason = match &found.state {
        State::Plain if is_orphan(directory, found) => Some(ORPHAN.to_owned()),
        State::Plain => return,
        State::Damaged(reason, _) => Some(reason.clone()),
        State::Packed(authority) => {
            report.files += 1;
            match directory.store.read_manifest(&authority.manifest) {
                Err(error) => Some(error.to_string()),
                Ok(manifest) if manifest.file_len() != authority.size => {
                    Some("its manifest has another length".to_owned())
                }
                Ok(manifest) => manifest.extents.iter().find_map(|extent| match extent {
                    Extent::Chunk { id, .. } if verified.damaged_chunks.contains(id) => {
                        Some(format!("chunk {id} is damaged"))
                    }
                    Extent::Chunk { id, len, .. } => match directory.store.chunk(id) {
                        None => Some(format!("chunk {id} is missing")),
                        Some(stat) if stat.raw_len != *len => Some(format!("chunk {id} has another length")),
                        Some(_) => None,
                    },
                    Extent::Hole { .. } => None,
                }),
            }
        }
    };
    if let Some(reason) = reason {
        report.damaged_files.push((RelPath::from(found.path.clone()), reason));
    }
}

/// Whether a plain file is what is left of a packed one. One that cannot be opened at once is not: it is being packed.
fn is_orphan(directory: &Directory<'_>, found: &Found) -> bool {
    let size = found.logical_bytes();
    if size < PACK_MIN_BYTES || directory.namespace.is_none() {
        return false;
    }
    lower::locate_path(directory.root, &found.path)
        .and_then(|fd| lower::reopen(&fd, OFlags::RDONLY | OFlags::NONBLOCK))
        .is_ok_and(|file| stub::is_orphan(&file, size).is_ok_and(|is_orphan| is_orphan))
}
