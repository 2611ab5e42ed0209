//! Classes and steps of the coder.

use super::super::frequencies::TOTAL_BITS;
use super::super::lanes::{Entries, Found, Lanes, Reader, SLOTS, State, Writer};
use super::super::model::{FIRST_VALUE, LANES, RAW_BITS, VALUE_CLASSES};
use super::{Bytes, Portable, Words};

#[inline(always)]
fn state_of(state: &State<Words>, lane: usize) -> u32 {
    u32::from(state.high[lane]) << 16 | u32::from(state.low[lane])
}

#[inline(always)]
fn set_state(state: &mut State<Words>, lane: usize, x: u32) {
    let [a, b, c, d] = x.to_le_bytes();
    (state.low[lane], state.high[lane]) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
}

#[inline(always)]
pub(super) fn entries(entries: &Entries, context: Bytes, class: Bytes) -> (Words, Words) {
    let (mut frequencies, mut starts) = ([0; LANES], [0; LANES]);
    for lane in 0..LANES {
        let entry = entries[usize::from(context[lane] & 15) * VALUE_CLASSES + usize::from(class[lane] & 31)];
        let [a, b, c, d] = entry.to_le_bytes();
        (starts[lane], frequencies[lane]) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    }
    (frequencies, starts)
}

#[inline(always)]
pub(super) fn encode(
    lanes: Portable,
    state: &mut State<Words>,
    marked: Words,
    frequency: Words,
    start: Words,
    words: &mut Writer<'_>,
) -> Option<()> {
    let full = lanes.and(marked, lanes.at_least(state.high, frequency));
    emit(lanes, state, full, words)?;
    for lane in 0..LANES {
        if marked[lane] != 0 {
            let (x, frequency) = (state_of(state, lane), u32::from(frequency[lane]).max(1));
            let (quotient, rest) = (x / frequency, x % frequency);
            set_state(state, lane, (quotient << 16) + rest + u32::from(start[lane]));
        }
    }
    Some(())
}

#[inline(always)]
pub(super) fn encode_raw(
    lanes: Portable,
    state: &mut State<Words>,
    marked: Words,
    class: Bytes,
    values: Words,
    words: &mut Writer<'_>,
) -> Option<()> {
    let mut full = [0; LANES];
    for lane in 0..LANES {
        let bits = RAW_BITS[usize::from(class[lane] & 31)];
        let overflows = u64::from(state_of(state, lane)) << bits > u64::from(u32::MAX);
        full[lane] = marked[lane] & u16::from(overflows).wrapping_neg();
    }
    emit(lanes, state, full, words)?;
    for lane in 0..LANES {
        if marked[lane] != 0 {
            let class = usize::from(class[lane] & 31);
            let raw = values[lane].wrapping_sub(FIRST_VALUE[class]);
            let x = state_of(state, lane) << RAW_BITS[class] | u32::from(raw);
            set_state(state, lane, x);
        }
    }
    Some(())
}

#[inline(always)]
pub(super) fn find(search: &[u32; SLOTS], context: Bytes, slot: Words) -> Found<Portable> {
    let mut found: Found<Portable> =
        Found { class: [0; LANES], frequency: [0; LANES], offset: [0; LANES], changes: 0 };
    for lane in 0..LANES {
        let slot = slot[lane];
        let entry = search[usize::from(context[lane] & 15) << TOTAL_BITS | usize::from(slot >> 4)];
        let [a, b, c, d] = entry.to_le_bytes();
        let (low, high) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        found.frequency[lane] = high & !15;
        found.offset[lane] = slot.wrapping_sub(low & !15);
        found.class[lane] = c & 15 | (a & 1) << 4;
        found.changes += usize::from(found.class[lane] != 0);
    }
    found
}

#[inline(always)]
pub(super) fn step(state: &mut State<Words>, frequency: Words, offset: Words) {
    for lane in 0..LANES {
        let x = u32::from(frequency[lane]) * u32::from(state.high[lane]) + u32::from(offset[lane]);
        set_state(state, lane, x);
    }
}

#[inline(always)]
pub(super) fn take_raw(state: &mut State<Words>, class: Bytes) -> Words {
    let mut values = [0; LANES];
    for lane in 0..LANES {
        let class = usize::from(class[lane] & 31);
        let bits = RAW_BITS[class];
        values[lane] = FIRST_VALUE[class] + (state.low[lane] & ((1 << bits) - 1));
        set_state(state, lane, state_of(state, lane) >> bits);
    }
    values
}

#[inline(always)]
pub(super) fn refill(lanes: Portable, state: &mut State<Words>, words: &mut Reader<'_>) -> Option<()> {
    let empty = lanes.equal(state.high, [0; LANES]);
    let mut count = 0;
    for word in empty {
        count += usize::from(word & 1);
    }
    let taken = words.take(count)?.as_chunks::<2>().0;
    let mut next = 0;
    for (lane, empty) in empty.into_iter().enumerate() {
        if empty != 0 {
            state.high[lane] = state.low[lane];
            state.low[lane] = u16::from_le_bytes(taken[next % LANES]);
            next += 1;
        }
    }
    Some(())
}

/// Writes the lower halves of the marked states and moves the upper ones down.
#[inline(always)]
fn emit(lanes: Portable, state: &mut State<Words>, marked: Words, words: &mut Writer<'_>) -> Option<()> {
    let bits = lanes.bits(marked);
    lanes.compress(state.low, bits, words.room()?);
    words.advance(bits.count_ones() as usize);
    state.low = lanes.select(marked, state.high, state.low);
    state.high = lanes.select(marked, [0; LANES], state.high);
    Some(())
}
