//! Data that looks like training: repeatable, and not repetitive.

use std::path::Path;

/// A small generator of repeatable numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; different seeds give different numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit.max(1)
    }

    /// A place among so many; 0 if there is none.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Roughly normal, with deviation 1.
    pub fn normal(&mut self) -> f32 {
        let bits = self.next_u64();
        let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
        (sum as f32 / 65_536.0 - 2.0) * 1.732
    }

    /// Random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.next_u64().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}

/// A safetensors file of a megabyte of fresh bf16 weights: what is packed, and small.
pub fn weights(seed: u64) -> Vec<u8> {
    Weights::new(500_000, seed).bf16_file()
}

/// bf16 weights that are trained: each step moves their fp32 masters a little.
#[derive(Clone, Debug)]
pub struct Weights {
    masters: Vec<f32>,
    random: Random,
}

impl Weights {
    /// `count` fresh weights.
    pub fn new(count: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self { masters: (0..count).map(|_| random.normal() * 0.05).collect(), random }
    }

    /// One step of an optimizer.
    pub fn step(&mut self, learning_rate: f32) {
        for weight in &mut self.masters {
            *weight += self.random.normal() * learning_rate;
        }
    }

    /// A safetensors file with the weights as bf16.
    pub fn bf16_file(&self) -> Vec<u8> {
        let bf16 = |weight: &f32| (weight.to_bits().wrapping_add(0x8000) >> 16).to_le_bytes();
        let data = self.masters.iter().flat_map(|weight| {
            let [low, high, ..] = bf16(weight);
            [low, high]
        });
        safetensors("BF16", self.masters.len(), data.collect())
    }

    /// A safetensors file with the weights as fp32.
    pub fn fp32_file(&self) -> Vec<u8> {
        safetensors(
            "F32",
            self.masters.len(),
            self.masters.iter().flat_map(|weight| weight.to_le_bytes()).collect(),
        )
    }
}

fn safetensors(dtype: &str, count: usize, data: Vec<u8>) -> Vec<u8> {
    let header = format!(
        r#"{{"model.weight":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[0,{}]}}}}"#,
        data.len()
    );
    let padding = header.len().next_multiple_of(8) - header.len();
    let mut file = ((header.len() + padding) as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend(std::iter::repeat_n(b' ', padding));
    file.extend(data);
    file
}

/// The digest of a file, read as a reader does.
///
/// # Panics
/// If it cannot be read.
pub fn digest(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::io::copy(&mut file, &mut hasher).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    hasher.finalize()
}
