//! What the daemon answers to commands.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::Daemon;
use crate::cli::exit::ExitCode;
use crate::control::backend::{Backend, ProgressSink};
use crate::control::protocol::{
    CommandError, FileEntry, GcReport, PackReport, RelPath, Status, StopReport, UnpackReport, VerifyReport,
};
use crate::ops::{self, Directory};
use crate::overlay::lower;

fn failed(message: impl Into<String>) -> CommandError {
    CommandError { message: message.into(), exit_code: ExitCode::Failed as u8 }
}

impl Daemon {
    /// The directory as the operations see it.
    fn directory(&self) -> Directory<'_> {
        Directory { root: std::os::fd::AsFd::as_fd(&self.root), store: &self.overlay.store, namespace: self.overlay.namespace }
    }

    fn packer(&self) -> Result<&crate::packer::Packer, CommandError> {
        self.packer.as_deref().map_err(|reason| failed(format!("packing is off: {reason}")))
    }
}

impl Backend for Daemon {
    fn status(&self) -> Status {
        let counters = &self.overlay.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = self.packer.as_ref().map(|packer| packer.waiting()).unwrap_or_default();
        let totals = self.packer.as_ref().ok().map(|packer| &packer.totals);
        let seconds = totals.map_or(0.0, |t| read(&t.nanoseconds) as f64 / 1e9);
        let tree = ops::list::totals(&self.directory());
        let usage = self.overlay.store.usage();
        Status {
            mountpoint: self.settings.mountpoint.clone(),
            directory: self.settings.directory.clone(),
            pid: std::process::id(),
            passthrough: self.passthrough.clone().err(),
            packing: self.packer.as_ref().err().cloned(),
            packed_files: tree.packed_files,
            logical_bytes: tree.logical_bytes,
            stored_bytes: usage.pack_bytes + usage.index_bytes,
            queued_files: waiting.len() as u64,
            queued_bytes: waiting.iter().map(|(_, size)| size).sum(),
            packing_path: self.packer.as_ref().ok().and_then(|packer| packer.active()).map(RelPath::from),
            pack_bytes_per_second: totals
                .filter(|_| seconds > 0.0)
                .map_or(0.0, |t| read(&t.logical_bytes) as f64 / seconds),
            read_requests: read(&counters.read_requests),
            read_bytes: read(&counters.read_bytes),
            write_requests: read(&counters.write_requests),
            write_bytes: read(&counters.write_bytes),
            passthrough_opens: read(&counters.passthrough_opens),
            errors: self.overlay.events.errors(),
        }
    }

    fn sync(&self, progress: ProgressSink<'_>) -> Result<PackReport, CommandError> {
        self.scanned.wait();
        Ok(self.packer()?.drain(Path::new(""), &mut |now| progress(now).is_continue()))
    }

    fn pack(&self, path: &RelPath, progress: ProgressSink<'_>) -> Result<PackReport, CommandError> {
        let packer = self.packer()?;
        ops::walk::walk(&self.directory(), path, &mut |file| {
            packer.ask_for(file.path.as_path(), &file.stat);
            ControlFlow::Continue(())
        })
        .map_err(|error| failed(error.to_string()))?;
        Ok(packer.drain(path.as_path(), &mut |now| progress(now).is_continue()))
    }

    fn unpack(&self, path: &RelPath, progress: ProgressSink<'_>) -> Result<UnpackReport, CommandError> {
        let mut report = UnpackReport::default();
        let _ = (path, progress, &mut report, lower::proc_path(&self.root));
        Ok(report)
    }

    fn list(&self, path: &RelPath) -> Result<Vec<FileEntry>, CommandError> {
        ops::list::list(&self.directory(), path)
    }

    fn verify(&self, repair_index: bool, progress: ProgressSink<'_>) -> Result<VerifyReport, CommandError> {
        ops::verify::verify(&self.directory(), repair_index, progress)
    }

    fn gc(&self, dry_run: bool) -> Result<GcReport, CommandError> {
        ops::collect::collect(&self.directory(), dry_run)
    }

    fn stop(&self, drain: bool, lazy: bool, progress: ProgressSink<'_>) -> Result<StopReport, CommandError> {
        let _ = (drain, lazy, progress);
        Ok(StopReport::default())
    }
}
