//! A manifest: which chunks, in which order, are a file.

use super::bytes::{Reader, put_varint};
use super::pack::MANIFEST_MAX_BYTES;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::range::ByteRange;
use crate::settings::CHUNK_MAX_BYTES;
use crate::tensor::{Container, Element, Tensor};

/// Version of the layout.
const VERSION: u8 = 1;
/// Extent tag of a hole; other tags are element codes.
const HOLE: u8 = 0xff;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 64;
/// Most bytes that the tensors of a manifest take: extents need the rest.
const TENSORS_MAX_BYTES: usize = MANIFEST_MAX_BYTES / 4;
/// Bytes that a tensor takes at least: name length, element, dimensions, distance, length.
const TENSOR_LEAST_BYTES: usize = 5;
/// Bytes that an extent takes at least: tag and length.
const EXTENT_LEAST_BYTES: usize = 2;

/// A piece of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Bytes of a chunk.
    Chunk {
        /// The chunk.
        id: ChunkId,
        /// Its plaintext length in bytes, at most `settings::CHUNK_MAX_BYTES`.
        len: u32,
        /// What its bytes are: also how a later file's chunk may be coded against it.
        element: Element,
    },
    /// Zeros that take no space: a hole of a sparse file.
    Hole {
        /// Bytes.
        len: u64,
    },
}

impl Extent {
    /// Plaintext bytes.
    pub fn len(&self) -> u64 {
        match *self {
            Extent::Chunk { len, .. } => u64::from(len),
            Extent::Hole { len } => len,
        }
    }

    /// Whether the extent holds no byte (never so in a manifest that was decoded).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A packed file: its bytes as extents, and its tensors as far as they are known, so that a later file can be
/// matched against it without reading it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The format the file was recognised as.
    pub container: Container,
    /// The tensors, by offset.
    pub tensors: Vec<Tensor>,
    /// The pieces in order; their lengths add up to the file's.
    pub extents: Vec<Extent>,
}

impl Manifest {
    /// The file's length in bytes.
    pub fn file_len(&self) -> u64 {
        self.extents.iter().map(Extent::len).sum()
    }

    /// The ranges of the file that are no holes, in order.
    pub fn data_spans(&self) -> Vec<ByteRange> {
        let mut spans: Vec<ByteRange> = Vec::new();
        let mut position = 0;
        for extent in &self.extents {
            let len = extent.len();
            match (extent, spans.last_mut()) {
                (Extent::Hole { .. }, _) => {}
                (Extent::Chunk { .. }, Some(last)) if last.end() == position => last.len += len,
                (Extent::Chunk { .. }, _) => spans.push(ByteRange { offset: position, len }),
            }
            position += len;
        }
        spans
    }
}

impl Manifest {
    /// The bytes that are named by a `ManifestId`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.container.code()];
        put_varint(&mut out, self.tensors.len() as u64);
        let mut position = 0;
        for tensor in &self.tensors {
            put_varint(&mut out, tensor.name.len() as u64);
            out.extend_from_slice(tensor.name.as_bytes());
            out.push(tensor.element.code());
            put_varint(&mut out, tensor.shape.len() as u64);
            tensor.shape.iter().for_each(|&dimension| put_varint(&mut out, dimension));
            put_varint(&mut out, tensor.range.offset.saturating_sub(position));
            put_varint(&mut out, tensor.range.len);
            position = tensor.range.end();
        }
        put_varint(&mut out, self.extents.len() as u64);
        for extent in &self.extents {
            match extent {
                Extent::Hole { len } => {
                    out.push(HOLE);
                    put_varint(&mut out, *len);
                }
                Extent::Chunk { id, len, element } => {
                    out.push(element.code());
                    put_varint(&mut out, u64::from(*len));
                    out.extend_from_slice(id.as_bytes());
                }
            }
        }
        out
    }

    /// Reads what [`Manifest::encode`] wrote.
    ///
    /// # Errors
    /// `Corrupt` for anything that is not exactly that; `Unsupported` for a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "manifest");
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Error::Unsupported {
                what: "manifest".to_owned(),
                detail: format!("version {version}"),
            });
        }
        let container =
            Container::from_code(reader.u8()?).ok_or_else(|| reader.corrupt("unknown container"))?;
        let count = reader.count(TENSOR_LEAST_BYTES)?;
        let mut tensors = Vec::with_capacity(count);
        let mut position = 0;
        for _ in 0..count {
            let tensor = decode_tensor(&mut reader, position)?;
            position = tensor.range.end();
            tensors.push(tensor);
        }
        let count = reader.count(EXTENT_LEAST_BYTES)?;
        let mut extents = Vec::with_capacity(count);
        let mut file_len = 0u64;
        for _ in 0..count {
            let extent = decode_extent(&mut reader)?;
            file_len = file_len
                .checked_add(extent.len())
                .filter(|&len| i64::try_from(len).is_ok())
                .ok_or_else(|| reader.corrupt("the file is longer than a file can be"))?;
            extents.push(extent);
        }
        reader.end()?;
        if position > file_len {
            return Err(reader.corrupt("a tensor lies outside the file"));
        }
        Ok(Self { container, tensors, extents })
    }
}

