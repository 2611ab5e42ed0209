//! Which files are packed by themselves: by path, size, age, and whether newer ones of their kind came.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use mithril_engine::file::lineage::Pattern;
use mithril_engine::settings::PACK_MIN_BYTES;
use rustix::fs::{FileType, Stat};

use super::candidates;
use super::verdicts::{Reason, size_of};
use super::worker::Packer;
use crate::ops::Directory;
use crate::ops::walk::{State, walk};
use crate::overlay::{Overlay, lower};
use crate::settings::PackPolicy;

/// Levels at which the number of a step may be: that of the file, and those of directories above it.
const LEVELS: usize = 4;

/// How clearly somebody asked for a file to be packed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Asked {
    /// Nobody did.
    #[default]
    No,
    /// For all below a directory: also for what was there before, but for nothing that is excluded or hot.
    Below,
    /// By its name.
    ByName,
}

/// The policy of a mount.
pub(super) struct Policy {
    include: Option<GlobSet>,
    exclude: Option<GlobSet>,
    min_size: u64,
    hot: usize,
    /// Files that did not change since then, in ns since 1970, were there before.
    since: i64,
}

impl Policy {
    /// # Errors
    /// What is wrong with a pattern.
    pub(super) fn new(settings: &PackPolicy, since: i64) -> Result<Self, String> {
        Ok(Self {
            include: globs(&settings.include)?,
            exclude: globs(&settings.exclude)?,
            min_size: settings.min_size.max(PACK_MIN_BYTES),
            hot: settings.hot,
            since,
        })
    }

    /// Whether another name may be another answer.
    pub(super) fn depends_on_names(&self) -> bool {
        self.include.is_some() || self.exclude.is_some() || self.hot > 0
    }

    /// Why a file is left plain, as far as can be said of it alone.
    pub(super) fn alone(&self, path: &Path, stat: &Stat, asked: Asked) -> Option<Reason> {
        if asked == Asked::ByName {
            return None;
        }
        let is_included = self.include.as_ref().is_none_or(|globs| matches(globs, path));
        if !is_included || self.exclude.as_ref().is_some_and(|globs| matches(globs, path)) {
            Some(Reason::Excluded)
        } else if size_of(stat) < self.min_size {
            Some(Reason::Small)
        } else if asked == Asked::No && lower::ctime_ns(stat) < self.since {
            Some(Reason::Existing)
        } else {
            None
        }
    }

    /// Why a file is left plain, for those beside it too.
    pub(super) fn reason(&self, overlay: &Overlay, path: &Path, stat: &Stat, asked: Asked) -> Option<Reason> {
        let is_hot = || {
            let newer = kin(overlay, path, Ordering::Greater);
            let newer = newer.iter().filter(|path| self.counts(overlay, path));
            newer.take(self.hot).count() < self.hot
        };
        self.alone(path, stat, asked)
            .or_else(|| (self.hot > 0 && asked != Asked::ByName && is_hot()).then_some(Reason::Hot))
    }

    /// Files that may not be hot any more since this one came.
    pub(super) fn superseded(&self, overlay: &Overlay, path: &Path) -> Vec<PathBuf> {
        // Some more than become so with each: others may have been missed.
        let mut older = kin(overlay, path, Ordering::Less);
        older.truncate(self.hot.saturating_mul(2));
        older
    }

    /// Whether it is a file that makes others older: one that is large enough itself.
    fn counts(&self, overlay: &Overlay, path: &Path) -> bool {
        let stat = lower::locate_path(&overlay.nodes.root().fd, path).and_then(lower::stat);
        stat.is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && size_of(&stat) >= self.min_size
        })
    }
}

impl Packer {
    /// What a command for this file would come to overrule, if it names the file, or a directory above it.
    pub(crate) fn overruled(&self, path: &Path, stat: &Stat, asked: Asked) -> Option<Reason> {
        let by = |asked| self.policy.reason(&self.parts.overlay, path, stat, asked);
        by(Asked::No).filter(|reason| by(asked).as_ref() != Some(reason))
    }

    /// Whether a file is left plain by the policy, however it was asked for.
    pub(crate) fn is_left(&self, path: &Path, stat: &Stat, asked: Asked) -> bool {
        self.policy.reason(&self.parts.overlay, path, stat, asked).is_some()
    }

