//! Floats that are a small integer times a scale, but for some: what quantizing to INT8 leaves.
//!
//! ```text
//! body    element u8, elements of a block u24, elements of the first block u24, exact u24,
//!         length of the scales u24, scales as `planes` of their bytes (f32, sign rotated),
//!         codes as plane blocks of up to 131072, places of the exact u24 each, the exact in full
//! ```
//!
//! An element is its code (a signed byte) times the scale of its block, rounded once; the exact ones are what they were.

use super::numeric::Transform;
use super::{
    BLOCK_ELEMENTS, DecodeError, Decoded, Scratch, plane_block, planes, put_u24, take, take_u8, take_u24,
};
use crate::quantize::{self, Codes};
use crate::tensor::Element;

const MALFORMED: DecodeError = DecodeError::Malformed("scales or codes are impossible");

/// Encodes what was quantized; `bytes` are what it stands for.
pub(super) fn encode(
    codes: &Codes,
    element: Element,
    bytes: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    out.push(element.code());
    // A block longer than the chunk is as good as one of the chunk's length.
    let count = codes.codes.len().max(1);
    put_u24(out, codes.block_elements.min(count));
    put_u24(out, codes.first_elements.min(count));
    put_u24(out, codes.exact.len());
    let scales: Vec<u8> = codes.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let start = out.len();
    put_u24(out, 0);
    planes::encode(&scales, size_of::<f32>(), Transform::RotateSign, None, scratch, out);
    let len = out.len() - start - 3;
    out[start..start + 3].copy_from_slice(&len.to_le_bytes()[..3]);
    let unsigned: Vec<u8> = codes.codes.iter().map(|code| code.cast_unsigned()).collect();
    for block in unsigned.chunks(BLOCK_ELEMENTS) {
        plane_block::encode(block, &mut scratch.blocks, out);
    }
    codes.exact.iter().for_each(|&place| put_u24(out, place));
    let width = element.width();
    for &place in &codes.exact {
        out.extend_from_slice(&bytes[place * width..(place + 1) * width]);
    }
}

/// Decodes what `encode` wrote.
pub(super) fn decode(mut body: &[u8], scratch: &mut Scratch, out: &mut [u8]) -> Decoded<()> {
    let element = Element::from_code(take_u8(&mut body)?).filter(|element| quantize::applies_to(*element));
    let element = element.ok_or(DecodeError::Malformed("codes of an element that is no float"))?;
    let width = element.width();
    if !out.len().is_multiple_of(width) {
        return Err(MALFORMED);
    }
    let count = out.len() / width;
    let block_elements = take_u24(&mut body)?;
    let first_elements = take_u24(&mut body)?;
    let exact_count = take_u24(&mut body)?;
    if block_elements == 0
        || first_elements == 0
        || first_elements > block_elements.max(1)
        || exact_count > count
    {
        return Err(MALFORMED);
    }
    let scale_count = quantize::blocks(count, first_elements, block_elements).count();
    let mut scale_bytes = vec![0; scale_count * size_of::<f32>()];
    let len = take_u24(&mut body)?;
    planes::decode(take(&mut body, len)?, None, scratch, &mut scale_bytes)?;
    let scales = scale_bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let mut unsigned = vec![0; count];
    for block in unsigned.chunks_mut(BLOCK_ELEMENTS) {
        plane_block::decode(&mut body, block, &mut scratch.blocks)?;
    }
    let codes = unsigned.iter().map(|code| code.cast_signed()).collect();
    let exact = (0..exact_count).map(|_| take_u24(&mut body)).collect::<Decoded<Vec<usize>>>()?;
    if !exact.is_sorted_by(|a, b| a < b) || exact.last().is_some_and(|&last| last >= count) {
        return Err(MALFORMED);
    }
    for &place in &exact {
        out[place * width..(place + 1) * width].copy_from_slice(take(&mut body, width)?);
    }
    if !body.is_empty() {
        return Err(DecodeError::Malformed("bytes are left over"));
    }
    let codes = Codes { block_elements, first_elements, scales, codes, exact };
    quantize::dequantize(&codes, element, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::quantize::{Bound, Quantization, Scheme};

    fn quantized(phase: usize, block_elements: usize, count: u32) -> (quantize::Quantized, Vec<u8>) {
        let mut values: Vec<f32> = (0..count).map(|i| ((i as f32) * 0.9).sin() * 0.05).collect();
        if let Some(value) = values.get_mut(5) {
            *value = f32::NAN;
        }
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let how = Quantization { scheme: Scheme::Int8, bound: Bound::Relative(0.004), block_elements };
        let result = quantize::quantize(&raw, Element::F32, phase, &how).unwrap();
        let mut encoded = Vec::new();
        codec::encode_quantized(&result, Element::F32, &mut Scratch::default(), &mut encoded);
        (result, encoded)
    }

    #[test]
    fn what_was_quantized_comes_back() {
        for (phase, block, count) in
            [(0, 128, 0), (0, 128, 1), (3, 128, 1000), (0, 7, 300_000), (5000, 10_000, 2000)]
        {
            let (result, encoded) = quantized(phase, block, count);
            let mut out = vec![9; result.bytes.len()];
            codec::decode(&encoded, None, &mut Scratch::default(), &mut out).unwrap();
            assert!(out == result.bytes, "{phase} {block} {count}");
        }
        let (result, encoded) = quantized(0, 128, 100_000);
        assert!(encoded.len() * 7 < result.bytes.len() * 2, "{} bytes", encoded.len());
    }

    #[test]
    fn damage_never_panics_and_truncation_is_an_error() {
        let (result, encoded) = quantized(3, 50, 600);
        let mut out = vec![0; result.bytes.len()];
        for at in 0..encoded.len() {
            assert!(codec::decode(&encoded[..at], None, &mut Scratch::default(), &mut out).is_err());
            for bit in 0..8 {
                let mut damaged = encoded.clone();
                damaged[at] ^= 1 << bit;
                let _ = codec::decode(&damaged, None, &mut Scratch::default(), &mut out);
            }
        }
    }
}
