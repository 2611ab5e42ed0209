//! Means of exponents by row and column, and whether they are worth their bytes.
//!
//! What is averaged is the upper half of an element without its sign, which grows as its logarithm, less half of that
//! of its moment if there are moments. Zeros do not count.

use super::super::dispatch::{Isa, multiversion_for};
use super::super::entropy::{self, Histogram};
use super::predict::{Choice, Grid};
use super::{Kind, TILE, split};

/// Rows and columns that a sample has.
const SAMPLE_ROWS: usize = 32;
const SAMPLE_COLUMNS: usize = 128;

/// Fewer elements are not worth a prediction.
const LEAST_ELEMENTS: usize = 4096;

/// Rows of which columns are averaged, at most.
const COLUMN_ROWS: usize = 256;

/// Bits that a level of a row or column takes, about: levels are close to each other.
const LEVEL_BITS: f64 = 6.0;

/// What a prediction must gain beside its levels, in bits an element. Means of a sample fit the sample better than
/// the rest.
const GAIN_BITS: f64 = 0.05;

/// The upper half of an element.
fn upper(bytes: &[u8], width: usize, index: usize) -> i32 {
    let end = (index + 1) * width;
    i32::from(u16::from_le_bytes([bytes[end - 2], bytes[end - 1]]))
}

/// An element of a sample.
#[derive(Clone, Copy)]
struct Sampled {
    row: usize,
    column: usize,
    magnitude: i32,
    /// Half of the upper half of its moment.
    moment: i32,
}

/// Chooses what to predict by.
pub(super) fn choose(raw: &[u8], kind: Kind, grid: Option<Grid>, moments: Option<&[u8]>) -> Choice {
    let count = raw.len() / kind.width;
    let grid = grid.and_then(|grid| {
        let columns = grid.columns;
        let usable = (16..1 << 24).contains(&columns) && columns <= count / 8;
        usable.then(|| Grid { columns, first: grid.first % columns })
    });
    if count < LEAST_ELEMENTS || grid.is_none() && moments.is_none() {
        return Choice::default();
    }
    let sample = take_sample(raw, kind, grid.unwrap_or(Grid { columns: SAMPLE_COLUMNS, first: 0 }), moments);
    let cost = |choice: &Choice| {
        let levels = choice.grid.map_or(0, |grid| grid.rows(count) + grid.columns);
        let needs = if choice.flags() == 0 { 0.0 } else { GAIN_BITS };
        (bits(&sample, kind, choice) + needs) * count as f64 + levels as f64 * LEVEL_BITS
    };
    let mut best = Choice::default();
    let mut least = cost(&best);
    let candidates = [(grid, false), (None, moments.is_some()), (grid, moments.is_some())];
    for (index, (grid, moments)) in candidates.into_iter().enumerate() {
        if candidates[..index].contains(&(grid, moments)) || grid.is_none() && !moments {
            continue;
        }
        let choice = Choice { grid, moments, mean: mean(&sample, moments) };
        let cost = cost(&choice);
        if cost < least {
            (best, least) = (choice, cost);
        }
    }
    best
}

/// Some columns of some whole rows.
fn take_sample(raw: &[u8], kind: Kind, grid: Grid, moments: Option<&[u8]>) -> Vec<Sampled> {
    let count = raw.len() / kind.width;
    let begin = (grid.columns - grid.first) % grid.columns;
    let rows = (count - begin) / grid.columns;
    let columns = grid.columns.min(SAMPLE_COLUMNS);
    let first_column = (grid.columns - columns) / 2;
    let mut sample = Vec::with_capacity(SAMPLE_ROWS * columns);
    let sampled_rows = rows.min(SAMPLE_ROWS);
    for row in 0..sampled_rows {
        let start = begin + row * rows / sampled_rows * grid.columns + first_column;
        for column in 0..columns {
            let index = start + column;
            let magnitude = upper(raw, kind.width, index) & 0x7fff;
            let moment = moments.map_or(0, |moments| (upper(moments, kind.width, index) & 0x7fff) >> 1);
            if magnitude != 0 {
                sample.push(Sampled { row, column, magnitude, moment });
            }
        }
    }
    sample
}

impl Sampled {
    fn value(self, moments: bool) -> i32 {
        if moments { self.magnitude - self.moment } else { self.magnitude }
    }
}

fn mean(sample: &[Sampled], moments: bool) -> i32 {
    let sum: i32 = sample.iter().map(|element| element.value(moments)).sum();
    sum / i32::try_from(sample.len().max(1)).unwrap_or(i32::MAX)
}

/// Bits an element that the symbols of a sample take with a choice.
fn bits(sample: &[Sampled], kind: Kind, choice: &Choice) -> f64 {
    let mut rows = [(0, 0); SAMPLE_ROWS];
    let mut columns = [(0, 0); SAMPLE_COLUMNS];
    if choice.grid.is_some() {
        for element in sample {
            let value = element.value(choice.moments) - choice.mean;
            for sums in [&mut rows[element.row], &mut columns[element.column]] {
                *sums = (sums.0 + value, sums.1 + 1);
            }
        }
    }
    let mean_of = |(sum, count): (i32, i32)| sum / count.max(1);
    let (rows, columns) = (rows.map(mean_of), columns.map(mean_of));
    let mut histogram: Histogram = [0; 256];
    let shift = kind.fraction_bits.min(8) - 2;
    for element in sample {
        let side = rows[element.row] + columns[element.column];
        // As the symbols: two an octave, in the middle of what they hold.
        let t = (element.value(choice.moments) - choice.mean - side) >> shift;
        histogram[usize::from(t.to_le_bytes()[0])] += 1;
    }
    entropy::bits(&histogram) / sample.len().max(1) as f64
}

