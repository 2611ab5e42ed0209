//! What the daemon answers to commands.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mithril_engine::settings::PACK_MIN_BYTES;
use rustix::io::Errno;

use super::{Daemon, failed, unnamed};
use crate::control::backend::{Backend, ProgressSink};
use crate::control::protocol::{
    CommandError, EstimateReport, FileState, GcReport, LeftPlain, Listing, PackReport, PauseReport, Progress,
    RelPath, Status, StopReport, UnpackReport, Unseen, VerifyReport,
};
use crate::exit::ExitCode;
use crate::mounting::{holders, unmount};
use crate::ops::walk::{Found, State, walk, why_unseen};
use crate::ops::{Directory, collect, list, unpack, verify};
use crate::overlay::lower;
use crate::packer::{Asked, Packer, Reason};

/// Files that are named of those that were left plain.
const NAMED_LEFT: usize = 100;

/// How often files are tried that change, or are opened, each time that they are.
const DRAIN_ROUNDS: u32 = 3;

/// How long an answer waits for the packer to stop, so that it can say what is packed.
const WAIT_FOR_PACKER: Duration = Duration::from_secs(1);

/// Processes that are named in a message.
const NAMED_HOLDERS: usize = 5;

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Counts a file that is left plain, and names it if it is one of the first.
fn name_left(found: &Found, reason: &Reason, left: &mut LeftPlain) {
    left.for_now += u64::from(!reason.is_final());
    if left.named.len() < NAMED_LEFT {
        left.named.push((RelPath::from(found.path.clone()), reason.to_string()));
    } else {
        left.more += 1;
    }
}

/// Somebody wants packed what is not going to be, since somebody paused it.
fn refuse_paused(packer: &Packer) -> Result<(), CommandError> {
    if packer.is_paused_by_command() {
        return Err(failed("packing is paused by command; let it go on first: mithril-fs resume PATH"));
    }
    Ok(())
}

