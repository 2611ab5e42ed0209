//! The index of a checkpoint in shards: `model.safetensors.index.json`, `pytorch_model.bin.index.json`.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::failure::Failure;

const SUFFIX: &str = ".index.json";
/// Longest index that is read: some hundred thousand tensors.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
struct Index {
    /// The shard of each tensor.
    weight_map: Option<HashMap<String, String>>,
}

/// Whether a file is named like an index.
pub(super) fn is_named_like_one(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(SUFFIX))
}

/// The index and the shards that it names, relative to its directory and sorted; `None` if it is none, whatever its name
/// is. All shards are there. They may be links, as in the cache of a hub.
///
/// # Errors
/// If it cannot be read, a shard is missing, or is not below the directory of the index.
pub(super) fn files_of(path: &Path) -> Result<Option<Vec<PathBuf>>, Failure> {
    let metadata = path.metadata().map_err(|error| Failure::at(path, error))?;
    if !is_named_like_one(path) || !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Ok(None);
    }
    let text = fs::read(path).map_err(|error| Failure::at(path, error))?;
    let Ok(Index { weight_map: Some(shards) }) = serde_json::from_slice(&text) else { return Ok(None) };
    let folder = folder_of(path);
    let mut files: BTreeSet<PathBuf> = path.file_name().map(PathBuf::from).into_iter().collect();
    // A tensor each, and many of them in one shard.
    let shards: BTreeSet<String> = shards.into_values().collect();
    for shard in shards {
        let relative = below(&shard)
            .ok_or_else(|| Failure::at(path, format!("its shard {shard:?} is not below its directory")))?;
        let found = folder.join(&relative).metadata();
        if !found.map_err(|error| missing(path, &shard, &error))?.is_file() {
            return Err(missing(path, &shard, &"it is no regular file"));
        }
        files.insert(relative);
    }
    Ok(Some(files.into_iter().collect()))
}

fn missing(path: &Path, shard: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::at(path, format!("its shard {shard:?} cannot be read: {why}"))
}

/// The directory that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The path if it stays below where it begins.
fn below(shard: &str) -> Option<PathBuf> {
    let mut relative = PathBuf::new();
    for component in Path::new(shard).components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!relative.as_os_str().is_empty()).then_some(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_directory_are_refused() {
        for (shard, expected) in [("a.safetensors", "a.safetensors"), ("./b//c.bin", "b/c.bin")] {
            assert_eq!(below(shard).as_deref(), Some(Path::new(expected)));
        }
        for shard in ["", ".", "..", "../a", "a/../../b", "a/..", "/etc/passwd"] {
            assert_eq!(below(shard), None, "{shard}");
        }
    }
}
