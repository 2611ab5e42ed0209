//! How the elements of a block lie in the lanes, and the differences between them.

use super::lanes::Lanes;
use super::model::{GROUP_BYTES, LANES, PADDING, Window};

/// A block is cut in two halves of this many groups each: enough for all elements, and odd, so that the two halves do not
/// meet in the same sets of the cache.
pub(super) fn groups_in_half(elements: usize) -> usize {
    elements.div_ceil(2 * LANES) | 1
}

/// Loads a group of a block; what is behind the end is padding.
#[inline(always)]
pub(super) fn load_group<L: Lanes>(lanes: L, block: &[u8], group: usize) -> L::Words {
    let rest = block.get(group * GROUP_BYTES..).unwrap_or_default();
    match rest.first_chunk() {
        Some(whole) => lanes.load(whole),
        None => lanes.load(&padded(rest)),
    }
}

#[cold]
#[inline(never)]
fn padded(rest: &[u8]) -> [u8; GROUP_BYTES] {
    let mut group = [0; GROUP_BYTES];
    for bytes in group.as_chunks_mut::<2>().0 {
        *bytes = PADDING.to_le_bytes();
    }
    group[..rest.len()].copy_from_slice(rest);
    group
}

/// Stores a group of a block, without what is behind the end.
#[inline(always)]
pub(super) fn store_group<L: Lanes>(lanes: L, words: L::Words, block: &mut [u8], group: usize) {
    let rest = block.get_mut(group * GROUP_BYTES..).unwrap_or_default();
    match rest.first_chunk_mut() {
        Some(whole) => lanes.store(words, whole),
        None => {
            let mut whole = [0; GROUP_BYTES];
            lanes.store(words, &mut whole);
            store_part(rest, &whole);
        }
    }
}

#[cold]
#[inline(never)]
fn store_part(rest: &mut [u8], whole: &[u8; GROUP_BYTES]) {
    rest.copy_from_slice(&whole[..rest.len()]);
}

/// Differences from base values.
#[derive(Clone, Copy)]
pub(super) struct Differences<L: Lanes> {
    lanes: L,
    /// All ones for floats: the bits that depend on the sign.
    signed: L::Words,
    /// The top bit for floats.
    top: L::Words,
    one: L::Words,
}

impl<L: Lanes> Differences<L> {
    #[inline(always)]
    pub(super) fn new(lanes: L, window: &Window) -> Self {
        let (signed, top) = if window.float { (u16::MAX, 1 << 15) } else { (0, 0) };
        Self { lanes, signed: lanes.splat(signed), top: lanes.splat(top), one: lanes.splat(1) }
    }

    /// Zigzag of the difference of ordered integers, its sign folded with the base's: even is away from zero.
    #[inline(always)]
    pub(super) fn zigzag(self, x: L::Words, base: L::Words) -> L::Words {
        let lanes = self.lanes;
        let negative = lanes.and(lanes.sign(base), self.signed);
        let ordered_base = lanes.xor(base, lanes.or(negative, self.top));
        let x_negative = lanes.and(lanes.sign(x), self.signed);
        let ordered = lanes.xor(x, lanes.or(x_negative, self.top));
        let difference = lanes.sub(ordered, ordered_base);
        let folded = lanes.sub(lanes.xor(difference, negative), negative);
        lanes.xor(lanes.double(folded), lanes.sign(folded))
    }

    /// The element whose difference from the base is this.
    #[inline(always)]
    pub(super) fn add(self, zigzag: L::Words, base: L::Words) -> L::Words {
        let lanes = self.lanes;
        let odd = lanes.sub(lanes.splat(0), lanes.and(zigzag, self.one));
        let folded = lanes.xor(lanes.half(zigzag), odd);
        let negative = lanes.and(lanes.sign(base), self.signed);
        let difference = lanes.sub(lanes.xor(folded, negative), negative);
        let ordered = lanes.add(lanes.xor(base, lanes.or(negative, self.top)), difference);
        // Ordered integers of negative numbers have no top bit.
        let x_negative = lanes.and(lanes.sign(lanes.xor(ordered, lanes.splat(u16::MAX))), self.signed);
        lanes.xor(ordered, lanes.or(x_negative, self.top))
    }
}
