//! Counting the differences of a sample, and choosing classes for them. Integers only, so that every machine chooses
//! the same.

use super::groups::LANES;
use super::model::{Differences, EXPONENTS, HALF_OCTAVES, Model};
use super::number::raw_bits;
use crate::codec::entropy::{LOG2_FRACTION, information};

const LANES_U32: u32 = 64;
const HALVES: usize = HALF_OCTAVES as usize;

/// Classes that there can be: half-octaves and offsets are below 64 each.
const CLASSES: usize = 2 * HALVES;

/// Raw bits of the half-octaves.
const RAW_BITS: [u32; HALVES] = {
    let mut bits = [0; HALVES];
    let mut half = 0;
    while half < HALF_OCTAVES {
        bits[half as usize] = raw_bits(half) as u32;
        half += 1;
    }
    bits
};

/// Bits of an element that is no class.
const ESCAPE_BITS: u64 = 31;

/// Differences of a sample by exponent, direction and half-octave.
#[derive(Debug)]
pub(super) struct Tally {
    counts: Vec<[[u32; HALVES]; 2]>,
    /// Those with another sign than their base.
    flipped: Vec<[[u32; HALVES]; 2]>,
    flips: u32,
    elements: u32,
}

/// Classes that were chosen.
pub(super) struct Classes {
    pub(super) flips: bool,
    pub(super) offsets: [u8; EXPONENTS],
    pub(super) lowest: u8,
    pub(super) count: u8,
    /// Whether elements without a difference have a symbol.
    pub(super) zeros: bool,
    /// What the sample takes, in units of 2^-16 bits.
    pub(super) cost: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let none = vec![[[0; HALVES]; 2]; EXPONENTS];
        Self { counts: none.clone(), flipped: none, flips: 0, elements: 0 }
    }
}

impl Tally {
    pub(super) fn clear(&mut self) {
        self.counts.fill([[0; HALVES]; 2]);
        if self.flips > 0 {
            self.flipped.fill([[0; HALVES]; 2]);
        }
        (self.flips, self.elements) = (0, 0);
    }

    /// Counts a group, whose exponents have these places.
    pub(super) fn add(&mut self, differences: &Differences, places: &[u8; LANES]) {
        let flips: u32 = differences.flipped.iter().map(|&flipped| u32::from(flipped)).sum();
        for (lane, &place) in places.iter().enumerate() {
            let place = usize::from(place) % EXPONENTS;
            let down = usize::from(differences.down[lane] & 1);
            let half = usize::from(differences.half_octaves[lane]) % HALVES;
            if flips == 0 || differences.flipped[lane] == 0 {
                self.counts[place][down][half] += 1;
            } else {
                self.flipped[place][down][half] += 1;
            }
        }
        self.flips += flips;
        self.elements += LANES_U32;
    }

    /// Chooses the classes that cost least.
    pub(super) fn choose(&mut self) -> Classes {
        // Few flips are escapes.
        const FEW: u32 = 256;
        let without = self.choose_for(false);
        if self.flips * FEW < self.elements {
            return without;
        }
        for (count, more) in self.counts.iter_mut().zip(&self.flipped) {
            for (count, more) in count.as_flattened_mut().iter_mut().zip(more.as_flattened()) {
                *count += more;
            }
        }
        let mut with = self.choose_for(true);
        let rest = self.elements - self.flips;
        with.cost += information(self.elements) - information(self.flips) - information(rest);
        if with.cost < without.cost { with } else { without }
    }

