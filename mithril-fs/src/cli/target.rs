//! What a path argument stands for: a mount of ours, or a directory that is not mounted.

use std::path::{Path, PathBuf};

use crate::control::protocol::{CommandError, RelPath};
use crate::exit::ExitCode;
use crate::mounting::lock;
use crate::mounting::mountinfo::{self, OurMount};
use crate::overlay::STORE_DIR;

/// Where a path is.
pub(super) enum Target {
    /// On a mount of ours, or in the directory of one.
    Mounted {
        mount: OurMount,
        /// Below it.
        path: RelPath,
    },
    /// In a directory that was mounted before, and is not now.
    Unmounted {
        directory: PathBuf,
        /// Below it.
        path: RelPath,
    },
}

fn failed(message: String, code: ExitCode) -> CommandError {
    CommandError { message, exit_code: code as u8 }
}

/// Finds out where `path` is. A directory that is mounted somewhere else stands for that mount.
///
/// # Errors
/// That it does not exist, or is neither.
pub(super) fn find(path: &Path) -> Result<Target, CommandError> {
    let absolute = resolve(path)?;
    let unlisted = |error| failed(format!("cannot read the list of mounts: {error}"), ExitCode::Failed);
    let covering = mountinfo::covering(&absolute).map_err(unlisted)?;
    if let Some(mount) = covering {
        let below = absolute.strip_prefix(&mount.mountpoint).unwrap_or(Path::new("")).to_owned();
        return Ok(Target::Mounted { mount, path: below.into() });
    }
    let directory = absolute.ancestors().find(|ancestor| ancestor.join(STORE_DIR).is_dir());
    let Some(directory) = directory else {
        let message = format!(
            "{} is not on a mithril mount, and no directory above it has a {STORE_DIR}; mount it first: mithril-fs mount DIR",
            path.display()
        );
        return Err(failed(message, ExitCode::NotMounted));
    };
    let below = absolute.strip_prefix(directory).unwrap_or(Path::new("")).to_owned();
    // It may be mounted somewhere else.
    let mounts = mountinfo::of_directory(directory).map_err(unlisted)?;
    if let Some(mount) = mounts.into_iter().find(|mount| lock::says_mounted_at(directory, &mount.mountpoint))
    {
        return Ok(Target::Mounted { mount, path: below.into() });
    }
    Ok(Target::Unmounted { directory: directory.to_owned(), path: below.into() })
}

/// The mount that `path` is on.
///
/// # Errors
/// That there is none.
pub(super) fn mounted(path: &Path) -> Result<(OurMount, RelPath), CommandError> {
    match find(path)? {
        Target::Mounted { mount, path } => Ok((mount, path)),
        Target::Unmounted { directory, .. } => Err(failed(
            format!("{0} is not mounted; mount it first: mithril-fs mount {0}", directory.display()),
            ExitCode::NotMounted,
        )),
    }
}

/// The absolute path of an argument. The last name is taken as it is if it is a symlink: a link on the mount is not
/// the file that it points to.
fn resolve(path: &Path) -> Result<PathBuf, CommandError> {
    let missing = |error: std::io::Error| failed(format!("{}: {error}", path.display()), ExitCode::Failed);
    let is_link = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    match (is_link, path.file_name(), path.parent()) {
        (true, Some(name), Some(parent)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let followed = mountinfo::absolute(path).map_err(missing)?;
            // A link to a mounted directory means the mount.
            Ok(if followed.is_dir() {
                followed
            } else {
                mountinfo::absolute(parent).map_err(missing)?.join(name)
            })
        }
        _ => mountinfo::absolute(path).map_err(missing),
    }
}
