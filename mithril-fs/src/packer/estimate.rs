//! What packing files would come to: a few pieces of some of them are encoded, and nothing is kept.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use mithril_engine::file::pack::{self, Packing};
use mithril_engine::source::{FileSource, Source};

use super::candidates;
use super::politeness::PoliteSource;
use super::worker::Packer;
use crate::control::protocol::EstimateReport;
use crate::overlay::lower;

/// Files that are looked at, spread over all of them.
const SAMPLED_FILES: usize = 12;

impl Packer {
    /// Estimates what packing these files would come to; stops early if `goes_on` says so. Files that cannot be read now
    /// are not in the sample.
    pub(crate) fn estimate(
        &self,
        files: &[(PathBuf, u64)],
        goes_on: &mut dyn FnMut(&Path) -> bool,
    ) -> EstimateReport {
        let logical_bytes: u64 = files.iter().map(|(_, size)| size).sum();
        let started = Instant::now();
        let (mut whole, mut packed, mut encoded_bytes, mut sampled_files) = (0.0, 0.0, 0, 0);
        for (path, size) in files.iter().step_by(files.len().div_ceil(SAMPLED_FILES).max(1)) {
            if !goes_on(path) {
                break;
            }
            match self.sample(path) {
                Ok(sample) if sample.sampled_bytes > 0 => {
                    whole += *size as f64;
                    packed += *size as f64 * sample.encoded_bytes as f64 / sample.sampled_bytes as f64;
                    encoded_bytes += sample.sampled_bytes;
                    sampled_files += 1;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(path = %path.display(), %error, "not in the sample"),
            }
        }
        let seconds_a_byte = started.elapsed().as_secs_f64() / (encoded_bytes as f64).max(1.0);
        let share = if whole > 0.0 { (packed / whole).min(1.0) } else { 1.0 };
        EstimateReport {
            files: files.len() as u64,
            logical_bytes,
            sampled_files,
            share,
            seconds: if sampled_files > 0 { seconds_a_byte * logical_bytes as f64 } else { 0.0 },
        }
    }

    fn sample(&self, path: &Path) -> mithril_engine::Result<pack::Estimate> {
        let io = |error: rustix::io::Errno| mithril_engine::Error::io("read", path, error);
        let overlay = &self.parts.overlay;
        let fd = lower::locate_path(&overlay.nodes.root().fd, path).map_err(io)?;
        let mtime_ns = lower::mtime_ns(&lower::stat(&fd).map_err(io)?);
        let file = lower::reopen_quietly(&fd).map_err(io)?;
        let file = FileSource::new(file).map_err(|e| mithril_engine::Error::io("stat", path, e))?;
        let cancel = AtomicBool::new(false);
        let source = PoliteSource { file, rate: self.rate.as_ref(), cancel: &self.cancel };
        // What is based on is not collected meanwhile.
        let _pin = overlay.store.pin();
        let candidates = candidates::manifests(overlay, path, source.size(), mtime_ns);
        let packing = Packing {
            store: &overlay.store,
            pool: &self.parts.pool,
            level: self.parts.level,
            candidates: &candidates,
            cancel: &cancel,
            progress: &|_, _| {},
        };
        pack::estimate(&source, &packing)
    }
}
