//! Commands that only look: status, ls, cat.

use std::io::{self, BufWriter, Write};

use super::Outcome;
use super::arguments::{PathFlags, QueryFlags};
use super::format::{bytes, ratio, table, whole};
use super::target::{self, Target};
use crate::control::client;
use crate::control::protocol::CommandError;
use crate::control::protocol::{Answer, FileEntry, FileState, LeftPlain, RelPath, Request, Status, Unseen};
use crate::exit::ExitCode;
use crate::ops::offline::{Offline, Use};
use crate::ops::{cat, list};
use crate::printable::printable;

/// Files that are named in a message; of more only the number is said.
pub(super) const NAMED_FILES: usize = 10;

/// Prints a JSON document.
pub(super) fn print_json(document: &impl serde::Serialize) -> Result<(), CommandError> {
    print(&(serde_json::to_string_pretty(document).map_err(|error| failed(&error))? + "\n"))
}

/// Prints; a reader that went away is no error.
fn print(text: &str) -> Result<(), CommandError> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(&error)),
        _ => Ok(()),
    }
}

fn failed(error: &dyn std::fmt::Display) -> CommandError {
    CommandError { message: error.to_string(), exit_code: ExitCode::Failed as u8 }
}

/// Names what could not be looked at, for people; what was said is not all then.
pub(super) fn say_unseen(unseen: &Unseen) -> ExitCode {
    for (path, reason) in &unseen.named {
        eprintln!("not looked at: {path}: {reason}");
    }
    if unseen.more > 0 {
        eprintln!("and {} more", unseen.more);
    }
    if unseen.count() == 0 { ExitCode::Ok } else { ExitCode::Partial }
}

/// An answer that does not belong to the question.
pub(super) fn unexpected() -> CommandError {
    failed(&"the daemon gave an answer of another version; mount again with this version")
}

pub(super) fn status(flags: &QueryFlags) -> Outcome {
    let status = match target::find(&flags.path)? {
        Target::Mounted { mount, .. } => match client::ask(&mount, &Request::Status, &mut |_| {})? {
            Answer::Status(status) => *status,
            _ => return Err(unexpected()),
        },
        Target::Unmounted { directory, .. } => {
            let offline = Offline::open(&directory, Use::Read)?;
            let totals = list::totals(&offline.directory(), &mut |_| {})?;
            let usage = offline.directory().store.usage();
            Status {
                directory,
                packed_files: totals.packed_files,
                logical_bytes: totals.logical_bytes,
                stored_bytes: usage.pack_bytes + usage.index_bytes,
                unseen: totals.unseen,
                ..Status::default()
            }
        }
    };
    if flags.json {
        print_json(&status)?;
    } else {
        print(&status_text(&status))?;
    }
    say_unseen(&status.unseen);
    Ok(ExitCode::Ok)
}

/// Names the first files that are plain, and says how many more there are.
pub(super) fn left_plain_text(left: &LeftPlain) -> String {
    let named = left.named.iter().take(NAMED_FILES);
    let mut text: String = named.map(|(path, reason)| format!("  plain: {path} ({reason})\n")).collect();
    let more = left.count().saturating_sub(NAMED_FILES as u64);
    if more > 0 {
        text.push_str(&format!("  and {more} more plain files\n"));
    }
    text
}

