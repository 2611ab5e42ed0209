//! What a daemon can be asked to do; the socket's server calls it.

use std::ops::ControlFlow;

use super::protocol::{
    CommandError, EstimateReport, GcReport, Listing, PackReport, PauseReport, Progress, RelPath, Status,
    StopReport, UnpackReport, VerifyReport,
};

/// Takes progress; `Break` when the one who asked is gone and the work may stop.
pub type ProgressSink<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// A running daemon. Calls block; each connection has its own thread.
pub trait Backend: Send + Sync {
    /// How things stand.
    fn status(&self) -> Result<Status, CommandError>;
    /// Packs everything that can be packed, without waiting for settle times.
    fn sync(&self, progress: ProgressSink<'_>) -> Result<PackReport, CommandError>;
    /// Packs what is at or below `path`.
    fn pack(&self, path: &RelPath, progress: ProgressSink<'_>) -> Result<PackReport, CommandError>;
    /// Says what packing what is at or below `path` would come to.
    fn estimate(&self, path: &RelPath, progress: ProgressSink<'_>) -> Result<EstimateReport, CommandError>;
    /// Makes what is at or below `path` plain.
    fn unpack(&self, path: &RelPath, progress: ProgressSink<'_>) -> Result<UnpackReport, CommandError>;
    /// Lists what is at or below `path`.
    fn list(&self, path: &RelPath) -> Result<Listing, CommandError>;
    /// Reads and checks everything.
    fn verify(&self, repair_index: bool, progress: ProgressSink<'_>) -> Result<VerifyReport, CommandError>;
    /// Collects garbage.
    fn gc(&self, dry_run: bool) -> Result<GcReport, CommandError>;
    /// Begins to pack no file any more. Does not wait for the one that is being packed.
    fn pause(&self) -> Result<PauseReport, CommandError>;
    /// Goes on packing.
    fn resume(&self) -> Result<PauseReport, CommandError>;
    /// Prepares the end: drains if asked, unmounts, stops packing. Answers soon after that, whatever the packer waits
    /// for; the daemon ends by itself.
    fn stop(&self, drain: bool, lazy: bool, progress: ProgressSink<'_>) -> Result<StopReport, CommandError>;
}
