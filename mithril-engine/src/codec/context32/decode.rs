//! Decoding a block, once for all instruction sets.

use super::super::dispatch::Isa;
use super::super::{DecodeError, Decoded, rans, take, take_u8};
use super::groups::{Bytes, GROUP_BYTES, LANES, Words, load, store};
use super::lanes::Lanes;
use super::model::{self, Model, exponents};
use super::stacks::Stacks;
use super::{BlockScratch, Parts, differences, is_coded, kind, sized_groups, take_coded};

/// Decodes a block from the front of `body`; `base` has the length of `out`.
#[inline(always)]
pub(super) fn decode_block<L: Lanes>(
    lanes: L,
    isa: Isa,
    body: &mut &[u8],
    base: &[u8],
    scratch: &mut Parts<'_>,
    out: &mut [u8],
) -> Decoded<()> {
    match take_u8(body)? {
        kind::RAW => out.copy_from_slice(take(body, out.len())?),
        kind::SAME => out.copy_from_slice(base),
        kind::PLANES => differences::decode(body, base, scratch, out)?,
        kind::CODED => coded(lanes, isa, body, base, scratch, out)?,
        _ => return Err(DecodeError::Malformed("unknown kind of block")),
    }
    Ok(())
}

#[inline(always)]
fn coded<L: Lanes>(
    lanes: L,
    isa: Isa,
    body: &mut &[u8],
    base: &[u8],
    scratch: &mut Parts<'_>,
    out: &mut [u8],
) -> Decoded<()> {
    let groups = out.len().div_ceil(GROUP_BYTES);
    let model = Model::take(body)?;
    let count = take_coded(body, groups, scratch)?;
    let BlockScratch { coded, symbols, .. } = &mut *scratch.block;
    let contexts = rans::Contexts::take(body, model.symbols())?;
    let (mut stacks, mut words) = Stacks::take(body)?;
    let symbols = sized_groups(symbols, count);
    contexts.decode(isa, body, symbols)?;
    let (mut symbols, mut padded) = (symbols.iter(), [0; GROUP_BYTES]);
    for group in 0..groups {
        let mut elements = model.prediction.of(&load(base, group));
        if is_coded(coded, group) {
            let symbols = symbols.next().ok_or(DecodeError::Malformed("a block has too few groups"))?;
            let places = Model::places(model.lowest_exponent, &exponents(&elements));
            let parts = model.parts(symbols, &lanes.look_up(&model.offsets, &places));
            let next = words.group(&mut padded);
            let taken = if parts.any_escaped {
                with_escapes(lanes, &model, symbols, &parts, &mut stacks, next, &mut elements)
            } else {
                model.flip(symbols, &mut elements);
                lanes.add_differences(&parts, &mut stacks, next, &mut elements)
            };
            words.advance(taken);
        }
        store(&elements, out, group);
    }
    stacks.check(&words)
}

/// Turns predictions into elements, some of which are escapes. Returns how many words were taken.
#[inline(always)]
fn with_escapes<L: Lanes>(
    lanes: L,
    model: &Model,
    symbols: &Bytes,
    parts: &model::Parts,
    stacks: &mut Stacks,
    words: &[u8; GROUP_BYTES],
    elements: &mut Words,
) -> usize {
    let predicted = *elements;
    model.flip(symbols, elements);
    // The raw bits of an escape are its difference from 0.
    for lane in 0..LANES {
        let is_escape = model.exact(symbols[lane], 0, 0).is_some();
        elements[lane] = if is_escape { 0 } else { elements[lane] };
    }
    let taken = lanes.add_differences(parts, stacks, words, elements);
    for lane in 0..LANES {
        let exact = model.exact(symbols[lane], elements[lane], predicted[lane]);
        elements[lane] = exact.unwrap_or(elements[lane]);
    }
    taken
}
