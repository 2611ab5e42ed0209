//! Encoding a block, once for all instruction sets.

use super::super::contexts::merge;
use super::super::{put_u24, sized};
use super::frequencies::{BITS_A_FREQUENCY, Counts, Frequencies};
use super::groups::{Differences, groups_in_half, load_group};
use super::lanes::{Entries, Lanes, Row, State, Writer};
use super::model::{
    DENSITY, DENSITY_CLASSES, EXPONENT_CLASSES, GROUP_BYTES, Kind, LANES, VALUE_CLASSES, Window,
};
use super::probabilities::{ChangeCounts, put_probabilities};
use super::{BlockScratch, dense, kind};

/// Changed elements in a hundred from which one symbol for every element is better than marking the changed.
const DENSE_PERCENT: usize = 35;

/// Encodes a block of `raw` against `base` of the same length, appending to `out`.
#[inline(always)]
pub(super) fn encode_block<L: Lanes>(
    lanes: L,
    raw: &[u8],
    base: &[u8],
    elements: Kind,
    scratch: &mut BlockScratch,
    out: &mut Vec<u8>,
) {
    if raw == base {
        out.push(kind::SAME);
        return;
    }
    let start = out.len();
    let window = Window::choose(elements, base);
    let done = if is_dense(raw, base) {
        dense::encode(lanes, raw, base, &window, scratch, out)
    } else {
        sparse(lanes, raw, base, &window, scratch, out)
    };
    if done.is_none() || out.len() - start > raw.len() {
        out.truncate(start);
        out.push(kind::RAW);
        out.extend_from_slice(raw);
    }
}

/// Judged on one group in 16.
fn is_dense(raw: &[u8], base: &[u8]) -> bool {
    let (mut elements, mut changed) = (0, 0);
    let groups = raw.chunks(GROUP_BYTES).zip(base.chunks(GROUP_BYTES));
    for (group, base_group) in groups.step_by(16) {
        let pairs = group.as_chunks::<2>().0.iter().zip(base_group.as_chunks::<2>().0);
        elements += group.len() / 2;
        changed += pairs.filter(|(x, b)| x != b).count();
    }
    changed * 100 > elements * DENSE_PERCENT
}

/// Whether all groups of a block are counted. Some of them are enough to know what is frequent.
pub(super) fn is_counted_whole(elements: usize) -> bool {
    const FEW_ELEMENTS: usize = 1 << 16;
    elements < FEW_ELEMENTS
}

/// Whether a group is among those that are counted: one in so many, spread by a multiplication.
#[inline(always)]
pub(super) fn is_counted(group: usize, elements: usize, one_in: u64) -> bool {
    let place = (group as u64).wrapping_mul(2_654_435_761) & 0xffff_ffff;
    is_counted_whole(elements) || place * one_in < 1 << 32
}

/// A changed half of a block.
struct Half<'a> {
    /// Which elements of each group have changed.
    changed: &'a mut [u32],
    /// The exponent classes of the changed elements.
    exponents: &'a mut [u8],
    /// Their value classes.
    classes: &'a mut [u8],
    /// Their zigzags less one.
    values: &'a mut [u8],
    /// How many they are.
    count: usize,
}

