//! Byte planes: the first bytes of all elements, then the second ones, and so on. Bytes of one significance have one
//! distribution, and each plane is coded by its own.
//!
//! ```text
//! body    width u8 (1, 2, 4 or 8), transform u8, blocks of up to 131072 elements, tail
//! block   one plane block a byte of width, lowest byte first
//! tail    the bytes after the last whole element, as they are
//! ```

use super::dispatch::multiversion;
use super::numeric::{Transform, w1, w2, w4, w8};
use super::{BLOCK_ELEMENTS, DecodeError, Decoded, Scratch, plane_block, take, take_u8};

macro_rules! width {
    ($split:ident, $join:ident, $module:ident) => {
        /// Splits transformed elements into planes, `BLOCK_ELEMENTS` apart.
        fn $split(code: u8, raw: &[u8], base: &[u8], planes: &mut [u8]) {
            multiversion! {
                fn rotate(raw: &[u8], base: &[u8], planes: &mut [u8]) { split::<1>(raw, base, planes); }
            }
            multiversion! {
                fn ordered(raw: &[u8], base: &[u8], planes: &mut [u8]) { split::<2>(raw, base, planes); }
            }
            multiversion! {
                fn difference(raw: &[u8], base: &[u8], planes: &mut [u8]) { split::<3>(raw, base, planes); }
            }
            multiversion! {
                fn plain(raw: &[u8], base: &[u8], planes: &mut [u8]) { split::<0>(raw, base, planes); }
            }

            #[inline(always)]
            fn split<const CODE: u8>(raw: &[u8], base: &[u8], planes: &mut [u8]) {
                const WIDTH: usize = $module::WIDTH;
                let elements = raw.as_chunks::<WIDTH>().0;
                let bases = if CODE >= 2 { base.as_chunks::<WIDTH>().0 } else { elements };
                let mut parts = planes.chunks_exact_mut(BLOCK_ELEMENTS);
                let parts: [&mut [u8]; WIDTH] = std::array::from_fn(|_| {
                    parts.next().map_or(&mut [][..], |part| &mut part[..elements.len()])
                });
                for (i, (x, b)) in elements.iter().zip(bases).enumerate() {
                    let bytes = $module::forward::<CODE>($module::load(x), $module::load(b)).to_le_bytes();
                    for p in 0..WIDTH {
                        // Within bounds: each part was cut to the number of elements.
                        parts[p][i] = bytes[p];
                    }
                }
            }

            match code {
                1 => rotate(raw, base, planes),
                2 => ordered(raw, base, planes),
                3 => difference(raw, base, planes),
                _ => plain(raw, base, planes),
            }
        }

        /// Joins planes to elements and undoes the transform.
        fn $join(code: u8, planes: &[u8], base: &[u8], out: &mut [u8]) {
            multiversion! {
                fn rotate(planes: &[u8], base: &[u8], out: &mut [u8]) { join::<1>(planes, base, out); }
            }
            multiversion! {
                fn ordered(planes: &[u8], base: &[u8], out: &mut [u8]) { join::<2>(planes, base, out); }
            }
            multiversion! {
                fn difference(planes: &[u8], base: &[u8], out: &mut [u8]) { join::<3>(planes, base, out); }
            }
            multiversion! {
                fn plain(planes: &[u8], base: &[u8], out: &mut [u8]) { join::<0>(planes, base, out); }
            }

            #[inline(always)]
            fn join<const CODE: u8>(planes: &[u8], base: &[u8], out: &mut [u8]) {
                const WIDTH: usize = $module::WIDTH;
                let elements = out.as_chunks_mut::<WIDTH>().0;
                let count = elements.len();
                let mut parts = planes.chunks_exact(BLOCK_ELEMENTS);
                let parts: [&[u8]; WIDTH] =
                    std::array::from_fn(|_| parts.next().map_or(&[][..], |part| &part[..count]));
                let bases = base.as_chunks::<WIDTH>().0;
                let bases = if CODE >= 2 { &bases[..count] } else { &[][..] };
                for (i, out) in elements.iter_mut().enumerate() {
                    let mut bytes = [0; WIDTH];
                    for p in 0..WIDTH {
                        bytes[p] = parts[p][i];
                    }
                    let base = if CODE >= 2 { $module::load(&bases[i]) } else { 0 };
                    *out = $module::backward::<CODE>($module::load(&bytes), base).to_le_bytes();
                }
            }

            match code {
                1 => rotate(planes, base, out),
                2 => ordered(planes, base, out),
                3 => difference(planes, base, out),
                _ => plain(planes, base, out),
            }
        }
    };
}

width!(split1, join1, w1);
width!(split2, join2, w2);
width!(split4, join4, w4);
width!(split8, join8, w8);

/// Makes room for the planes of a block.
fn prepare(planes: &mut Vec<u8>, width: usize) {
    if planes.len() < width * BLOCK_ELEMENTS {
        planes.resize(width * BLOCK_ELEMENTS, 0);
    }
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
    let code = transform as u8;
    out.extend_from_slice(&[u8::try_from(width).unwrap_or(0), code]);
    prepare(&mut scratch.planes, width);
    let whole = raw.len() - raw.len() % width;
    let block_bytes = BLOCK_ELEMENTS * width;
    for start in (0..whole).step_by(block_bytes) {
        let end = (start + block_bytes).min(whole);
        let block = &raw[start..end];
        let base = base.map_or(&[][..], |base| &base[start..end]);
        let planes = &mut scratch.planes[..];
        match width {
            1 => split1(code, block, base, planes),
            2 => split2(code, block, base, planes),
            4 => split4(code, block, base, planes),
            _ => split8(code, block, base, planes),
        }
        let count = block.len() / width;
        for plane in scratch.planes.chunks_exact(BLOCK_ELEMENTS).take(width) {
            plane_block::encode(&plane[..count], &mut scratch.blocks, out);
        }
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
    let transform = Transform::from_code(code).ok_or(DecodeError::Malformed("unknown transform"))?;
    let base = match (transform.needs_base(), base) {
        (false, _) => &[][..],
        (true, Some(base)) if base.len() == out.len() => base,
        (true, _) => return Err(DecodeError::WrongBase),
    };
    prepare(&mut scratch.planes, width);
    let whole = out.len() - out.len() % width;
    let block_bytes = BLOCK_ELEMENTS * width;
    for start in (0..whole).step_by(block_bytes) {
        let end = (start + block_bytes).min(whole);
        let count = (end - start) / width;
        for plane in scratch.planes.chunks_exact_mut(BLOCK_ELEMENTS).take(width) {
            plane_block::decode(&mut body, &mut plane[..count], &mut scratch.blocks)?;
        }
        let base = if base.is_empty() { base } else { &base[start..end] };
        let (planes, block) = (&scratch.planes[..], &mut out[start..end]);
        match width {
            1 => join1(code, planes, base, block),
            2 => join2(code, planes, base, block),
            4 => join4(code, planes, base, block),
            _ => join8(code, planes, base, block),
        }
    }
    let tail = &mut out[whole..];
    tail.copy_from_slice(take(&mut body, tail.len())?);
    if body.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes are left over")) }
}
