//! The engine of Mithril: everything that is not a file system and not Python.
//!
//! A file is cut into chunks along its tensors, each chunk is named by the BLAKE3 of its plaintext
//! ([`id::ChunkId`]), encoded alone or against a chunk of an earlier file ([`codec`]), and appended to
//! immutable packs ([`store`]). A [`format::manifest::Manifest`] lists the chunks of a file; reading is the
//! way back, by range.
//!
//! Modules import only from those above them in this list: [`error`], [`id`], [`range`], [`source`],
//! [`settings`], [`step`] | [`tensor`], [`quantize`], [`codec`] | [`mod@format`] | [`chunk`] | [`store`] | [`file`] |
//! [`checkpoint`]; and, beside those from [`tensor`] on, [`object`] | [`content`]. [`volume`] uses [`mod@format`].
//!
//! The engine blocks, but for what goes over a network ([`object`], and [`content`] with something behind it); it knows
//! nothing of FUSE.

pub mod checkpoint;
pub mod chunk;
pub mod codec;
pub mod content;
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
pub mod volume;

pub use error::{Error, Result};
