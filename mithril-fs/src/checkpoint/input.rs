//! Files as sources: plain ones, compressed ones with the files that they are deltas against, standard input.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mithril_engine::Error;
use mithril_engine::checkpoint::mcp::{EXTENSION, McpFile, Reference};
use mithril_engine::source::{FileSource, Source};

use super::failure::Failure;
use super::files::is_standard;

/// Deltas against deltas that are followed.
const MAX_REFERENCES: usize = 64;

/// A file that was opened.
pub(super) enum Input {
    Plain(FileSource),
    Compressed(Box<McpFile>),
}

impl Input {
    /// What it holds: of a compressed file what it decompresses to.
    pub(super) fn source(&self) -> &dyn Source {
        match self {
            Self::Plain(source) => source,
            Self::Compressed(file) => file.as_ref(),
        }
    }

    /// The same, owned.
    pub(super) fn into_source(self) -> Box<dyn Source + Send> {
        match self {
            Self::Plain(source) => Box::new(source),
            Self::Compressed(file) => file,
        }
    }

    /// The same as something to make a delta against. `path` is what it was opened by.
    pub(super) fn reference<'a>(&'a self, path: &Path) -> Result<Reference<'a>, Failure> {
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        match self {
            Self::Plain(source) => Reference::plain(name, source).map_err(|error| Failure::of(path, &error)),
            Self::Compressed(file) => Ok(Reference::compressed(name, file)),
        }
    }
}

/// Opens a file, or keeps standard input in a temporary file that has no name: parts of a checkpoint are described at its
/// end.
pub(super) fn open_file(path: &Path) -> Result<FileSource, Failure> {
    let file = if is_standard(path) { spooled() } else { regular(path) };
    file.and_then(FileSource::new).map_err(|error| Failure::at(path, error))
}

fn regular(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is no regular file; use -r for a directory, - for a pipe"))
}

fn spooled() -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut io::stdin().lock(), &mut file)?;
    Ok(file)
}

/// Opens a file that may be compressed. If it is a delta, `base` is what it was made against, else that is searched
/// beside it.
pub(super) fn open(path: &Path, base: Option<&Path>) -> Result<Input, Failure> {
    open_within(path, base, MAX_REFERENCES)
}

/// Opens a file that must be compressed.
pub(super) fn open_compressed(path: &Path, base: Option<&Path>) -> Result<Box<McpFile>, Failure> {
    match open(path, base)? {
        Input::Compressed(file) => Ok(file),
        Input::Plain(_) => Err(Failure::at(path, "it is no compressed checkpoint")),
    }
}

fn open_within(path: &Path, base: Option<&Path>, left: usize) -> Result<Input, Failure> {
    let source = open_file(path)?;
    let of = |error: Error| Failure::of(path, &error);
    if !McpFile::is_one(&source).map_err(of)? {
        return Ok(Input::Plain(source));
    }
    let mut file = McpFile::open(Box::new(source)).map_err(of)?;
    if let Some(reference) = file.reference() {
        let found = match base {
            Some(base) => base.to_owned(),
            None => beside(path, &reference.name)?,
        };
        if left == 0 {
            return Err(Failure::at(path, "it is a delta against a delta, and so on, without an end"));
        }
        let reference = open_within(&found, None, left - 1)?.into_source();
        file.set_reference(reference).map_err(|error| Failure::of(&found, &error))?;
    }
    Ok(Input::Compressed(Box::new(file)))
}

/// The file of this name in the directory of `path`, or its compressed form.
fn beside(path: &Path, name: &[u8]) -> Result<PathBuf, Failure> {
    let folder = path.parent().unwrap_or(Path::new(""));
    // A name is the last part of a path: what is not is no name that was written here.
    let name = Path::new(OsStr::from_bytes(name));
    let plain = name.file_name().map(|last| folder.join(last));
    let compressed = plain.as_ref().map(|plain| with_extension(plain));
    let found =
        [plain, compressed].into_iter().flatten().find(|candidate| candidate != path && candidate.is_file());
    found.ok_or_else(|| {
        Failure::at(
            path,
            format!("it is a delta against {}, which is not beside it: give it with --base", name.display()),
        )
    })
}

/// The path with `.mcp` behind it.
pub(super) fn with_extension(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(EXTENSION);
    name.into()
}

/// The path without `.mcp`.
pub(super) fn without_extension(path: &Path) -> Option<PathBuf> {
    (path.extension() == Some(OsStr::new(EXTENSION))).then(|| path.with_extension(""))
}

/// Runs `work` where its parallel parts use so many threads; 0 stands for all processors.
pub(super) fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    Ok(pool.map_err(|error| Failure::new(format!("cannot start threads: {error}")))?.install(work))
}