impl Daemon {
    /// The directory as the operations see it.
    fn directory(&self) -> Directory<'_> {
        Directory {
            root: self.root.as_fd(),
            store: Arc::clone(&self.overlay.store),
            namespace: self.overlay.namespace,
        }
    }

    fn packer(&self) -> Result<&Packer, CommandError> {
        self.packer.as_deref().map_err(|reason| failed(format!("packing is off: {reason}")))
    }

    /// The regular files at or below a path.
    fn files(&self, path: &RelPath) -> Result<Vec<Found>, CommandError> {
        let mut files = Vec::new();
        let walked = walk(&self.directory(), path.as_path(), &mut |found| {
            files.push(found);
            true
        })
        .map_err(|error| failed(format!("{path}: {error}")))?;
        for (path, error) in &walked.unseen {
            tracing::warn!("{}: {}", path.display(), why_unseen(*error));
        }
        Ok(files)
    }

    /// Packs what waits at or below a path, and looks at what is plain after that. Of the `asked` files, those that
    /// changed or were in use meanwhile are tried again, but not for ever.
    fn drain(
        &self,
        packer: &Packer,
        path: &RelPath,
        asked: &HashSet<u64>,
        progress: ProgressSink<'_>,
    ) -> Result<PackReport, CommandError> {
        let mut report = PackReport::default();
        for round in 1.. {
            let mut is_given_up = false;
            let packed = packer.drain(path.as_path(), &mut |now| {
                is_given_up = progress(now).is_break();
                !is_given_up
            });
            report.files += packed.files;
            report.logical_bytes += packed.logical_bytes;
            report.stored_bytes += packed.stored_bytes;
            report.paused = packed.paused;
            report.left_plain = LeftPlain::default();
            let mut waits = false;
            let walked = walk(&self.directory(), path.as_path(), &mut |found| {
                if found.state == State::Plain {
                    let reason = packer.why_plain(&found.path, &found.stat);
                    // Without a reason it is due, or was packed since it was found: the next round tells.
                    let is_due = reason.is_none() && packer.is_large_enough(&found.stat);
                    if is_due && report.paused.is_some() {
                        name_left(&found, &Reason::Paused, &mut report.left_plain);
                    } else if is_due && asked.contains(&found.stat.st_ino) {
                        waits = true;
                        name_left(&found, &Reason::Waiting, &mut report.left_plain);
                    } else {
                        self.count_left(reason, &found, &mut report.left_plain);
                    }
                }
                true
            });
            report.unseen = match walked {
                Ok(walked) => walked.report(),
                // It was asked to pack a file that was deleted meanwhile.
                Err(Errno::NOENT | Errno::NOTDIR) => Unseen::default(),
                Err(error) => return Err(failed(format!("{path}: {error}"))),
            };
            if !waits || is_given_up || report.paused.is_some() || round == DRAIN_ROUNDS {
                break;
            }
        }
        Ok(report)
    }

    /// Counts a plain file that is not going to be packed as things are.
    fn count_left(&self, reason: Option<Reason>, found: &Found, left: &mut LeftPlain) {
        let Some(reason) = reason else { return };
        if reason == Reason::Untried && !self.scanned.is_open() {
            return;
        }
        name_left(found, &reason, left);
    }

    /// Makes one file plain, and leaves it so until it changes.
    fn unpack_file(&self, path: &Path) -> rustix::io::Result<()> {
        let (node, _) = self.overlay.nodes.pin(lower::locate_path(&self.root, path)?)?;
        let result = self.overlay.unpack_to_stay(&node);
        self.overlay.nodes.unpin(node);
        result
    }

    fn queued(&self) -> Vec<(PathBuf, u64)> {
        self.packer.as_ref().map(|packer| packer.waiting()).unwrap_or_default()
    }

    fn pause_report(&self, packer: &Packer) -> PauseReport {
        let waiting = self.queued();
        let active = packer.active();
        let waits = || waiting.iter().filter(|(path, _)| active.as_ref() != Some(path));
        PauseReport {
            paused: packer.paused(),
            queued_files: waits().count() as u64,
            queued_bytes: waits().map(|(_, size)| size).sum(),
            active: active.map(RelPath::from),
        }
    }

    /// Ends the mount. What is packed is packed; what waits is found again by the next mount.
    fn unmount(&self, lazy: bool) -> Result<(), CommandError> {
        let mountpoint = &self.settings.mountpoint;
        match unmount::unmount(mountpoint, lazy) {
            Ok(()) => Ok(()),
            Err(unmount::Failure::Other(reason)) => {
                Err(failed(format!("cannot unmount {}: {reason}", mountpoint.display())))
            }
            Err(unmount::Failure::Busy) => {
                let holders = holders::holders(mountpoint, None);
                let named: Vec<String> =
                    holders.iter().take(NAMED_HOLDERS).map(ToString::to_string).collect();
                let who = if named.is_empty() { "a process".to_owned() } else { named.join(", ") };
                let message = format!(
                    "{} is in use by {who}; end that, or use --lazy, or --force if it hangs. Nothing was stopped.",
                    mountpoint.display()
                );
                Err(CommandError { message, exit_code: ExitCode::Busy as u8 })
            }
        }
    }
}

