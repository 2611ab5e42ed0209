//! Byte planes: the first bytes of all elements, then the second ones, and so on. Bytes of one significance have one
//! distribution, and each plane is coded by its own.
//!
//! ```text
//! body    width u8 (1, 2, 4 or 8), transform u8, blocks of up to 131072 elements, tail
//! block   one plane block a byte of width, lowest byte first
//! tail    the bytes after the last whole element, as they are
//! ```
//!
//! Where the transform is that of [`palette`], blocks are something else.

use super::dispatch::multiversion;
use super::numeric::Transform;
use super::{BLOCK_ELEMENTS, DecodeError, Decoded, Scratch, palette, plane_block, take, take_u8};

/// Defines the splitting into planes and the joining of one width. Each plane is a parameter of its own, so that the
/// compiler knows that they do not overlap, and vectorises.
macro_rules! width {
    ($split:ident, $join:ident, $module:ident, [$($plane:ident $byte:literal),*]) => {
        mod $split {
            use super::{BLOCK_ELEMENTS, multiversion};
            use crate::codec::numeric::$module as number;

            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "each plane is one")]
            fn split<const CODE: u8>(raw: &[u8], base: &[u8], $($plane: &mut [u8]),*) {
                let elements = raw.as_chunks::<{ number::WIDTH }>().0;
                let count = elements.len();
                let bases = if CODE >= 2 { base.as_chunks::<{ number::WIDTH }>().0 } else { elements };
                let bases = &bases[..count];
                $(let $plane = &mut $plane[..count];)*
                for i in 0..count {
                    let word = number::forward::<CODE>(number::load(&elements[i]), number::load(&bases[i]));
                    let bytes = word.to_le_bytes();
                    $($plane[i] = bytes[$byte];)*
                }
            }

            multiversion! {
                fn plain(raw: &[u8], base: &[u8], $($plane: &mut [u8]),*) { split::<0>(raw, base, $($plane),*); }
            }
            multiversion! {
                fn rotate(raw: &[u8], base: &[u8], $($plane: &mut [u8]),*) { split::<1>(raw, base, $($plane),*); }
            }
            multiversion! {
                fn ordered(raw: &[u8], base: &[u8], $($plane: &mut [u8]),*) { split::<2>(raw, base, $($plane),*); }
            }
            multiversion! {
                fn difference(raw: &[u8], base: &[u8], $($plane: &mut [u8]),*) { split::<3>(raw, base, $($plane),*); }
            }

            /// Each but the first against the one before it.
            #[allow(clippy::too_many_arguments, reason = "each plane is one")]
            fn step(raw: &[u8], $($plane: &mut [u8]),*) {
                let Some((first, rest)) = raw.split_first_chunk() else { return };
                let bytes = number::forward::<3>(number::load(first), 0).to_le_bytes();
                $($plane[0] = bytes[$byte];)*
                difference(rest, &raw[..rest.len()], $(&mut $plane[1..]),*);
            }

            /// Splits transformed elements into planes, `BLOCK_ELEMENTS` apart.
            pub(super) fn run(code: u8, raw: &[u8], base: &[u8], planes: &mut [u8]) {
                let mut parts = planes.chunks_exact_mut(BLOCK_ELEMENTS);
                $(let $plane = parts.next().unwrap_or_default();)*
                match code {
                    1 => rotate(raw, base, $($plane),*),
                    2 => ordered(raw, base, $($plane),*),
                    3 => difference(raw, base, $($plane),*),
                    4 => step(raw, $($plane),*),
                    _ => plain(raw, base, $($plane),*),
                }
            }
        }

        mod $join {
            use super::multiversion;
            use crate::codec::numeric::$module as number;

            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "each plane is one")]
            fn join<const CODE: u8>($($plane: &[u8],)* base: &[u8], out: &mut [u8]) {
                let elements = out.as_chunks_mut::<{ number::WIDTH }>().0;
                let count = elements.len();
                $(let $plane = &$plane[..count];)*
                let bases = base.as_chunks::<{ number::WIDTH }>().0;
                let bases = if CODE >= 2 { &bases[..count] } else { &[][..] };
                for i in 0..count {
                    let word = number::load(&[$($plane[i]),*]);
                    let base = if CODE >= 2 { number::load(&bases[i]) } else { 0 };
                    elements[i] = number::backward::<CODE>(word, base).to_le_bytes();
                }
            }

            multiversion! {
                fn plain($($plane: &[u8],)* base: &[u8], out: &mut [u8]) { join::<0>($($plane,)* base, out); }
            }
            multiversion! {
                fn rotate($($plane: &[u8],)* base: &[u8], out: &mut [u8]) { join::<1>($($plane,)* base, out); }
            }
            multiversion! {
                fn ordered($($plane: &[u8],)* base: &[u8], out: &mut [u8]) { join::<2>($($plane,)* base, out); }
            }
            multiversion! {
                fn difference($($plane: &[u8],)* base: &[u8], out: &mut [u8]) { join::<3>($($plane,)* base, out); }
            }

            /// Each but the first is added to the one before it.
            #[allow(clippy::too_many_arguments, reason = "each plane is one")]
            fn step($($plane: &[u8],)* out: &mut [u8]) {
                plain($($plane,)* &[], out);
                let mut last = 0;
                for element in out.as_chunks_mut().0 {
                    last = number::backward::<3>(number::load(element), last);
                    *element = last.to_le_bytes();
                }
            }

            /// Joins planes to elements and undoes the transform.
            pub(super) fn run(code: u8, planes: &[&[u8]; 8], base: &[u8], out: &mut [u8]) {
                $(let $plane = planes[$byte];)*
                match code {
                    1 => rotate($($plane,)* base, out),
                    2 => ordered($($plane,)* base, out),
                    3 => difference($($plane,)* base, out),
                    4 => step($($plane,)* out),
                    _ => plain($($plane,)* base, out),
                }
            }
        }
    };
}