/// Brings what a file says of its tensors within what a manifest can say. A shape of too many dimensions becomes one
/// dimension; where names and shapes would take most of a manifest, there are no tensors. The file is packed all the
/// same: tensors only help to find bases.
pub fn limit_tensors(tensors: &mut Vec<Tensor>) {
    for tensor in tensors.iter_mut().filter(|tensor| tensor.shape.len() > MAX_DIMENSIONS) {
        tensor.shape = vec![tensor.range.len / tensor.element.width() as u64];
    }
    let most = |tensor: &Tensor| tensor.name.len() + 10 * (tensor.shape.len() + 4) + 1;
    if tensors.iter().map(most).sum::<usize>() > TENSORS_MAX_BYTES {
        tensors.clear();
    }
}

fn decode_tensor(reader: &mut Reader<'_>, position: u64) -> Result<Tensor> {
    let name_len = reader.count(1)?;
    let name =
        std::str::from_utf8(reader.take(name_len)?).map_err(|_| reader.corrupt("a name is not UTF-8"))?;
    let element = Element::from_code(reader.u8()?).ok_or_else(|| reader.corrupt("unknown element"))?;
    let dimensions = reader.count(1)?;
    if dimensions > MAX_DIMENSIONS {
        return Err(reader.corrupt("a tensor has too many dimensions"));
    }
    let shape = (0..dimensions).map(|_| reader.varint()).collect::<Result<Vec<_>>>()?;
    let offset = position.checked_add(reader.varint()?);
    let range = offset.zip(Some(reader.varint()?)).and_then(|(offset, len)| ByteRange::new(offset, len));
    let range = range.ok_or_else(|| reader.corrupt("a tensor lies outside the file"))?;
    Ok(Tensor { name: name.to_owned(), element, shape, range })
}

fn decode_extent(reader: &mut Reader<'_>) -> Result<Extent> {
    let tag = reader.u8()?;
    let len = reader.varint()?;
    if len == 0 {
        return Err(reader.corrupt("an extent is empty"));
    }
    if tag == HOLE {
        return Ok(Extent::Hole { len });
    }
    let element = Element::from_code(tag).ok_or_else(|| reader.corrupt("unknown element"))?;
    let len = u32::try_from(len).ok().filter(|&len| len as usize <= CHUNK_MAX_BYTES);
    let len = len.ok_or_else(|| reader.corrupt("a chunk is too long"))?;
    Ok(Extent::Chunk { id: ChunkId::from_bytes(reader.array()?), len, element })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: String, dimensions: usize) -> Tensor {
        let range = ByteRange { offset: 0, len: 64 };
        Tensor { name, element: Element::Bf16, shape: vec![1; dimensions], range }
    }

    fn survives(tensors: &[Tensor]) -> bool {
        let extents = vec![Extent::Hole { len: 64 }];
        let manifest = Manifest { container: Container::Unknown, tensors: tensors.to_vec(), extents };
        Manifest::decode(&manifest.encode()).is_ok_and(|decoded| decoded == manifest)
    }

    #[test]
    fn shapes_of_too_many_dimensions_become_one_dimension() {
        let mut tensors = vec![tensor("most".to_owned(), 64)];
        let before = tensors.clone();
        limit_tensors(&mut tensors);
        assert_eq!(tensors, before);
        assert!(survives(&tensors));
        let mut tensors = vec![tensor("more".to_owned(), 65)];
        assert!(!survives(&tensors));
        limit_tensors(&mut tensors);
        assert_eq!(tensors[0].shape, [32]);
        assert!(survives(&tensors));
    }

    #[test]
    fn names_that_would_fill_a_manifest_are_left_out() {
        let mut tensors = vec![tensor("n".repeat(TENSORS_MAX_BYTES), 1)];
        limit_tensors(&mut tensors);
        assert!(tensors.is_empty());
    }
}
