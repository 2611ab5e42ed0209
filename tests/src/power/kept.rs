//! A disk that did not keep what was promised, with what that was: to be looked at again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::disk::FileSystem;
use super::promises::{Bytes, Stage, State};

/// The disk, in the folder.
pub const IMAGE: &str = "image";

const PROMISED: &str = "promised.json";

/// What is known of a disk.
#[derive(Debug)]
pub struct Kept {
    /// What is on it.
    pub file_system: FileSystem,
    /// Whether Mithril was not there.
    pub plain: bool,
    /// What each file may be.
    pub promised: BTreeMap<String, Stage>,
}

/// A folder that stays.
///
/// # Errors
/// Those of making it.
pub fn folder() -> io::Result<PathBuf> {
    let place = std::env::var_os("MITHRIL_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    Ok(tempfile::Builder::new().prefix("mithril-power-cuts-").tempdir_in(place)?.keep())
}

impl Kept {
    /// Writes it to a folder.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let mut count = 0;
        let mut bytes = |bytes: &Bytes| -> io::Result<Value> {
            let name = format!("bytes-{count}");
            count += 1;
            fs::write(folder.join(&name), &bytes[..])?;
            Ok(name.into())
        };
        let mut state = |state: &State| match state {
            State::Absent => Ok(json!({})),
            State::Exactly(exactly) => Ok(json!({ "exactly": bytes(exactly)? })),
            State::Begun(begun) => Ok(json!({ "begun": bytes(begun)? })),
            State::Between { old, new, grain } => {
                Ok(json!({ "old": bytes(old)?, "new": bytes(new)?, "grain": grain }))
            }
        };
        let mut files = BTreeMap::new();
        for (name, Stage { states, time, .. }) in &self.promised {
            let states = states.iter().map(&mut state).collect::<io::Result<Vec<Value>>>()?;
            files.insert(name, json!({ "states": states, "time": time.map(<[i64; 2]>::from) }));
        }
        let kept = json!({ "file_system": self.file_system.name(), "plain": self.plain, "files": files });
        fs::write(folder.join(PROMISED), kept.to_string())
    }

    /// Reads it again.
    ///
    /// # Errors
    /// Those of reading, and one for what was not written here.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let kept: Value = serde_json::from_slice(&fs::read(folder.join(PROMISED))?)?;
        Self::parse(&kept, folder)?.ok_or_else(|| io::Error::other(format!("{PROMISED} is something else")))
    }

    fn parse(kept: &Value, folder: &Path) -> io::Result<Option<Self>> {
        let bytes = |name: &str| fs::read(folder.join(name)).map(Arc::new);
        let state = |state: &Value| {
            let bytes = |key: &str| state[key].as_str().map(bytes).transpose();
            let grain = state["grain"].as_u64().and_then(|grain| grain.try_into().ok()).unwrap_or(1);
            Ok(match (bytes("exactly")?, bytes("begun")?, bytes("old")?, bytes("new")?) {
                (Some(exactly), ..) => State::Exactly(exactly),
                (_, Some(begun), ..) => State::Begun(begun),
                (.., Some(old), Some(new)) => State::Between { old, new, grain },
                _ => State::Absent,
            })
        };
        let (Some(file_system), Some(files)) =
            (kept["file_system"].as_str().and_then(FileSystem::by_name), kept["files"].as_object())
        else {
            return Ok(None);
        };
        let mut promised = BTreeMap::new();
        for (name, stage) in files {
            let states = stage["states"].as_array().into_iter().flatten().map(state);
            let time = stage["time"][0].as_i64().zip(stage["time"][1].as_i64());
            promised.insert(name.clone(), Stage::always(states.collect::<io::Result<_>>()?, time));
        }
        Ok(Some(Self { file_system, plain: kept["plain"] == true, promised }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (Arc::new(vec![1; 100]), Arc::new(vec![2; 100]));
        let between = State::Between { old: Arc::clone(&old), new: Arc::clone(&new), grain: 512 };
        let states = vec![State::Absent, State::Exactly(Arc::clone(&old)), State::Begun(new), between];
        let time = Some((1, 2));
        let promised = BTreeMap::from([("f".to_owned(), Stage::always(states.clone(), time))]);
        Kept { file_system: FileSystem::Xfs, plain: true, promised }.write(folder.path()).unwrap();
        let read = Kept::read(folder.path()).unwrap();
        assert!(read.file_system == FileSystem::Xfs && read.plain);
        assert_eq!(read.promised["f"].time, time);
        let names = |states: &[State]| states.iter().map(State::name).collect::<Vec<_>>();
        assert_eq!(names(&read.promised["f"].states), names(&states));
        assert!(read.promised["f"].states[1].allows(Some(&old)));
    }
}