    /// A file is hot: others may not be any more, and are packed then.
    pub(super) fn offer_superseded(&self, path: &Path) {
        let overlay = &self.parts.overlay;
        for older in self.policy.superseded(overlay, path) {
            let Ok(fd) = lower::locate_path(&overlay.nodes.root().fd, &older) else { continue };
            if let Ok(stat) = lower::stat(&fd)
                && !self.is_stub(&fd)
                && self.policy.reason(overlay, &older, &stat, Asked::No).is_none()
            {
                self.found(older, &stat);
            }
        }
    }

    /// A directory has another name: files below it may not be excluded any more.
    pub(super) fn offer_below(&self, path: &Path) {
        let overlay = &self.parts.overlay;
        let root = &overlay.nodes.root().fd;
        let (store, namespace) = (Arc::clone(&overlay.store), Some(self.parts.namespace));
        let directory = Directory { root: root.as_fd(), store, namespace };
        let walked = walk(&directory, path, &mut |found| {
            if found.state == State::Plain {
                self.found(found.path, &found.stat);
            }
            true
        });
        if let Err(error) = walked {
            tracing::warn!(path = %path.display(), %error, "cannot look through a renamed directory");
        }
    }
}

/// Patterns without a slash are for names at any depth, others for paths below the directory.
fn globs(patterns: &[String]) -> Result<Option<GlobSet>, String> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(glob(pattern)?);
    }
    set.build().map(Some).map_err(|error| error.to_string())
}

/// One pattern.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn glob(pattern: &str) -> Result<globset::Glob, String> {
    let anywhere = if pattern.contains('/') {
        pattern.trim_start_matches('/').to_owned()
    } else {
        format!("**/{pattern}")
    };
    GlobBuilder::new(&anywhere).literal_separator(true).build().map_err(|error| error.to_string())
}

/// Whether a file, or a directory above it, matches.
fn matches(globs: &GlobSet, path: &Path) -> bool {
    path.ancestors().filter(|path| !path.as_os_str().is_empty()).any(|path| globs.is_match(path))
}

/// The same file of earlier or of later steps, the nearest first. The step is the lowest name in the path that has a
/// number, unless that says which part of a step it is.
fn kin(overlay: &Overlay, path: &Path, order: Ordering) -> Vec<PathBuf> {
    let is_step = |path: &&Path| {
        let pattern = Pattern::of(path.file_name().unwrap_or_default().as_bytes());
        pattern.has_numbers() && !pattern.is_shard()
    };
    let Some(step) = path.ancestors().take(LEVELS).find(is_step) else { return Vec::new() };
    let (Some(name), Some(above), Ok(rest)) = (step.file_name(), step.parent(), path.strip_prefix(step))
    else {
        return Vec::new();
    };
    let own = Pattern::of(name.as_bytes());
    let mut found: Vec<(Pattern, Vec<u8>)> = candidates::names(overlay, above)
        .into_iter()
        .map(|name| (Pattern::of(&name), name))
        .filter(|(other, _)| other.compare(&own) == Some(order))
        .collect();
    found.sort_by(|(a, _), (b, _)| {
        let rising = a.compare(b).unwrap_or(Ordering::Equal);
        if order == Ordering::Less { rising.reverse() } else { rising }
    });
    let path_of = |name: Vec<u8>| {
        let step = above.join(OsStr::from_bytes(&name));
        if rest.as_os_str().is_empty() { step } else { step.join(rest) }
    };
    found.into_iter().map(|(_, name)| path_of(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_for_names_or_for_paths_and_for_all_below() {
        let is = |pattern: &str, path: &str| {
            matches(&globs(&[pattern.to_owned()]).unwrap().unwrap(), Path::new(path))
        };
        assert!(is("*.log", "a.log") && is("*.log", "deep/in/a.log") && !is("*.log", "a.log2"));
        assert!(is("tmp", "run/tmp/w") && is("tmp", "tmp") && !is("tmp", "run/tmp2/w"));
        assert!(is("run/*/w", "run/1/w") && !is("run/*/w", "run/1/2/w") && is("/run/*", "run/1/2/w"));
        assert!(is("**/old/*.pt", "a/b/old/w.pt") && is("{a,b}/**", "b/c") && !is("{a,b}/**", "c/b"));
        assert!(globs(&["[".to_owned()]).is_err() && globs(&[]).unwrap().is_none());
    }
}
