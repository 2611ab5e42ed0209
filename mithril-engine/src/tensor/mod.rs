//! Containers to tensors: which bytes of a file are elements of what.
//!
//! Owns the parsers of the container formats. They read untrusted input: they never execute anything, never
//! allocate what a header merely claims, and never fail on malformed input: what is not understood is
//! [`Container::Unknown`], and the file is handled by the element width that a sample suggests.

mod element;
mod gguf;
mod npy;
mod pickle;
mod safetensors;
mod sampled;
mod torch_legacy;
mod torch_zip;
mod zip;

pub use element::Element;

use std::io;

use crate::range::ByteRange;
use crate::source::Source;

/// A container format that was recognised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Container {
    /// Nothing recognised: element widths come from sampling.
    Unknown = 0,
    /// A safetensors file.
    Safetensors = 1,
    /// A `torch.save` zip archive, or several of them one after the other (a DCP `.distcp` file).
    TorchZip = 2,
    /// The `torch.save` format before 1.6.
    TorchLegacy = 3,
    /// A NumPy array.
    Npy = 4,
    /// A zip of NumPy arrays.
    Npz = 5,
    /// A GGUF file, as llama.cpp reads them.
    Gguf = 6,
}

impl Container {
    /// The container with this number on disk.
    pub fn from_code(code: u8) -> Option<Self> {
        use Container::{Gguf, Npy, Npz, Safetensors, TorchLegacy, TorchZip, Unknown};
        let all = [Unknown, Safetensors, TorchZip, TorchLegacy, Npy, Npz, Gguf];
        all.into_iter().find(|c| *c as u8 == code)
    }

    /// Its number on disk.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Container::Unknown => "unknown",
            Container::Safetensors => "safetensors",
            Container::TorchZip => "torch-zip",
            Container::TorchLegacy => "torch-legacy",
            Container::Npy => "npy",
            Container::Npz => "npz",
            Container::Gguf => "gguf",
        }
    }
}

/// A tensor's storage inside a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    /// The name in the container (`model.layers.0.weight`, `optimizer.state.3.exp_avg`); empty for the
    /// pseudo-tensors of an unknown format.
    pub name: String,
    /// What its bytes are.
    pub element: Element,
    /// Its shape; empty for a 0-d tensor. A storage that is seen by several tensors has the shape of the
    /// first that covers it whole, else one dimension.
    pub shape: Vec<u64>,
    /// Where its bytes lie in the file.
    pub range: ByteRange,
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The format.
    pub container: Container,
    /// The tensors, by offset, not overlapping, all inside the file; empty ones left out. Bytes between them
    /// are headers, pickles and padding.
    pub tensors: Vec<Tensor>,
    /// Why the file is `Unknown` although its first bytes looked like a known format.
    pub note: Option<String>,
}

/// What a parser makes of a file: `None` if it is not of its format.
type Parsed = io::Result<Option<Result<Vec<Tensor>, String>>>;

/// Finds out what `source` holds.
///
/// # Errors
/// Only those of reading `source`. Malformed content is no error: see the module.
pub fn inspect(source: &dyn Source) -> io::Result<Layout> {
    type Parser = fn(&dyn Source) -> Parsed;
    let parsers: [(Container, Parser); 6] = [
        (Container::TorchZip, torch_zip::parse),
        (Container::Npz, npy::parse_npz),
        (Container::Npy, npy::parse),
        (Container::TorchLegacy, torch_legacy::parse),
        (Container::Gguf, gguf::parse),
        (Container::Safetensors, safetensors::parse),
    ];
    // Of the format that its first bytes looked most like.
    let mut note = None;
    for (container, parse) in parsers {
        match parse(source)? {
            None => {}
            Some(Ok(tensors)) => match in_order(tensors, source.size()) {
                Ok(tensors) => return Ok(Layout { container, tensors, note: None }),
                Err(reason) => note = note.or_else(|| Some(format!("{}: {reason}", container.name()))),
            },
            Some(Err(reason)) => note = note.or_else(|| Some(format!("{}: {reason}", container.name()))),
        }
    }
    let tensors = in_order(sampled::guess(source)?, source.size()).unwrap_or_default();
    Ok(Layout { container: Container::Unknown, tensors, note })
}

/// Sorts by offset, drops empty tensors, and checks that the rest lie in the file and do not overlap.
fn in_order(mut tensors: Vec<Tensor>, size: u64) -> Result<Vec<Tensor>, String> {
    tensors.retain(|tensor| tensor.range.len > 0);
    tensors.sort_by_key(|tensor| tensor.range.offset);
    let mut end = 0;
    for tensor in &tensors {
        let fits = tensor.range.offset.checked_add(tensor.range.len).is_some_and(|end| end <= size);
        if !fits {
            return Err(format!("tensor {:?} lies outside the file", tensor.name));
        }
        if tensor.range.offset < end {
            return Err(format!("tensor {:?} overlaps another one", tensor.name));
        }
        end = tensor.range.end();
    }
    Ok(tensors)
}

/// Reads `len` bytes at `offset`; `None` if the source is shorter.
fn read(source: &dyn Source, offset: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
    if offset.checked_add(len as u64).is_none_or(|end| end > source.size()) {
        return Ok(None);
    }
    let mut bytes = vec![0; len];
    source.read_exact_at(&mut bytes, offset)?;
    Ok(Some(bytes))
}

/// Bytes of `shape` elements, if they fit 64 bits.
fn bytes_of(shape: &[u64], width: u64) -> Option<u64> {
    shape.iter().try_fold(width, |product, &dimension| product.checked_mul(dimension))
}

#[cfg(test)]
mod tests;
