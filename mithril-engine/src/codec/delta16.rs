//! Deltas of 16-bit numbers. Most weights of a model move by few representable values in a step, and in bf16 most do
//! not move at all: a bitmap of the changed, one byte for how far, and escapes for the rest.
//!
//! ```text
//! body    flags u8 (1: ordered integers, 2: sparse), blocks of up to 131072 elements, tail
//! sparse  changed u24, escapes u24, escapes u16 each, bitmap as a plane block, symbols as a plane block
//! dense   escapes u24, escapes u16 each, symbols as a plane block
//! tail    the byte after the last whole element, as it is
//! ```
//!
//! A symbol is the zigzag difference (sparse: minus 1, since it is not 0), or 255 for the next escape, which is that
//! same number in full.

use super::dispatch::multiversion;
use super::{
    BLOCK_ELEMENTS, DecodeError, Decoded, Scratch, bitmap, numeric, plane_block, put_u24, take, take_u8,
    take_u24,
};

const FLAG_ORDERED: u8 = 1;
const FLAG_SPARSE: u8 = 2;
/// The symbol that stands for the next escape.
const ESCAPE: u8 = 255;

/// Encodes `raw` against `base` of the same length.
pub(super) fn encode(
    raw: &[u8],
    base: &[u8],
    ordered: bool,
    sparse: bool,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    out.push(if ordered { FLAG_ORDERED } else { 0 } | if sparse { FLAG_SPARSE } else { 0 });
    scratch.elements.resize(2 * BLOCK_ELEMENTS + bitmap::PACKED_SLACK, 0);
    // Two planes: symbols and the bitmap.
    scratch.planes.resize(scratch.planes.len().max(2 * BLOCK_ELEMENTS), 0);
    let whole = raw.len() & !1;
    for start in (0..whole).step_by(2 * BLOCK_ELEMENTS) {
        let end = (start + 2 * BLOCK_ELEMENTS).min(whole);
        let count = (end - start) / 2;
        let (zigzags, packed) = scratch.elements.split_at_mut(BLOCK_ELEMENTS);
        let zigzags = &mut zigzags[..count];
        numeric::differences16(&raw[start..end], &base[start..end], ordered, zigzags);
        let (symbols, marks) = scratch.planes.split_at_mut(BLOCK_ELEMENTS);
        let marks = &mut marks[..bitmap::bytes_for(count)];
        let mut coded = count;
        if sparse {
            bitmap::pack16(zigzags, 0, marks, packed, &mut coded);
            put_u24(out, coded);
        }
        let numbers = if sparse { &packed[..coded] } else { &zigzags[..] };
        let symbols = &mut symbols[..coded];
        to_symbols(numbers, u16::from(sparse), symbols);
        put_escapes(numbers, u16::from(sparse), symbols, &mut scratch.escapes, out);
        if sparse {
            plane_block::encode(marks, &mut scratch.blocks, out);
        }
        plane_block::encode(symbols, &mut scratch.blocks, out);
    }
    out.extend_from_slice(&raw[whole..]);
}

multiversion! {
    /// The symbols of zigzag differences, each less `bias`.
    fn to_symbols(zigzags: &[u16], bias: u16, symbols: &mut [u8]) {
        for (symbol, &zigzag) in symbols.iter_mut().zip(zigzags) {
            *symbol = (zigzag.wrapping_sub(bias)).min(u16::from(ESCAPE)).to_le_bytes()[0];
        }
    }
}

multiversion! {
    /// Where the symbols are that stand for an escape. Plain loops: a closure would not be compiled with the vectors.
    fn find_escapes(symbols: &[u8], found: &mut Vec<usize>) {
        found.clear();
        for (group_index, group) in symbols.chunks(64).enumerate() {
            let mut any = 0;
            for symbol in group {
                any |= u8::from(*symbol == ESCAPE);
            }
            if any != 0 {
                for (i, symbol) in group.iter().enumerate() {
                    if *symbol == ESCAPE {
                        found.push(group_index * 64 + i);
                    }
                }
            }
        }
    }
}

