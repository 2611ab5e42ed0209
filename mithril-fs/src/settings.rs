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
    /// Which files are packed by themselves.
    pub policy: PackPolicy,
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

/// Which files are packed by themselves, and not only if somebody asks for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PackPolicy {
    /// If there are any, only what matches one of these patterns.
    pub include: Vec<String>,
    /// Nothing that matches one of these.
    pub exclude: Vec<String>,
    /// Nothing that has fewer bytes.
    pub min_size: u64,
    /// Of each lineage of steps, not the newest ones, so many.
    pub hot: usize,
    /// Also files that were there before the directory was first mounted, and did not change since.
    pub existing: bool,
}