/// Sums over the elements of a chunk.
pub(super) struct Survey {
    rows: Vec<(i64, u32)>,
    column_sums: Vec<i32>,
    column_counts: Vec<u32>,
}

impl Survey {
    /// Looks at all rows, and at some of them for the columns.
    pub(super) fn of(isa: Isa, raw: &[u8], kind: Kind, grid: Grid, moments: Option<&[u8]>) -> Self {
        let count = raw.len() / kind.width;
        let rows = grid.rows(count);
        let stride = rows.div_ceil(COLUMN_ROWS);
        let mut survey = Self {
            rows: vec![(0, 0); rows],
            column_sums: vec![0; grid.columns],
            column_counts: vec![0; grid.columns],
        };
        let uppers = match kind.width {
            2 => split::w2::uppers,
            4 => split::w4::uppers,
            _ => split::w8::uppers,
        };
        let (mut magnitudes, mut halves) = ([0; TILE], [0; TILE]);
        let mut at = 0;
        while at < count {
            let place = grid.first + at;
            let (row, column) = (place / grid.columns, place % grid.columns);
            let run = (grid.columns - column).min(count - at).min(TILE);
            let bytes = at * kind.width..(at + run) * kind.width;
            uppers(isa, &raw[bytes.clone()], &mut magnitudes[..run]);
            if let Some(moments) = moments {
                uppers(isa, &moments[bytes], &mut halves[..run]);
            }
            let (magnitudes, halves) = (&magnitudes[..run], &halves[..run]);
            let mut sums = (0, 0);
            add_row(isa, magnitudes, halves, &mut sums);
            let total = &mut survey.rows[row];
            *total = (total.0 + i64::from(sums.0), total.1 + sums.1);
            if row % stride == 0 {
                let columns = column..column + run;
                let (sums, counts) =
                    (&mut survey.column_sums[columns.clone()], &mut survey.column_counts[columns]);
                add_columns(isa, magnitudes, halves, sums, counts);
            }
            at += run;
        }
        survey
    }

    /// The mean of all elements.
    pub(super) fn mean(&self) -> i32 {
        let (sum, count) =
            self.rows.iter().fold((0, 0), |all, row| (all.0 + row.0, all.1 + i64::from(row.1)));
        i32::try_from(sum / count.max(1)).unwrap_or(0)
    }

    /// How far rows and columns are from the mean, in eighths of an octave from 128.
    pub(super) fn levels(&self, kind: Kind, rows: &mut Vec<u8>, columns: &mut Vec<u8>) {
        // Without the sign below it, an octave of the upper half has one bit less.
        let step = kind.fraction_bits - 4;
        let level = |value: i32, mean: i32| {
            let steps = (value - mean + (1 << step >> 1)) >> step;
            (steps + 128).clamp(0, 255).to_le_bytes()[0]
        };
        let mean = self.mean();
        rows.clear();
        rows.extend(self.rows.iter().map(|&(sum, count)| match count {
            0 => 128,
            count => level(i32::try_from(sum / i64::from(count)).unwrap_or(mean), mean),
        }));
        // Around the mean of the rows that were looked at.
        let sum: i64 = self.column_sums.iter().copied().map(i64::from).sum();
        let count: i64 = self.column_counts.iter().copied().map(i64::from).sum();
        let mean = i32::try_from(sum / count.max(1)).unwrap_or(0);
        columns.clear();
        columns.extend(self.column_sums.iter().zip(&self.column_counts).map(|(&sum, &count)| match count {
            0 => 128,
            count => level(sum / count.cast_signed(), mean),
        }));
    }
}

/// What an element counts for; at most 15 bits and a sign, so that a tile of them, or 256 rows, fit in 32 bits.
#[inline(always)]
fn value(magnitude: u16, moment: u16) -> i32 {
    let value = i32::from(magnitude & 0x7fff) - i32::from((moment & 0x7fff) >> 1);
    if magnitude & 0x7fff == 0 { 0 } else { value }
}

/// Whether it counts.
#[inline(always)]
fn counts(magnitude: u16) -> u32 {
    u32::from(magnitude & 0x7fff != 0)
}

multiversion_for! {
    // A loop for each sum: in one, the compiler would make vectors of the two sums instead of vectors of elements.
    fn add_row(magnitudes: &[u16], moments: &[u16], sums: &mut (i32, u32)) {
        for (&magnitude, &moment) in magnitudes.iter().zip(moments) {
            sums.0 = sums.0.wrapping_add(value(magnitude, moment));
        }
        for &magnitude in magnitudes {
            sums.1 = sums.1.wrapping_add(counts(magnitude));
        }
    }
}

multiversion_for! {
    fn add_columns(magnitudes: &[u16], moments: &[u16], sums: &mut [i32], numbers: &mut [u32]) {
        for ((sum, &magnitude), &moment) in sums.iter_mut().zip(magnitudes).zip(moments) {
            *sum = sum.wrapping_add(value(magnitude, moment));
        }
        for (number, &magnitude) in numbers.iter_mut().zip(magnitudes) {
            *number = number.wrapping_add(counts(magnitude));
        }
    }
}