/// Appends the numbers that symbols cannot hold, and how many they are.
fn put_escapes(zigzags: &[u16], bias: u16, symbols: &[u8], found: &mut Vec<usize>, out: &mut Vec<u8>) {
    find_escapes(symbols, found);
    put_u24(out, found.len());
    for &place in found.iter() {
        out.extend_from_slice(&zigzags[place].wrapping_sub(bias).to_le_bytes());
    }
}

/// Decodes what `encode` wrote; `base` has the length of `out`.
pub(super) fn decode(mut body: &[u8], base: &[u8], scratch: &mut Scratch, out: &mut [u8]) -> Decoded<()> {
    let flags = take_u8(&mut body)?;
    if flags & !(FLAG_ORDERED | FLAG_SPARSE) != 0 {
        return Err(DecodeError::Malformed("unknown flags"));
    }
    let (ordered, sparse) = (flags & FLAG_ORDERED != 0, flags & FLAG_SPARSE != 0);
    scratch.elements.resize(2 * BLOCK_ELEMENTS + bitmap::PACKED_SLACK, 0);
    scratch.planes.resize(scratch.planes.len().max(2 * BLOCK_ELEMENTS), 0);
    let whole = out.len() & !1;
    for start in (0..whole).step_by(2 * BLOCK_ELEMENTS) {
        let end = (start + 2 * BLOCK_ELEMENTS).min(whole);
        let count = (end - start) / 2;
        let coded = if sparse { take_u24(&mut body)? } else { count };
        let escapes = take_u24(&mut body)?;
        if coded > count || escapes > coded {
            return Err(DecodeError::Malformed("it counts more changes than elements"));
        }
        let escapes = take(&mut body, 2 * escapes)?;
        let (symbols, marks) = scratch.planes.split_at_mut(BLOCK_ELEMENTS);
        let (symbols, marks) = (&mut symbols[..coded], &mut marks[..bitmap::bytes_for(count)]);
        if sparse {
            plane_block::decode(&mut body, marks, &mut scratch.blocks)?;
        }
        plane_block::decode(&mut body, symbols, &mut scratch.blocks)?;
        let (zigzags, packed) = scratch.elements.split_at_mut(BLOCK_ELEMENTS);
        let zigzags = &mut zigzags[..count];
        let target = if sparse { &mut packed[..coded] } else { &mut zigzags[..coded] };
        from_symbols(symbols, u16::from(sparse), target);
        put_escapes_back(symbols, escapes, u16::from(sparse), &mut scratch.escapes, target)?;
        let (base, out) = (&base[start..end], &mut out[start..end]);
        if sparse {
            bitmap::add_marked16(marks, packed, coded, (base, ordered), zigzags, out)?;
        } else {
            numeric::add_differences16(zigzags, base, ordered, out);
        }
    }
    let tail = &mut out[whole..];
    tail.copy_from_slice(take(&mut body, tail.len())?);
    if body.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes are left over")) }
}

multiversion! {
    /// The zigzag differences of symbols; those of escapes follow.
    fn from_symbols(symbols: &[u8], bias: u16, zigzags: &mut [u16]) {
        for (zigzag, &symbol) in zigzags.iter_mut().zip(symbols) {
            *zigzag = u16::from(symbol) + bias;
        }
    }
}

fn put_escapes_back(
    symbols: &[u8],
    escapes: &[u8],
    bias: u16,
    found: &mut Vec<usize>,
    zigzags: &mut [u16],
) -> Decoded<()> {
    find_escapes(symbols, found);
    let escapes = escapes.as_chunks::<2>().0;
    if found.len() != escapes.len() {
        return Err(DecodeError::Malformed("symbols and escapes do not match"));
    }
    for (&place, escape) in found.iter().zip(escapes) {
        zigzags[place] = u16::from_le_bytes(*escape).wrapping_add(bias);
    }
    Ok(())
}
