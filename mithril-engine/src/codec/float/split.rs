//! Elements to symbols, rests and low halves, and back: the loops over every element, on a tile at a time.
//!
//! Of an element of `W` bits, the upper 16 are rotated so that the sign is lowest, less a prediction; that is `T`. Its
//! upper bits are the symbol, the others the rest. The other `W - 16` bits are one or three halves of 16 bits.

use super::super::dispatch::multiversion_for;

/// What a tile of elements has in common.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Seen {
    /// All `T` together: whether one is too large for its symbol.
    pub(super) any: u16,
    /// All low halves together.
    pub(super) low: u16,
}

macro_rules! width {
    ($module:ident, $word:ty, [$($half:ident $shift:literal),*]) => {
        pub(super) mod $module {
            use super::{multiversion_for, Seen};

            type Word = $word;
            const BYTES: usize = size_of::<Word>();

            #[inline(always)]
            fn rotated(element: &[u8; BYTES]) -> u16 {
                upper(Word::from_le_bytes(*element)).rotate_left(1)
            }

            /// The upper 16 bits.
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, reason = "all others are shifted out")]
            fn upper(word: Word) -> u16 {
                (word >> (Word::BITS - 16)) as u16
            }

            multiversion_for! {
                /// The upper halves of elements.
                pub(in crate::codec::float) fn uppers(raw: &[u8], out: &mut [u16]) {
                    for (out, element) in out.iter_mut().zip(raw.as_chunks::<BYTES>().0) {
                        *out = upper(Word::from_le_bytes(*element));
                    }
                }
            }

            multiversion_for! {
                /// The symbols and rests of a tile. `T` of exact zeros is 0 if they are `apart`.
                pub(in crate::codec::float) fn split(
                    raw: &[u8],
                    predictions: &[u16],
                    shift: u32,
                    apart: bool,
                    symbols: &mut [u8],
                    rests: &mut [u8],
                    seen: &mut Seen,
                ) {
                    let elements = raw.as_chunks::<BYTES>().0;
                    let count = elements.len();
                    let (predictions, symbols, rests) =
                        (&predictions[..count], &mut symbols[..count], &mut rests[..count]);
                    let mask = (1u16 << shift) - 1;
                    let apart = u16::from(apart).wrapping_neg();
                    let mut any = 0;
                    for i in 0..count {
                        let zero = u16::from(Word::from_le_bytes(elements[i]) == 0).wrapping_neg();
                        let t = rotated(&elements[i]).wrapping_sub(predictions[i]) & !(zero & apart);
                        any |= t;
                        symbols[i] = (t >> shift).to_le_bytes()[0];
                        rests[i] = (t & mask).to_le_bytes()[0];
                    }
                    seen.any |= any;
                }
            }

            multiversion_for! {
                /// Which elements are not zero, as 0 or 1.
                pub(in crate::codec::float) fn nonzero(raw: &[u8], flags: &mut [u8]) {
                    for (flag, element) in flags.iter_mut().zip(raw.as_chunks::<BYTES>().0) {
                        *flag = u8::from(Word::from_le_bytes(*element) != 0);
                    }
                }
            }

            $(
            multiversion_for! {
                /// One low half of each element.
                pub(in crate::codec::float) fn $half(raw: &[u8], out: &mut [[u8; 2]], seen: &mut Seen) {
                    let mut any = 0;
                    for (out, element) in out.iter_mut().zip(raw.as_chunks::<BYTES>().0) {
                        #[allow(clippy::cast_possible_truncation, reason = "the lower bits are wanted")]
                        let half = (Word::from_le_bytes(*element) >> $shift) as u16;
                        any |= half;
                        *out = half.to_le_bytes();
                    }
                    seen.low |= any;
                }
            }
            )*

            multiversion_for! {
                /// Elements of their symbols, rests and low halves.
                pub(in crate::codec::float) fn merge(
                    symbols: &[u8],
                    rests: &[u8],
                    predictions: &[u16],
                    shift: u32,
                    $($half: &[[u8; 2]],)*
                    out: &mut [u8],
                ) {
                    let elements = out.as_chunks_mut::<BYTES>().0;
                    let count = elements.len();
                    let (symbols, rests, predictions) =
                        (&symbols[..count], &rests[..count], &predictions[..count]);
                    $(let $half = &$half[..count];)*
                    for i in 0..count {
                        let t = (u16::from(symbols[i]) << shift | u16::from(rests[i]))
                            .wrapping_add(predictions[i])
                            .rotate_right(1);
                        let word = Word::from(t) << (Word::BITS - 16)
                            $(| Word::from(u16::from_le_bytes($half[i])) << $shift)*;
                        elements[i] = word.to_le_bytes();
                    }
                }
            }

            multiversion_for! {
                /// Adds half of the logarithm of second moments, in the units of `T`: that of their square root,
                /// because a logarithm of a number that is never negative has no sign below it.
                pub(in crate::codec::float) fn add_moments(moments: &[u8], predictions: &mut [u16]) {
                    for (prediction, moment) in predictions.iter_mut().zip(moments.as_chunks::<BYTES>().0) {
                        let half = upper(Word::from_le_bytes(*moment)) & 0x7ffe;
                        *prediction = prediction.wrapping_add(half);
                    }
                }
            }

            multiversion_for! {
                /// Clears the elements whose `keep` is 0; the others have 255.
                pub(in crate::codec::float) fn clear(keep: &[u8], out: &mut [u8]) {
                    for (element, &keep) in out.as_chunks_mut::<BYTES>().0.iter_mut().zip(keep) {
                        let kept = Word::from(keep & 1).wrapping_neg();
                        *element = (Word::from_le_bytes(*element) & kept).to_le_bytes();
                    }
                }
            }
        }
    };
}

width!(w2, u16, []);
width!(w4, u32, [low0 0]);
width!(w8, u64, [low0 0, low1 16, low2 32]);

multiversion_for! {
    /// Two planes of bytes as halves.
    pub(super) fn join(low: &[u8], high: &[u8], out: &mut [[u8; 2]]) {
        for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
            *out = [low, high];
        }
    }
}

multiversion_for! {
    /// The two bytes of halves as planes.
    pub(super) fn part(halves: &[[u8; 2]], low: &mut [u8], high: &mut [u8]) {
        for ((half, low), high) in halves.iter().zip(low).zip(high) {
            [*low, *high] = *half;
        }
    }
}
