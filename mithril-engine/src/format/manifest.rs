//! A manifest: which chunks, in which order, are a file.

use crate::id::ChunkId;
use crate::tensor::{Container, Element, Tensor};

/// A piece of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Bytes of a chunk.
    Chunk {
        /// The chunk.
        id: ChunkId,
        /// Its plaintext length in bytes, at most `settings::CHUNK_MAX_BYTES`.
        len: u32,
        /// What its bytes are: also how a later file's chunk may be coded against it.
        element: Element,
    },
    /// Zeros that take no space: a hole of a sparse file.
    Hole {
        /// Bytes.
        len: u64,
    },
}

impl Extent {
    /// Plaintext bytes.
    pub fn len(&self) -> u64 {
        match *self {
            Extent::Chunk { len, .. } => u64::from(len),
            Extent::Hole { len } => len,
        }
    }

    /// Whether the extent holds no byte (never so in a manifest that was decoded).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A packed file: its bytes as extents, and its tensors as far as they are known, so that a later file can be
/// matched against it without reading it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The format the file was recognised as.
    pub container: Container,
    /// The tensors, by offset.
    pub tensors: Vec<Tensor>,
    /// The pieces in order; their lengths add up to the file's.
    pub extents: Vec<Extent>,
}

impl Manifest {
    /// The file's length in bytes.
    pub fn file_len(&self) -> u64 {
        self.extents.iter().map(Extent::len).sum()
    }
}
