//! The file that a delta is made against.

use super::reader::McpFile;
use crate::error::{Error, Result};
use crate::format::mcp::{DIGEST_BYTES, ReferenceId};
use crate::source::Source;
use crate::tensor::{self, Layout};

/// Bytes that are hashed at a time.
const HASH_BYTES: usize = 8 << 20;

/// An earlier checkpoint, ready to be compared with.
pub struct Reference<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) layout: Layout,
    pub(super) id: ReferenceId,
}

impl std::fmt::Debug for Reference<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reference").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<'a> Reference<'a> {
    /// A file as it is. All of it is read, for its digest.
    ///
    /// # Errors
    /// `Io`.
    pub fn plain(name: Vec<u8>, source: &'a dyn Source) -> Result<Self> {
        let layout = tensor::inspect(source).map_err(|e| Error::io("inspect", "the reference", e))?;
        let id = ReferenceId { name, len: source.size(), digest: digest_of(source)? };
        Ok(Self { source, layout, id })
    }

    /// What a compressed checkpoint holds. Its footer knows the digest.
    pub fn compressed(name: Vec<u8>, file: &'a McpFile) -> Self {
        let id = ReferenceId { name, len: file.size(), digest: *file.digest() };
        Self { source: file, layout: file.layout(), id }
    }

    /// What a delta will say of it.
    pub const fn id(&self) -> &ReferenceId {
        &self.id
    }
}

/// The BLAKE3 of all bytes of a source.
///
/// # Errors
/// `Io`.
pub(super) fn digest_of(source: &dyn Source) -> Result<[u8; DIGEST_BYTES]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASH_BYTES];
    let mut offset = 0;
    while offset < source.size() {
        let len = usize::try_from(source.size() - offset).unwrap_or(usize::MAX).min(HASH_BYTES);
        source.read_exact_at(&mut buffer[..len], offset).map_err(|e| Error::io("read", "a file", e))?;
        hasher.update_rayon(&buffer[..len]);
        offset += len as u64;
    }
    Ok(*hasher.finalize().as_bytes())
}
