//! Encoding of a block.

use super::super::dispatch::Isa;
use super::super::entropy::Histogram;
use super::super::rans::{self, Group, LANES, Table, Zeros};
use super::super::{put_u24, sized};
use super::block::{BlockScratch, FLAG_EVEN, FLAG_PLANE, FLAG_ZEROS, kind};
use super::plan::{Plan, sampled, sampled_bits};
use super::predict::Predictor;
use super::split::{self, Seen};
use super::{Kind, TILE, halves, pack, zeros};

/// Entropy of the symbols above which they are not worth coding.
const RAW_BITS: f64 = 7.8;

/// What rests as a plane must gain, in bits each, and the least that are worth it.
const PLANE_GAIN_BITS: f64 = 0.7;
const PLANE_LEAST: usize = 256;

/// Appends a block.
pub(super) fn encode(
    isa: Isa,
    raw: &[u8],
    kind: Kind,
    predictor: &Predictor<'_>,
    at: usize,
    scratch: &mut BlockScratch,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let width = kind.width;
    if raw[width..] == raw[..raw.len() - width] {
        out.push(kind::FILL);
        out.extend_from_slice(&raw[..width]);
        return;
    }
    let worth_it = encode_coded(isa, raw, kind, predictor, at, scratch, out);
    if !worth_it || out.len() - start > raw.len() {
        out.truncate(start);
        out.push(kind::RAW);
        out.extend_from_slice(raw);
    }
}

fn encode_coded(
    isa: Isa,
    raw: &[u8],
    kind: Kind,
    predictor: &Predictor<'_>,
    at: usize,
    scratch: &mut BlockScratch,
    out: &mut Vec<u8>,
) -> bool {
    let count = raw.len() / kind.width;
    let (plan, seen) = split_block(isa, raw, kind, predictor, at, scratch);
    let coded = if plan.zeros { zeros::count(&scratch.masks[..count.div_ceil(LANES)]) } else { count };
    let even = seen.any & 1 == 0 && plan.shift >= 7;
    let bits = plan.shift - u32::from(even);
    let start = out.len();
    out.extend_from_slice(&[kind::CODED, 0, plan.shift.to_le_bytes()[0]]);
    out.extend_from_slice(&plan.base.to_le_bytes());
    if plan.zeros {
        put_u24(out, coded);
    }
    let before_halves = out.len();
    encode_halves(isa, raw, kind, plan.zeros, scratch, out);
    let halves_shrink = out.len() - before_halves < (kind.width - 2) * coded;

    let masks = &scratch.masks[..count.div_ceil(LANES)];
    let rests = &mut scratch.rests[..];
    if plan.zeros {
        zeros::compact(isa, masks, &mut rests[..count]);
    }
    if even {
        rests[..coded].iter_mut().for_each(|rest| *rest >>= 1);
    }
    let rests_bits = sampled_bits(sampled(&rests[..coded]));
    let shrinks =
        rests_bits < f64::from(bits) - PLANE_GAIN_BITS && (coded >= PLANE_LEAST || rests_bits == 0.0);
    // A plane may be raw: the last set of rows of a small block is mostly empty.
    let as_plane = shrinks || pack::packed_bytes(coded, bits) > coded + 1;
    if as_plane {
        rans::encode_plane(&rests[..coded], isa, &mut scratch.rans, out);
    } else if bits == 8 {
        out.extend_from_slice(&rests[..coded]);
    } else {
        let padded = pack::padded_count(coded, bits);
        rests[coded..padded].fill(0);
        pack::pack(isa, &rests[..padded], bits, out);
    }
    out[start + 1] = if plan.zeros { FLAG_ZEROS } else { 0 }
        | if even { FLAG_EVEN } else { 0 }
        | if as_plane { FLAG_PLANE } else { 0 };

    let groups = &mut scratch.symbols[..count.div_ceil(LANES)];
    let masks = plan.zeros.then_some(masks);
    let (histogram, zero_count) = count_symbols(groups, count, masks);
    let zeros = if plan.zeros { Zeros::Apart(zero_count) } else { Zeros::Inline };
    let (table, symbol_bits) = Table::build(&histogram, zeros);
    let counted = f64::from(histogram.iter().sum::<u32>() + zero_count);
    if symbol_bits > counted * RAW_BITS && !halves_shrink && !as_plane {
        return false;
    }
    table.write(out);
    match masks {
        Some(masks) => {
            for eight in masks.chunks(8) {
                out.push(
                    eight.iter().enumerate().fold(0, |byte, (i, &mask)| byte | u8::from(mask != 0) << i),
                );
            }
        }
        None => groups.as_flattened_mut()[count..].fill(table.filler()),
    }
    rans::encode(groups, masks, &table, isa, &mut scratch.rans, out);
    true
}

