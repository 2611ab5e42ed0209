//! Looking at a disk after a power cut: everything that was promised, and that work goes on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::disk::{FileSystem, Mounted};
use super::promises::{Stage, State};
use crate::data::Weights;
use crate::mount::{Mount, text};

/// The directory on the disk that Mithril is mounted on.
pub const DIRECTORY: &str = "checkpoints";

/// What a crash did to times is undone in the background.
const PATIENCE: Duration = Duration::from_secs(10);

/// A stub has its notice, and perhaps a block for its attributes.
const STUB_BYTES: u64 = 3 * 4096;

/// What is there under a name that nothing is promised of.
const NEW: &str = "after_the_cut.safetensors";

/// What was on disks at the moment of the cut.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Packed files.
    pub packed: usize,
    /// Of these, those that still have blocks: being packed or unpacked, or their blocks just given back.
    pub unfinished: usize,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Self) {
        self.packed += more.packed;
        self.unfinished += more.unfinished;
    }
}

/// Mounts the disk and looks at it. The disk changes. `plain` is without Mithril.
///
/// # Errors
/// What is not as it was promised.
pub fn check(
    file_system: FileSystem,
    image: &Path,
    promised: &BTreeMap<&str, &Stage>,
    plain: bool,
) -> Result<Seen, String> {
    let mounted = Mounted::new(file_system, image)?;
    let directory = mounted.join(DIRECTORY);
    if plain {
        return keeps(&directory, promised).map(|_| Seen::default());
    }
    let seen = look_below(&directory, promised.keys());
    // What the helpers of tests do not expect is a panic.
    catch_unwind(AssertUnwindSafe(|| goes_on(&directory, promised))).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        Err(message.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
    })?;
    Ok(seen)
}

/// Counts what nobody has mended yet.
fn look_below<'a>(directory: &Path, names: impl Iterator<Item = &'a &'a str>) -> Seen {
    let mut seen = Seen::default();
    for path in names.map(|name| directory.join(name)) {
        if rustix::fs::getxattr_query(&path, "trusted.mithril").is_ok() {
            seen.packed += 1;
            let blocks = fs::metadata(&path).map_or(0, |metadata| metadata.blocks());
            seen.unfinished += usize::from(blocks * 512 > STUB_BYTES);
        }
    }
    seen
}

/// With Mithril: what was promised holds, everything can be read, and new files are packed.
fn goes_on(directory: &Path, promised: &BTreeMap<&str, &Stage>) -> Result<(), String> {
    let mut mount = Mount::of(directory.to_owned(), &[]);
    mount.mount();
    let found = keeps(mount.path(), promised)?;
    verify(&mount, "after the cut")?;
    let bytes = Weights::new(50_000, 77).bf16_file();
    fs::write(mount.join(NEW), &bytes).map_err(|error| format!("{NEW}: {error}"))?;
    mount.sync();
    if !mount.is_packed(NEW) {
        return Err("a new file is not packed".to_owned());
    }
    let errors = mount.status()["errors"].clone();
    if errors.as_array().is_none_or(|errors| !errors.is_empty()) {
        return Err(format!("the daemon says {errors}"));
    }
    mount.run(&["gc", "."]);
    mount.unmount();
    // Read from the disk again, by nobody who remembers it.
    mount.mount();
    if fs::read(mount.join(NEW)).ok().as_ref() != Some(&bytes) {
        return Err("a new file differs".to_owned());
    }
    for (name, before) in &found {
        if fs::read(mount.join(name)).ok().as_ref() != before.as_ref() {
            return Err(format!("{name} is not what it was after the first mount"));
        }
    }
    mount.unmount();
    verify(&mount, "in the end")
}

fn verify(mount: &Mount, when: &str) -> Result<(), String> {
    let verified = mount.command(&["verify", "."]);
    if verified.status.success() { Ok(()) } else { Err(format!("verify {when}: {}", text(&verified))) }
}

/// What each file is, if it is what was promised.
fn keeps<'a>(
    directory: &Path,
    promised: &BTreeMap<&'a str, &Stage>,
) -> Result<BTreeMap<&'a str, Option<Vec<u8>>>, String> {
    let mut found = BTreeMap::new();
    for (name, stage) in promised {
        let bytes = match fs::read(directory.join(name)) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("{name}: {error}")),
        };
        if !stage.states.iter().any(|state| state.allows(bytes.as_deref())) {
            return Err(format!("{name}: {}", difference(bytes.as_deref(), &stage.states)));
        }
        if let Some(time) = stage.time {
            has_time(&directory.join(name), time)?;
        }
        found.insert(*name, bytes);
    }
    for entry in fs::read_dir(directory).map_err(|error| error.to_string())? {
        let name = entry.map_err(|error| error.to_string())?.file_name();
        if name.to_str().is_none_or(|name| !promised.contains_key(name)) {
            return Err(format!("nobody made {}", name.display()));
        }
    }
    Ok(found)
}

fn has_time(path: &Path, time: (i64, i64)) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = fs::metadata(path).map_err(|error| error.to_string())?;
        let now = (now.mtime(), now.mtime_nsec());
        if now == time {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{} has the time {now:?} instead of {time:?}", path.display()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What is wrong with a file, in a line.
fn difference(found: Option<&[u8]>, states: &[State]) -> String {
    let wanted: Vec<String> = states.iter().map(State::name).collect();
    let wanted = wanted.join(", or ");
    let Some(found) = found else { return format!("it is absent instead of {wanted}") };
    let nearest = states.iter().find_map(|state| match state {
        State::Absent => None,
        State::Exactly(bytes) | State::Begun(bytes) | State::Between { old: bytes, .. } => Some(bytes),
    });
    let differing = |bytes: &[u8]| {
        let differs: Vec<usize> =
            (0..found.len().min(bytes.len())).filter(|&at| found[at] != bytes[at]).collect();
        match differs[..] {
            [] => "as far as they go, they are equal".to_owned(),
            [first, .., last] => {
                let zeros = differs.iter().filter(|&&at| found[at] == 0).count();
                format!("{} differ between {first} and {last}, {zeros} of them are 0", differs.len())
            }
            [first] => format!("byte {first} differs"),
        }
    };
    let how = nearest.map(|bytes| differing(bytes)).unwrap_or_default();
    format!("it has {} bytes instead of {wanted}; {how}", found.len())
}
