//! Making packed files plain without a mount: the way out. Each file is packed or plain at any moment, so what was broken
//! off is gone on with.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use mithril_engine::file::cache::ChunkCache;
use mithril_engine::format::manifest::Extent;
use mithril_engine::settings::DECODED_CACHE_BYTES;
use rustix::fs::OFlags;

use super::Directory;
use super::walk::{Found, State, walk};
use crate::control::backend::ProgressSink;
use crate::control::protocol::{CommandError, Progress, RelPath, UnpackReport};
use crate::events::Events;
use crate::exit::ExitCode;
use crate::overlay::eviction::Capacity;
use crate::overlay::node::Node;
use crate::overlay::watcher::Watcher;
use crate::overlay::{Overlay, Parts, lower};

fn failed(what: impl std::fmt::Display) -> CommandError {
    CommandError { message: what.to_string(), exit_code: ExitCode::Failed as u8 }
}

/// Nobody is told what happens to files.
struct Nobody;

impl Watcher for Nobody {
    fn closed(&self, _: &Arc<Node>, _: bool) {}

    fn linked(&self, _: &Arc<Node>, _: &Path) {}

    fn renamed(&self, _: &Path, _: &Path, _: bool) {}

    fn names_change(&self, call: &mut dyn FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
        call()
    }
}

/// Refuses where the packed ones of these files would not have room: before the first one was touched.
///
/// # Errors
/// How much there should be, or that it cannot be known.
pub(crate) fn check_room(directory: &Directory<'_>, files: &[Found]) -> Result<(), CommandError> {
    let mut needed: u64 = 0;
    let mut counted = HashSet::new();
    for found in files {
        let State::Packed(authority) = &found.state else { continue };
        // Links are one file.
        if !counted.insert(found.stat.st_ino) {
            continue;
        }
        // One that cannot be read is not unpacked; that is said later.
        let Ok(manifest) = directory.store.read_manifest(&authority.manifest) else { continue };
        let chunks = manifest.extents.iter().filter(|extent| matches!(extent, Extent::Chunk { .. }));
        needed = needed.saturating_add(chunks.map(Extent::len).sum());
    }
    let root = lower::reopen(directory.root, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    let space = rustix::fs::fstatvfs(root).map_err(failed)?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if needed > free && space.f_blocks > 0 {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        return Err(failed(format!(
            "the unpacked files would take {} MiB, and {} MiB are free; nothing was unpacked. Make room, or unpack some of them",
            mib(needed),
            mib(free)
        )));
    }
    Ok(())
}

/// Makes what is packed at or below `path` plain, and leaves it so until it changes.
///
/// # Errors
/// That it cannot be looked at, or that there is no room.
pub fn unpack(
    directory: &Directory<'_>,
    path: &RelPath,
    progress: ProgressSink<'_>,
) -> Result<UnpackReport, CommandError> {
    let mut files = Vec::new();
    let walked = walk(directory, path.as_path(), &mut |found| {
        if found.state != State::Plain {
            files.push(found);
        }
        true
    });
    let unseen = walked.map_err(|error| failed(format!("{path}: {error}")))?.report();
    check_room(directory, &files)?;
    let overlay = overlay(directory)?;
    let total_bytes = files.iter().map(Found::logical_bytes).sum();
    let mut report = UnpackReport::default();
    for (path, reason) in unseen.named {
        report.failed.push((path, format!("it was not looked at: {reason}")));
    }
    for found in files {
        let path = RelPath::from(found.path.clone());
        let done_bytes = report.logical_bytes;
        if progress(Progress { path: Some(path.clone()), done_bytes, total_bytes, stored_bytes: 0 })
            .is_break()
        {
            break;
        }
        let unpacked = lower::locate_path(directory.root, &found.path).and_then(|fd| {
            let (node, _) = overlay.nodes.pin(fd)?;
            let unpacked = overlay.unpack_to_stay(&node);
            overlay.nodes.unpin(node);
            unpacked
        });
        match unpacked {
            Ok(()) => {
                report.files += 1;
                report.logical_bytes += found.logical_bytes();
            }
            Err(error) => report.failed.push((path, why(&found, &overlay, error))),
        }
    }
    report.store_is_free = unseen.more == 0 && needs_no_store(directory);
    Ok(report)
}

/// Why a file stayed packed: what is wrong with its stub or its chunks, or else the system's error.
fn why(found: &Found, overlay: &Overlay, error: rustix::io::Errno) -> String {
    match &found.state {
        State::Damaged(reason, _) => reason.clone(),
        _ => overlay.events.errors().pop().unwrap_or_else(|| error.to_string()),
    }
}

fn overlay(directory: &Directory<'_>) -> Result<Overlay, CommandError> {
    let store = Arc::clone(&directory.store);
    Overlay::new(Parts {
        root: rustix::io::fcntl_dupfd_cloexec(directory.root, 0).map_err(failed)?,
        cache: Arc::new(ChunkCache::new(Arc::clone(&store), DECODED_CACHE_BYTES)),
        store,
        ahead: None,
        namespace: directory.namespace,
        passthrough: false,
        // Nobody looks anything up but us.
        capacity: Capacity::of_descriptors(u64::MAX),
        impersonate: false,
        events: Arc::new(Events::default()),
        watcher: Arc::new(Nobody),
    })
    .map_err(failed)
}

/// Whether every file of the directory is plain, as far as all of them can be seen.
fn needs_no_store(directory: &Directory<'_>) -> bool {
    let mut is_free = true;
    let walked = walk(directory, Path::new(""), &mut |found| {
        is_free &= found.state == State::Plain;
        is_free
    });
    is_free && walked.is_ok_and(|walked| walked.report().count() == 0)
}
