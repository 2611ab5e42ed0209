//! `compress`.

use std::fs;
use std::path::{Path, PathBuf};

use mithril_engine::checkpoint::mcp::{self, McpFile, Summary};
use mithril_engine::quantize::Report;

use super::arguments::CompressFlags;
use super::failure::Failure;
use super::files::{Output, files_below, is_standard};
use super::index;
use super::input::{self, with_extension};
use crate::cli::bar::Bar;
use crate::cli::format::{bytes, ratio};

pub(super) fn run(flags: &CompressFlags) -> Result<(), Failure> {
    if flags.recursive {
        return directory(flags);
    }
    if index::is_named_like_one(&flags.input)
        && let Some(files) = index::files_of(&flags.input)?
    {
        return shards(flags, &files);
    }
    let output = match &flags.output {
        Some(output) => output.clone(),
        None if is_standard(&flags.input) => PathBuf::from("-"),
        None => with_extension(&flags.input),
    };
    let summary = one(flags, &flags.input, &output, flags.base.as_deref())?;
    say(&flags.input.display().to_string(), &summary);
    Ok(())
}

fn say(what: &str, summary: &Summary) {
    eprintln!(
        "{what}: {} to {} ({}), {} of {} chunks as deltas",
        bytes(summary.original_bytes),
        bytes(summary.compressed_bytes),
        ratio(summary.original_bytes, summary.compressed_bytes),
        summary.deltas,
        summary.chunks
    );
}

/// What was lost stands in the file that was written.
fn say_lost(from: &Path, to: &Path) {
    if is_standard(to) {
        return;
    }
    let Ok(file) = input::open_file(to).map(|source| McpFile::open(Box::new(source))) else { return };
    let Ok(losses) = file.map(|file| file.losses().to_vec()) else { return };
    if losses.is_empty() {
        eprintln!("{}: it has no floats of 4 KiB or more: nothing was rounded", from.display());
        return;
    }
    let mut all = Report::default();
    losses.iter().for_each(|loss| all.add(&loss.report));
    eprintln!(
        "{}: {} tensors rounded; largest error {:.3e}, mean {:.3e}; {} of {} numbers kept exactly",
        from.display(),
        losses.len(),
        all.max_error,
        all.mean_error(),
        all.exact,
        all.elements
    );
}

/// Compresses one file.
fn one(flags: &CompressFlags, from: &Path, to: &Path, base: Option<&Path>) -> Result<Summary, Failure> {
    let source = input::open_file(from)?;
    if McpFile::is_one(&source).map_err(|error| Failure::of(from, &error))? && !flags.force {
        return Err(Failure::at(from, "it is compressed already: give --force to do it again"));
    }
    let opened = base.map(|base| input::open(base, None)).transpose()?;
    let reference = match (&opened, base) {
        (Some(opened), Some(base)) => Some(opened.reference(base)?),
        _ => None,
    };
    let mut output = Output::create(to, flags.force)?;
    let bar = Bar::new();
    let how = mcp::Compression { config: flags.codec.config(), lossy: flags.lossy.lossy() };
    let summary = input::on_threads(flags.codec.threads, || {
        let mut show = |now: mcp::Progress| bar.show(now.done_bytes, now.total_bytes, now.stored_bytes);
        mcp::compress(&source, reference.as_ref(), &how, &mut output, &mut show)
    })?
    .map_err(|error| Failure::of(from, &error))?;
    output.finish((!is_standard(from)).then(|| source.file()))?;
    if how.lossy.is_some() {
        say_lost(from, to);
    }
    Ok(summary)
}

/// Compresses every file below a directory.
fn directory(flags: &CompressFlags) -> Result<(), Failure> {
    let target = target(flags, "-r needs a directory to write to: give it with -o")?;
    each(flags, &flags.input, &files_below(&flags.input)?, target, flags.base.as_deref())
}

/// Compresses an index and its shards.
fn shards(flags: &CompressFlags, files: &[PathBuf]) -> Result<(), Failure> {
    let shards = files.len() - 1;
    let message =
        format!("it is the index of {shards} shards: give a directory to write them and it to with -o");
    let target = target(flags, &format!("{}: {message}", flags.input.display()))?;
    // The base is a directory, or an index in one.
    let is_index = |base: &Path| index::is_named_like_one(base) && !base.is_dir();
    let base = flags.base.as_deref().map(|base| if is_index(base) { index::folder_of(base) } else { base });
    each(flags, index::folder_of(&flags.input), files, target, base)
}

/// The directory to write to, or what is said if there is none.
fn target<'a>(flags: &'a CompressFlags, without: &str) -> Result<&'a Path, Failure> {
    let output = flags.output.as_deref().filter(|output| !is_standard(output));
    output.ok_or_else(|| Failure::new(without))
}

/// Compresses files of a directory into another one.
fn each(
    flags: &CompressFlags,
    root: &Path,
    files: &[PathBuf],
    target: &Path,
    base: Option<&Path>,
) -> Result<(), Failure> {
    let mut total = Summary::default();
    let mut failures = Vec::new();
    for relative in files {
        let to = with_extension(&target.join(relative));
        let folder = to.parent().unwrap_or(target);
        fs::create_dir_all(folder).map_err(|error| Failure::at(folder, error))?;
        let base = base.and_then(|base| counterpart(base, relative));
        match one(flags, &root.join(relative), &to, base.as_deref()) {
            Ok(summary) => {
                say(&relative.display().to_string(), &summary);
                total.original_bytes += summary.original_bytes;
                total.compressed_bytes += summary.compressed_bytes;
                total.chunks += summary.chunks;
                total.deltas += summary.deltas;
            }
            Err(failure) => failures.push(failure),
        }
    }
    say(&format!("{} files", files.len() - failures.len()), &total);
    match failures.pop() {
        None => Ok(()),
        Some(last) => {
            failures.iter().for_each(|failure| eprintln!("mithril-checkpoint: {}", failure.message));
            Err(last)
        }
    }
}

/// The file of the same name in the directory of an earlier checkpoint, compressed or not.
fn counterpart(base: &Path, relative: &Path) -> Option<PathBuf> {
    let plain = base.join(relative);
    let compressed = with_extension(&plain);
    [plain, compressed].into_iter().find(|path| path.is_file())
}
