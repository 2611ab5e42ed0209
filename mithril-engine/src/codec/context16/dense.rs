//! Blocks where most elements have changed: one symbol for each.

use super::super::contexts::merge;
use super::super::entropy::{LOG2_FRACTION, information};
use super::super::{Decoded, sized, take_u8};
use super::decode::{TOO_FEW_WORDS, check, take_words};
use super::encode::{encode_values, finish, initial, is_counted, is_counted_whole, put_frequencies};
use super::frequencies::{BITS_A_FREQUENCY, Frequencies};
use super::groups::{Differences, groups_in_half, load_group, store_group};
use super::lanes::{Found, Lanes, Reader, State, Writer};
use super::model::{
    DENSITY, DENSITY_CLASSES, EXPONENT_CLASSES, GROUP_BYTES, LANES, VALUE_CLASSES, Window, value_class,
};
use super::probabilities::ChangeCounts;
use super::{BlockScratch, kind};

/// The context of each exponent class, by density class.
type ContextMap = [[u8; EXPONENT_CLASSES]; DENSITY_CLASSES];

/// Encodes a block. `None`: it would be longer than its elements.
#[inline(always)]
pub(super) fn encode<L: Lanes>(
    lanes: L,
    raw: &[u8],
    base: &[u8],
    window: &Window,
    scratch: &mut BlockScratch,
    out: &mut Vec<u8>,
) -> Option<()> {
    let elements = raw.len() / 2;
    let half = groups_in_half(elements);
    let groups = 2 * half;
    let exponents = sized(&mut scratch.classes, groups * LANES);
    let classes = sized(&mut scratch.value_classes, groups * LANES);
    let values = sized(&mut scratch.values, groups * GROUP_BYTES);
    scratch.changed.resize(scratch.changed.len().max(groups), 0);
    let densities = &mut scratch.changed[..groups];
    let differences = Differences::new(lanes, window);
    let mut changes: ChangeCounts = [[[0; 2]; EXPONENT_CLASSES]; DENSITY_CLASSES];
    let mut greatest = lanes.splat(0);
    for start in [0, half] {
        let mut density = 0u8;
        for group in start..start + half {
            let old = load_group(lanes, base, group);
            let zigzag = differences.zigzag(load_group(lanes, raw, group), old);
            let changed = !lanes.bits(lanes.equal(zigzag, lanes.splat(0)));
            let exponent = lanes.exponent_classes(old, window);
            lanes.store_index(exponent, exponents[group * LANES..].first_chunk_mut()?);
            lanes.store_index(lanes.value_classes(zigzag), classes[group * LANES..].first_chunk_mut()?);
            lanes.store(zigzag, values[group * GROUP_BYTES..].first_chunk_mut()?);
            greatest = lanes.max(greatest, zigzag);
            if is_counted(group - start, elements, 8) {
                lanes.count(exponent, changed, &mut changes[usize::from(density)]);
            }
            densities[group] = u32::from(density);
            density = DENSITY[changed.count_ones() as usize];
        }
    }

    let map = choose_contexts(&changes, window);
    // A sample of what the contexts have; all of a short block. It stands for as many as there are.
    let sampled = !is_counted_whole(elements);
    let weight = if sampled { 4 } else { 1 };
    let mut counts = [[0u32; VALUE_CLASSES]; 16];
    for group in 0..groups {
        let row = &map[densities[group] as usize & (DENSITY_CLASSES - 1)];
        let symbols: &mut [u8; LANES] = exponents[group * LANES..].first_chunk_mut()?;
        lanes.store_index(lanes.map(row, lanes.load_index(symbols)), symbols);
        if is_counted(group / 2, elements, 4) {
            let classes: &[u8; LANES] = classes[group * LANES..].first_chunk()?;
            for (&context, &class) in symbols.iter().zip(classes) {
                counts[usize::from(context & 15)][usize::from(class & 31)] += weight;
            }
        }
    }
    let (group_of, mut contexts) = merge(&counts, BITS_A_FREQUENCY);
    if sampled {
        // Every class that may occur gets a frequency.
        let mut stored = [0; GROUP_BYTES];
        lanes.store(greatest, &mut stored);
        let values = stored.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        let last = usize::from(value_class(values.max().unwrap_or(0)));
        for count in contexts.iter_mut().flat_map(|context| &mut context[..=last]) {
            *count = (*count).max(1);
        }
    }
    out.extend_from_slice(&[kind::DENSE, window.lowest]);
    for pair in map.as_flattened().as_chunks::<2>().0 {
        let [low, high] = pair.map(|context| group_of[usize::from(context & 15)]);
        out.push(low | high << 4);
    }
    let mut entries = [0; 16 * VALUE_CLASSES];
    put_frequencies(&contexts, &mut entries, out);

    let mut words = Writer::new(sized(&mut scratch.words, raw.len() + 2 * GROUP_BYTES));
    let mut states = [initial(lanes); 2];
    let all = lanes.mask(u32::MAX);
    for group in (0..half).rev() {
        for (state, start) in states.iter_mut().zip([0, half]).rev() {
            let at = (start + group) * LANES;
            let context = lanes.map(&group_of, lanes.load_index(exponents[at..].first_chunk()?));
            let class = lanes.load_index(classes[at..].first_chunk()?);
            let values = lanes.load(values[2 * at..].first_chunk()?);
            encode_values(lanes, state, all, &entries, context, class, values, &mut words)?;
        }
    }
    finish(lanes, words, states, raw.len(), out)
}

