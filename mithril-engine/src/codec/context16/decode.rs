//! Decoding a block, once for all instruction sets.

use super::super::{DecodeError, Decoded, sized, take, take_u8, take_u24};
use super::frequencies::Frequencies;
use super::groups::{Differences, groups_in_half, load_group, store_group};
use super::lanes::{Lanes, Reader, State};
use super::model::{EXPONENT_CLASSES, GROUP_BYTES, Kind, LANES, Window};
use super::probabilities::take_probabilities;
use super::{BlockScratch, STATES_BYTES, dense, kind};

pub(super) const TOO_FEW_WORDS: DecodeError = DecodeError::Malformed("a block has too few words");

/// Decodes a block from the front of `body`; `base` has the length of `out`.
#[inline(always)]
pub(super) fn decode_block<L: Lanes>(
    lanes: L,
    body: &mut &[u8],
    base: &[u8],
    elements: Kind,
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Decoded<()> {
    match take_u8(body)? {
        kind::RAW => out.copy_from_slice(take(body, out.len())?),
        kind::SAME => out.copy_from_slice(base),
        kind::SPARSE => {
            let window = Window::new(elements, take_u8(body)?);
            sparse(lanes, body, base, &window, scratch, out)?;
        }
        kind::DENSE => {
            let window = Window::new(elements, take_u8(body)?);
            dense::decode(lanes, body, base, &window, scratch, out)?;
        }
        _ => return Err(DecodeError::Malformed("unknown kind of block")),
    }
    Ok(())
}

/// The words of a block, and the states of the two halves.
type Start<'a, L> = (Reader<'a>, State<<L as Lanes>::Words>, State<<L as Lanes>::Words>);

/// Takes the words of a block, and the states of the two halves.
#[inline(always)]
pub(super) fn take_words<'a, L: Lanes>(lanes: L, body: &mut &'a [u8]) -> Decoded<Start<'a, L>> {
    let count = take_u24(body)?;
    let bytes = take(body, 2 * count + STATES_BYTES)?;
    let mut halves = [[[0; GROUP_BYTES]; 2]; 2];
    for (lane, state) in bytes[2 * count..].as_chunks::<4>().0.iter().enumerate() {
        let [low, high] = &mut halves[lane / LANES];
        let at = 2 * (lane % LANES);
        low[at..at + 2].copy_from_slice(&state[..2]);
        high[at..at + 2].copy_from_slice(&state[2..]);
        if state[2..] == [0, 0] {
            return Err(DecodeError::Malformed("a state is too small"));
        }
    }
    let [first, second] = halves.map(|[low, high]| (low, high));
    let first = State { low: lanes.load(&first.0), high: lanes.load(&first.1) };
    let second = State { low: lanes.load(&second.0), high: lanes.load(&second.1) };
    Ok((Reader::new(bytes, count), first, second))
}

/// In the end all words are taken, and the states are what the encoder began with.
#[inline(always)]
pub(super) fn check<L: Lanes>(lanes: L, words: &Reader<'_>, halves: [State<L::Words>; 2]) -> Decoded<()> {
    for state in halves {
        let low = lanes.bits(lanes.equal(state.low, lanes.splat(0)));
        let high = lanes.bits(lanes.equal(state.high, lanes.splat(1)));
        if low & high != u32::MAX {
            return Err(DecodeError::Malformed("the states do not end where they began"));
        }
    }
    if words.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("words are left over")) }
}

