//! Predictions of exponents: by the mean of an element's row and column in its tensor, by second moments, or both.
//!
//! Adam's moments are of one size along rows and columns, and the first are about the root of the second. A
//! prediction is in units of `T`, see [`block`](super::block):
//!
//! ```text
//! grid        columns u24, first u24, step u8 (log2 of an eighth of an octave), rows as a plane, columns as a plane
//! prediction  (row + column) << step, plus the upper 16 bits of the moment without the highest and the lowest
//! ```

use super::super::dispatch::{Isa, multiversion_for};
use super::super::rans::{self, RansScratch};
use super::super::{DecodeError, Decoded, put_u24, sized, take_u8, take_u24};
use super::survey::Survey;
use super::{FLAG_GRID, FLAG_MOMENTS, Kind, TILE, split};

/// How the elements of a chunk lie in their tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Elements of a row.
    pub columns: usize,
    /// The index of the chunk's first element in its tensor, or in its row.
    pub first: usize,
}

/// Buffers that are kept between calls.
#[derive(Debug, Default)]
pub(super) struct PredictScratch {
    rows: Vec<u8>,
    columns: Vec<u8>,
}

/// What is predicted by.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::codec) struct Choice {
    pub(super) grid: Option<Grid>,
    pub(super) moments: bool,
    /// The mean of what is predicted, see [`Survey`].
    pub(super) mean: i32,
}

impl Choice {
    pub(super) fn flags(self) -> u8 {
        (if self.grid.is_some() { FLAG_GRID } else { 0 }) | (if self.moments { FLAG_MOMENTS } else { 0 })
    }

    /// Whether anything is predicted.
    pub(in crate::codec) fn is_any(self) -> bool {
        self.flags() != 0
    }

    /// Makes the predictor, and appends what the decoder needs to know of it.
    #[allow(clippy::too_many_arguments, reason = "two kinds of scratch")]
    pub(super) fn predictor<'a>(
        self,
        isa: Isa,
        raw: &[u8],
        kind: Kind,
        moments: Option<&'a [u8]>,
        scratch: &'a mut PredictScratch,
        rans: &mut RansScratch,
        out: &mut Vec<u8>,
    ) -> Predictor<'a> {
        let moments = moments.filter(|_| self.moments);
        let step = kind.fraction_bits - 3;
        let (mut mean, mut sides) = (self.mean, None);
        if let Some(grid) = self.grid {
            let survey = Survey::of(isa, raw, kind, grid, moments);
            mean = survey.mean();
            survey.levels(kind, &mut scratch.rows, &mut scratch.columns);
            put_u24(out, grid.columns);
            put_u24(out, grid.first);
            out.push(step.to_le_bytes()[0]);
            rans::encode_plane(&scratch.rows, isa, rans, out);
            rans::encode_plane(&scratch.columns, isa, rans, out);
            sides = Some(Sides { grid, step, rows: &scratch.rows, columns: &scratch.columns });
        }
        if self.flags() == 0 {
            return Predictor::none();
        }
        Predictor { sides, moments, width: kind.width, base: Some(base(mean, step, self.grid.is_some())) }
    }
}

/// The base that puts elements that are as predicted 64 octaves up, in the middle of what symbols of seven exponent
/// bits hold.
fn base(mean: i32, step: u32, has_grid: bool) -> u16 {
    let middle = 64 << (step + 3);
    let sides = if has_grid { (2 * 128) << step } else { 0 };
    // In eighths of an octave, so that it is even.
    let base = (((2 * mean) >> step) << step) - sides - middle;
    let [low, high, ..] = base.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Levels of rows and columns.
struct Sides<'a> {
    grid: Grid,
    step: u32,
    rows: &'a [u8],
    columns: &'a [u8],
}

/// Predicts elements.
pub(super) struct Predictor<'a> {
    sides: Option<Sides<'a>>,
    moments: Option<&'a [u8]>,
    width: usize,
    base: Option<u16>,
}

impl<'a> Predictor<'a> {
    /// Predicts nothing.
    pub(super) fn none() -> Self {
        Self { sides: None, moments: None, width: 0, base: None }
    }

    /// Whether anything is predicted.
    pub(super) fn predicts(&self) -> bool {
        self.sides.is_some() || self.moments.is_some()
    }

    /// The base of blocks that are predicted, for encoding.
    pub(super) fn base(&self) -> Option<u16> {
        self.base
    }

    /// Reads the side information of a chunk of `count` elements from the front of `body`.
    #[allow(clippy::too_many_arguments, reason = "two kinds of scratch")]
    pub(super) fn read(
        isa: Isa,
        body: &mut &[u8],
        has_grid: bool,
        count: usize,
        width: usize,
        moments: Option<&'a [u8]>,
        scratch: &'a mut PredictScratch,
        rans: &mut RansScratch,
    ) -> Decoded<Self> {
        let mut sides = None;
        if has_grid {
            let grid = Grid { columns: take_u24(body)?, first: take_u24(body)? };
            let step = u32::from(take_u8(body)?);
            if grid.columns == 0 || grid.columns > count || grid.first >= grid.columns || step > 15 {
                return Err(DecodeError::Malformed("a grid is impossible"));
            }
            let rows = sized(&mut scratch.rows, grid.rows(count));
            rans::decode_plane(body, rows, isa, rans)?;
            let columns = sized(&mut scratch.columns, grid.columns);
            rans::decode_plane(body, columns, isa, rans)?;
            sides = Some(Sides { grid, step, rows, columns });
        }
        Ok(Self { sides, moments, width, base: None })
    }

    /// The predictions of the elements from `at`, plus `base`.
    pub(super) fn fill(&self, isa: Isa, at: usize, base: u16, predictions: &mut [u16]) {
        match &self.sides {
            None => predictions.fill(base),
            Some(sides) => {
                let mut rest = &mut *predictions;
                let mut place = sides.grid.first + at;
                while !rest.is_empty() {
                    let (row, column) = (place / sides.grid.columns, place % sides.grid.columns);
                    let columns = &sides.columns[column..];
                    let run = rest.len().min(columns.len());
                    let (now, later) = rest.split_at_mut(run);
                    let level = base.wrapping_add(u16::from(sides.rows[row]) << sides.step);
                    add_columns(isa, level, &columns[..run], sides.step, now);
                    rest = later;
                    place += run;
                }
            }
        }
        if let Some(moments) = self.moments {
            let add = match self.width {
                2 => split::w2::add_moments,
                4 => split::w4::add_moments,
                _ => split::w8::add_moments,
            };
            add(isa, &moments[at * self.width..], predictions);
        }
    }
}

impl Grid {
    /// Rows of which a chunk of `count` elements has some.
    pub(super) fn rows(self, count: usize) -> usize {
        (self.first + count).div_ceil(self.columns)
    }
}

multiversion_for! {
    /// Levels of a run of columns, on top of that of their row.
    fn add_columns(level: u16, columns: &[u8], step: u32, predictions: &mut [u16]) {
        for (prediction, &column) in predictions.iter_mut().zip(columns) {
            *prediction = level.wrapping_add(u16::from(column) << step);
        }
    }
}

const _: () = assert!(TILE.is_multiple_of(64), "predictions are filled by tiles");
