//! Commands that do something: umount, sync, pack, unpack, verify, gc.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::arguments::{
    GcFlags, MountPathFlags, PackFlags, PathFlags, UmountFlags, UnpackFlags, VerifyFlags,
};
use super::bar::Bar;
use super::format::{bytes, duration, ratio, whole};
use super::query::{NAMED_FILES, left_plain_text, print_json, say_unseen, unexpected};
use super::target::{self, Target};
use super::{Outcome, force};
use crate::control::client::{self, Connection};
use crate::control::protocol::CommandError;
use crate::control::protocol::{
    Answer, EstimateReport, GcReport, PackReport, PauseReport, Progress, Request, StopReport, UnpackReport,
    VerifyReport,
};
use crate::exit::ExitCode;
use crate::mounting::mountinfo::{self, OurMount};
use crate::mounting::unmount;
use crate::ops::offline::{Offline, Use};
use crate::ops::{collect, unpack as unpacking, verify as verifying};

/// How long `umount` waits for a daemon to end after its mount is gone, before it says what it waits for, and then: with
/// the daemon's own second, it ends within ten.
const QUIET: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(6);

/// Shows how far a command is.
fn show(bar: &Bar, now: &Progress) {
    bar.show(now.done_bytes, now.total_bytes, now.stored_bytes);
}

fn ask(mount: &OurMount, request: &Request) -> Result<Answer, CommandError> {
    let bar = Bar::new();
    client::ask(mount, request, &mut |now| show(&bar, now))
}

pub(super) fn umount(flags: &UmountFlags) -> Outcome {
    if flags.force {
        return force::umount(&flags.path);
    }
    let path = flags.path.clone();
    let asked = force::unless_it_hangs(move || {
        let (mount, _) = target::mounted(&path)?;
        let is_dead = mountinfo::is_dead(&mount.mountpoint);
        Ok((mount, is_dead))
    });
    let (mount, is_dead) = asked.unwrap_or_else(|| {
        let path = flags.path.display();
        Err(failed(format!("{path} does not answer. Nothing was stopped; use --force if that lasts")))
    })?;
    if is_dead {
        return match unmount::unmount(&mount.mountpoint, true) {
            Ok(()) => {
                println!("{}: the daemon had died; the mount is gone", mount.mountpoint.display());
                Ok(ExitCode::Ok)
            }
            Err(error) => Err(failed(format!("{}: {error:?}", mount.mountpoint.display()))),
        };
    }
    let mut connection = Connection::open(&mount)?;
    let bar = Bar::new();
    let stop = Request::Stop { drain: flags.drain, lazy: flags.lazy };
    let Answer::Stopping(report) = connection.ask(&stop, &mut |now| show(&bar, now))? else {
        return Err(unexpected());
    };
    drop(bar);
    // Before the wait, which may be in vain.
    say_queued(&report);
    if !flags.lazy {
        wait_for_end(&mount, &mut connection, &report)?;
    }
    Ok(ExitCode::Ok)
}

/// Names the first files that wait to be packed.
fn say_queued(report: &StopReport) {
    if report.queued.is_empty() {
        return;
    }
    println!(
        "{} files ({}) are not packed yet; the next mount goes on with them:",
        report.queued.len(),
        bytes(report.queued_bytes)
    );
    report.queued.iter().take(NAMED_FILES).for_each(|path| println!("  {path}"));
    if report.queued.len() > NAMED_FILES {
        println!("  and {} more", report.queued.len() - NAMED_FILES);
    }
}

/// Waits until the daemon has let go of the directory, so that what comes next finds it free.
///
/// # Errors
/// That it did not, for a long time.
fn wait_for_end(
    mount: &OurMount,
    connection: &mut Connection,
    report: &StopReport,
) -> Result<(), CommandError> {
    if connection.wait_for_end(QUIET) {
        return Ok(());
    }
    let daemon = connection.daemon.map_or_else(|| "its daemon".to_owned(), |pid| format!("process {pid}"));
    let why = match &report.busy_with {
        Some(path) => format!("it waits for the disk, with {path}"),
        None => "it still serves somebody, who may have the mount in another place or namespace".to_owned(),
    };
    let mountpoint = mount.mountpoint.display();
    eprintln!("{mountpoint} is not mounted any more; waiting for {daemon} to end: {why}");
    if connection.wait_for_end(PATIENCE) {
        return Ok(());
    }
    let directory = mount.source.display();
    Err(failed(format!(
        "{mountpoint} is not mounted any more, but {daemon} has {directory} still: {why}. Nothing is lost, and \
         it can be mounted again once that process ends"
    )))
}

fn failed(message: String) -> CommandError {
    CommandError { message, exit_code: ExitCode::Failed as u8 }
}

pub(super) fn sync(flags: &PathFlags) -> Outcome {
    let (mount, _) = target::mounted(&flags.path)?;
    let Answer::Packed(report) = ask(&mount, &Request::Sync)? else { return Err(unexpected()) };
    Ok(say_packed(&report))
}

pub(super) fn pack(flags: &PackFlags) -> Outcome {
    let mut code = ExitCode::Ok;
    for path in &flags.paths {
        let (mount, path) = target::mounted(path)?;
        if flags.recursive || flags.estimate {
            let Answer::Estimated(report) = ask(&mount, &Request::Estimate { path: path.clone() })? else {
                return Err(unexpected());
            };
            say_estimated(&report);
        }
        if flags.estimate {
            continue;
        }
        let Answer::Packed(report) = ask(&mount, &Request::Pack { path })? else { return Err(unexpected()) };
        let this = say_packed(&report);
        code = if this == ExitCode::Ok { code } else { this };
    }
    Ok(code)
}

