//! One plane of one block: run, raw, Huffman, or a bitmap and what it marks.
//!
//! ```text
//! 0 raw      the bytes
//! 1 run      one byte: all are it
//! 2 huffman  length u24, a zstd block frame (see `zstd_frame`) of literals only
//! 3 sparse   the usual byte, count u24 of the others, their bitmap as a plane block, themselves as a plane block
//! ```
//!
//! A Huffman code spends at least a bit on a symbol. Where one value is most of the plane, the bitmap of the others
//! has eight elements in a symbol, and so a code close to the entropy; if it is sparse in turn, once more.

use super::bitmap;
use super::entropy::{self, Histogram};
use super::zstd_frame::Huffman;
use super::{DecodeError, Decoded, put_u24, sized, take, take_u8, take_u24};

mod kind {
    pub(super) const RAW: u8 = 0;
    pub(super) const RUN: u8 = 1;
    pub(super) const HUFFMAN: u8 = 2;
    pub(super) const SPARSE: u8 = 3;
}

/// Levels of bitmaps of bitmaps: beyond three, what is left of a block is a few dozen bytes.
const MAX_NESTING: usize = 3;

/// Blocks shorter than this are not worth a table.
const HUFFMAN_LEAST_BYTES: usize = 64;

/// A share of one value above which a bitmap is cheaper than a Huffman code, which would spend a bit on that value:
/// `-log2(0.62)` is 0.69 bits.
const SPARSE_SHARE: f64 = 0.62;

/// Entropy in bits a byte above which coding is not worth its time.
const RAW_BITS: f64 = 7.92;

/// Buffers of a level of nesting.
#[derive(Debug, Default)]
struct Level {
    bitmap: Vec<u8>,
    packed: Vec<u8>,
}

/// Buffers that are kept between calls.
#[derive(Debug, Default)]
pub(super) struct BlockScratch {
    levels: [Level; MAX_NESTING],
    huffman: Huffman,
}

/// Appends the code of a plane of at most 128 KiB.
pub(super) fn encode(plane: &[u8], scratch: &mut BlockScratch, out: &mut Vec<u8>) {
    encode_level(plane, &mut scratch.levels, &mut scratch.huffman, out);
}

fn encode_level(plane: &[u8], levels: &mut [Level], huffman: &mut Huffman, out: &mut Vec<u8>) {
    let start = out.len();
    // One pass that ends at the first other byte; the counting below is of a sample and cannot tell.
    if plane.is_empty() || plane[1..] == plane[..plane.len() - 1] {
        out.extend_from_slice(&[kind::RUN, plane.first().copied().unwrap_or(0)]);
        return;
    }
    let sample = Sample::of(plane);
    if sample.is_worth_coding() {
        let (usual, share) = sample.most_frequent();
        match levels.split_first_mut() {
            Some((level, deeper)) if share > SPARSE_SHARE => {
                encode_sparse(plane, usual, level, deeper, huffman, out);
            }
            _ => {
                out.push(kind::HUFFMAN);
                put_u24(out, 0);
                if huffman.compress(plane, out) {
                    let len = out.len() - start - 4;
                    out[start + 1..start + 4].copy_from_slice(&len.to_le_bytes()[..3]);
                } else {
                    out.truncate(start);
                }
            }
        }
    }
    if out.len() == start || out.len() - start > plane.len() {
        out.truncate(start);
        out.push(kind::RAW);
        out.extend_from_slice(plane);
    }
}

/// What a plane is made of, judged by some of it: the Huffman coder counts all of it anyway.
struct Sample {
    histogram: Histogram,
    bytes: usize,
    plane_bytes: usize,
}

impl Sample {
    fn of(plane: &[u8]) -> Self {
        const PIECES: usize = 32;
        const PIECE_BYTES: usize = 256;
        if plane.len() < 2 * PIECES * PIECE_BYTES {
            return Self { histogram: entropy::count(plane), bytes: plane.len(), plane_bytes: plane.len() };
        }
        let mut sample = [0; PIECES * PIECE_BYTES];
        let stride = plane.len() / PIECES;
        for (target, piece) in sample.chunks_exact_mut(PIECE_BYTES).zip(plane.chunks(stride)) {
            target.copy_from_slice(&piece[..PIECE_BYTES]);
        }
        Self { histogram: entropy::count(&sample), bytes: sample.len(), plane_bytes: plane.len() }
    }

    fn is_worth_coding(&self) -> bool {
        self.plane_bytes >= HUFFMAN_LEAST_BYTES
            && entropy::bits(&self.histogram) < self.bytes as f64 * RAW_BITS
    }

    /// The most frequent value and its share.
    fn most_frequent(&self) -> (u8, f64) {
        let (value, count) = entropy::most_frequent(&self.histogram);
        (value, f64::from(count) / self.bytes as f64)
    }
}

fn encode_sparse(
    plane: &[u8],
    usual: u8,
    level: &mut Level,
    deeper: &mut [Level],
    huffman: &mut Huffman,
    out: &mut Vec<u8>,
) {
    let bitmap = sized(&mut level.bitmap, bitmap::bytes_for(plane.len()));
    let packed = sized(&mut level.packed, plane.len() + 1);
    let mut count = 0;
    bitmap::pack8(plane, usual, bitmap, packed, &mut count);
    out.extend_from_slice(&[kind::SPARSE, usual]);
    put_u24(out, count);
    encode_level(bitmap, deeper, huffman, out);
    encode_level(&packed[..count], deeper, huffman, out);
}

/// Decodes one plane block from the front of `body`, into `buffer` unless it is there as it is.
pub(super) fn decode_in_place<'b, 'a: 'b>(
    body: &mut &'a [u8],
    buffer: &'b mut [u8],
    scratch: &mut BlockScratch,
) -> Decoded<&'b [u8]> {
    if body.first() == Some(&kind::RAW) {
        take_u8(body)?;
        return take(body, buffer.len());
    }
    decode(body, buffer, scratch)?;
    Ok(buffer)
}

/// Decodes one plane block from the front of `body`.
pub(super) fn decode(body: &mut &[u8], plane: &mut [u8], scratch: &mut BlockScratch) -> Decoded<()> {
    decode_level(body, plane, &mut scratch.levels, &mut scratch.huffman)
}

fn decode_level(
    body: &mut &[u8],
    plane: &mut [u8],
    levels: &mut [Level],
    huffman: &mut Huffman,
) -> Decoded<()> {
    match take_u8(body)? {
        kind::RAW => plane.copy_from_slice(take(body, plane.len())?),
        kind::RUN => plane.fill(take_u8(body)?),
        kind::HUFFMAN => {
            let len = take_u24(body)?;
            huffman.decompress(take(body, len)?, plane)?;
        }
        kind::SPARSE => {
            let usual = take_u8(body)?;
            let count = take_u24(body)?;
            let (level, deeper) =
                levels.split_first_mut().ok_or(DecodeError::Malformed("bitmaps are nested too deep"))?;
            if count > plane.len() {
                return Err(DecodeError::Malformed("a bitmap marks more than there is"));
            }
            let bitmap = sized(&mut level.bitmap, bitmap::bytes_for(plane.len()));
            let packed = sized(&mut level.packed, count);
            decode_level(body, bitmap, deeper, huffman)?;
            decode_level(body, packed, deeper, huffman)?;
            bitmap::unpack8(bitmap, packed, usual, plane)?;
        }
        _ => return Err(DecodeError::Malformed("unknown kind of plane block")),
    }
    Ok(())
}
