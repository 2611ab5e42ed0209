//! Buffers of numbers, one at a time.

use super::config::CompressionConfig;
use super::dtype::DType;
use super::frame;
use crate::error::{Error, Result};

/// Compresses buffers and reads them back, alone or against an earlier one. Cheap to make; keeps nothing.
#[derive(Debug, Clone)]
pub struct CheckpointCompressor {
    config: CompressionConfig,
}

impl CheckpointCompressor {
    /// A compressor with these choices.
    pub const fn new(config: CompressionConfig) -> Self {
        Self { config }
    }

    /// What it was made with.
    pub const fn config(&self) -> &CompressionConfig {
        &self.config
    }

    /// Compresses `data`, little-endian elements of `dtype`. What the codec cannot make smaller grows by some 40
    /// bytes. A trailing part of an element is allowed.
    ///
    /// # Errors
    /// `Io` if the threads cannot be started.
    pub fn compress(&self, data: &[u8], dtype: DType) -> Result<Vec<u8>> {
        self.compress_against(data, dtype, None)
    }

    /// [`compress`](Self::compress) against an earlier buffer of the same length: each piece is a delta where that is
    /// smaller. The same buffer is needed to read it.
    ///
    /// # Errors
    /// As `compress`.
    ///
    /// ```
    /// use mithril_engine::checkpoint::{CheckpointCompressor, CompressionConfig, DType};
    ///
    /// # fn main() -> mithril_engine::Result<()> {
    /// let old: Vec<u8> = (0..50_000u32).flat_map(|i| ((i as f32).cos() * 0.1).to_le_bytes()).collect();
    /// let mut new = old.clone();
    /// new[40_000] ^= 1;
    /// let compressor = CheckpointCompressor::new(CompressionConfig::default());
    /// let delta = compressor.compress_against(&new, DType::Float32, Some(&old))?;
    /// assert!(delta.len() * 50 < new.len());
    /// assert_eq!(compressor.decompress_against(&delta, DType::Float32, new.len(), Some(&old))?, new);
    /// assert!(compressor.decompress(&delta, DType::Float32, new.len()).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn compress_against(&self, data: &[u8], dtype: DType, previous: Option<&[u8]>) -> Result<Vec<u8>> {
        let options = self.config.options();
        self.on_threads(|| frame::encode(data, dtype.element(), previous, options))
    }

    /// Reads what [`compress`](Self::compress) wrote. `dtype` and `original_len`, in bytes, must be those of the
    /// buffer that was compressed.
    ///
    /// # Errors
    /// `Invalid` if `dtype`, `original_len` or the missing previous buffer do not fit; `Corrupt` for anything that is
    /// not exactly what was written.
    pub fn decompress(&self, compressed: &[u8], dtype: DType, original_len: usize) -> Result<Vec<u8>> {
        self.decompress_against(compressed, dtype, original_len, None)
    }

    /// Reads what [`compress_against`](Self::compress_against) wrote, with the same previous buffer.
    ///
    /// # Errors
    /// As `decompress`; `Corrupt` also if `previous` is another buffer than the one that was compared with.
    pub fn decompress_against(
        &self,
        compressed: &[u8],
        dtype: DType,
        original_len: usize,
        previous: Option<&[u8]>,
    ) -> Result<Vec<u8>> {
        let (header, pieces) = frame::header(compressed)?;
        if header.element != dtype.element() {
            return Err(Error::invalid(
                "dtype",
                format!("the buffer was compressed as {:?}, not as {dtype}", header.element),
            ));
        }
        if header.raw_len != original_len as u64 {
            return Err(Error::invalid(
                "original length",
                format!("the buffer has {} bytes, not {original_len}", header.raw_len),
            ));
        }
        let mut out = Vec::new();
        out.try_reserve_exact(original_len)
            .map_err(|_| Error::invalid("original length", "there is not so much memory"))?;
        out.resize(original_len, 0);
        self.on_threads(|| frame::decode(&header, pieces, previous, &mut out))??;
        Ok(out)
    }

    /// Compresses bytes that are no numbers.
    ///
    /// # Errors
    /// As `compress`.
    pub fn compress_raw(&self, data: &[u8]) -> Result<Vec<u8>> {
        self.compress(data, DType::Bytes)
    }

    /// Reads what [`compress_raw`](Self::compress_raw) wrote.
    ///
    /// # Errors
    /// As `decompress`.
    pub fn decompress_raw(&self, compressed: &[u8], original_len: usize) -> Result<Vec<u8>> {
        self.decompress(compressed, DType::Bytes, original_len)
    }

    /// Runs `work` where its parallel parts use as many threads as were asked for.
    fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        if self.config.threads == 0 {
            return Ok(work());
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.config.threads)
            .build()
            .map_err(|e| Error::io("start", "threads", std::io::Error::other(e)))?;
        Ok(pool.install(work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Level;

    fn numbers(count: u32) -> Vec<u8> {
        (0..count).flat_map(|i| ((i as f32 * 0.37).sin() * 0.02).to_le_bytes()).collect()
    }

    #[test]
    fn every_dtype_level_and_length_comes_back() {
        let data = numbers(1000);
        for level in Level::ALL {
            for byte_grouping in [true, false] {
                let config = CompressionConfig::default().with_level(level).with_byte_grouping(byte_grouping);
                let compressor = CheckpointCompressor::new(config.with_threads(1));
                for &dtype in DType::ALL {
                    for len in [0, 1, 2, 7, 64, 3999, 4000] {
                        let small = compressor.compress(&data[..len], dtype).unwrap();
                        assert_eq!(compressor.decompress(&small, dtype, len).unwrap(), &data[..len]);
                    }
                }
            }
        }
    }

    #[test]
    fn buffers_of_several_pieces_come_back_with_any_number_of_threads() {
        let data = numbers(700_000);
        let mut changed = data.clone();
        changed[2_000_000] ^= 3;
        let one = CheckpointCompressor::new(CompressionConfig::default().with_threads(1));
        let two = CheckpointCompressor::new(CompressionConfig::default().with_threads(2));
        let delta = one.compress_against(&changed, DType::Float32, Some(&data)).unwrap();
        assert_eq!(two.compress_against(&changed, DType::Float32, Some(&data)).unwrap(), delta);
        let back = two.decompress_against(&delta, DType::Float32, changed.len(), Some(&data)).unwrap();
        assert!(back == changed);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_says_why() {
        let data = numbers(5000);
        let compressor = CheckpointCompressor::new(CompressionConfig::default());
        let small = compressor.compress(&data, DType::Float32).unwrap();
        let error = |result: Result<Vec<u8>>| result.unwrap_err().to_string();
        assert!(error(compressor.decompress(&small, DType::BFloat16, data.len())).contains("F32"));
        assert!(error(compressor.decompress(&small, DType::Float32, 1)).contains("20000"));
        let mut other = data.clone();
        other[17] ^= 1;
        let delta = compressor.compress_against(&other, DType::Float32, Some(&data)).unwrap();
        assert!(error(compressor.decompress(&delta, DType::Float32, data.len())).contains("previous"));
        other[18] ^= 1;
        let wrong = compressor.decompress_against(&delta, DType::Float32, data.len(), Some(&other));
        assert!(error(wrong).contains("another one"));
    }

    #[test]
    fn damage_never_gives_wrong_bytes() {
        let data = numbers(700);
        let compressor = CheckpointCompressor::new(CompressionConfig::default().with_threads(1));
        let small = compressor.compress(&data, DType::Float32).unwrap();
        for at in 0..small.len() {
            let mut damaged = small.clone();
            damaged[at] ^= 0x20;
            // A bit that no decoder looks at may be what it likes.
            if let Ok(read) = compressor.decompress(&damaged, DType::Float32, data.len()) {
                assert!(read == data, "byte {at}");
            }
            assert!(compressor.decompress(&small[..at], DType::Float32, data.len()).is_err(), "cut at {at}");
        }
    }
}
