//! The names of objects.

use std::fmt;

use super::ObjectError;

/// Longest key in bytes, as S3 has it.
const MAX_BYTES: usize = 1024;

/// The key of an object: segments between slashes, none of them empty, `.` or `..`, so that it is a path on every backend.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks a key.
    ///
    /// # Errors
    /// [`ObjectError::Invalid`] if it is empty, longer than 1,024 bytes, or has a segment that is no name.
    pub fn new(key: impl Into<String>) -> Result<Self, ObjectError> {
        let key = key.into();
        let wrong = if key.is_empty() {
            "is empty"
        } else if key.len() > MAX_BYTES {
            "has more than 1,024 bytes"
        } else if key.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            "has a part between slashes that is empty, `.` or `..`"
        } else if key.contains('\0') {
            "has a zero byte"
        } else {
            return Ok(Self(key));
        };
        Err(ObjectError::Invalid { detail: format!("the key {key:?} {wrong}; choose another name") })
    }

    /// The key as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_paths_on_every_backend() {
        for good in ["a", "packs/0123", "a b/c=d", "ä/…", "a/.hidden", "..."] {
            assert_eq!(ObjectKey::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "/a", "a/", "a//b", ".", "a/../b", "a\0b", &"x".repeat(1025)] {
            assert!(matches!(ObjectKey::new(bad), Err(ObjectError::Invalid { .. })), "{bad:?}");
        }
    }
}