/// Fills `symbols` and `rests` of the scratch, and `masks` if zeros are apart.
fn split_block(
    isa: Isa,
    raw: &[u8],
    kind: Kind,
    predictor: &Predictor<'_>,
    at: usize,
    scratch: &mut BlockScratch,
) -> (Plan, Seen) {
    let count = raw.len() / kind.width;
    let groups = count.div_ceil(LANES);
    if scratch.symbols.len() < groups {
        scratch.symbols.resize(groups, [0; LANES]);
        scratch.masks.resize(groups, 0);
    }
    sized(&mut scratch.rests, count + 512);
    sized(&mut scratch.flags, TILE);
    scratch.predictions.resize(TILE, 0);
    let predicted = predictor.base();
    let suggested = Plan::of(raw, kind, predicted);
    let mut plan = suggested;
    loop {
        let mut seen = Seen::default();
        let symbols = scratch.symbols.as_flattened_mut();
        for (index, part) in raw.chunks(TILE * kind.width).enumerate() {
            let from = index * TILE;
            let len = part.len() / kind.width;
            if index == 0 || predicted.is_some() {
                predictor.fill(isa, at + from, plan.base, &mut scratch.predictions[..len]);
            }
            let split = match kind.width {
                2 => split::w2::split,
                4 => split::w4::split,
                _ => split::w8::split,
            };
            let predictions = &scratch.predictions;
            let (symbols, rests) = (&mut symbols[from..], &mut scratch.rests[from..]);
            split(isa, part, predictions, plan.shift, plan.zeros, symbols, rests, &mut seen);
            if plan.zeros {
                let nonzero = match kind.width {
                    2 => split::w2::nonzero,
                    4 => split::w4::nonzero,
                    _ => split::w8::nonzero,
                };
                let flags = &mut scratch.flags[..len];
                nonzero(isa, part, flags);
                zeros::masks_of(flags, &mut scratch.masks[from / LANES..]);
            }
        }
        if plan.shift == 8 || seen.any >> (8 + plan.shift) == 0 {
            return (plan, seen);
        }
        // A few zeros are far from everything else; if that was not it, symbols get all bits of the exponent.
        if !plan.zeros && plan.base != 0 {
            plan.zeros = true;
        } else {
            plan = Plan { zeros: suggested.zeros, shift: 8, base: plan.base };
        }
    }
}

/// Appends the low halves of all elements, or of those that are no zeros.
fn encode_halves(
    isa: Isa,
    raw: &[u8],
    kind: Kind,
    apart: bool,
    scratch: &mut BlockScratch,
    out: &mut Vec<u8>,
) {
    type Extract = fn(Isa, &[u8], &mut [[u8; 2]], &mut Seen);
    let extracts: &[Extract] = match kind.width {
        2 => &[],
        4 => &[split::w4::low0],
        _ => &[split::w8::low0, split::w8::low1, split::w8::low2],
    };
    let count = raw.len() / kind.width;
    for (extract, halves) in extracts.iter().zip(&mut scratch.halves) {
        if halves.len() < count {
            halves.resize(count, [0; 2]);
        }
        let halves = &mut halves[..count];
        let mut seen = Seen::default();
        extract(isa, raw, halves, &mut seen);
        let masks = &scratch.masks[..count.div_ceil(LANES)];
        let coded = if apart && seen.low != 0 { zeros::compact(isa, masks, halves) } else { count };
        halves::encode(isa, &halves[..coded], seen.low == 0, &mut scratch.planes, &mut scratch.rans, out);
    }
}

/// Counts the symbols of one in seven groups, or of all if there are few, and the zeros among them.
fn count_symbols(groups: &[Group], count: usize, masks: Option<&[u64]>) -> (Histogram, u32) {
    let mut counters = [[0u32; 256]; 4];
    let mut zeros = 0;
    let step = if groups.len() >= 256 { 7 } else { 1 };
    for (index, group) in groups.iter().enumerate().step_by(step) {
        let group = &group[..LANES.min(count - index * LANES)];
        match masks.map_or(u64::MAX, |masks| masks[index]) {
            0 => {}
            u64::MAX => {
                for (i, &symbol) in group.iter().enumerate() {
                    counters[i % 4][usize::from(symbol)] += 1;
                }
            }
            mask => {
                zeros += mask.count_zeros();
                for (lane, &symbol) in group.iter().enumerate() {
                    counters[lane % 4][usize::from(symbol)] += (mask >> lane & 1) as u32;
                }
            }
        }
    }
    (std::array::from_fn(|symbol| counters.iter().map(|counter| counter[symbol]).sum()), zeros)
}
