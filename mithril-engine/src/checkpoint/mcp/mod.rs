//! `.mcp`: a checkpoint as one compressed file.
//!
//! Self-contained, or a delta against a reference file that it names with its digest. What it holds is the file that
//! was compressed, byte for byte, its container's header included. It is read by range without decoding what lies
//! elsewhere, every chunk is checked against its digest, and memory does not grow with the file.
//!
//! With [`Lossy`], floats are rounded first, each within a bound. The file that is held then is the rounded one, and the
//! loss of each tensor is on record.
//!
//! A compressed checkpoint is a [`Source`](crate::source::Source) like any file: it can be inspected, compressed again,
//! or be the reference of another one.

mod lossy;
mod matching;
mod reader;
mod reference;
mod writer;

pub use crate::format::mcp::{Loss, ReferenceId};
pub use lossy::{Lossy, Scales};
pub use reader::{ChunkInfo, McpFile, Piece};
pub use reference::Reference;
pub use writer::{Compression, Progress, Summary, compress};

/// The customary end of a file's name.
pub const EXTENSION: &str = "mcp";

#[cfg(test)]
mod tests;
