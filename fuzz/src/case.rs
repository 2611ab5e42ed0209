//! What a decoder is given, as a value that can be changed, kept in a file and given again.

use std::path::Path;

const MAGIC: &[u8] = b"mithril-fuzz case 1\n";

/// What one execution is given. What the fields mean is the target's affair.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Case {
    /// The bytes that are decoded.
    pub(crate) input: Vec<u8>,
    /// What a delta is decoded against.
    pub(crate) base: Option<Vec<u8>>,
    /// Bytes that the caller expects of the decoder.
    pub(crate) len: usize,
    /// Whatever else varies: element types, which side of a buffer the guard is on.
    pub(crate) choice: u64,
}

impl Case {
    /// A case of nothing but bytes.
    pub(crate) fn of(input: Vec<u8>) -> Self {
        Self { input, ..Self::default() }
    }

    /// The bytes of a file: magic, name of the target and line feed, choice, length, whether there is a base, its
    /// length (u64 each), the base, the input.
    pub(crate) fn to_file(&self, target: &str) -> Vec<u8> {
        let base = self.base.as_deref().unwrap_or_default();
        let numbers = [self.choice, self.len as u64, u64::from(self.base.is_some()), base.len() as u64]
            .map(u64::to_le_bytes);
        [MAGIC, target.as_bytes(), b"\n", &numbers.concat(), base, &self.input].concat()
    }

    /// The name of the target, and the case.
    pub(crate) fn from_file(bytes: &[u8]) -> Option<(String, Self)> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let target = String::from_utf8(rest[..end].to_vec()).ok()?;
        let (numbers, rest) = rest[end + 1..].split_first_chunk::<32>()?;
        let [choice, len, has_base, base_len] =
            [0, 8, 16, 24].map(|at| u64::from_le_bytes(std::array::from_fn(|i| numbers[at + i])));
        let (base, input) = rest.split_at_checked(usize::try_from(base_len).ok()?)?;
        let base = (has_base != 0).then(|| base.to_vec());
        Some((target, Self { input: input.to_vec(), base, len: usize::try_from(len).ok()?, choice }))
    }

    /// Writes the case to a file that is named after what is in it, and returns the name.
    pub(crate) fn save(&self, target: &str, folder: &Path) -> std::io::Result<std::path::PathBuf> {
        let bytes = self.to_file(target);
        let path = folder.join(format!("{target}-{}", &blake3::hash(&bytes).to_hex()[..12]));
        std::fs::create_dir_all(folder)?;
        std::fs::write(&path, bytes)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_survives_its_file() {
        for base in [None, Some(vec![]), Some(vec![1, 2])] {
            let case = Case { input: vec![7; 10], base, len: 99, choice: u64::MAX };
            let file = case.to_file("planes");
            assert_eq!(Case::from_file(&file), Some(("planes".to_owned(), case)));
            assert_eq!(Case::from_file(&file[..50]), None);
        }
    }
}
