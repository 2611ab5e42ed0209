//! Sequences of buffers under keys: each is compressed against the one before it.

use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::compressor::CheckpointCompressor;
use super::config::CompressionConfig;
use super::dtype::DType;
use crate::error::{Error, Result};

/// Memory for buffers to compare with, unless another budget is given.
const DEFAULT_BUDGET_BYTES: usize = 4 << 30;

/// What a compression did.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DeltaStats {
    /// Bytes of the buffer over bytes of the result.
    pub ratio: f64,
    /// Share of the elements that are what they were in the buffer before, from 0 to 1; 0 without one.
    pub sparsity: f64,
    /// Bytes of the buffer.
    pub original_bytes: u64,
    /// Bytes of the result.
    pub compressed_bytes: u64,
    /// Whether the result needs the buffer before it.
    pub is_delta: bool,
}

/// Compresses the buffers of a key one against the other.
///
/// The base of a buffer is the last one that was given under its key with the same length; the first stands alone. The
/// last buffers are kept in memory, the least recently used keys being forgotten beyond the budget: the next buffer of
/// a forgotten key stands alone. Reading goes the same way, in the order of writing: a `DeltaCompressor` that reads a
/// key's results from the first one on has the bases that it needs. Both ends need the same budget and order of keys
/// for that; where they differ, what cannot be read is an error, never another buffer.
///
/// ```
/// use mithril_engine::checkpoint::{CompressionConfig, DType, DeltaCompressor};
///
/// # fn main() -> mithril_engine::Result<()> {
/// let first: Vec<u8> = (0..40_000u32).flat_map(|i| ((i as f32).sin() * 0.1).to_le_bytes()).collect();
/// let mut second = first.clone();
/// second[400] ^= 1;
/// let writer = DeltaCompressor::new(CompressionConfig::default(), DType::Float32);
/// let (one, _) = writer.compress_checkpoint("w", &first)?;
/// let (two, stats) = writer.compress_checkpoint("w", &second)?;
/// assert!(stats.ratio > 50.0 && stats.sparsity > 0.99);
/// let reader = DeltaCompressor::new(CompressionConfig::default(), DType::Float32);
/// assert_eq!(reader.decompress_checkpoint("w", &one)?, first);
/// assert_eq!(reader.decompress_checkpoint("w", &two)?, second);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DeltaCompressor {
    compressor: CheckpointCompressor,
    dtype: DType,
    budget_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    buffers: LruCache<String, Arc<Vec<u8>>>,
    bytes: usize,
}

impl DeltaCompressor {
    /// A compressor for buffers of `dtype` that keeps up to 4 GiB.
    pub fn new(config: CompressionConfig, dtype: DType) -> Self {
        Self::with_budget(config, dtype, DEFAULT_BUDGET_BYTES)
    }

    /// A compressor that keeps up to `budget_bytes` of buffers.
    pub fn with_budget(config: CompressionConfig, dtype: DType, budget_bytes: usize) -> Self {
        Self {
            compressor: CheckpointCompressor::new(config),
            dtype,
            budget_bytes,
            kept: Mutex::new(Kept { buffers: LruCache::unbounded(), bytes: 0 }),
        }
    }

    /// Compresses the next buffer of a key.
    ///
    /// # Errors
    /// Those of [`CheckpointCompressor::compress`].
    pub fn compress_checkpoint(&self, key: &str, data: &[u8]) -> Result<(Vec<u8>, DeltaStats)> {
        let previous = self.previous(key).filter(|previous| previous.len() == data.len());
        let base = previous.as_ref().map(|previous| previous.as_slice());
        let compressed = self.compressor.compress_against(data, self.dtype, base)?;
        let (header, _) = super::frame::header(&compressed)?;
        let stats = DeltaStats {
            ratio: if compressed.is_empty() { 0.0 } else { data.len() as f64 / compressed.len() as f64 },
            sparsity: base.map_or(0.0, |base| unchanged(data, base, self.dtype.width())),
            original_bytes: data.len() as u64,
            compressed_bytes: compressed.len() as u64,
            is_delta: header.is_delta,
        };
        self.keep(key, data.to_vec());
        Ok((compressed, stats))
    }

