//! Packed files that a walk of the tree does not find: they have no name any more, but somebody has them open or keeps
//! a descriptor by which they can be opened.

use std::time::{Duration, Instant};

use mithril_engine::id::ManifestId;
use rustix::fs::FileType;

use crate::ops::{Directory, collect, walk};
use crate::overlay::Overlay;
use crate::overlay::node::{Content, Node};

/// How long the kernel may take to let go of files that were deleted: it tells so in messages that nobody waits for.
const LETTING_GO: Duration = Duration::from_millis(500);

/// Waits until the kernel has let go of files that have no name, so that what was deleted just now counts as deleted;
/// not for long, since some of them may be in use.
pub(super) fn wait_for_the_kernel(overlay: &Overlay) {
    let deadline = Instant::now() + LETTING_GO;
    while has_unnamed(overlay) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn has_unnamed(overlay: &Overlay) -> bool {
    let mut found = false;
    for node in overlay.nodes.pin_all() {
        found |= node.kind == FileType::RegularFile && node.stat().is_ok_and(|stat| stat.st_nlink == 0);
        overlay.nodes.unpin(node);
    }
    found
}

/// The manifests that the files need which the kernel knows.
///
/// # Errors
/// That a file could not be looked at: what it needs would be deleted.
pub(super) fn roots(overlay: &Overlay, directory: &Directory<'_>) -> mithril_engine::Result<Vec<ManifestId>> {
    let mut roots = Vec::new();
    let mut failed = Ok(());
    for node in overlay.nodes.pin_all() {
        match root(&node, directory) {
            Ok(root) => roots.extend(root),
            Err(error) => failed = Err(mithril_engine::Error::io("look at", "an open file", error)),
        }
        overlay.nodes.unpin(node);
    }
    failed.map(|()| roots)
}

fn root(node: &Node, directory: &Directory<'_>) -> rustix::io::Result<Option<ManifestId>> {
    // Held while the file is looked at: its bytes stay where they are.
    let content = node.content();
    match &*content {
        Content::Packed(file) => Ok(Some(file.id())),
        Content::Plain => Ok(None),
        Content::Unknown if node.kind != FileType::RegularFile => Ok(None),
        // Nobody has it open, but a descriptor made with `O_PATH` can still open it.
        Content::Unknown => {
            let stat = node.stat()?;
            let state = walk::state_of(&node.fd, &stat, directory.store.id(), directory.namespace)?;
            Ok(collect::root(directory, &state))
        }
    }
}
