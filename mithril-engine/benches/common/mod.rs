//! What the benchmarks work on: trained weights from `tests/fixtures/trained` (`scripts/generate_fixtures.py` made
//! them), and numbers that are made up where nothing trained has what is measured. Labels say which is which.

#![allow(dead_code, reason = "not every benchmark uses all of it")]

use mithril_engine::settings::CHUNK_TARGET_BYTES;
use mithril_engine::tensor::{self, Element};

/// Bytes of a chunk, which kernels are measured on.
pub(crate) const CHUNK_BYTES: usize = CHUNK_TARGET_BYTES;

/// The elements of one type in a trained checkpoint, one tensor after the other, over again until there are `len` bytes.
/// Tables are made for each block and nothing else is remembered, so repetition is of no use to formats for numbers; it
/// is to zstd.
pub(crate) fn trained(name: &str, element: Element, len: usize) -> Vec<u8> {
    let once = elements(name, element);
    let mut bytes = once.repeat(len.div_ceil(once.len()));
    bytes.truncate(len);
    bytes
}

/// The bf16 numbers of a trained checkpoint.
pub(crate) fn trained_once(name: &str) -> Vec<u8> {
    elements(name, Element::Bf16)
}

fn elements(name: &str, element: Element) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trained").join(name);
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let layout = tensor::inspect(&&file[..]).expect("memory can be read");
    let mut bytes = Vec::new();
    for tensor in layout.tensors.iter().filter(|tensor| tensor.element == element) {
        let [start, end] =
            [tensor.range.offset, tensor.range.end()].map(|at| usize::try_from(at).expect("it fits memory"));
        bytes.extend_from_slice(&file[start..end]);
    }
    assert!(!bytes.is_empty(), "{name} has no {element:?}");
    bytes
}

/// A generator of repeatable numbers (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to 1, exclusively.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Noise.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut random = Random(1);
    (0..len).map(|_| random.next().to_le_bytes()[7]).collect()
}

/// Bytes of which one in so many is not zero, but one of 31.
pub(crate) fn unusual(len: usize, one_in: f64) -> Vec<u8> {
    let mut random = Random(2);
    (0..len)
        .map(|_| if random.share() * one_in < 1.0 { 1 + random.next().to_le_bytes()[7] % 31 } else { 0 })
        .collect()
}

/// Bytes with an entropy of some 3 bits.
pub(crate) fn skewed(len: usize) -> Vec<u8> {
    let mut random = Random(3);
    (0..len).map(|_| (random.next() & random.next()).leading_zeros().to_le_bytes()[0] * 3).collect()
}

/// The same 16-bit numbers after a share of them moved by one unit in the last place, up or down, at random. Made up:
/// training moves other numbers, in other ways.
pub(crate) fn moved16(bytes: &[u8], share: f64) -> Vec<u8> {
    let mut random = Random(4);
    let mut moved = bytes.to_vec();
    for element in moved.as_chunks_mut::<2>().0 {
        if random.share() < share {
            let bits = u16::from_le_bytes(*element);
            let step = if random.next() >> 63 == 0 { 1 } else { u16::MAX };
            *element = bits.wrapping_add(step).to_le_bytes();
        }
    }
    moved
}

/// The same numbers as floats of 64 bits.
pub(crate) fn widened(floats: &[u8]) -> Vec<u8> {
    floats
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|bytes| f64::from(f32::from_le_bytes(*bytes)).to_le_bytes())
        .collect()
}

/// The same numbers as floats of 16 bits, IEEE's.
pub(crate) fn halved(floats: &[u8]) -> Vec<u8> {
    let halves =
        floats.as_chunks::<4>().0.iter().map(|bytes| half::f16::from_f32(f32::from_le_bytes(*bytes)));
    halves.flat_map(half::f16::to_le_bytes).collect()
}

/// Lines of a log.
pub(crate) fn text(len: usize) -> Vec<u8> {
    let mut random = Random(5);
    let mut text = Vec::with_capacity(len + 64);
    let mut step = 0;
    while text.len() < len {
        step += 1;
        let loss = 2.0 + random.share();
        text.extend_from_slice(
            format!("step {step} loss {loss:.4} lr 0.0003 tokens {}\n", step * 4096).as_bytes(),
        );
    }
    text.truncate(len);
    text
}
