//! A plane of bytes of a known number: as they are, all the same, or entropy-coded.
//!
//! ```text
//! 0 raw      the bytes
//! 1 run      one byte: all are it
//! 2 coded    a frequency table, then the coded symbols in groups of 64; what fills the last group is ignored
//! ```

use super::{Decoder, Encoder, Group, LANES, Level, Table, Zeros};
use crate::codec::dispatch::Isa;
use crate::codec::entropy::{self, Histogram};
use crate::codec::{DecodeError, Decoded, take, take_u8};

mod kind {
    pub(super) const RAW: u8 = 0;
    pub(super) const RUN: u8 = 1;
    pub(super) const CODED: u8 = 2;
}

/// Shorter planes are not worth a table and the states.
const CODED_LEAST_BYTES: usize = 256;

/// Bits a byte above which coding is not worth its time.
const RAW_BITS: f64 = 7.7;

/// Bytes that a code has beside its symbols, about.
const OVERHEAD_BYTES: f64 = 200.0;

/// Appends the code of a plane.
pub(in crate::codec) fn encode(plane: &[u8], isa: Isa, scratch: &mut super::RansScratch, out: &mut Vec<u8>) {
    encode_level(plane, isa, scratch, out);
}

pub(super) fn encode_level(plane: &[u8], isa: Isa, levels: &mut [Level], out: &mut Vec<u8>) {
    let start = out.len();
    if plane.iter().all(|byte| *byte == plane[0]) {
        out.extend_from_slice(&[kind::RUN, plane.first().copied().unwrap_or(0)]);
        return;
    }
    if let Some((level, deeper)) = levels.split_first_mut()
        && plane.len() >= CODED_LEAST_BYTES
    {
        let (histogram, counted) = sample(plane);
        let (table, bits) = Table::build(&histogram, Zeros::Inline);
        let bits = bits / counted as f64;
        if bits < RAW_BITS && bits * plane.len() as f64 / 8.0 + OVERHEAD_BYTES < plane.len() as f64 {
            out.push(kind::CODED);
            table.write(out);
            let (groups, rest) = plane.as_chunks::<LANES>();
            let mut encoder = Encoder::new(groups.len() + 1, &table, isa, level);
            if !rest.is_empty() {
                let mut last = [table.filler(); LANES];
                last[..rest.len()].copy_from_slice(rest);
                encoder.groups(&[last], None);
            }
            encoder.groups(groups, None);
            encoder.finish(deeper, out);
        }
    }
    if out.len() == start || out.len() - start > plane.len() {
        out.truncate(start);
        out.push(kind::RAW);
        out.extend_from_slice(plane);
    }
}

/// Counts all of a short plane, some of a long one. The second result is how many were counted.
fn sample(plane: &[u8]) -> (Histogram, usize) {
    const WHOLE_BYTES: usize = 16 << 10;
    const STRIDE: usize = 7;
    if plane.len() < WHOLE_BYTES {
        return (entropy::count(plane), plane.len());
    }
    let mut histogram = [0; 256];
    let mut counted = 0;
    for piece in plane.chunks(64 * STRIDE) {
        let piece = &piece[..piece.len().min(64)];
        for &byte in piece {
            histogram[usize::from(byte)] += 1;
        }
        counted += piece.len();
    }
    (histogram, counted)
}

/// Decodes a plane from the front of `body`.
pub(in crate::codec) fn decode(
    body: &mut &[u8],
    plane: &mut [u8],
    isa: Isa,
    scratch: &mut super::RansScratch,
) -> Decoded<()> {
    decode_level(body, plane, isa, scratch)
}

pub(super) fn decode_level(
    body: &mut &[u8],
    plane: &mut [u8],
    isa: Isa,
    levels: &mut [Level],
) -> Decoded<()> {
    match take_u8(body)? {
        kind::RAW => plane.copy_from_slice(take(body, plane.len())?),
        kind::RUN => plane.fill(take_u8(body)?),
        kind::CODED => {
            let table = Table::read(body, false)?;
            let (groups, rest) = plane.as_chunks_mut::<LANES>();
            let mut decoder = Decoder::new_level(body, groups.len() + 1, &table, isa, levels)?;
            decoder.groups(groups, None)?;
            if !rest.is_empty() {
                let mut last: [Group; 1] = [[0; LANES]];
                decoder.groups(&mut last, None)?;
                rest.copy_from_slice(&last[0][..rest.len()]);
            }
            decoder.finish()?;
        }
        _ => return Err(DecodeError::Malformed("unknown kind of plane")),
    }
    Ok(())
}
