//! `decompress`.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use mithril_engine::Error;
use mithril_engine::checkpoint::mcp::{McpFile, Piece};
use mithril_engine::source::Source;

use super::arguments::DecompressFlags;
use super::failure::Failure;
use super::files::{Output, files_below, is_standard};
use super::input::{self, without_extension};
use crate::cli::bar::Bar;

pub(super) fn run(flags: &DecompressFlags) -> Result<(), Failure> {
    if flags.recursive {
        return directory(flags);
    }
    let output = match &flags.output {
        Some(output) => output.clone(),
        None if is_standard(&flags.input) => PathBuf::from("-"),
        None => without_extension(&flags.input).ok_or_else(|| {
            Failure::at(&flags.input, "its name does not end in .mcp: say where to write with -o")
        })?,
    };
    one(flags, &flags.input, &output, flags.base.as_deref())
}

/// Decompresses one file.
fn one(flags: &DecompressFlags, from: &Path, to: &Path, base: Option<&Path>) -> Result<(), Failure> {
    let file = input::open_compressed(from, base)?;
    let like = if is_standard(from) { None } else { fs::File::open(from).ok() };
    let mut output = Output::create(to, flags.force)?;
    let bar = Bar::new();
    input::on_threads(flags.threads, || copy(&file, &mut output, &bar))?
        .map_err(|error| Failure::of(from, &error))?;
    output.finish(like.as_ref())
}

fn copy(file: &McpFile, output: &mut Output, bar: &Bar) -> Result<(), Error> {
    let failed = |error| Error::io("write", "the file", error);
    let mut done = 0;
    file.read_all(&mut |piece| {
        match piece {
            Piece::Data(bytes) => {
                output.write_all(bytes).map_err(failed)?;
                done += bytes.len() as u64;
            }
            Piece::Hole(len) => {
                done += len;
                skip(output, len, done).map_err(failed)?;
            }
        }
        bar.show(done, file.size(), file.compressed_bytes());
        Ok(())
    })
}

/// Leaves a hole up to `end`; writes zeros where there can be none.
fn skip(output: &mut Output, mut len: u64, end: u64) -> std::io::Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    if let Some(file) = output.as_file() {
        file.set_len(end)?;
        return file.seek(SeekFrom::Start(end)).map(drop);
    }
    while len > 0 {
        let part = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
        output.write_all(&ZEROS[..part])?;
        len -= part as u64;
    }
    Ok(())
}

/// Decompresses every compressed file below a directory.
fn directory(flags: &DecompressFlags) -> Result<(), Failure> {
    let Some(target) = flags.output.as_ref().filter(|output| !is_standard(output)) else {
        return Err(Failure::new("-r needs a directory to write to: give it with -o"));
    };
    let mut failures = Vec::new();
    for relative in files_below(&flags.input)? {
        let Some(name) = without_extension(&relative) else { continue };
        let to = target.join(&name);
        let folder = to.parent().unwrap_or(target);
        fs::create_dir_all(folder).map_err(|error| Failure::at(folder, error))?;
        // With a directory of bases, each file has the one of its own name there.
        let base = flags
            .base
            .as_ref()
            .map(|base| base.join(&name))
            .map(|plain| if plain.is_file() { plain } else { input::with_extension(&plain) });
        let base = base.filter(|base| base.is_file());
        failures.extend(one(flags, &flags.input.join(&relative), &to, base.as_deref()).err());
    }
    match failures.pop() {
        None => Ok(()),
        Some(last) => {
            failures.iter().for_each(|failure| eprintln!("mithril-checkpoint: {}", failure.message));
            Err(last)
        }
    }
}
