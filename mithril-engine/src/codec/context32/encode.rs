//! Encoding a block, once for all instruction sets.

use super::super::dispatch::Isa;
use super::super::rans::Contexts;
use super::super::{plane_block, put_u24, sized};
use super::groups::{GROUP_BYTES, load};
use super::lanes::Lanes;
use super::model::{Coded, Differences, Model};
use super::stacks::{Stacks, WORD_BYTES, Writer};
use super::survey::{self, Choice};
use super::{BlockScratch, Parts, differences, kind, sized_groups};

/// Of fewer groups planes are made in any case: no sample says which is smaller.
const FEW_GROUPS: usize = 64;

/// Encodes a block of `raw` against `base` of the same length, appending to `out`.
#[inline(always)]
pub(super) fn encode_block<L: Lanes>(
    lanes: L,
    isa: Isa,
    raw: &[u8],
    base: &[u8],
    scratch: &mut Parts<'_>,
    out: &mut Vec<u8>,
) {
    if raw == base {
        out.push(kind::SAME);
        return;
    }
    let start = out.len();
    let groups = raw.len().div_ceil(GROUP_BYTES);
    let choice = survey::choose(raw, base, groups, &mut scratch.block.survey);
    let count = coded(lanes, isa, raw, base, &choice, scratch, out);
    let end = out.len();
    if count < FEW_GROUPS || choice.planes_bytes < (end - start) as u64 {
        out.push(kind::PLANES);
        differences::encode(raw, base, &choice.planes_prediction, scratch, out);
        if out.len() - end < end - start {
            out.drain(start..end);
        } else {
            out.truncate(end);
        }
    }
    if out.len() - start > raw.len() {
        out.truncate(start);
        out.push(kind::RAW);
        out.extend_from_slice(raw);
    }
}

/// Encodes as symbols and raw bits. Returns how many groups have differences.
#[inline(always)]
fn coded<L: Lanes>(
    lanes: L,
    isa: Isa,
    raw: &[u8],
    base: &[u8],
    choice: &Choice,
    scratch: &mut Parts<'_>,
    out: &mut Vec<u8>,
) -> usize {
    let groups = raw.len().div_ceil(GROUP_BYTES);
    let model = &choice.model;
    let BlockScratch { coded, symbols, widths, values, rans, bytes, .. } = &mut *scratch.block;
    sized_groups(symbols, groups);
    sized_groups(widths, groups);
    sized_groups(values, groups);
    let coded = sized(coded, groups.div_ceil(8));
    coded.fill(0);
    let mut count = 0;
    for group in 0..groups {
        let new = load(raw, group);
        let differences = Differences::new(&new, &model.prediction.of(&load(base, group)));
        if differences.are_none() {
            continue;
        }
        let places = Model::places(model.lowest_exponent, &differences.exponents);
        let offsets = lanes.look_up(&model.offsets, &places);
        let (symbols, widths, values) = (&mut symbols[count], &mut widths[count], &mut values[count]);
        model.code(&differences, &offsets, &new, choice.zeros, &mut Coded { symbols, widths, values });
        coded[group / 8] |= 1 << (group % 8);
        count += 1;
    }
    let (symbols, widths, values) = (&symbols[..count], &widths[..count], &values[..count]);
    out.push(kind::CODED);
    model.put(out);
    plane_block::encode(coded, scratch.planes, out);
    let contexts = Contexts::choose(isa, symbols, rans);
    contexts.put(out);

    // Backwards: the decoder takes first what is pushed last.
    let mut words = Writer::new(sized(bytes, Writer::room(count)));
    let mut stacks = Stacks::EMPTY;
    for (widths, values) in widths.iter().zip(values).rev() {
        let Some(room) = words.group() else { break };
        let written = lanes.push(&mut stacks, values, widths, room);
        words.advance(written);
    }
    let words = words.into_bytes();
    put_u24(out, words.len() / WORD_BYTES);
    out.extend_from_slice(words);
    stacks.put(out);
    contexts.encode(isa, symbols, rans, out);
    count
}