fn status_text(status: &Status) -> String {
    let on = |reason: &Option<String>| {
        reason.as_ref().map_or_else(|| "on".to_owned(), |why| format!("off: {why}"))
    };
    let mut rows = vec![vec!["directory".to_owned(), status.directory.display().to_string()]];
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    if status.pid == 0 {
        row("mounted", "no".to_owned());
    } else {
        row("mounted at", format!("{} (process {})", status.mountpoint.display(), status.pid));
        row("passthrough", on(&status.passthrough));
        row(
            "packing",
            match (&status.packing, &status.paused) {
                (None, Some(reason)) => format!("paused: {reason}"),
                (packing, _) => on(packing),
            },
        );
    }
    let packed = format!("{} files, {}", status.packed_files, bytes(status.logical_bytes));
    row("packed", packed);
    let stored =
        format!("{} ({})", bytes(status.stored_bytes), ratio(status.logical_bytes, status.stored_bytes));
    row("stored", stored);
    if status.pid != 0 {
        row("queued", format!("{} files, {}", status.queued_files, bytes(status.queued_bytes)));
        if let Some(path) = &status.packing_path {
            row("packing now", path.to_string());
        }
        row("packing speed", format!("{}/s", bytes(whole(status.pack_bytes_per_second))));
        let (read, decoded) = (bytes(status.read_bytes), bytes(status.decoded_bytes));
        row("reads served", format!("{} requests, {read}, {decoded} decoded", status.read_requests));
        row("writes served", format!("{} requests, {}", status.write_requests, bytes(status.write_bytes)));
        row("passthrough opens", status.passthrough_opens.to_string());
        if status.left_plain.count() > 0 {
            let (all, for_now) = (status.left_plain.count(), status.left_plain.for_now);
            row("left plain", format!("{all} files, {for_now} of them for now only"));
        }
    }
    let width = rows.iter().map(|row| row[0].len()).max().unwrap_or(0);
    let mut text: String = rows.iter().map(|row| format!("{:<width$}  {}\n", row[0], row[1])).collect();
    text.push_str(&left_plain_text(&status.left_plain));
    for error in &status.errors {
        text.push_str(&format!("error: {}\n", printable(error)));
    }
    text
}

pub(super) fn ls(flags: &QueryFlags) -> Outcome {
    let listing = match target::find(&flags.path)? {
        Target::Mounted { mount, path } => match client::ask(&mount, &Request::List { path }, &mut |_| {})? {
            Answer::Files(listing) => listing,
            _ => return Err(unexpected()),
        },
        Target::Unmounted { directory, path } => {
            list::list(&Offline::open(&directory, Use::Read)?.directory(), &path)?
        }
    };
    if flags.json {
        print_json(&listing.files)?;
    } else {
        print(&files_text(&listing.files))?;
    }
    Ok(say_unseen(&listing.unseen))
}

fn files_text(files: &[FileEntry]) -> String {
    let mut rows =
        vec![["file", "size", "stored", "ratio", "state", "depth", "base"].map(str::to_owned).to_vec()];
    for file in files {
        let state = match file.state {
            FileState::Plain => {
                file.plain_because.as_ref().map_or_else(|| "plain".to_owned(), |why| format!("plain: {why}"))
            }
            FileState::Packed => "packed".to_owned(),
            FileState::Damaged => "damaged".to_owned(),
        };
        rows.push(vec![
            file.path.to_string(),
            bytes(file.logical_bytes),
            bytes(file.stored_bytes),
            ratio(file.logical_bytes, file.stored_bytes),
            state,
            file.chain_depth.to_string(),
            file.base.as_ref().map_or_else(|| "-".to_owned(), RelPath::to_string),
        ]);
    }
    let logical = files.iter().map(|file| file.logical_bytes).sum();
    let stored = files.iter().map(|file| file.stored_bytes).sum();
    rows.push(vec![format!("{} files", files.len()), bytes(logical), bytes(stored), ratio(logical, stored)]);
    table(&rows)
}

pub(super) fn cat(flags: &PathFlags) -> Outcome {
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    match target::find(&flags.path)? {
        Target::Mounted { mount, path } => {
            // Not as it was given: that may be below the mount.
            let path = mount.mountpoint.join(path.as_path());
            let mut file = std::fs::File::open(path)
                .map_err(|error| failed(&format!("{}: {error}", flags.path.display())))?;
            match io::copy(&mut file, &mut out) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(failed(&format!("{}: {error}", flags.path.display())));
                }
                _ => {}
            }
        }
        Target::Unmounted { directory, path } => {
            cat::cat(&Offline::open(&directory, Use::Read)?.directory(), path.as_path(), &mut out)?;
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(&error)),
        _ => Ok(ExitCode::Ok),
    }
}
