//! What the coder needs of an instruction set: operations on the 32 lanes of a step. The coder is written once on top of
//! this, and compiled for each.
//!
//! An implementation is a token that exists only where its instructions do, so that its methods are safe. All are to be
//! inlined into a function that is compiled for these instructions.

use super::frequencies::Frequencies;
use super::model::{GROUP_BYTES, LANES, VALUE_CLASSES, Window};

/// 32 states of the coder in two planes: all are at least 2^16, that is, no `high` is 0, between steps.
#[derive(Clone, Copy)]
pub(super) struct State<W> {
    /// The upper 16 bits.
    pub(super) high: W,
    /// The lower 16 bits.
    pub(super) low: W,
}

/// 16 numbers to look up, in the order that suits an instruction set.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Row(pub(super) [u8; 32]);

/// Starts and frequencies of the value classes in 16 contexts, for encoding: the frequency in the upper half.
pub(super) type Entries = [u32; 16 * VALUE_CLASSES];

/// A value class that was found by its slot.
pub(super) struct Found<L: Lanes> {
    pub(super) class: L::Class,
    /// Of the class, in units of 2^-16.
    pub(super) frequency: L::Words,
    /// How far the slot is from the start of its class.
    pub(super) offset: L::Words,
    /// How many classes are not 0.
    pub(super) changes: usize,
}

/// Operations of an instruction set.
pub(super) trait Lanes: Copy {
    /// 32 numbers of 16 bits.
    type Words: Copy;
    /// A yes or no for each lane.
    type Mask: Copy;
    /// 32 numbers below 32: classes and contexts.
    type Index: Copy;
    /// 32 value classes, as the search leaves them.
    type Class: Copy;
    /// What finds the value class of a slot in a context.
    type Search<'s>: Copy;

