//! One block of numbers.
//!
//! ```text
//! 0 raw      the elements
//! 1 fill     one element: all are it
//! 2 coded    flags u8 (1 zeros apart, 2 even, 4 rests as a plane), shift u8 (4, 7 or 8), base u16,
//!            with zeros apart: coded elements u24 (those that are no zeros),
//!            low halves from the lowest, see `halves`; rests; frequency table of the symbols,
//!            with zeros apart: a bitmap of the groups that have other elements,
//!            coded symbols, see `rans`
//! ```
//!
//! `T` of an element is its upper 16 bits rotated to the left by one, less its prediction and the base, modulo 2^16.
//! The symbol is `T >> shift`, the rest its lower bits; if all `T` are even, the rests have one bit less.

use super::super::rans::{Group, LANES, RansScratch};

/// Kinds of blocks.
pub(super) mod kind {
    pub(in super::super) const RAW: u8 = 0;
    pub(in super::super) const FILL: u8 = 1;
    pub(in super::super) const CODED: u8 = 2;
}

pub(super) const FLAG_ZEROS: u8 = 1;
pub(super) const FLAG_EVEN: u8 = 2;
pub(super) const FLAG_PLANE: u8 = 4;

/// The most low halves of an element.
pub(super) const HALVES: usize = 3;

/// Buffers that are kept between calls.
#[derive(Debug, Default)]
pub(super) struct BlockScratch {
    /// Symbols of a block.
    pub(super) symbols: Vec<Group>,
    /// Rests of a block, and room to fill a set of rows.
    pub(super) rests: Vec<u8>,
    /// Which elements of a tile are not zero.
    pub(super) flags: Vec<u8>,
    /// The same of a block, a bit each.
    pub(super) masks: Vec<u64>,
    /// Low halves of a block.
    pub(super) halves: [Vec<[u8; 2]>; HALVES],
    /// The two planes of low halves.
    pub(super) planes: Vec<u8>,
    /// Predictions of a tile, with the base.
    pub(super) predictions: Vec<u16>,
    pub(super) tile: Tile,
    pub(super) rans: RansScratch,
}

/// What a tile of elements is decoded to before they are put together.
#[derive(Debug, Default)]
pub(super) struct Tile {
    pub(super) symbols: Vec<Group>,
    pub(super) rests: Vec<Group>,
    /// 255 for elements that are not zero, 0 for others.
    pub(super) keep: Vec<Group>,
    pub(super) halves: [Vec<[[u8; 2]; LANES]>; HALVES],
}
