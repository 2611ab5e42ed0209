//! The search for the class of a slot: a tree of five levels for each context, all in registers.

use std::arch::x86_64::*;

use super::super::frequencies::Frequencies;
use super::super::lanes::{Found, State};
use super::super::model::{FIRST_VALUE, RAW_BITS, VALUE_CLASSES};
use super::{Avx512, avx512};

/// Registers of each level: 32 pivots each. The first has 16 pivots in use, then each level twice as many.
const REGISTERS: [usize; 5] = [1, 1, 2, 4, 8];

/// Pivots: where the right half of what is left of the classes starts. The place of one is the context and, above its 4 bits,
/// a bit for each branch taken so far, the first branch lowest.
#[derive(Clone, Copy)]
pub(in super::super) struct Tree([__m512i; 16]);

impl Tree {
    /// The trees of at most 16 contexts.
    #[inline(always)]
    pub(super) fn new(contexts: &[Frequencies]) -> Self {
        let mut pivots = [[0u16; 32]; 16];
        let flat = pivots.as_flattened_mut();
        for (context, frequencies) in contexts.iter().take(16).enumerate() {
            let intervals = frequencies.intervals();
            let mut level_start = 0;
            for (level, registers) in REGISTERS.into_iter().enumerate() {
                for branches in 0..1usize << level {
                    // The first branch halves the classes: it is the highest bit of the class.
                    let path = if level == 0 {
                        0
                    } else {
                        branches.reverse_bits() >> (usize::BITS as usize - level)
                    };
                    let class = (2 * path + 1) << (4 - level);
                    flat[level_start + (branches << 4 | context)] = intervals[class].1;
                }
                level_start += 32 * registers;
            }
        }
        let mut tree = Self([avx512!(_mm512_setzero_si512()); 16]);
        for (register, words) in tree.0.iter_mut().zip(&pivots) {
            *register = avx512!(_mm512_loadu_si512(words.as_ptr().cast()));
        }
        tree
    }

    /// See [`Lanes::find`](super::super::lanes::Lanes::find).
    #[inline(always)]
    pub(super) fn find(&self, context: __m512i, slot: __m512i) -> Found<Avx512> {
        let t = &self.0;
        avx512!({
            let zero = _mm512_setzero_si512();
            let mut walk = Walk { slot, start: zero, end: zero, place: context };
            walk.branch::<16>(_mm512_permutexvar_epi16(context, t[0]));
            let pivot = _mm512_permutexvar_epi16(walk.place, t[1]);
            walk.branch::<32>(pivot);
            let pivot = _mm512_permutex2var_epi16(t[2], walk.place, t[3]);
            let third = walk.branch::<64>(pivot);
            let pivot = _mm512_mask_mov_epi16(
                _mm512_permutex2var_epi16(t[4], walk.place, t[5]),
                third,
                _mm512_permutex2var_epi16(t[6], walk.place, t[7]),
            );
            let fourth = walk.branch::<128>(pivot);
            let left = _mm512_mask_mov_epi16(
                _mm512_permutex2var_epi16(t[8], walk.place, t[9]),
                third,
                _mm512_permutex2var_epi16(t[10], walk.place, t[11]),
            );
            let right = _mm512_mask_mov_epi16(
                _mm512_permutex2var_epi16(t[12], walk.place, t[13]),
                third,
                _mm512_permutex2var_epi16(t[14], walk.place, t[15]),
            );
            walk.branch::<256>(_mm512_mask_mov_epi16(left, fourth, right));
            let changed = _mm512_cmpge_epu16_mask(walk.place, _mm512_set1_epi16(16));
            Found {
                class: _mm512_srli_epi16::<4>(walk.place),
                frequency: _mm512_sub_epi16(walk.end, walk.start),
                offset: _mm512_sub_epi16(slot, walk.start),
                changes: changed.count_ones() as usize,
            }
        })
    }
}

/// Where a search is.
struct Walk {
    slot: __m512i,
    /// Where what is left of the classes starts, and ends.
    start: __m512i,
    end: __m512i,
    place: __m512i,
}

impl Walk {
    /// Goes to the right where the slot is not below the pivot; `BIT` then says so in the place.
    #[inline(always)]
    fn branch<const BIT: i16>(&mut self, pivot: __m512i) -> __mmask32 {
        avx512!({
            let right = _mm512_cmpge_epu16_mask(self.slot, pivot);
            self.start = _mm512_mask_mov_epi16(self.start, right, pivot);
            self.end = _mm512_mask_mov_epi16(pivot, right, self.end);
            self.place = _mm512_mask_add_epi16(self.place, right, self.place, _mm512_set1_epi16(BIT));
            right
        })
    }
}

/// A number of 5 bits in reverse.
const fn reversed(class: usize) -> usize {
    class.reverse_bits() >> (usize::BITS - 5)
}

/// First values and raw bits, at the class in reverse.
const REVERSED: [[u16; VALUE_CLASSES]; 2] = {
    let mut words = [[0; VALUE_CLASSES]; 2];
    let mut class = 0;
    while class < VALUE_CLASSES {
        words[0][reversed(class)] = FIRST_VALUE[class];
        words[1][reversed(class)] = RAW_BITS[class] as u16;
        class += 1;
    }
    words
};

/// See [`Lanes::take_raw`](super::super::lanes::Lanes::take_raw).
#[inline(always)]
pub(super) fn take_raw(state: &mut State<__m512i>, class: __m512i) -> __m512i {
    let [first, bits] = &REVERSED;
    avx512!({
        let first = _mm512_permutexvar_epi16(class, _mm512_loadu_si512(first.as_ptr().cast()));
        let bits = _mm512_permutexvar_epi16(class, _mm512_loadu_si512(bits.as_ptr().cast()));
        let rest = _mm512_srlv_epi16(state.low, bits);
        let raw = _mm512_sub_epi16(state.low, _mm512_sllv_epi16(rest, bits));
        state.low = _mm512_shrdv_epi16(state.low, state.high, bits);
        state.high = _mm512_srlv_epi16(state.high, bits);
        _mm512_add_epi16(first, raw)
    })
}
