//! What a mount is told: plain data, converted from flags in one place.

use std::path::PathBuf;
use std::time::Duration;

use mithril_engine::codec::Level;

/// Settings of a mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountSettings {
    /// The directory whose files are kept; absolute.
    pub directory: PathBuf,
    /// Where it is mounted; the directory itself if nothing else is said. Absolute.
    pub mountpoint: PathBuf,
    /// Whether plain files may be opened with passthrough.
    pub passthrough: bool,
    /// Whether closed files are packed.
    pub packing: bool,
    /// How long a file must have been closed before it is packed.
    pub settle: Duration,
    /// The level that files are packed with.
    pub level: Level,
    /// Bytes of files that are packed in a second, at most; 0 for no limit.
    pub pack_rate: u64,
    /// Whether other users may use the mount.
    pub allow_other: bool,
    /// Threads that encode and decode; 0 for one a processor.
    pub threads: usize,
    /// Bytes of decoded chunks that are kept.
    pub cache_bytes: usize,
}
