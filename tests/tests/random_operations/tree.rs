//! Comparing everything in two directories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What there is, by its path: kind and rights, links, length, bytes or target, attributes.
fn describe(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).expect("it is listed") {
            let path = entry.expect("it is listed").path();
            let stat = fs::symlink_metadata(&path).expect("it is there");
            let name = path.strip_prefix(root).expect("it is below").to_string_lossy().into_owned();
            let content = if stat.is_dir() {
                todo.push(path.clone());
                String::new()
            } else if stat.is_symlink() {
                fs::read_link(&path).expect("it has a target").to_string_lossy().into_owned()
            } else {
                format!("{} bytes {}", stat.len(), blake3::hash(&fs::read(&path).expect("it is readable")))
            };
            let attributes = attributes(&path);
            found.insert(name, format!("{:o} x{} {content} {attributes:?}", stat.mode(), stat.nlink()));
        }
    }
    found
}

fn attributes(path: &Path) -> Vec<(String, usize)> {
    let mut list = vec![0u8; 4096];
    let len = rustix::fs::llistxattr(path, &mut list[..]).expect("attributes are listed");
    let mut attributes: Vec<(String, usize)> = list[..len]
        .split(|byte| *byte == 0)
        .filter(|key| !key.is_empty())
        .map(|key| {
            let key = String::from_utf8_lossy(key).into_owned();
            let mut value = [0u8; 4096];
            let len = rustix::fs::lgetxattr(path, key.as_str(), &mut value[..]).expect("they have values");
            (key, len)
        })
        .collect();
    attributes.sort();
    attributes
}

/// Fails, and says where, if two directories differ.
pub(crate) fn assert_same(mount: &Path, plain: &Path, said: &dyn Fn() -> String) {
    let (one, other) = (describe(mount), describe(plain));
    for (name, expected) in &other {
        let got = one.get(name).map_or("missing", String::as_str);
        assert!(got == expected, "{name}: {got} on the mount, {expected} below; {}", said());
    }
    for name in one.keys() {
        assert!(other.contains_key(name), "{name} is on the mount only; {}", said());
    }
}
