//! Which processes use a directory: by working directory, root, open file or mapping.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// Processes that use what is at or below `directory`, other than this one and the command that started it. Those of other users are seen only by
/// root. Files are recognised by name and, for what is open, by device: `device` is the mount's, if there is one.
pub fn holders(directory: &Path, device: Option<u64>) -> Vec<Holder> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    // The command that started a daemon waits for it, and ends.
    let parent = rustix::process::getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
    let ours = [Some(std::process::id()), parent.filter(|&pid| command_of(pid) == "mithril-fs")];
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<Holder> = pids
        .filter(|&pid| !ours.contains(&Some(pid)) && uses(pid, directory, device))
        .map(|pid| Holder { pid, command: command_of(pid) })
        .collect();
    found.sort_by_key(|holder| holder.pid);
    found
}

/// The name of a process.
pub fn command_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

fn uses(pid: u32, directory: &Path, device: Option<u64>) -> bool {
    let is_below = |link: &Path| {
        let named = std::fs::read_link(link).is_ok_and(|target| target.starts_with(directory));
        let on_device =
            || device.is_some_and(|device| std::fs::metadata(link).is_ok_and(|m| m.dev() == device));
        named && (device.is_none() || on_device())
    };
    let process = Path::new("/proc").join(pid.to_string());
    if is_below(&process.join("cwd")) || is_below(&process.join("root")) {
        return true;
    }
    let below_any = |folder: &str| {
        std::fs::read_dir(process.join(folder))
            .is_ok_and(|entries| entries.flatten().any(|entry| is_below(&entry.path())))
    };
    below_any("fd") || below_any("map_files")
}
