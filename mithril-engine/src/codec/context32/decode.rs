//! Decoding a block, once for all instruction sets.

use super::super::dispatch::Isa;
use super::super::{DecodeError, Decoded, rans, take, take_u8};
use super::groups::{GROUP_BYTES, load, store};
use super::lanes::Lanes;
use super::model::Model;
use super::number::w4;
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
    let mut symbols = symbols.iter();
    for group in 0..groups {
        let predicted = model.prediction.of(&load(base, group));
        if !is_coded(coded, group) {
            store(&predicted, out, group);
            continue;
        }
        let symbols = symbols.next().ok_or(DecodeError::Malformed("a block has too few groups"))?;
        let exponents = predicted.map(|word| w4::exponent(word).to_le_bytes()[0]);
        let places = Model::places(model.lowest_exponent, &exponents);
        let parts = model.parts(symbols, &lanes.look_up(&model.offsets, &places));
        let (raw, taken) = lanes.pop(&mut stacks, &parts.1, words.group(&mut [0; GROUP_BYTES]));
        words.advance(taken);
        store(&model.elements(symbols, &parts, &raw, &predicted), out, group);
    }
    stacks.check(&words)
}