    /// Reads the next buffer of a key.
    ///
    /// # Errors
    /// `Invalid` if the buffer before it was not read here; `Corrupt` for damage.
    pub fn decompress_checkpoint(&self, key: &str, compressed: &[u8]) -> Result<Vec<u8>> {
        let (header, _) = super::frame::header(compressed)?;
        let len = usize::try_from(header.raw_len)
            .map_err(|_| Error::corrupt("compressed buffer", "it is longer than the address space"))?;
        let previous = self.previous(key);
        if header.is_delta && previous.is_none() {
            return Err(Error::invalid(
                format!("delta of {key:?}"),
                "the buffer before it is not known here: read the results of a key from the first one on",
            ));
        }
        let base = previous.as_ref().map(|previous| previous.as_slice());
        let data = self.compressor.decompress_against(compressed, self.dtype, len, base)?;
        self.keep(key, data.clone());
        Ok(data)
    }

    /// Forgets the buffer of a key: the next one stands alone.
    pub fn forget(&self, key: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = kept.buffers.pop(key) {
            kept.bytes -= buffer.len();
        }
    }

    /// Bytes of the buffers that are kept.
    pub fn kept_bytes(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    fn previous(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).buffers.get(key).map(Arc::clone)
    }

    fn keep(&self, key: &str, data: Vec<u8>) {
        self.forget(key);
        if data.len() > self.budget_bytes {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += data.len();
        if let Some(replaced) = kept.buffers.put(key.to_owned(), Arc::new(data)) {
            kept.bytes -= replaced.len();
        }
        while kept.bytes > self.budget_bytes {
            let Some((_, oldest)) = kept.buffers.pop_lru() else { break };
            kept.bytes -= oldest.len();
        }
    }
}

/// Share of the elements that are equal.
fn unchanged(data: &[u8], base: &[u8], width: usize) -> f64 {
    let count = data.len() / width;
    if count == 0 {
        return 0.0;
    }
    let equal =
        data.chunks_exact(width).zip(base.chunks_exact(width)).filter(|(new, old)| new == old).count();
    equal as f64 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(seed: u8) -> Vec<u8> {
        (0..30_000u32).flat_map(|i| (f32::from(seed) + (i as f32).sin()).to_le_bytes()).collect()
    }

    #[test]
    fn memory_stays_under_the_budget_and_forgotten_keys_stand_alone() {
        let data = buffer(1);
        let small =
            DeltaCompressor::with_budget(CompressionConfig::default(), DType::Float32, 2 * data.len());
        for key in ["a", "b", "c"] {
            assert!(!small.compress_checkpoint(key, &data).unwrap().1.is_delta);
            assert!(small.kept_bytes() <= 2 * data.len());
        }
        assert!(!small.compress_checkpoint("a", &data).unwrap().1.is_delta, "it was the oldest");
        assert!(small.compress_checkpoint("c", &data).unwrap().1.is_delta);
    }

    #[test]
    fn another_length_begins_anew() {
        let compressor = DeltaCompressor::new(CompressionConfig::default(), DType::Float32);
        compressor.compress_checkpoint("w", &buffer(1)).unwrap();
        let (_, stats) = compressor.compress_checkpoint("w", &buffer(1)[..80_000]).unwrap();
        assert!(!stats.is_delta && stats.sparsity == 0.0);
        assert_eq!(compressor.kept_bytes(), 80_000);
    }

    #[test]
    fn a_delta_without_what_came_before_it_is_refused() {
        let writer = DeltaCompressor::new(CompressionConfig::default(), DType::Float32);
        writer.compress_checkpoint("w", &buffer(1)).unwrap();
        let (delta, stats) = writer.compress_checkpoint("w", &buffer(1)).unwrap();
        assert_eq!(stats.sparsity, 1.0);
        let reader = DeltaCompressor::new(CompressionConfig::default(), DType::Float32);
        let error = reader.decompress_checkpoint("w", &delta).unwrap_err().to_string();
        assert!(error.contains("from the first one on"), "{error}");
    }
}
