//! Looking through the whole directory once: healing what a crash interrupted, and finding what is plain.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Stat;

use crate::fault::{self, Point};
use crate::ops::Directory;
use crate::ops::walk::{State, walk};
use crate::overlay::{Overlay, lower};
use crate::stub::Namespace;

/// Heals stubs, and calls `offer` for plain files.
pub(super) fn scan(
    overlay: &Overlay,
    namespace: Namespace,
    cancel: &AtomicBool,
    offer: &mut dyn FnMut(PathBuf, &Stat),
) {
    fault::reached(Point::Scan);
    let directory = Directory {
        root: overlay.nodes.root().fd.as_fd(),
        store: Arc::clone(&overlay.store),
        namespace: Some(namespace),
    };
    let walked = walk(&directory, Path::new(""), &mut |found| {
        match found.state {
            State::Plain => offer(found.path, &found.stat),
            State::Packed(_) => heal(overlay, &found.path),
            State::Damaged(reason, _) => {
                overlay.events.error(format!("{} cannot be read: {reason}", found.path.display()));
            }
        }
        !cancel.load(Ordering::Relaxed)
    });
    if let Err(error) = walked {
        overlay.events.error(format!("cannot look through the directory: {error}"));
    }
}

fn heal(overlay: &Overlay, path: &Path) {
    let located = lower::locate_path(&overlay.nodes.root().fd, path).and_then(|fd| overlay.nodes.pin(fd));
    let Ok((node, _)) = located else { return };
    match overlay.heal(&node) {
        Ok(true) => tracing::info!(path = %path.display(), "finished an interrupted packing"),
        Ok(false) => {}
        Err(error) => overlay.events.error(format!("cannot heal {}: {error}", path.display())),
    }
    overlay.nodes.unpin(node);
}
