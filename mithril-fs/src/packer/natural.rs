//! The order in which files are packed: by path, with numbers by value, so that a checkpoint comes after the one it
//! will be packed against.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path as bytes that sort naturally: `step_9` before `step_10`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct NaturalKey(Vec<u8>);

impl NaturalKey {
    /// The key of a path. Different paths have different keys: the path itself is at the end.
    pub(super) fn of(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        let mut key = Vec::with_capacity(bytes.len() * 2 + 8);
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if first.is_ascii_digit() {
                let run = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let zeros = rest[..run].iter().take_while(|&&byte| byte == b'0').count().min(run - 1);
                let digits = &rest[zeros..run];
                // A longer number is a larger one. Names are at most 255 bytes, so the length fits.
                key.push(b'0');
                key.push(u8::try_from(digits.len()).unwrap_or(u8::MAX));
                key.extend_from_slice(digits);
                rest = &rest[run..];
            } else {
                key.push(first);
                rest = &rest[1..];
            }
        }
        key.push(0);
        key.extend_from_slice(bytes);
        Self(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_by_value() {
        let sorted =
            ["a/step_2.pt", "a/step_9.pt", "a/step_10.pt", "a/step_010.pt", "a/step_100.pt", "b/step_1.pt"];
        for pair in sorted.windows(2) {
            let (a, b) = (NaturalKey::of(Path::new(pair[0])), NaturalKey::of(Path::new(pair[1])));
            // 10 and 010 are the same number: told apart by their spelling, in either order.
            assert!(a < b || (pair[0].contains("10") && pair[1].contains("010") && a != b), "{pair:?}");
        }
        assert!(NaturalKey::of(Path::new("checkpoint-9/m")) < NaturalKey::of(Path::new("checkpoint-10/m")));
    }
}