#[inline(always)]
fn sparse<L: Lanes>(
    lanes: L,
    raw: &[u8],
    base: &[u8],
    window: &Window,
    scratch: &mut BlockScratch,
    out: &mut Vec<u8>,
) -> Option<()> {
    let elements = raw.len() / 2;
    let half = groups_in_half(elements);
    let room = half * LANES + LANES;
    scratch.changed.resize(scratch.changed.len().max(2 * half), 0);
    let (first_changed, second_changed) = scratch.changed[..2 * half].split_at_mut(half);
    let (first_exponents, second_exponents) = sized(&mut scratch.classes, 2 * room).split_at_mut(room);
    let (first_classes, second_classes) = sized(&mut scratch.value_classes, 2 * room).split_at_mut(room);
    let (first_values, second_values) = sized(&mut scratch.values, 4 * room).split_at_mut(2 * room);
    let mut halves = [
        Half {
            changed: first_changed,
            exponents: first_exponents,
            classes: first_classes,
            values: first_values,
            count: 0,
        },
        Half {
            changed: second_changed,
            exponents: second_exponents,
            classes: second_classes,
            values: second_values,
            count: 0,
        },
    ];
    let mut changes: ChangeCounts = [[[0; 2]; EXPONENT_CLASSES]; DENSITY_CLASSES];
    for (part, start) in halves.iter_mut().zip([0, half]) {
        find_changes(lanes, raw, base, window, start, part, &mut changes)?;
    }

    out.extend_from_slice(&[kind::SPARSE, window.lowest]);
    let probabilities = put_probabilities(&changes, out);

    // Contexts of how far they moved: exponent classes, neighbours joined.
    let mut counts = [[[0u32; VALUE_CLASSES]; EXPONENT_CLASSES]; 2];
    for part in &mut halves {
        classify(lanes, part)?;
        let symbols = part.exponents.iter().zip(&*part.classes).take(part.count);
        // Two counters for each, since equal neighbours would wait for each other.
        for (i, (&exponent, &class)) in symbols.enumerate() {
            counts[i % 2][usize::from(exponent & 15)][usize::from(class & 31)] += 1;
        }
    }
    let counts: [Counts; EXPONENT_CLASSES] =
        std::array::from_fn(|e| std::array::from_fn(|class| counts[0][e][class] + counts[1][e][class]));
    let (group_of, groups) = merge(&counts, BITS_A_FREQUENCY);
    let starts =
        (1..EXPONENT_CLASSES).filter(|&e| group_of[e] != group_of[e - 1]).fold(0u16, |bits, e| bits | 1 << e);
    out.extend_from_slice(&starts.to_le_bytes());
    let mut entries = [0; 16 * VALUE_CLASSES];
    put_frequencies(&groups, &mut entries, out);

    // Backwards: the decoder takes first what is written last.
    let mut words = Writer::new(sized(&mut scratch.words, raw.len() + 2 * GROUP_BYTES));
    let mut states = [initial(lanes); 2];
    let most = halves[0].count.max(halves[1].count);
    for at in (0..most.div_ceil(LANES)).rev().map(|group| group * LANES) {
        for (part, state) in halves.iter().zip(&mut states).rev() {
            if at < part.count {
                let live = if part.count - at >= LANES { u32::MAX } else { (1 << (part.count - at)) - 1 };
                let exponents = lanes.load_index(part.exponents[at..].first_chunk()?);
                let context = lanes.map(&group_of, exponents);
                let class = lanes.load_index(part.classes[at..].first_chunk()?);
                let values = lanes.load(part.values[2 * at..].first_chunk()?);
                encode_values(lanes, state, lanes.mask(live), &entries, context, class, values, &mut words)?;
            }
        }
    }
    let rows: [Row; DENSITY_CLASSES] = probabilities.map(|row| lanes.row(&row));
    let all = lanes.mask(u32::MAX);
    for group in (0..half).rev() {
        for ((part, state), start) in halves.iter().zip(&mut states).zip([0, half]).rev() {
            let before = if group == 0 { 0 } else { part.changed[group - 1] };
            let exponents = lanes.exponent_classes(load_group(lanes, base, start + group), window);
            let row = &rows[usize::from(DENSITY[before.count_ones() as usize])];
            let probability = lanes.look_up(row, exponents);
            let changed = lanes.mask(part.changed[group]);
            let other = lanes.sub(lanes.splat(0), probability);
            let start = lanes.sub(probability, lanes.only(changed, probability));
            lanes.encode(state, all, lanes.select(changed, probability, other), start, &mut words)?;
        }
    }
    finish(lanes, words, states, raw.len(), out)
}

