//! A file as a manifest of chunks: packing it, reading it back by range, and choosing what it is packed against.
//!
//! Owns the two hot paths, each in one file: [`pack`] and [`read`]. Never touches the file system: sources and
//! stores are given to it.

mod bases;
pub mod cache;
pub mod lineage;
pub(crate) mod moments;
pub mod names;
mod ordered;
pub mod pack;
pub mod read;
pub(crate) mod twins;
