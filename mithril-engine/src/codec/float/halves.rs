//! Low halves: bits that are as good as random, all zero (numbers that were rounded), or something between.
//!
//! ```text
//! 0 zero     nothing
//! 1 raw      two bytes each
//! 2 planes   the plane of the low bytes, the plane of the high bytes
//! ```

use super::super::dispatch::Isa;
use super::super::rans::{self, RansScratch};
use super::super::{DecodeError, Decoded, sized, take, take_u8};
use super::plan::{sampled, sampled_bits};
use super::split;

mod kind {
    pub(super) const ZERO: u8 = 0;
    pub(super) const RAW: u8 = 1;
    pub(super) const PLANES: u8 = 2;
}

/// Bits a half below which its bytes are worth coding.
const PLANES_BITS: f64 = 15.0;

/// Low halves of the elements of a block.
pub(super) enum Halves<'a> {
    Zero,
    Some(&'a [[u8; 2]]),
}

/// Appends halves; `zero` says that all are.
pub(super) fn encode(
    isa: Isa,
    halves: &[[u8; 2]],
    zero: bool,
    planes: &mut Vec<u8>,
    scratch: &mut RansScratch,
    out: &mut Vec<u8>,
) {
    if zero {
        out.push(kind::ZERO);
        return;
    }
    let bits =
        sampled_bits(sampled(halves).map(|half| half[0])) + sampled_bits(sampled(halves).map(|half| half[1]));
    if bits < PLANES_BITS {
        out.push(kind::PLANES);
        let (low, high) = sized(planes, 2 * halves.len()).split_at_mut(halves.len());
        split::part(isa, halves, low, high);
        rans::encode_plane(low, isa, scratch, out);
        rans::encode_plane(high, isa, scratch, out);
    } else {
        out.push(kind::RAW);
        out.extend_from_slice(halves.as_flattened());
    }
}

/// Decodes `count` halves from the front of `body`.
pub(super) fn decode<'a, 'b: 'a>(
    isa: Isa,
    body: &mut &'b [u8],
    count: usize,
    buffer: &'a mut Vec<[u8; 2]>,
    planes: &mut Vec<u8>,
    scratch: &mut RansScratch,
) -> Decoded<Halves<'a>> {
    match take_u8(body)? {
        kind::ZERO => Ok(Halves::Zero),
        kind::RAW => Ok(Halves::Some(take(body, 2 * count)?.as_chunks().0)),
        kind::PLANES => {
            let (low, high) = sized(planes, 2 * count).split_at_mut(count);
            rans::decode_plane(body, low, isa, scratch)?;
            rans::decode_plane(body, high, isa, scratch)?;
            if buffer.len() < count {
                buffer.resize(count, [0; 2]);
            }
            split::join(isa, low, high, &mut buffer[..count]);
            Ok(Halves::Some(&buffer[..count]))
        }
        _ => Err(DecodeError::Malformed("unknown kind of low halves")),
    }
}