/// Finds the changed elements of a half whose first group is `start`.
#[inline(always)]
fn find_changes<L: Lanes>(
    lanes: L,
    raw: &[u8],
    base: &[u8],
    window: &Window,
    start: usize,
    half: &mut Half<'_>,
    counts: &mut ChangeCounts,
) -> Option<()> {
    let differences = Differences::new(lanes, window);
    let (elements, one) = (raw.len() / 2, lanes.splat(1));
    let mut before = 0u32;
    for group in 0..half.changed.len() {
        let old = load_group(lanes, base, start + group);
        let new = load_group(lanes, raw, start + group);
        let changed = !lanes.bits(lanes.equal(old, new));
        let exponents = lanes.exponent_classes(old, window);
        if changed != 0 {
            let moved = lanes.sub(differences.zigzag(new, old), one);
            lanes.compress(moved, changed, half.values[2 * half.count..].first_chunk_mut()?);
            lanes.compress_index(exponents, changed, half.exponents[half.count..].first_chunk_mut()?);
        }
        if is_counted(group, elements, 4) {
            let density = usize::from(DENSITY[before.count_ones() as usize]);
            lanes.count(exponents, changed, &mut counts[density]);
        }
        half.changed[group] = changed;
        half.count += changed.count_ones() as usize;
        before = changed;
    }
    Some(())
}

/// Finds the value classes of a half.
#[inline(always)]
fn classify<L: Lanes>(lanes: L, half: &mut Half<'_>) -> Option<()> {
    // What is behind the last one is loaded with it.
    half.values[2 * half.count..].first_chunk_mut::<GROUP_BYTES>()?.fill(0);
    half.exponents[half.count..].first_chunk_mut::<LANES>()?.fill(0);
    for at in (0..half.count).step_by(LANES) {
        let classes = lanes.value_classes(lanes.load(half.values[2 * at..].first_chunk()?));
        lanes.store_index(classes, half.classes[at..].first_chunk_mut()?);
    }
    Some(())
}

/// Appends the frequencies of contexts, and prepares their entries.
pub(super) fn put_frequencies(contexts: &[Counts], entries: &mut Entries, out: &mut Vec<u8>) {
    for (counts, entries) in contexts.iter().zip(entries.as_chunks_mut::<VALUE_CLASSES>().0) {
        let frequencies = Frequencies::from_counts(counts);
        frequencies.put(out);
        for (entry, (frequency, start)) in entries.iter_mut().zip(frequencies.intervals()) {
            *entry = u32::from(frequency) << 16 | u32::from(start);
        }
    }
}

/// What all states begin with, and end with in the decoder.
#[inline(always)]
pub(super) fn initial<L: Lanes>(lanes: L) -> State<L::Words> {
    State { high: lanes.splat(1), low: lanes.splat(0) }
}

/// Encodes values in the marked lanes: backwards, so first what their classes leave open.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the state of the loop that it is the body of")]
pub(super) fn encode_values<L: Lanes>(
    lanes: L,
    state: &mut State<L::Words>,
    marked: L::Mask,
    entries: &Entries,
    context: L::Index,
    class: L::Index,
    values: L::Words,
    words: &mut Writer<'_>,
) -> Option<()> {
    lanes.encode_raw(state, marked, class, values, words)?;
    let (frequency, start) = lanes.entries(entries, context, class);
    lanes.encode(state, marked, frequency, start, words)
}

/// Appends the words and the states. `None`: the block is longer than its elements.
#[inline(always)]
pub(super) fn finish<L: Lanes>(
    lanes: L,
    words: Writer<'_>,
    states: [State<L::Words>; 2],
    limit: usize,
    out: &mut Vec<u8>,
) -> Option<()> {
    let bytes = words.into_bytes();
    if bytes.len() > limit {
        return None;
    }
    put_u24(out, bytes.len() / 2);
    out.extend_from_slice(bytes);
    for state in states {
        let (mut low, mut high) = ([0; GROUP_BYTES], [0; GROUP_BYTES]);
        lanes.store(state.low, &mut low);
        lanes.store(state.high, &mut high);
        for (low, high) in low.as_chunks::<2>().0.iter().zip(high.as_chunks::<2>().0) {
            out.extend_from_slice(&[low[0], low[1], high[0], high[1]]);
        }
    }
    Some(())
}
