//! Checkpoints as compressed bytes and files, without a mount: the library and the container behind
//! `mithril-checkpoint`.
//!
//! * [`CheckpointCompressor`] turns a buffer of numbers into fewer bytes and back, alone or against an earlier buffer.
//! * [`DeltaCompressor`] keeps the buffers to compare with by itself, under a budget of memory.
//! * [`mcp`] is a file of its own: a whole checkpoint with its container, readable by tensor and by range.
//!
//! ```
//! use mithril_engine::checkpoint::{CheckpointCompressor, CompressionConfig, DType};
//!
//! # fn main() -> mithril_engine::Result<()> {
//! let weights: Vec<u8> = (0..10_000u32).flat_map(|i| (((i as f32) * 0.001).sin() * 0.02).to_le_bytes()).collect();
//! let compressor = CheckpointCompressor::new(CompressionConfig::default());
//! let small = compressor.compress(&weights, DType::Float32)?;
//! assert!(small.len() < weights.len());
//! assert_eq!(compressor.decompress(&small, DType::Float32, weights.len())?, weights);
//! # Ok(())
//! # }
//! ```

mod compressor;
mod config;
mod delta;
mod dtype;
mod frame;
pub mod mcp;

pub use compressor::CheckpointCompressor;
pub use config::CompressionConfig;
pub use delta::{DeltaCompressor, DeltaStats};
pub use dtype::DType;

pub use crate::codec::Level;
