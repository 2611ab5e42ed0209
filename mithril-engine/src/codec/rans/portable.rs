//! The coder in plain Rust: what every other implementation must agree with to the byte.

use super::{
    Decoder, ESCAPE, Encoder, Group, LANES, LEAST_STATE, Slots, UNFIT, ZERO, contexts, join_states,
    part_states,
};
use crate::codec::Decoded;

pub(super) fn encode(encoder: &mut Encoder<'_>, groups: &[Group], nonzero: Option<&[u64]>) {
    let table = encoder.table;
    let (codes, zero_code) = table.codes();
    let mut states = join_states(&encoder.states);
    for (index, group) in groups.iter().enumerate().rev() {
        let mask = nonzero.map_or(u64::MAX, |masks| masks[index]);
        if mask == 0 {
            continue;
        }
        let mut escapes = 0;
        for lane in (0..LANES).rev() {
            let is_zero = mask >> lane & 1 == 0;
            let symbol = usize::from(group[lane]);
            let code = if is_zero { zero_code } else { codes[symbol] };
            escapes |= u64::from(!is_zero && table.rank[symbol] == table.symbols) << lane;
            states[lane] = put(states[lane], code, encoder.stream, &mut encoder.stream_start);
        }
        encoder.put_escapes(group, escapes);
    }
    encoder.states = part_states(&states);
}

/// The state after a symbol with this code. If it was too great, its lower byte goes to the stream, which is filled
/// downwards to `start`.
#[inline(always)]
fn put(state: u16, code: u32, stream: &mut [u8], start: &mut usize) -> u16 {
    let [reciprocal_low, reciprocal_high, frequency, first] = code.to_le_bytes();
    let (frequency, first) = (u32::from(frequency), u32::from(first));
    let state = u32::from(state);
    let shrinks = state >= frequency << 8;
    stream[*start - 1] = state.to_le_bytes()[0];
    *start -= usize::from(shrinks);
    let state = state >> (8 * u32::from(shrinks));
    let (quotient, remainder) =
        divide(state, frequency, u32::from(u16::from_le_bytes([reciprocal_low, reciprocal_high])));
    // The quotient is at most 255, and the rest ends below 256.
    u16::from_le_bytes([(remainder + first).to_le_bytes()[0], quotient.to_le_bytes()[0]])
}

/// Encodes `groups` in the contexts of their levels.
pub(super) fn encode_contexts(encoder: &mut contexts::Encoder<'_>, groups: &[Group], levels: &[u8]) {
    let codes = encoder.contexts.codes();
    let mut states = join_states(&encoder.states);
    for (group, &level) in groups.iter().zip(levels).rev() {
        let codes = &codes[usize::from(encoder.contexts.of_level[usize::from(level)])];
        for (state, &symbol) in states.iter_mut().zip(group).rev() {
            *state = put(
                *state,
                codes[usize::from(symbol) % contexts::SYMBOLS],
                encoder.stream,
                &mut encoder.start,
            );
        }
    }
    encoder.states = part_states(&states);
}

/// Division by a frequency of at most 255 by its reciprocal `65535 / frequency`: the estimate is right or one too
/// small for every state.
#[inline(always)]
fn divide(state: u32, frequency: u32, reciprocal: u32) -> (u32, u32) {
    let quotient = (state * reciprocal) >> 16;
    let remainder = state - quotient * frequency;
    // Without a branch: it could not be predicted.
    let more = u32::from(remainder >= frequency);
    (quotient + more, remainder - frequency * more)
}

pub(super) fn decode(
    decoder: &mut Decoder<'_>,
    groups: &mut [Group],
    mut nonzero: Option<&mut [u64]>,
) -> Decoded<()> {
    let mut states = join_states(&decoder.states);
    for (index, group) in groups.iter_mut().enumerate() {
        if nonzero.as_deref().is_some_and(|masks| masks[index] == 0) {
            continue;
        }
        // As many as a group can want.
        let bytes: &Group = decoder.stream.get(decoder.next..).and_then(<[u8]>::first_chunk).ok_or(UNFIT)?;
        let (entries, taken) = step(&mut states, &decoder.slots, bytes, group);
        let flags = entries.iter().fold(0, |flags, entry| flags | entry);
        decoder.next += taken;
        let lanes_with = |flag: u32| {
            entries
                .iter()
                .enumerate()
                .fold(0u64, |mask, (lane, entry)| mask | u64::from(entry & flag != 0) << lane)
        };
        if flags & ESCAPE != 0 {
            decoder.put_escapes(group, lanes_with(ESCAPE))?;
        }
        if let Some(masks) = nonzero.as_deref_mut() {
            masks[index] = if flags & ZERO == 0 { u64::MAX } else { !lanes_with(ZERO) };
        }
    }
    decoder.states = part_states(&states);
    Ok(())
}

/// Decodes a group. Returns what the slots say, and how many bytes were taken of those that a group can want.
#[inline(always)]
fn step(states: &mut [u16; LANES], slots: &Slots, bytes: &Group, group: &mut Group) -> ([u32; LANES], usize) {
    let mut taken = 0;
    let mut entries = [0u32; LANES];
    for ((entry, state), symbol) in entries.iter_mut().zip(states).zip(group) {
        *entry = slots[usize::from(state.to_le_bytes()[0])];
        let [frequency, offset, value, _] = entry.to_le_bytes();
        *symbol = value;
        let stepped = u16::from(frequency) * (*state >> 8) + u16::from(offset);
        let refill = stepped < LEAST_STATE;
        let filled = stepped << 8 | u16::from(bytes[taken & (LANES - 1)]);
        *state = if refill { filled } else { stepped };
        taken += usize::from(refill);
    }
    (entries, taken)
}

/// Decodes all of `groups` in contexts.
pub(super) fn decode_contexts(decoder: &mut contexts::Decoder<'_>, groups: &mut [Group]) -> Decoded<()> {
    let slots = decoder.contexts.slots();
    let mut states = join_states(&decoder.states);
    let mut mean = contexts::Mean::default();
    for group in groups {
        let slots = &slots[usize::from(decoder.contexts.of_level[usize::from(mean.level())])];
        let bytes: &Group = decoder.stream.get(decoder.next..).and_then(<[u8]>::first_chunk).ok_or(UNFIT)?;
        decoder.next += step(&mut states, slots, bytes, group).1;
        mean.add(contexts::sum(group));
    }
    decoder.states = part_states(&states);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reciprocal_divides_every_state() {
        for frequency in 1..=255u32 {
            let reciprocal = 65535 / frequency;
            for state in 0..frequency << 8 {
                assert_eq!(divide(state, frequency, reciprocal), (state / frequency, state % frequency));
            }
        }
    }
}
