//! A file's bytes, without a mount.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use mithril_engine::file::cache::ChunkCache;
use mithril_engine::file::read::{PackedFile, ReadAhead};
use rustix::fs::OFlags;

use super::Directory;
use super::walk::{State, walk};
use crate::control::protocol::CommandError;
use crate::exit::ExitCode;
use crate::overlay::lower;

/// Bytes that are written at once.
const STEP_BYTES: usize = 1 << 20;
/// Bytes that are decoded ahead, and kept.
const AHEAD_BYTES: u64 = 8 << 20;
const CACHE_BYTES: usize = 32 << 20;

/// Writes the content of the file at `path` to `out`.
///
/// # Errors
/// A file that is not there or cannot be read whole. Nothing after the damage is written.
pub fn cat(directory: &Directory<'_>, path: &Path, out: &mut dyn Write) -> Result<(), CommandError> {
    let failed = |error: &dyn std::fmt::Display| CommandError {
        message: format!("cannot read {}: {error}", path.display()),
        exit_code: ExitCode::Failed as u8,
    };
    let mut file = None;
    let _ = walk(directory, path, &mut |found| {
        file = (found.path == path).then_some(found);
        false
    })
    .map_err(|error| failed(&error))?;
    let file = file.ok_or_else(|| failed(&"it is no regular file"))?;
    match file.state {
        State::Damaged(reason, _) => {
            Err(CommandError { exit_code: ExitCode::Damaged as u8, ..failed(&reason) })
        }
        State::Plain => {
            let located = lower::locate_path(directory.root, path).map_err(|error| failed(&error))?;
            let mut plain = lower::reopen(located, OFlags::RDONLY).map_err(|error| failed(&error))?;
            copy(&mut plain, out).map_err(|error| failed(&error))
        }
        State::Packed(authority) => {
            let cache = Arc::new(ChunkCache::new(Arc::clone(&directory.store), CACHE_BYTES));
            let pool = rayon::ThreadPoolBuilder::new().build().map_err(|error| failed(&error))?;
            let ahead = ReadAhead { pool: Arc::new(pool), bytes: AHEAD_BYTES };
            let packed =
                PackedFile::open(authority.manifest, cache, Some(ahead)).map_err(|error| failed(&error))?;
            let packed = Arc::new(packed);
            let mut offset = 0;
            while offset < packed.len() {
                let written =
                    packed.read_with(offset, STEP_BYTES, |bytes| out.write_all(bytes).map(|()| bytes.len()));
                let written = written
                    .map_err(|error| CommandError { exit_code: ExitCode::Damaged as u8, ..failed(&error) })?;
                offset += written.map_err(|error| failed(&error))? as u64;
            }
            Ok(())
        }
    }
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; STEP_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
