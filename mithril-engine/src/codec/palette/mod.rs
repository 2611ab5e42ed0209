//! Palettes: elements that have few values are places in a table of these. Byte planes would code every byte of such
//! elements by itself, and so tell the same thing several times.
//!
//! ```text
//! body      as that of `planes`, with 5 for the transform
//! block     values less one u8, the values in ascending order, a plane block of the places
//! places    of 1, 2, 4 or 8 bits, as few as there must be, the first of a byte lowest
//! ```
//!
//! Several places in a byte are one symbol: a Huffman code spends at least a bit on a symbol, and places that go
//! together cost less.

mod places;
mod values;

use super::{BLOCK_ELEMENTS, DecodeError, Decoded, Scratch, plane_block, sized, take, take_u8};
use values::{MOST, Values};

/// What stands for the transform.
pub(super) const CODE: u8 = 5;

/// Elements that are looked at to tell whether there may be few values, and slices of the chunk that they are from.
const SLICES: usize = 16;
const SLICE_ELEMENTS: usize = 32;

/// Chunks of fewer elements are not worth a table.
const LEAST_ELEMENTS: usize = 64;

/// Values that pay: bytes gain only where several places fit in one.
const fn most(width: usize) -> usize {
    if width == 1 { 16 } else { MOST }
}

/// Bits of a place among so many values.
const fn bits(values: usize) -> usize {
    match values {
        ..=2 => 1,
        3..=4 => 2,
        5..=16 => 4,
        _ => 8,
    }
}

fn packed_bytes(count: usize, bits: usize) -> usize {
    (count * bits).div_ceil(8)
}

fn load<const WIDTH: usize>(element: &[u8; WIDTH]) -> u64 {
    let mut word = [0; 8];
    word[..WIDTH].copy_from_slice(element);
    u64::from_le_bytes(word)
}

/// Whether few of the elements show few values. One value alone needs no table.
pub(super) fn is_likely(raw: &[u8], width: usize) -> bool {
    fn of<const WIDTH: usize>(raw: &[u8]) -> bool {
        let elements = raw.as_chunks::<WIDTH>().0;
        if elements.len() < LEAST_ELEMENTS {
            return false;
        }
        let mut values = Values::new(load(&elements[0]), most(WIDTH));
        let mut slices = elements.chunks(elements.len().div_ceil(SLICES));
        let few = slices.all(|slice| {
            slice.iter().take(SLICE_ELEMENTS).all(|element| values.place(load(element)).is_some())
        });
        few && values.found().len() > 1
    }
    match width {
        1 => of::<1>(raw),
        2 => of::<2>(raw),
        4 => of::<4>(raw),
        _ => of::<8>(raw),
    }
}

/// Appends the body. `false`, with nothing useful appended, if a block has too many values.
pub(super) fn encode(raw: &[u8], width: usize, scratch: &mut Scratch, out: &mut Vec<u8>) -> bool {
    match width {
        1 => encode_wide::<1>(raw, scratch, out),
        2 => encode_wide::<2>(raw, scratch, out),
        4 => encode_wide::<4>(raw, scratch, out),
        _ => encode_wide::<8>(raw, scratch, out),
    }
}

fn encode_wide<const WIDTH: usize>(raw: &[u8], scratch: &mut Scratch, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&[WIDTH.to_le_bytes()[0], CODE]);
    let (elements, tail) = raw.as_chunks::<WIDTH>();
    let fits = elements.chunks(BLOCK_ELEMENTS).all(|block| encode_block(block, scratch, out));
    out.extend_from_slice(tail);
    fits
}

fn encode_block<const WIDTH: usize>(block: &[[u8; WIDTH]], scratch: &mut Scratch, out: &mut Vec<u8>) -> bool {
    let (places, packed) = sized(&mut scratch.planes, 2 * BLOCK_ELEMENTS).split_at_mut(BLOCK_ELEMENTS);
    let places = &mut places[..block.len()];
    let mut values = Values::new(block.first().map_or(0, load), most(WIDTH));
    for (place, element) in places.iter_mut().zip(block) {
        let Some(found) = values.place(load(element)) else { return false };
        *place = found;
    }
    let count = values.found().len();
    let mut order: Vec<u8> = (0..=u8::MAX).take(count).collect();
    order.sort_unstable_by_key(|&place| values.found()[usize::from(place)]);
    let mut ranks = [0; MOST];
    out.push((count - 1).to_le_bytes()[0]);
    for (rank, &place) in (0..=u8::MAX).zip(&order) {
        ranks[usize::from(place)] = rank;
        out.extend_from_slice(&values.found()[usize::from(place)].to_le_bytes()[..WIDTH]);
    }
    let bits = bits(count);
    let packed = &mut packed[..packed_bytes(block.len(), bits)];
    places::pack(places, &ranks, bits, packed);
    plane_block::encode(packed, &mut scratch.blocks, out);
    true
}

/// Decodes what [`encode`] wrote, from behind the transform.
pub(super) fn decode(body: &[u8], width: usize, scratch: &mut Scratch, out: &mut [u8]) -> Decoded<()> {
    match width {
        1 => decode_wide::<1>(body, scratch, out),
        2 => decode_wide::<2>(body, scratch, out),
        4 => decode_wide::<4>(body, scratch, out),
        _ => decode_wide::<8>(body, scratch, out),
    }
}

fn decode_wide<const WIDTH: usize>(mut body: &[u8], scratch: &mut Scratch, out: &mut [u8]) -> Decoded<()> {
    let (elements, tail) = out.as_chunks_mut::<WIDTH>();
    for block in elements.chunks_mut(BLOCK_ELEMENTS) {
        decode_block(&mut body, scratch, block)?;
    }
    tail.copy_from_slice(take(&mut body, tail.len())?);
    if body.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes are left over")) }
}

fn decode_block<const WIDTH: usize>(
    body: &mut &[u8],
    scratch: &mut Scratch,
    block: &mut [[u8; WIDTH]],
) -> Decoded<()> {
    let count = usize::from(take_u8(body)?) + 1;
    let values = take(body, count * WIDTH)?.as_chunks::<WIDTH>().0;
    if !values.is_sorted_by(|a, b| load(a) < load(b)) {
        return Err(DecodeError::Malformed("the values of a palette are not in order"));
    }
    let bits = bits(count);
    let buffer = sized(&mut scratch.planes, packed_bytes(block.len(), bits));
    let packed = plane_block::decode_in_place(body, buffer, &mut scratch.blocks)?;
    if places::expand(packed, values, bits, block) {
        Ok(())
    } else {
        Err(DecodeError::Malformed("a place is not in its palette"))
    }
}

#[cfg(test)]
mod tests;
