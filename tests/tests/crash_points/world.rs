//! A directory of which it is known what must be in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use mithril_tests::mount::{Mount, text};

/// Smaller files are never packed.
const PACK_MIN_BYTES: usize = 64 << 10;

/// How long something may take that a mount does by itself.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a file must be.
struct Promised {
    bytes: Vec<u8>,
    /// Its modification time, if that is promised too.
    modified: Option<SystemTime>,
}

/// A directory, mounted or not, and what was promised of it.
pub(crate) struct World {
    pub(crate) mount: Mount,
    promised: BTreeMap<String, Promised>,
}

impl World {
    /// An empty directory that was never mounted.
    pub(crate) fn new() -> Self {
        Self { mount: Mount::unmounted(&[]), promised: BTreeMap::new() }
    }

    /// Writes a file, closed and synced.
    pub(crate) fn write(&mut self, name: &str, bytes: Vec<u8>) {
        let path = self.mount.join(name);
        fs::write(&path, &bytes).unwrap();
        let file = fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        let modified = Some(file.metadata().unwrap().modified().unwrap());
        self.promised.insert(name.to_owned(), Promised { bytes, modified });
    }

    /// Removes a file.
    pub(crate) fn remove(&mut self, name: &str) {
        fs::remove_file(self.mount.join(name)).unwrap();
        self.promised.remove(name);
    }

    /// From here on a file may have any time.
    pub(crate) fn forget_time(&mut self, name: &str) {
        self.promised.get_mut(name).unwrap().modified = None;
    }

    /// From here on a file must be empty.
    pub(crate) fn promise_empty(&mut self, name: &str) {
        self.promised.insert(name.to_owned(), Promised { bytes: Vec::new(), modified: None });
    }

    /// Packs everything. Processes that other cases start have copies of this one's descriptors for a moment, so that a
    /// file seems to be in use.
    pub(crate) fn pack_all(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let packed = self.mount.command(&["pack", "."]);
            if packed.status.success() {
                return;
            }
            assert!(Instant::now() < deadline, "{}", text(&packed));
        }
    }

    /// Packs until the daemon is dead of it.
    pub(crate) fn pack_to_death(&self) {
        let deadline = Instant::now() + PATIENCE;
        while fs::read_dir(self.mount.path()).is_ok() {
            assert!(Instant::now() < deadline, "the daemon lives: the point was not reached");
            self.mount.command(&["sync", "."]);
        }
    }

    /// The only pack there is, and what is in it. The directory must not be mounted.
    pub(crate) fn pack(&self) -> (PathBuf, Vec<u8>) {
        let packs: Vec<_> = fs::read_dir(self.mount.lower(".mithril/packs")).unwrap().flatten().collect();
        assert_eq!(packs.len(), 1, "{packs:?}");
        let path = packs[0].path();
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    }

    /// Runs `work` on the mounted directory, whose daemon must die of it.
    pub(crate) fn dies_of(&mut self, work: impl FnOnce(&Mount)) {
        self.mount.mount();
        let daemon = self.mount.daemon();
        work(&self.mount);
        self.mount.wait_for_death(daemon);
        let is_dead = fs::read_dir(self.mount.path()).is_err();
        assert!(is_dead, "the daemon lives: the point was not reached");
    }

    /// Mounts, which the daemon must not outlive for long.
    pub(crate) fn dies_of_mounting(&mut self) {
        let mounted = self.mount.command(&["mount", ".", "--settle", "3600"]);
        if mounted.status.success() {
            // Found only after it began to serve.
            let deadline = Instant::now() + PATIENCE;
            while fs::read_dir(self.mount.path()).is_ok() {
                assert!(Instant::now() < deadline, "the daemon lives: the point was not reached");
                std::thread::sleep(Duration::from_millis(5));
            }
        } else {
            assert!(text(&mounted).contains("ended while it started"), "{}", text(&mounted));
        }
    }

    /// Waits until a file can be read: what a crash left is treated after the mount.
    pub(crate) fn wait_for(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = fs::read(self.mount.join(name)) {
            assert!(Instant::now() < deadline, "{name}: {error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Looks, after a crash, whether every promise is kept, nothing is damaged, and everything can be packed.
    pub(crate) fn check(&mut self) {
        self.mount.mount();
        self.check_files();
        self.mount.run(&["verify", "."]);
        self.pack_all();
        let list = self.mount.json(&["ls", ".", "--json"]);
        let entries = list.as_array().unwrap();
        assert_eq!(entries.len(), self.promised.len(), "{list}");
        for entry in entries {
            let promised = &self.promised[entry["path"].as_str().unwrap()];
            let is_packed = entry["state"] == "packed";
            assert_eq!(is_packed, promised.bytes.len() >= PACK_MIN_BYTES, "{entry}");
        }
        self.mount.run(&["gc", "."]);
        self.mount.remount();
        self.check_files();
        self.mount.run(&["verify", "."]);
        assert_eq!(self.mount.status()["errors"].as_array().unwrap().len(), 0, "{}", self.mount.status());
        self.mount.unmount();
        let packs = fs::read_dir(self.mount.lower(".mithril/packs")).unwrap().flatten();
        let left: Vec<_> = packs.filter(|pack| pack.file_name().to_string_lossy().contains('-')).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn check_files(&self) {
        for (name, promised) in &self.promised {
            let path = self.mount.join(name);
            assert!(fs::read(&path).unwrap() == promised.bytes, "{name} has other bytes");
            let deadline = Instant::now() + PATIENCE;
            let modified = || fs::metadata(&path).unwrap().modified().unwrap();
            while promised.modified.is_some_and(|promised| promised != modified()) {
                assert!(Instant::now() < deadline, "{name} has the time {:?}", modified());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
