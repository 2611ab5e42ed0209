//! Every byte layout that reaches a disk, and the only place with endianness.
//!
//! Owns encoding and decoding of manifests, pack footers, index records and the ends of compressed checkpoints. `docs/FORMAT.md` is its
//! specification. All integers are little-endian; every count and length is checked against a limit and
//! against the bytes that are there before anything is allocated.

pub(crate) mod bytes;
pub mod index;
pub mod manifest;
pub mod mcp;
pub mod pack;
