//! Which earlier files a file may be packed against.

use std::path::Path;

use mithril_engine::format::manifest::Manifest;

use crate::overlay::Overlay;

/// The manifests of candidates.
pub(super) fn manifests(_overlay: &Overlay, _path: &Path, _size: u64) -> Vec<Manifest> {
    Vec::new()
}
