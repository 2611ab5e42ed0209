//! A scratch directory and its mount.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::executable;

/// A directory that is mounted over itself, and a way to look below. Dropped, it is unmounted and removed.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    /// The directory, if it is to be removed in the end.
    scratch: Option<TempDir>,
    /// The lower directory.
    lower: OwnedFd,
    flags: Vec<String>,
    /// What its daemons are to do wrong, as `MITHRIL_FAULT` says it.
    fault: Option<String>,
    mounted: bool,
}

impl Mount {
    /// A fresh directory, mounted with these flags (and no packing by itself, unless `--settle` is among them).
    pub fn new(flags: &[&str]) -> Self {
        let mut mount = Self::unmounted(flags);
        mount.mount();
        mount
    }

    /// A fresh directory that is not mounted yet.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn unmounted(flags: &[&str]) -> Self {
        // Not /tmp, which may be a tmpfs: what is tested is a real file system.
        let place =
            std::env::var_os("MITHRIL_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        Self::unmounted_in(&place, flags)
    }

    /// As `unmounted`, with the directory in this place.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn unmounted_in(place: &Path, flags: &[&str]) -> Self {
        let dir =
            tempfile::Builder::new().prefix("mithril-test-").tempdir_in(place).expect("a scratch directory");
        let path = dir.path().to_owned();
        let mut mount = Self::of(path, flags);
        mount.scratch = Some(dir);
        mount
    }

    /// A directory that is there already, and stays; not mounted yet.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn of(path: PathBuf, flags: &[&str]) -> Self {
        let directory = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let lower = rustix::fs::open(&path, directory, rustix::fs::Mode::empty()).expect("it can be opened");
        Self { path, scratch: None, lower, flags: with_settle(flags), fault: None, mounted: false }
    }

    /// A fresh directory whose daemon comes to harm, or is slow, at some point. Only daemons with debug assertions do.
    pub fn with_fault(fault: &str, flags: &[&str]) -> Self {
        let mut mount = Self::unmounted(flags);
        mount.give_fault(fault);
        mount.mount();
        mount
    }

    /// From the next mount on, and in commands, this goes wrong.
    pub fn give_fault(&mut self, fault: &str) {
        self.fault = Some(fault.to_owned());
    }

    /// From the next mount on, nothing goes wrong on purpose any more.
    pub fn without_fault(&mut self) {
        self.fault = None;
    }

    /// The mounted directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A path below the mount.
    pub fn lower(&self, name: &str) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/{}/fd/{}/{name}", std::process::id(), self.lower.as_raw_fd()))
    }

    /// Mounts it.
    ///
    /// # Panics
    /// If that fails.
    pub fn mount(&mut self) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let output = self.command(&[&["mount", "."], &flags[..]].concat());
        assert!(output.status.success(), "mount: {}", text(&output));
        self.mounted = true;
    }

    /// Mounts it with a daemon that may have this many descriptors.
    ///
    /// # Panics
    /// If that fails.
    pub fn mount_with_descriptors(&mut self, limit: u32) {
        let output = Command::new("prlimit")
            .arg(format!("--nofile={limit}:{limit}"))
            .arg(executable())
            .arg("mount")
            .arg(self.path())
            .args(&self.flags)
            .output()
            .expect("prlimit runs");
        assert!(output.status.success(), "mount: {}", text(&output));
        self.mounted = true;
    }

    /// Unmounts, and mounts with other flags from here on.
    pub fn remount_with(&mut self, flags: &[&str]) {
        self.unmount();
        self.flags = with_settle(flags);
        self.mount();
    }

    /// Runs `mithril-fs` with these arguments; `.` stands for the directory.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let arguments = arguments.iter().map(|argument| match argument.strip_prefix('.') {
            Some("") => self.path().as_os_str().to_owned(),
            Some(rest) if rest.starts_with('/') => self.path().join(&rest[1..]).into_os_string(),
            _ => (*argument).into(),
        });
        self.program().args(arguments).output().expect("mithril-fs runs")
    }

    /// `mithril-fs`, to be given arguments.
    pub fn program(&self) -> Command {
        let mut program = Command::new(executable());
        program.envs(self.fault.as_ref().map(|fault| ("MITHRIL_FAULT", fault)));
        program
    }

    /// Runs a command that must succeed; returns what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Packs everything. Files in use are no failure.
    ///
    /// # Panics
    /// If it fails otherwise.
    pub fn sync(&self) -> String {
        let output = self.command(&["sync", "."]);
        assert!(matches!(output.status.code(), Some(0 | 7)), "sync: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command that prints JSON.
    ///
    /// # Panics
    /// If it fails, or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(arguments)).expect("it is JSON")
    }

    /// `status --json`.
    ///
    /// # Panics
    /// If it fails.
    pub fn status(&self) -> Value {
        self.json(&["status", ".", "--json"])
    }

    /// The entry of one file in `ls --json`.
    ///
    /// # Panics
    /// If it is not listed.
    pub fn entry(&self, name: &str) -> Value {
        let list = self.json(&["ls", ".", "--json"]);
        let entries = list.as_array().expect("a list");
        entries
            .iter()
            .find(|entry| entry["path"] == name)
            .unwrap_or_else(|| panic!("{name} in {list}"))
            .clone()
    }

    /// Whether a file is packed.
    pub fn is_packed(&self, name: &str) -> bool {
        self.entry(name)["state"] == "packed"
    }

    /// Whether a file is packed without being asked for, within some seconds.
    pub fn is_soon_packed(&self, name: &str) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.is_packed(name) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.is_packed(name)
    }

    /// Unmounts it.
    ///
    /// # Panics
    /// If that fails.
    pub fn unmount(&mut self) {
        self.run(&["umount", "."]);
        self.mounted = false;
        self.wait_for_end();
    }

    /// The daemon's process.
    ///
    /// # Panics
    /// If none runs.
    pub fn daemon(&self) -> u32 {
        u32::try_from(self.status()["pid"].as_u64().expect("a process id")).expect("it fits")
    }

    /// Kills the daemon on the spot, as a crash would. The mount stays, dead; the next `mount` heals it.
    ///
    /// # Panics
    /// If there is no daemon.
    pub fn kill(&mut self, daemon: u32) {
        let pid = i32::try_from(daemon).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the daemon is ours");
        self.wait_for_death(daemon);
    }

    /// Waits until the daemon, which comes to harm by itself, is gone.
    ///
    /// # Panics
    /// If its number is none.
    pub fn wait_for_death(&mut self, daemon: u32) {
        let pid = i32::try_from(daemon).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        let deadline = Instant::now() + Duration::from_secs(10);
        while rustix::process::test_kill_process(pid).is_ok()
            && !is_zombie(daemon)
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.mounted = true;
    }

    /// Whether no daemon has the directory: nobody holds its lock.
    pub fn is_free(&self) -> bool {
        std::fs::File::open(self.lower(".mithril/lock")).map_or(true, |lock| {
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
        })
    }

    /// Waits until the directory is free: the daemon outlives the mount a little.
    fn wait_for_end(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.is_free() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Unmounts, drops what the kernel has cached where that is allowed, and mounts again.
    pub fn remount(&mut self) {
        self.unmount();
        drop_caches();
        self.mount();
    }

    /// Bytes that the lower directory takes, everything included.
    pub fn used_bytes(&self) -> u64 {
        fn used(path: &Path) -> u64 {
            let Ok(metadata) = std::fs::symlink_metadata(path) else { return 0 };
            let below = if metadata.is_dir() {
                std::fs::read_dir(path)
                    .map_or(0, |entries| entries.flatten().map(|entry| used(&entry.path())).sum())
            } else {
                0
            };
            metadata.blocks() * 512 + below
        }
        std::fs::read_dir(self.lower(""))
            .map_or(0, |entries| entries.flatten().map(|entry| used(&entry.path())).sum())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.mounted {
            return;
        }
        let output = self.command(&["umount", "."]);
        if !output.status.success() {
            let _ = Command::new("umount").arg("-l").arg(self.path()).output();
            let _ = Command::new("fusermount3").arg("-uz").arg(self.path()).output();
        }
        self.wait_for_end();
    }
}

fn with_settle(flags: &[&str]) -> Vec<String> {
    let mut flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
    if !flags.iter().any(|flag| flag == "--settle") {
        flags.extend(["--settle".to_owned(), "3600".to_owned()]);
    }
    flags
}

fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// Drops what the kernel has cached; only root may.
pub fn drop_caches() {
    rustix::fs::sync();
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
}

/// What a command said.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
