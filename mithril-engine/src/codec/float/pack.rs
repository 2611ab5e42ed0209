//! Rests of 7, 6 or 4 bits without their unused bits. Rows of 64 bytes are packed together: one row of each set, the
//! last, is spread over the unused bits of the others.
//!
//! ```text
//! bits  rows of a set  rows kept  bits of the last row in row k
//! 7     8              7          bit k, as bit 7
//! 6     4              3          bits 2 k and 2 k + 1, as bits 6 and 7
//! 4     2              1          bits 0 to 3, as bits 4 to 7
//! ```

use super::super::dispatch::{Isa, multiversion_for};

/// Bytes of a row.
const ROW: usize = 64;

/// Rows of a set, and those that are kept of it.
fn rows(bits: u32) -> (usize, usize) {
    match bits {
        7 => (8, 7),
        6 => (4, 3),
        4 => (2, 1),
        _ => (1, 1),
    }
}

/// Bytes that `count` rests of `bits` bits are packed into.
pub(super) fn packed_bytes(count: usize, bits: u32) -> usize {
    match rows(bits) {
        (1, _) => count,
        (set, kept) => count.div_ceil(set * ROW) * kept * ROW,
    }
}

/// Rests with what fills their last set.
pub(super) fn padded_count(count: usize, bits: u32) -> usize {
    count.next_multiple_of(rows(bits).0 * ROW)
}

/// Appends `rests`, whole sets if there are fewer than 8 bits.
pub(super) fn pack(isa: Isa, rests: &[u8], bits: u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + packed_bytes(rests.len(), bits), 0);
    let target = &mut out[start..];
    match bits {
        7 => pack7(isa, rests, target),
        6 => pack6(isa, rests, target),
        4 => pack4(isa, rests, target),
        _ => target.copy_from_slice(rests),
    }
}

/// Unpacks whole sets, of 7, 6 or 4 bits, each moved up by `up` bits (0 or 1).
pub(super) fn unpack(isa: Isa, packed: &[u8], bits: u32, up: u32, rests: &mut [u8]) {
    match (bits, up) {
        (7, 0) => unpack7(isa, packed, rests),
        (7, _) => unpack7_up(isa, packed, rests),
        (6, 0) => unpack6(isa, packed, rests),
        (6, _) => unpack6_up(isa, packed, rests),
        _ => unpack4(isa, packed, rests),
    }
}

#[inline(always)]
fn pack_sets<const SET: usize, const KEPT: usize, const BITS: u32>(rests: &[u8], packed: &mut [u8]) {
    let spare = 8 - BITS;
    let sets = rests.as_chunks::<ROW>().0.as_chunks::<SET>().0;
    for (set, target) in sets.iter().zip(packed.as_chunks_mut::<ROW>().0.as_chunks_mut::<KEPT>().0) {
        let last = &set[SET - 1];
        for (k, (target, row)) in (0..).zip(target.iter_mut().zip(set)) {
            for i in 0..ROW {
                // What does not fit is shifted out.
                target[i] = row[i] | (last[i] >> (k * spare)) << BITS;
            }
        }
    }
}

#[inline(always)]
fn unpack_sets<const SET: usize, const KEPT: usize, const BITS: u32, const UP: u32>(
    packed: &[u8],
    rests: &mut [u8],
) {
    let spare = 8 - BITS;
    let low = (1u8 << BITS) - 1;
    let sets = rests.as_chunks_mut::<ROW>().0.as_chunks_mut::<SET>().0;
    for (set, source) in sets.iter_mut().zip(packed.as_chunks::<ROW>().0.as_chunks::<KEPT>().0) {
        let mut last = [0; ROW];
        for (k, (row, source)) in (0..).zip(set.iter_mut().zip(source)) {
            for i in 0..ROW {
                row[i] = (source[i] & low) << UP;
                last[i] |= (source[i] >> BITS) << (k * spare);
            }
        }
        for i in 0..ROW {
            set[SET - 1][i] = last[i] << UP;
        }
    }
}

multiversion_for! {
    fn pack7(rests: &[u8], packed: &mut [u8]) { pack_sets::<8, 7, 7>(rests, packed); }
}
multiversion_for! {
    fn pack6(rests: &[u8], packed: &mut [u8]) { pack_sets::<4, 3, 6>(rests, packed); }
}
multiversion_for! {
    fn pack4(rests: &[u8], packed: &mut [u8]) { pack_sets::<2, 1, 4>(rests, packed); }
}
multiversion_for! {
    fn unpack7(packed: &[u8], rests: &mut [u8]) { unpack_sets::<8, 7, 7, 0>(packed, rests); }
}
multiversion_for! {
    fn unpack7_up(packed: &[u8], rests: &mut [u8]) { unpack_sets::<8, 7, 7, 1>(packed, rests); }
}
multiversion_for! {
    fn unpack6(packed: &[u8], rests: &mut [u8]) { unpack_sets::<4, 3, 6, 0>(packed, rests); }
}
multiversion_for! {
    fn unpack6_up(packed: &[u8], rests: &mut [u8]) { unpack_sets::<4, 3, 6, 1>(packed, rests); }
}
multiversion_for! {
    fn unpack4(packed: &[u8], rests: &mut [u8]) { unpack_sets::<2, 1, 4, 0>(packed, rests); }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::Random;

    #[test]
    fn rests_come_back() {
        let mut random = Random(8);
        for bits in [4, 6, 7, 8] {
            for count in [1, 63, 64, 65, 128, 511, 512, 513, 2000] {
                let padded = if bits == 8 { count } else { padded_count(count, bits) };
                let mut rests = vec![0; padded];
                for rest in &mut rests[..count] {
                    *rest = random.next().to_le_bytes()[7] >> (8 - bits);
                }
                let mut expected = Vec::new();
                pack(Isa::Portable, &rests, bits, &mut expected);
                assert_eq!(expected.len(), packed_bytes(count, bits));
                for isa in Isa::available() {
                    let mut packed = Vec::new();
                    pack(isa, &rests, bits, &mut packed);
                    assert!(packed == expected, "{bits} {isa:?}");
                    for up in 0..=u32::from(matches!(bits, 6 | 7)) {
                        let mut back = vec![0xff; padded];
                        if bits < 8 {
                            unpack(isa, &packed, bits, up, &mut back);
                        } else {
                            back.copy_from_slice(&packed);
                        }
                        let moved: Vec<u8> = rests.iter().map(|rest| rest << up).collect();
                        assert!(back == moved, "{bits} {up} {isa:?}");
                    }
                }
            }
        }
    }
}