width!(split1, join1, w1, [p0 0]);
width!(split2, join2, w2, [p0 0, p1 1]);
width!(split4, join4, w4, [p0 0, p1 1, p2 2, p3 3]);
width!(split8, join8, w8, [p0 0, p1 1, p2 2, p3 3, p4 4, p5 5, p6 6, p7 7]);

/// Makes room for the planes of a block.
fn prepare(planes: &mut Vec<u8>, width: usize) {
    if planes.len() < width * BLOCK_ELEMENTS {
        planes.resize(width * BLOCK_ELEMENTS, 0);
    }
}

/// Appends the planes of whole elements, at most a block of them; `base` has their length if the transform needs one.
/// `planes` is kept between calls.
pub(super) fn encode_block(
    block: &[u8],
    width: usize,
    transform: Transform,
    base: &[u8],
    planes: &mut Vec<u8>,
    scratch: &mut plane_block::BlockScratch,
    out: &mut Vec<u8>,
) {
    prepare(planes, width);
    let code = transform as u8;
    match width {
        1 => split1::run(code, block, base, planes),
        2 => split2::run(code, block, base, planes),
        4 => split4::run(code, block, base, planes),
        _ => split8::run(code, block, base, planes),
    }
    let count = block.len() / width;
    for plane in planes.chunks_exact(BLOCK_ELEMENTS).take(width) {
        plane_block::encode(&plane[..count], scratch, out);
    }
}

/// Decodes what [`encode_block`] wrote.
pub(super) fn decode_block(
    body: &mut &[u8],
    width: usize,
    transform: Transform,
    base: &[u8],
    planes: &mut Vec<u8>,
    scratch: &mut plane_block::BlockScratch,
    block: &mut [u8],
) -> Decoded<()> {
    prepare(planes, width);
    let count = block.len() / width;
    let mut parts = [&[][..]; 8];
    for (part, buffer) in parts.iter_mut().zip(planes.chunks_exact_mut(BLOCK_ELEMENTS)).take(width) {
        *part = plane_block::decode_in_place(body, &mut buffer[..count], scratch)?;
    }
    let code = transform as u8;
    match width {
        1 => join1::run(code, &parts, base, block),
        2 => join2::run(code, &parts, base, block),
        4 => join4::run(code, &parts, base, block),
        _ => join8::run(code, &parts, base, block),
    }
    Ok(())
}

/// Encodes `raw`; `base` has its length if the transform needs one.
pub(super) fn encode(
    raw: &[u8],
    width: usize,
    transform: Transform,
    base: Option<&[u8]>,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&[u8::try_from(width).unwrap_or(0), transform as u8]);
    let whole = raw.len() - raw.len() % width;
    let block_bytes = BLOCK_ELEMENTS * width;
    for start in (0..whole).step_by(block_bytes) {
        let end = (start + block_bytes).min(whole);
        let base = base.map_or(&[][..], |base| &base[start..end]);
        encode_block(&raw[start..end], width, transform, base, &mut scratch.planes, &mut scratch.blocks, out);
    }
    out.extend_from_slice(&raw[whole..]);
}

/// Decodes what `encode` wrote.
pub(super) fn decode(
    mut body: &[u8],
    base: Option<&[u8]>,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Decoded<()> {
    let width = usize::from(take_u8(&mut body)?);
    if !matches!(width, 1 | 2 | 4 | 8) {
        return Err(DecodeError::Malformed("an element has an impossible width"));
    }
    let code = take_u8(&mut body)?;
    if code == palette::CODE {
        return palette::decode(body, width, scratch, out);
    }
    let transform = Transform::from_code(code).ok_or(DecodeError::Malformed("unknown transform"))?;
    let base = match (transform.needs_base(), base) {
        (false, _) => &[][..],
        (true, Some(base)) if base.len() == out.len() => base,
        (true, _) => return Err(DecodeError::WrongBase),
    };
    let whole = out.len() - out.len() % width;
    let block_bytes = BLOCK_ELEMENTS * width;
    for start in (0..whole).step_by(block_bytes) {
        let end = (start + block_bytes).min(whole);
        let base = if base.is_empty() { base } else { &base[start..end] };
        let (planes, blocks) = (&mut scratch.planes, &mut scratch.blocks);
        decode_block(&mut body, width, transform, base, planes, blocks, &mut out[start..end])?;
    }
    let tail = &mut out[whole..];
    tail.copy_from_slice(take(&mut body, tail.len())?);
    if body.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes are left over")) }
}