fn say_packed(report: &PackReport) -> ExitCode {
    println!(
        "{} files packed: {} to {} ({})",
        report.files,
        bytes(report.logical_bytes),
        bytes(report.stored_bytes),
        ratio(report.logical_bytes, report.stored_bytes)
    );
    for (path, reason) in report.overruled.iter().take(NAMED_FILES) {
        println!("  packed since it was asked for: {path} ({reason})");
    }
    print!("{}", left_plain_text(&report.left_plain));
    if let Some(reason) = &report.paused {
        println!("  packing waits, and what is queued stays so: {reason}");
    }
    let seen = say_unseen(&report.unseen);
    // What cannot be made smaller is as good as packed.
    if report.left_plain.for_now > 0 || report.paused.is_some() { ExitCode::Partial } else { seen }
}

/// `pause` and `resume`.
pub(super) fn pause(flags: &MountPathFlags, request: &Request) -> Outcome {
    let (mount, _) = target::mounted(&flags.path)?;
    let Answer::Packing(report) = ask(&mount, request)? else { return Err(unexpected()) };
    say_paused(&report);
    Ok(ExitCode::Ok)
}

fn say_paused(report: &PauseReport) {
    let waiting = format!("{} files ({}) wait", report.queued_files, bytes(report.queued_bytes));
    match &report.paused {
        Some(reason) => println!("packing is paused {reason}; {waiting}"),
        None => println!("packing goes on; {waiting}"),
    }
    if let (Some(_), Some(path)) = (&report.paused, &report.active) {
        println!("{path} is being packed, and is finished first");
    }
}

fn say_estimated(report: &EstimateReport) {
    let (files, logical) = (report.files, report.logical_bytes);
    if report.sampled_files == 0 {
        println!("{files} files ({}) to pack; none of them could be sampled", bytes(logical));
        return;
    }
    let stored = whole(logical as f64 * report.share);
    println!(
        "{files} files to pack: {} to about {} ({}) in about {}, by a sample of {}; less where files are deltas against \
         others that are not packed yet",
        bytes(logical),
        bytes(stored),
        ratio(logical, stored),
        duration(report.seconds),
        report.sampled_files
    );
}

pub(super) fn unpack(flags: &UnpackFlags) -> Outcome {
    let mut code = ExitCode::Ok;
    for path in &flags.paths {
        let report = match target::find(path)? {
            Target::Mounted { mount, path } => {
                let Answer::Unpacked(report) = ask(&mount, &Request::Unpack { path })? else {
                    return Err(unexpected());
                };
                report
            }
            Target::Unmounted { directory, path } => {
                let bar = Bar::new();
                unpacking::unpack(&open(&directory)?.directory(), &path, &mut |now| {
                    show(&bar, &now);
                    ControlFlow::Continue(())
                })?
            }
        };
        let this = say_unpacked(&report);
        code = if this == ExitCode::Ok { code } else { this };
    }
    Ok(code)
}

fn say_unpacked(report: &UnpackReport) -> ExitCode {
    println!("{} files are plain now: {}", report.files, bytes(report.logical_bytes));
    report.failed.iter().for_each(|(path, reason)| eprintln!("  still packed: {path}: {reason}"));
    if report.store_is_free {
        println!("no file needs .mithril any more; it can be deleted");
    }
    if report.failed.is_empty() { ExitCode::Ok } else { ExitCode::Partial }
}

pub(super) fn verify(flags: &VerifyFlags) -> Outcome {
    let report = match target::find(&flags.path)? {
        Target::Mounted { mount, .. } => {
            let Answer::Verified(report) =
                ask(&mount, &Request::Verify { repair_index: flags.repair_index })?
            else {
                return Err(unexpected());
            };
            report
        }
        Target::Unmounted { directory, .. } => {
            let bar = Bar::new();
            verifying::verify(&open(&directory)?.directory(), flags.repair_index, &mut |now| {
                show(&bar, &now);
                ControlFlow::Continue(())
            })?
        }
    };
    Ok(say_verified(&report))
}

fn open(directory: &Path) -> Result<Offline, CommandError> {
    Offline::open(directory, Use::Change)
}

fn say_verified(report: &VerifyReport) -> ExitCode {
    println!("{} files, {} packs, {} chunks checked", report.files, report.packs, report.chunks);
    report.store_errors.iter().for_each(|error| eprintln!("damaged: {error}"));
    for (path, reason) in &report.damaged_files {
        eprintln!("unreadable: {path}: {reason}");
    }
    let seen = say_unseen(&report.unseen);
    if report.store_errors.is_empty() && report.damaged_files.is_empty() { seen } else { ExitCode::Damaged }
}

pub(super) fn gc(flags: &GcFlags) -> Outcome {
    let report = match target::find(&flags.path)? {
        Target::Mounted { mount, .. } => {
            let Answer::Collected(report) = ask(&mount, &Request::Gc { dry_run: flags.dry_run })? else {
                return Err(unexpected());
            };
            report
        }
        Target::Unmounted { directory, .. } => {
            let offline = open(&directory)?;
            let directory = offline.directory();
            collect::collect(&directory, flags.dry_run, || collect::roots(&directory))?
        }
    };
    if flags.json {
        print_json(&report)?;
    } else {
        say_collected(&report, flags.dry_run);
    }
    Ok(ExitCode::Ok)
}

fn say_collected(report: &GcReport, dry_run: bool) {
    println!(
        "{} {} ({} blobs that no file needs): {} packs deleted, {} rewritten; {} stay",
        bytes(report.freed_bytes),
        if dry_run { "would be given back" } else { "given back" },
        report.dead_blobs,
        report.deleted_packs,
        report.rewritten_packs,
        bytes(report.kept_bytes)
    );
}