    fn choose_for(&self, flips: bool) -> Classes {
        let zeros: u32 = self.counts.iter().map(|count| count[0][0]).sum();
        let escapes = if flips { 0 } else { self.flips };
        // A symbol takes a slot of 256 at least.
        let apart = zeros * 256 >= self.elements;
        let offsets = self.offsets();
        let most = usize::from(Model::most_classes(flips));

        // By class: how many, up to it, and their raw bits.
        let mut counts = [[0u32; 2]; CLASSES];
        let mut raw = [0u32; CLASSES];
        // By exponent that occurs: its offset, and how many up to each half-octave.
        let mut sums: Vec<(usize, [u32; HALVES])> = Vec::with_capacity(EXPONENTS);
        for (count, &offset) in self.counts.iter().zip(&offsets) {
            if *count.as_flattened() == [0; 2 * HALVES] {
                continue;
            }
            let (offset, mut sum, mut all) = (usize::from(offset), [0; HALVES], 0);
            for half in usize::from(apart)..HALVES {
                let (up, down) = (count[0][half], count[1][half]);
                let class = &mut counts[half + offset];
                (class[0], class[1]) = (class[0] + up, class[1] + down);
                raw[half + offset] += (up + down) * RAW_BITS[half];
                all += up + down;
                sum[half] = all;
            }
            sums.push((offset, sum));
        }
        // The greatest few are escapes.
        let (mut end, mut above) = (CLASSES, 0);
        while end > 1 {
            let [up, down] = counts[end - 1];
            if above + up + down > self.elements / 4000 + 1 {
                break;
            }
            above += up + down;
            end -= 1;
        }
        let escapes = escapes + above;
        let mut parts_above = information(escapes) + if apart { information(zeros) } else { 0 };
        let mut cost_above = (u64::from(escapes) * ESCAPE_BITS) << LOG2_FRACTION;
        let all = information(self.elements);
        // How many are in the lowest class.
        let mut merged =
            counts[..end].iter().fold([0, 0], |sum, count| [sum[0] + count[0], sum[1] + count[1]]);
        let mut best = (u64::MAX, end - 1);
        for lowest in (end.saturating_sub(most)..end).rev() {
            let mut merged_raw = 0;
            for (offset, sum) in &sums {
                let halves = lowest.wrapping_sub(*offset);
                if halves < CLASSES {
                    let count = sum[halves.min(HALVES - 1)];
                    merged_raw += u64::from(count) * (halves as u64 / 2).min(ESCAPE_BITS);
                }
            }
            let parts = parts_above + information(merged[0]) + information(merged[1]);
            let cost = (all + cost_above + (merged_raw << LOG2_FRACTION)).saturating_sub(parts);
            // Fewer classes are better if they cost the same.
            if cost + u64::from(self.elements) * 130 < best.0 {
                best = (cost, lowest);
            }
            // From now on it is a class of its own. It costs the same whatever is below it.
            cost_above += u64::from(raw[lowest]) << LOG2_FRACTION;
            for (merged, count) in merged.iter_mut().zip(counts[lowest]) {
                *merged -= count;
                parts_above += information(count);
                if count > 0 {
                    // What the slot takes from the others beyond what it needs: log2(e) bits of each.
                    cost_above += u64::from((self.elements / 256).saturating_sub(count)) * 94548;
                }
            }
        }
        let (cost, lowest) = best;
        Classes {
            flips,
            offsets,
            lowest: lowest.to_le_bytes()[0],
            count: (end - lowest).to_le_bytes()[0],
            zeros: apart,
            cost,
        }
    }

    /// What brings the means of all exponents to the greatest of them. Exponents that hardly occur have the offset of the
    /// next one.
    fn offsets(&self) -> [u8; EXPONENTS] {
        const FEW: u32 = 8;
        let mut means = [None; EXPONENTS];
        for (mean, counts) in means.iter_mut().zip(&self.counts) {
            let (mut all, mut sum) = (0, 0);
            for counts in counts {
                for (half, count) in (0u32..).zip(counts).skip(1) {
                    all += count;
                    sum += half * count;
                }
            }
            *mean = if all < FEW { None } else { Some((sum << 6) / all) };
        }
        let greatest = means.iter().flatten().max().copied().unwrap_or(0);
        let mut offsets = [0; EXPONENTS];
        let mut last = means.iter().rev().flatten().next().copied().unwrap_or(0);
        for (offset, mean) in offsets.iter_mut().zip(means).rev() {
            last = mean.unwrap_or(last);
            *offset = ((greatest - last + 32) >> 6).min(63).to_le_bytes()[0];
        }
        offsets
    }
}
