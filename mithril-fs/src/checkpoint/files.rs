//! Outputs that appear whole or not at all, and the files below a directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::failure::Failure;

/// Whether a path stands for standard input or output.
pub(super) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Where a command writes. A file gets its name only when it is complete and durable.
pub(super) enum Output {
    Standard(io::Stdout),
    File { file: NamedTempFile, path: PathBuf, force: bool },
}

impl Output {
    pub(super) fn create(path: &Path, force: bool) -> Result<Self, Failure> {
        if is_standard(path) {
            return Ok(Self::Standard(io::stdout()));
        }
        // Said before hours of work; the rename says it again.
        if !force && path.symlink_metadata().is_ok() {
            return Err(Failure::at(path, "it is there already: give --force to overwrite it"));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".mithril-checkpoint-")
            .tempfile_in(folder)
            .map_err(|error| Failure::at(folder, format!("cannot write here: {error}")))?;
        Ok(Self::File { file, path: path.to_owned(), force })
    }

    /// The file, if it is one.
    pub(super) fn as_file(&mut self) -> Option<&mut File> {
        match self {
            Self::Standard(_) => None,
            Self::File { file, .. } => Some(file.as_file_mut()),
        }
    }

    /// Gives the file its name, with the mode and time of `like`.
    pub(super) fn finish(self, like: Option<&File>) -> Result<(), Failure> {
        let (file, path, force) = match self {
            Self::Standard(mut out) => {
                return out.flush().map_err(|error| Failure::new(format!("standard output: {error}")));
            }
            Self::File { file, path, force } => (file, path, force),
        };
        let failed = |error: io::Error| Failure::at(&path, error);
        match like.map(File::metadata).transpose().map_err(failed)? {
            Some(metadata) => {
                file.as_file().set_permissions(metadata.permissions()).map_err(failed)?;
                if let Ok(modified) = metadata.modified() {
                    file.as_file().set_modified(modified).map_err(failed)?;
                }
            }
            None => {
                use std::os::unix::fs::PermissionsExt;
                // A temporary file is the owner's alone; this one is what any command would have made.
                let mode = 0o666 & !rustix::process::umask(rustix::fs::Mode::empty()).bits();
                rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o666 & !mode));
                file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
            }
        }
        file.as_file().sync_all().map_err(failed)?;
        let named = if force { file.persist(&path) } else { file.persist_noclobber(&path) };
        named.map_err(|error| failed(error.error))?;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard(out) => out.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Standard(out) => out.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

/// The regular files below a directory, relative to it, sorted. Links are not followed.
pub(super) fn files_below(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let here = directory.join(&relative);
        for entry in fs::read_dir(&here).map_err(|error| Failure::at(&here, error))? {
            let entry = entry.map_err(|error| Failure::at(&here, error))?;
            let kind = entry.file_type().map_err(|error| Failure::at(&entry.path(), error))?;
            let name = relative.join(entry.file_name());
            if kind.is_dir() {
                todo.push(name);
            } else if kind.is_file() {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}