impl Backend for Daemon {
    fn status(&self) -> Result<Status, CommandError> {
        let counters = &self.overlay.counters;
        let waiting = self.queued();
        let packer = self.packer.as_deref().ok();
        let seconds = packer.map_or(0.0, |packer| load(&packer.totals.nanoseconds) as f64 / 1e9);
        let packed_since = packer.map_or(0, |packer| load(&packer.totals.logical_bytes));
        let mut left = LeftPlain::default();
        let totals = list::totals(&self.directory(), &mut |found| {
            if let Some(packer) = packer {
                self.count_left(packer.why_plain(&found.path, &found.stat), &found, &mut left);
            }
        })?;
        let usage = self.overlay.store.usage();
        Ok(Status {
            mountpoint: self.settings.mountpoint.clone(),
            directory: self.settings.directory.clone(),
            pid: std::process::id(),
            passthrough: self.passthrough.clone().err(),
            packing: self.packer.as_ref().err().cloned(),
            paused: packer.and_then(Packer::paused),
            packed_files: totals.packed_files,
            logical_bytes: totals.logical_bytes,
            stored_bytes: usage.pack_bytes + usage.index_bytes,
            queued_files: waiting.len() as u64,
            queued_bytes: waiting.iter().map(|(_, size)| size).sum(),
            packing_path: packer.and_then(Packer::active).map(RelPath::from),
            pack_bytes_per_second: if seconds > 0.0 { packed_since as f64 / seconds } else { 0.0 },
            read_requests: load(&counters.read_requests),
            read_bytes: load(&counters.read_bytes),
            decoded_bytes: self.overlay.cache.decoded_bytes(),
            write_requests: load(&counters.write_requests),
            write_bytes: load(&counters.write_bytes),
            fsync_requests: load(&counters.fsync_requests),
            fsyncdir_requests: load(&counters.fsyncdir_requests),
            passthrough_opens: load(&counters.passthrough_opens),
            errors: self.overlay.events.errors(),
            left_plain: left,
            unseen: totals.unseen,
        })
    }

    fn sync(&self, progress: ProgressSink<'_>) -> Result<PackReport, CommandError> {
        let packer = self.packer()?;
        refuse_paused(packer)?;
        self.scanned.wait();
        // The packer hears of files as they are closed, linked and renamed. What it missed is found here.
        let everything = RelPath::default();
        let mut asked = HashSet::new();
        for found in self.tree.undisturbed(|| self.files(&everything))? {
            if found.state == State::Plain {
                asked.insert(found.stat.st_ino);
                packer.found(found.path, &found.stat);
            }
        }
        self.drain(packer, &everything, &asked, progress)
    }

    fn pack(&self, path: &RelPath, progress: ProgressSink<'_>) -> Result<PackReport, CommandError> {
        let packer = self.packer()?;
        refuse_paused(packer)?;
        let (mut asked, mut overruled) = (HashSet::new(), Vec::new());
        for found in self.files(path)?.into_iter().filter(|found| found.state == State::Plain) {
            let how = if found.path == path.as_path() { Asked::ByName } else { Asked::Below };
            if let Some(reason) = packer.overruled(&found.path, &found.stat, how)
                && overruled.len() < NAMED_LEFT
                && packer.is_large_enough(&found.stat)
            {
                overruled.push((RelPath::from(found.path.clone()), reason.to_string()));
            }
            asked.insert(found.stat.st_ino);
            packer.forget_verdict(&found.path, &found.stat);
            packer.offer(found.path, &found.stat, Duration::ZERO, how);
        }
        let report = self.drain(packer, path, &asked, progress)?;
        // Only what came to something: others have reasons of their own.
        overruled.retain(|(path, _)| report.left_plain.named.iter().all(|(left, _)| left != path));
        Ok(PackReport { overruled, ..report })
    }

    fn estimate(&self, path: &RelPath, progress: ProgressSink<'_>) -> Result<EstimateReport, CommandError> {
        let packer = self.packer()?;
        let files: Vec<(PathBuf, u64)> = self
            .files(path)?
            .into_iter()
            .filter(|found| found.state == State::Plain && packer.is_large_enough(&found.stat))
            .filter(|found| {
                let how = if found.path == path.as_path() { Asked::ByName } else { Asked::Below };
                !packer.is_left(&found.path, &found.stat, how)
            })
            .map(|found| (found.path.clone(), found.logical_bytes()))
            .collect();
        Ok(packer.estimate(&files, &mut |path| {
            let now = Progress { path: Some(RelPath::from(path.to_owned())), ..Progress::default() };
            progress(now).is_continue()
        }))
    }

