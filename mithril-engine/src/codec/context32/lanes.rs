//! What the format needs of an instruction set beyond what the compiler makes of plain loops over the 64 lanes of a group.
//!
//! An implementation is a token that exists only where its instructions do, so that its methods are safe. All are to be
//! inlined into a function that is compiled for these instructions.

use super::groups::{Bytes, GROUP_BYTES, LANES, Words};
use super::model::Parts;
use super::number::w4;
use super::stacks::{self, Stacks};

/// Operations of an instruction set.
pub(super) trait Lanes: Copy {
    /// What a table has at each index; these are below 64.
    fn look_up(self, table: &Bytes, index: &Bytes) -> Bytes;

    /// See [`stacks::push`].
    fn push(self, stacks: &mut Stacks, values: &Words, widths: &Bytes, room: &mut [u8; GROUP_BYTES])
    -> usize;

    /// Pops the raw bits of differences, and adds these to `elements`. Returns how many of `words` were taken.
    fn add_differences(
        self,
        parts: &Parts,
        stacks: &mut Stacks,
        words: &[u8; GROUP_BYTES],
        elements: &mut Words,
    ) -> usize;
}

/// Plain Rust, for every processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Lanes for Portable {
    #[inline(always)]
    fn look_up(self, table: &Bytes, index: &Bytes) -> Bytes {
        index.map(|index| table[usize::from(index) % LANES])
    }

    #[inline(always)]
    fn push(
        self,
        stacks: &mut Stacks,
        values: &Words,
        widths: &Bytes,
        room: &mut [u8; GROUP_BYTES],
    ) -> usize {
        stacks::push(stacks, values, widths, room)
    }

    #[inline(always)]
    fn add_differences(
        self,
        parts: &Parts,
        stacks: &mut Stacks,
        words: &[u8; GROUP_BYTES],
        elements: &mut Words,
    ) -> usize {
        let (raw, taken) = stacks::pop(stacks, &parts.widths, words);
        for lane in 0..LANES {
            let value = w4::Word::from(parts.leads[lane]) << (parts.widths[lane] & 31) | raw[lane];
            let down = if parts.signs[lane] == 1 { 0 } else { w4::Word::MAX };
            elements[lane] = elements[lane].wrapping_add((value ^ down).wrapping_sub(down));
        }
        taken
    }
}
