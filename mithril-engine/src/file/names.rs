//! Bytes that are about to take the place of a packed file, compared with the names of its chunks.

use crate::error::{Error, Result};
use crate::format::manifest::{Extent, Manifest};
use crate::id::ChunkId;

/// Compares the data of a file, without its holes and in order, with the names that its manifest has. A read is only
/// proven by checksums; who drops a manifest drops the names, and should look once more.
#[derive(Debug)]
pub struct Names<'a> {
    extents: std::slice::Iter<'a, Extent>,
    /// The chunk that is being read, and how much of it is to come.
    current: Option<(ChunkId, usize)>,
    hasher: blake3::Hasher,
}

impl<'a> Names<'a> {
    /// Before the first byte.
    pub fn new(manifest: &'a Manifest) -> Self {
        Self { extents: manifest.extents.iter(), current: None, hasher: blake3::Hasher::new() }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `Corrupt` if a chunk that ends in them has another name, or if they are more than the file has.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (id, left) = self
                .current
                .take()
                .or_else(|| self.next())
                .ok_or_else(|| Error::corrupt("file", "it has more bytes than its manifest says"))?;
            let (these, others) = bytes.split_at(left.min(bytes.len()));
            self.hasher.update(these);
            bytes = others;
            if these.len() < left {
                self.current = Some((id, left - these.len()));
                continue;
            }
            let found = ChunkId::from_bytes(*self.hasher.finalize().as_bytes());
            self.hasher.reset();
            if found != id {
                return Err(Error::corrupt(format!("chunk {id}"), "its plaintext does not match its name"));
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<(ChunkId, usize)> {
        self.extents.find_map(|extent| match *extent {
            Extent::Chunk { id, len, .. } => Some((id, len as usize)),
            Extent::Hole { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Container, Element};

    #[test]
    fn what_has_another_name_is_found_however_it_is_cut() {
        let data: Vec<u8> = (0..1000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let chunk = |bytes: &[u8]| Extent::Chunk {
            id: ChunkId::of(bytes),
            len: u32::try_from(bytes.len()).unwrap(),
            element: Element::Bytes,
        };
        let extents = vec![
            chunk(&data[..1500]),
            Extent::Hole { len: 7 },
            chunk(&data[1500..1501]),
            chunk(&data[1501..]),
        ];
        let manifest = Manifest { container: Container::Unknown, tensors: Vec::new(), extents };
        let check = |data: &[u8], step: usize| {
            let mut names = Names::new(&manifest);
            data.chunks(step).try_for_each(|bytes| names.update(bytes))
        };
        for step in [1, 7, 1500, 1501, 5000] {
            check(&data, step).unwrap();
            for at in [0, 1499, 1500, 1501, 3999] {
                let mut other = data.clone();
                other[at] ^= 1;
                assert!(check(&other, step).is_err(), "{at} {step}");
            }
            assert!(check(&[&data[..], &[0]].concat(), step).is_err());
        }
    }
}