    fn splat(self, word: u16) -> Self::Words;
    fn load(self, from: &[u8; GROUP_BYTES]) -> Self::Words;
    fn store(self, words: Self::Words, to: &mut [u8; GROUP_BYTES]);
    fn and(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn xor(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn add(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn sub(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn max(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// All ones where the top bit is set, else 0.
    fn sign(self, words: Self::Words) -> Self::Words;
    /// One bit to the left.
    fn double(self, words: Self::Words) -> Self::Words;
    /// One bit to the right.
    fn half(self, words: Self::Words) -> Self::Words;

    fn at_least(self, a: Self::Words, b: Self::Words) -> Self::Mask;
    fn equal(self, a: Self::Words, b: Self::Words) -> Self::Mask;
    /// `yes` where the mask is set, else `no`.
    fn select(self, mask: Self::Mask, yes: Self::Words, no: Self::Words) -> Self::Words;
    /// The words where the mask is set, else 0.
    fn only(self, mask: Self::Mask, words: Self::Words) -> Self::Words;
    /// The mask as bits, that of lane 0 lowest.
    fn bits(self, mask: Self::Mask) -> u32;
    fn mask(self, bits: u32) -> Self::Mask;

    /// The exponent classes of base values.
    fn exponent_classes(self, base: Self::Words, window: &Window) -> Self::Index;
    fn load_index(self, from: &[u8; LANES]) -> Self::Index;
    fn store_index(self, index: Self::Index, to: &mut [u8; LANES]);
    /// A row of words for [`Lanes::look_up`].
    fn row(self, words: &[u16; 16]) -> Row;
    /// The words of a row at indices below 16.
    fn look_up(self, row: &Row, index: Self::Index) -> Self::Words;
    /// The numbers of a row at indices below 16.
    fn map(self, row: &[u8; 16], index: Self::Index) -> Self::Index;
    /// Counts the lanes of each index below 16 (first number), and those of them that are marked (second).
    fn count(self, index: Self::Index, marked: u32, counts: &mut [[u32; 2]; 16]);
    /// Stores the marked indices side by side; the bytes behind them become anything.
    fn compress_index(self, index: Self::Index, marked: u32, to: &mut [u8; LANES]);
    /// Stores the marked words side by side; the bytes behind them become anything.
    fn compress(self, words: Self::Words, marked: u32, to: &mut [u8; GROUP_BYTES]);
    /// Puts words that are side by side where the marks are, 0 elsewhere.
    fn expand(self, from: &[u8; GROUP_BYTES], marked: u32) -> Self::Words;

    /// The value classes of values.
    fn value_classes(self, values: Self::Words) -> Self::Index;
    /// Frequency and start of each class in its context.
    fn entries(
        self,
        entries: &Entries,
        context: Self::Index,
        class: Self::Index,
    ) -> (Self::Words, Self::Words);

    /// Encodes an interval of `frequency` from `start` in the marked lanes. `None`: the words do not fit.
    fn encode(
        self,
        state: &mut State<Self::Words>,
        marked: Self::Mask,
        frequency: Self::Words,
        start: Self::Words,
        words: &mut Writer<'_>,
    ) -> Option<()>;
    /// Encodes what the classes leave open of the values in the marked lanes.
    fn encode_raw(
        self,
        state: &mut State<Self::Words>,
        marked: Self::Mask,
        class: Self::Index,
        values: Self::Words,
        words: &mut Writer<'_>,
    ) -> Option<()>;

    /// Prepares [`Lanes::find`] in contexts with these frequencies; at most 16.
    fn search<'s>(self, contexts: &[Frequencies], slots: &'s mut Slots) -> Self::Search<'s>;
    /// Finds the classes of slots in contexts that were prepared.
    fn find(self, search: &Self::Search<'_>, context: Self::Index, slot: Self::Words) -> Found<Self>;
    /// One step back: `state = frequency * (state / 2^16) + offset`, without what [`Lanes::refill`] does.
    fn step(self, state: &mut State<Self::Words>, frequency: Self::Words, offset: Self::Words);
    /// Takes what the classes leave open from the states, and returns the values; without what [`Lanes::refill`] does.
    fn take_raw(self, state: &mut State<Self::Words>, class: Self::Class) -> Self::Words;
    /// Brings states below 2^16 back by a word each. `None`: there are not as many.
    fn refill(self, state: &mut State<Self::Words>, words: &mut Reader<'_>) -> Option<()>;
}

/// What every slot of every context means: the class, its start and its frequency in one number. See [`slot_entry`].
#[derive(Debug, Default)]
pub(super) struct Slots(Vec<u32>);

/// Slots of all contexts, in units of the frequencies.
pub(super) const SLOTS: usize = 16 << super::frequencies::TOTAL_BITS;

impl Slots {
    /// Fills the slots of contexts with these frequencies.
    pub(super) fn fill(&mut self, contexts: &[Frequencies]) -> &[u32; SLOTS] {
        self.0.resize(SLOTS, 0);
        for (context, slots) in contexts.iter().zip(self.0.chunks_exact_mut(SLOTS / 16)) {
            let mut rest = slots;
            for ((frequency, start), class) in context.intervals().into_iter().zip(0..) {
                let len = usize::from(frequency >> super::frequencies::SCALE_BITS).min(rest.len());
                let (these, after) = rest.split_at_mut(len);
                these.fill(slot_entry(class, frequency, start));
                rest = after;
            }
        }
        self.0.first_chunk().expect("it has just got this length")
    }
}

/// Frequency and start are multiples of 16: the frequency is in the upper half, with the low bits of the class; the start
/// in the lower half, with the top bit of the class.
#[inline(always)]
fn slot_entry(class: u8, frequency: u16, start: u16) -> u32 {
    u32::from(frequency | u16::from(class & 15)) << 16 | u32::from(start | u16::from(class >> 4))
}

/// Words that are read from the last to the first.
pub(super) struct Reader<'a> {
    /// The words, and at least [`GROUP_BYTES`] more.
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Reader<'a> {
    /// The first `left` words of `bytes`, which has at least [`GROUP_BYTES`] more.
    pub(super) fn new(bytes: &'a [u8], left: usize) -> Self {
        Self { bytes, left }
    }

    /// The `count` words before those that were taken, in their order, with anything behind them.
    #[inline(always)]
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8; GROUP_BYTES]> {
        self.left = self.left.checked_sub(count)?;
        self.bytes.get(2 * self.left..)?.first_chunk()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }
}

/// Words that are written from the first to the last.
pub(super) struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where the next words go, at most [`LANES`] of them; [`Writer::advance`] says how many. `None`: it is full.
    #[inline(always)]
    pub(super) fn room(&mut self) -> Option<&mut [u8; GROUP_BYTES]> {
        self.bytes.get_mut(self.at..)?.first_chunk_mut()
    }

    #[inline(always)]
    pub(super) fn advance(&mut self, words: usize) {
        self.at += 2 * words;
    }

    /// The bytes of all words.
    pub(super) fn into_bytes(self) -> &'a [u8] {
        &self.bytes[..self.at]
    }
}