/// Decodes a block from the front of `body`, behind its lowest exponent.
#[inline(always)]
pub(super) fn decode<L: Lanes>(
    lanes: L,
    body: &mut &[u8],
    base: &[u8],
    window: &Window,
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Decoded<()> {
    let mut contexts_of = [[0u8; EXPONENT_CLASSES]; DENSITY_CLASSES];
    let mut last = 0;
    for row in &mut contexts_of {
        for pair in row.as_chunks_mut::<2>().0 {
            let both = take_u8(body)?;
            *pair = [both & 15, both >> 4];
            last = last.max(both & 15).max(both >> 4);
        }
    }
    let contexts = (0..=last).map(|_| Frequencies::take(body)).collect::<Decoded<Vec<_>>>()?;
    let search = lanes.search(&contexts, &mut scratch.slots);
    let (mut words, mut first, mut second) = take_words(lanes, body)?;
    let half = groups_in_half(out.len() / 2);
    let differences = Differences::new(lanes, window);
    let rows = DENSITY.map(|class| contexts_of[usize::from(class)]);
    let (mut first_changes, mut second_changes) = (0, 0);
    for group in 0..half {
        let first_base = load_group(lanes, base, group);
        let second_base = load_group(lanes, base, half + group);
        let first_context = lanes.map(&rows[first_changes], lanes.exponent_classes(first_base, window));
        let second_context = lanes.map(&rows[second_changes], lanes.exponent_classes(second_base, window));
        let found = lanes.find(&search, first_context, first.low);
        first_changes = found.changes;
        let value = decode_value(lanes, &found, &mut first, &mut words).ok_or(TOO_FEW_WORDS)?;
        store_group(lanes, differences.add(value, first_base), out, group);
        let found = lanes.find(&search, second_context, second.low);
        second_changes = found.changes;
        let value = decode_value(lanes, &found, &mut second, &mut words).ok_or(TOO_FEW_WORDS)?;
        store_group(lanes, differences.add(value, second_base), out, half + group);
    }
    check(lanes, &words, [first, second])
}

/// The values of classes that were found, and the step.
#[inline(always)]
fn decode_value<L: Lanes>(
    lanes: L,
    found: &Found<L>,
    state: &mut State<L::Words>,
    words: &mut Reader<'_>,
) -> Option<L::Words> {
    lanes.step(state, found.frequency, found.offset);
    lanes.refill(state, words)?;
    let value = lanes.take_raw(state, found.class);
    lanes.refill(state, words)?;
    Some(value)
}

/// One split of the density classes where that pays, and then the exponent classes in 8 contexts; otherwise all of them in
/// their own. Integers have no exponent: their contexts are the density classes.
fn choose_contexts(counts: &ChangeCounts, window: &Window) -> ContextMap {
    if window.mask == 0 {
        return std::array::from_fn(|density| [density.to_le_bytes()[0]; EXPONENT_CLASSES]);
    }
    let split = best_split(counts);
    let mut context_of: [u8; EXPONENT_CLASSES] = std::array::from_fn(|exponent| exponent.to_le_bytes()[0]);
    if split > 0 {
        let elements = |exponent: usize| counts.iter().map(|row| u64::from(row[exponent][0])).sum::<u64>();
        let mut sizes: Vec<u64> = (0..EXPONENT_CLASSES).map(elements).collect();
        while sizes.len() > 8 {
            let smallest = (1..sizes.len() - 1).fold(0, |best, i| {
                if sizes[i] + sizes[i + 1] < sizes[best] + sizes[best + 1] { i } else { best }
            });
            sizes[smallest] += sizes.remove(smallest + 1);
            for context in context_of.iter_mut().filter(|context| usize::from(**context) > smallest) {
                *context -= 1;
            }
        }
    }
    std::array::from_fn(|density| {
        let dense = if split > 0 && density >= split { 8 } else { 0 };
        context_of.map(|context| context + dense)
    })
}

/// The density class from which on other contexts are used, or 0 for none: whatever predicts best whether an element has
/// changed.
fn best_split(counts: &ChangeCounts) -> usize {
    /// Bits that a split must gain.
    const LEAST_GAIN: u64 = 64;
    let mut best = (0, u64::MAX);
    for split in 0..DENSITY_CLASSES {
        let mut cost = 0;
        for exponent in 0..EXPONENT_CLASSES {
            for rows in [&counts[..split], &counts[split..]] {
                let [all, changed] = rows
                    .iter()
                    .fold([0; 2], |sum, row| [sum[0] + row[exponent][0], sum[1] + row[exponent][1]]);
                let parts = information(changed) + information(all - changed);
                cost += information(all).saturating_sub(parts);
            }
        }
        if split > 0 {
            cost += LEAST_GAIN << LOG2_FRACTION;
        }
        if cost < best.1 {
            best = (split, cost);
        }
    }
    best.0
}
