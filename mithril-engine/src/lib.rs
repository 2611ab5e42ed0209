//! The engine of Mithril: everything that is not a file system and not Python.
//!
//! A file is cut into chunks along its tensors, each chunk is named by the BLAKE3 of its plaintext
//! ([`id::ChunkId`]), encoded alone or against a chunk of an earlier file ([`codec`]), and appended to
//! immutable packs ([`store`]). A [`format::manifest::Manifest`] lists the chunks of a file; reading is the
//! way back, by range.
//!
//! Modules import only from those above them in this list: [`error`], [`id`], [`range`], [`source`],
//! [`settings`], [`step`] | [`tensor`], [`quantize`], [`codec`] | [`format`] | [`chunk`] | [`store`] | [`file`] |
//! [`checkpoint`].
//! The engine blocks; it holds no async runtime, and knows nothing of FUSE.

pub mod checkpoint;
pub mod chunk;
pub mod codec;
pub mod error;
pub mod file;
pub mod format;
pub mod id;
pub mod object;
pub mod quantize;
pub mod range;
pub mod settings;
pub mod source;
pub mod step;
pub mod store;
pub mod tensor;

pub use error::{Error, Result};