#[inline(always)]
fn sparse<L: Lanes>(
    lanes: L,
    body: &mut &[u8],
    base: &[u8],
    window: &Window,
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Decoded<()> {
    let probabilities = take_probabilities(lanes, body)?;
    let starts = u16::from_le_bytes([take_u8(body)?, take_u8(body)?]);
    if starts & 1 != 0 {
        return Err(DecodeError::Malformed("the first exponent class starts no other group"));
    }
    let mut group_of = [0u8; EXPONENT_CLASSES];
    for class in 1..EXPONENT_CLASSES {
        group_of[class] = group_of[class - 1] + u8::from(starts >> class & 1 != 0);
    }
    let contexts = (0..=group_of[15]).map(|_| Frequencies::take(body)).collect::<Decoded<Vec<_>>>()?;
    let (mut words, mut first, mut second) = take_words(lanes, body)?;

    // Which elements have changed, and the exponent classes of those.
    let half = groups_in_half(out.len() / 2);
    let room = half * LANES + LANES;
    scratch.changed.resize(scratch.changed.len().max(2 * half), 0);
    let (first_changed, second_changed) = scratch.changed.split_at_mut(half);
    let second_changed = &mut second_changed[..half];
    let (first_classes, second_classes) = sized(&mut scratch.classes, 2 * room).split_at_mut(room);
    let (mut first_count, mut second_count) = (0, 0);
    let (mut first_before, mut second_before) = (0u32, 0u32);
    for group in 0..half {
        let first_class = lanes.exponent_classes(load_group(lanes, base, group), window);
        let second_class = lanes.exponent_classes(load_group(lanes, base, half + group), window);
        let first_odds = lanes.look_up(&probabilities[first_before.count_ones() as usize], first_class);
        let second_odds = lanes.look_up(&probabilities[second_before.count_ones() as usize], second_class);
        first_before = decode_changes(lanes, &mut first, first_odds);
        second_before = decode_changes(lanes, &mut second, second_odds);
        lanes.refill(&mut first, &mut words).ok_or(TOO_FEW_WORDS)?;
        lanes.refill(&mut second, &mut words).ok_or(TOO_FEW_WORDS)?;
        first_changed[group] = first_before;
        second_changed[group] = second_before;
        if first_before != 0 {
            let target = first_classes[first_count..].first_chunk_mut().ok_or(TOO_FEW_WORDS)?;
            lanes.compress_index(first_class, first_before, target);
            first_count += first_before.count_ones() as usize;
        }
        if second_before != 0 {
            let target = second_classes[second_count..].first_chunk_mut().ok_or(TOO_FEW_WORDS)?;
            lanes.compress_index(second_class, second_before, target);
            second_count += second_before.count_ones() as usize;
        }
    }

    // How far they moved.
    let search = lanes.search(&contexts, &mut scratch.slots);
    let (first_values, second_values) = sized(&mut scratch.values, 4 * room).split_at_mut(2 * room);
    first_classes[first_count..][..LANES].fill(0);
    second_classes[second_count..][..LANES].fill(0);
    let most = first_count.max(second_count);
    for at in (0..most).step_by(LANES) {
        if at < first_count {
            let (classes, values) = (&first_classes[at..], &mut first_values[2 * at..]);
            let left = first_count - at;
            decode_moves(lanes, &search, &group_of, classes, left, &mut first, &mut words, values)?;
        }
        if at < second_count {
            let (classes, values) = (&second_classes[at..], &mut second_values[2 * at..]);
            let left = second_count - at;
            decode_moves(lanes, &search, &group_of, classes, left, &mut second, &mut words, values)?;
        }
    }
    check(lanes, &words, [first, second])?;

    for (changed, values, start) in
        [(&*first_changed, first_values, 0), (second_changed, second_values, half)]
    {
        put_together(lanes, changed, values, start, base, window, out);
    }
    Ok(())
}

/// Which lanes have changed: slots below the probability.
#[inline(always)]
fn decode_changes<L: Lanes>(lanes: L, state: &mut State<L::Words>, probability: L::Words) -> u32 {
    let unchanged = lanes.at_least(state.low, probability);
    let other = lanes.sub(lanes.splat(0), probability);
    let offset = lanes.sub(state.low, lanes.only(unchanged, probability));
    lanes.step(state, lanes.select(unchanged, other, probability), offset);
    !lanes.bits(unchanged)
}

/// Decodes the values of the next 32 changed elements of a half, or of the `left` that there are.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the state of the loop that it is the body of")]
fn decode_moves<L: Lanes>(
    lanes: L,
    search: &L::Search<'_>,
    group_of: &[u8; EXPONENT_CLASSES],
    classes: &[u8],
    left: usize,
    state: &mut State<L::Words>,
    words: &mut Reader<'_>,
    values: &mut [u8],
) -> Decoded<()> {
    let (Some(classes), Some(values)) = (classes.first_chunk(), values.first_chunk_mut()) else {
        return Err(TOO_FEW_WORDS);
    };
    let one = lanes.splat(1);
    let context = lanes.map(group_of, lanes.load_index(classes));
    let before = *state;
    let found = lanes.find(search, context, state.low);
    lanes.step(state, found.frequency, found.offset);
    if left >= LANES {
        lanes.refill(state, words).ok_or(TOO_FEW_WORDS)?;
        lanes.store(lanes.add(lanes.take_raw(state, found.class), one), values);
    } else {
        let live = lanes.mask((1 << left) - 1);
        keep(lanes, live, state, before);
        lanes.refill(state, words).ok_or(TOO_FEW_WORDS)?;
        let before = *state;
        lanes.store(lanes.add(lanes.take_raw(state, found.class), one), values);
        keep(lanes, live, state, before);
    }
    lanes.refill(state, words).ok_or(TOO_FEW_WORDS)
}

/// Takes back what was done to lanes that are not live.
#[inline(always)]
fn keep<L: Lanes>(lanes: L, live: L::Mask, state: &mut State<L::Words>, before: State<L::Words>) {
    state.low = lanes.select(live, state.low, before.low);
    state.high = lanes.select(live, state.high, before.high);
}

/// Adds the changes of a half to its base. `values` has room for a group behind the last one.
#[inline(always)]
fn put_together<L: Lanes>(
    lanes: L,
    changed: &[u32],
    values: &[u8],
    start: usize,
    base: &[u8],
    window: &Window,
    out: &mut [u8],
) {
    let differences = Differences::new(lanes, window);
    let mut used = 0;
    for (&marked, group) in changed.iter().zip(start..) {
        let old = load_group(lanes, base, group);
        if marked == 0 {
            store_group(lanes, old, out, group);
            continue;
        }
        let Some(next) = values[used..].first_chunk() else { return };
        store_group(lanes, differences.add(lanes.expand(next, marked), old), out, group);
        used += 2 * marked.count_ones() as usize;
    }
}