    fn unpack(&self, path: &RelPath, progress: ProgressSink<'_>) -> Result<UnpackReport, CommandError> {
        let (plain, files): (Vec<Found>, Vec<Found>) =
            self.files(path)?.into_iter().partition(|found| found.state == State::Plain);
        unpack::check_room(&self.directory(), &files)?;
        // What is plain already is to stay so too, if it could be packed at all.
        let may_be_packed = |found: &Found| found.logical_bytes() >= PACK_MIN_BYTES;
        for found in plain.iter().filter(|found| self.overlay.namespace.is_some() && may_be_packed(found)) {
            if let Err(error) = self.unpack_file(&found.path) {
                tracing::warn!(path = %found.path.display(), %error, "cannot note that a file is to stay plain");
            }
        }
        let total_bytes = files.iter().map(Found::logical_bytes).sum();
        let mut report = UnpackReport::default();
        for found in files {
            let path = RelPath::from(found.path.clone());
            let now = Progress {
                path: Some(path.clone()),
                done_bytes: report.logical_bytes,
                total_bytes,
                stored_bytes: 0,
            };
            if progress(now).is_break() {
                break;
            }
            match self.unpack_file(&found.path) {
                Ok(()) => {
                    report.files += 1;
                    report.logical_bytes += found.logical_bytes();
                }
                Err(error) => report.failed.push((path, error.to_string())),
            }
        }
        Ok(report)
    }

    fn list(&self, path: &RelPath) -> Result<Listing, CommandError> {
        let mut listing = list::list(&self.directory(), path)?;
        let Ok(packer) = &self.packer else { return Ok(listing) };
        for entry in listing.files.iter_mut().filter(|entry| entry.state == FileState::Plain) {
            let located = lower::locate_path(&self.root, entry.path.as_path()).and_then(lower::stat);
            let reason = located.ok().and_then(|stat| packer.why_plain(entry.path.as_path(), &stat));
            let reason = reason.filter(|reason| *reason != Reason::Untried || self.scanned.is_open());
            entry.plain_because = reason.map(|reason| reason.to_string());
        }
        Ok(listing)
    }

    fn verify(&self, repair_index: bool, progress: ProgressSink<'_>) -> Result<VerifyReport, CommandError> {
        verify::verify(&self.directory(), repair_index, progress)
    }

    fn gc(&self, dry_run: bool) -> Result<GcReport, CommandError> {
        unnamed::wait_for_the_kernel(&self.overlay);
        let directory = self.directory();
        let roots = || {
            let mut roots = self.tree.undisturbed(|| collect::roots(&directory))?;
            // Files that have no name any more, but are open or can be opened.
            roots.extend(unnamed::roots(&self.overlay, &directory)?);
            Ok(roots)
        };
        collect::collect(&directory, dry_run, roots)
    }

    fn pause(&self) -> Result<PauseReport, CommandError> {
        let packer = self.packer()?;
        packer.pause();
        Ok(self.pause_report(packer))
    }

    fn resume(&self) -> Result<PauseReport, CommandError> {
        let packer = self.packer()?;
        packer.resume();
        Ok(self.pause_report(packer))
    }

    fn stop(&self, drain: bool, lazy: bool, progress: ProgressSink<'_>) -> Result<StopReport, CommandError> {
        if drain && self.packer.is_ok() {
            let mut is_given_up = false;
            let report = self.sync(&mut |now| {
                let flow = progress(now);
                is_given_up |= flow.is_break();
                flow
            })?;
            if is_given_up {
                return Err(failed("whoever asked for it is gone. Nothing was stopped."));
            }
            if let Some(reason) = report.paused {
                return Err(failed(format!(
                    "packing waits: {reason}. Nothing was stopped; make room, or unmount without --drain: what is queued \
                     is packed after the next mount"
                )));
            }
        }
        self.unmount(lazy)?;
        // Whoever serves the mount waits for the packer: it may be in a system call that takes as long as a disk is
        // slow.
        let busy_with = self.packer.as_ref().ok().and_then(|packer| packer.stop(WAIT_FOR_PACKER));
        let waiting = self.queued();
        Ok(StopReport {
            busy_with: busy_with.map(RelPath::from),
            queued_bytes: waiting.iter().map(|(_, size)| size).sum(),
            queued: waiting.into_iter().map(|(path, _)| RelPath::from(path)).collect(),
        })
    }
}
