//! Taking zeros out of a row of values and putting them back. Which values are no zeros is a bit each, in words of 64.

use super::super::dispatch::Isa;
use super::super::rans::LANES;

/// A value that is moved: a byte, or a half of two.
pub(super) trait Value: Copy + Default {
    /// Its bytes.
    #[cfg(target_arch = "x86_64")]
    const BYTES: usize = size_of::<Self>();
}

impl Value for u8 {}
impl Value for [u8; 2] {}

/// How many values are no zeros.
pub(super) fn count(masks: &[u64]) -> usize {
    masks.iter().map(|mask| mask.count_ones() as usize).sum()
}

/// Words of flags that are 0 or 1 each.
pub(super) fn masks_of(flags: &[u8], masks: &mut [u64]) {
    for (mask, flags) in masks.iter_mut().zip(flags.chunks(LANES)) {
        *mask = 0;
        for (byte, flags) in flags.chunks(8).enumerate() {
            let mut eight = [0; 8];
            eight[..flags.len()].copy_from_slice(flags);
            // Moves flag i from bit 8 i to bit 56 + i; no two of its products meet.
            let bits = u64::from_le_bytes(eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            *mask |= bits << (8 * byte);
        }
    }
}

/// Moves the values that are no zeros to the front. Returns their number.
pub(super) fn compact<V: Value>(isa: Isa, masks: &[u64], values: &mut [V]) -> usize {
    let mut filled = 0;
    for (index, &mask) in masks.iter().enumerate() {
        let start = index * LANES;
        if mask == u64::MAX {
            values.copy_within(start..start + LANES, filled);
        } else if mask != 0 {
            let mut group = [V::default(); LANES];
            let len = LANES.min(values.len() - start);
            group[..len].copy_from_slice(&values[start..start + len]);
            let mut packed = [V::default(); LANES];
            compact_group(isa, mask, &group, &mut packed);
            let count = mask.count_ones() as usize;
            values[filled..filled + count].copy_from_slice(&packed[..count]);
        }
        filled += mask.count_ones() as usize;
    }
    filled
}

/// Puts zeros back between `packed`, which has as many values as the masks have ones.
pub(super) fn expand<V: Value>(isa: Isa, masks: &[u64], packed: &[V], groups: &mut [[V; LANES]]) {
    let mut taken = 0;
    for (&mask, group) in masks.iter().zip(groups) {
        let count = mask.count_ones() as usize;
        if mask == 0 {
            group.fill(V::default());
        } else if let Some(packed) = packed[taken..].first_chunk() {
            expand_group(isa, mask, packed, group);
        } else {
            let mut padded = [V::default(); LANES];
            padded[..count].copy_from_slice(&packed[taken..taken + count]);
            expand_group(isa, mask, &padded, group);
        }
        taken += count;
    }
}

fn compact_group<V: Value>(isa: Isa, mask: u64, group: &[V; LANES], packed: &mut [V; LANES]) {
    match isa.supported() {
        // SAFETY: the processor has it; the arrays have 64 values of one or two bytes, as `BYTES` says.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe {
            x86::compact512(V::BYTES, mask, group.as_ptr().cast(), packed.as_mut_ptr().cast());
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe {
            x86::compact64(V::BYTES, mask, group.as_ptr().cast(), packed.as_mut_ptr().cast());
        },
        _ => {
            let mut filled = 0;
            for (lane, value) in group.iter().enumerate() {
                packed[filled & (LANES - 1)] = *value;
                filled += usize::from(mask >> lane & 1 == 1);
            }
        }
    }
}

fn expand_group<V: Value>(isa: Isa, mask: u64, packed: &[V; LANES], group: &mut [V; LANES]) {
    match isa.supported() {
        // SAFETY: the processor has it; the arrays have 64 values of one or two bytes, as `BYTES` says.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe {
            x86::expand512(V::BYTES, mask, packed.as_ptr().cast(), group.as_mut_ptr().cast());
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe {
            x86::expand64(V::BYTES, mask, packed.as_ptr().cast(), group.as_mut_ptr().cast());
        },
        _ => {
            let mut taken = 0;
            for (lane, value) in group.iter_mut().enumerate() {
                let kept = mask >> lane & 1 == 1;
                *value = if kept { packed[taken & (LANES - 1)] } else { V::default() };
                taken += usize::from(kept);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::LANES;

    /// Eight bits as eight bytes of 0 or 255, or four as four halves.
    #[inline]
    #[target_feature(enable = "bmi2")]
    fn spread(bytes: usize, bits: u64) -> u64 {
        if bytes == 1 {
            _pdep_u64(bits, 0x0101_0101_0101_0101) * 0xff
        } else {
            _pdep_u64(bits, 0x0001_0001_0001_0001) * 0xffff
        }
    }

    /// # Safety
    /// Both point to 64 values of `bytes` (1 or 2) bytes.
    #[inline]
    #[target_feature(enable = "bmi1,bmi2,popcnt")]
    pub(super) unsafe fn compact64(bytes: usize, mask: u64, group: *const u8, packed: *mut u8) {
        let step = 8 / bytes;
        let mut filled = 0;
        for lane in (0..LANES).step_by(step) {
            let kept = spread(bytes, mask >> lane & ((1 << step) - 1));
            // SAFETY: `lane + step` is at most 64; no more values are filled than were read, so the eight bytes end
            // inside as well.
            unsafe {
                let values = group.add(lane * bytes).cast::<u64>().read_unaligned();
                packed.add(filled).cast::<u64>().write_unaligned(_pext_u64(values, kept));
            }
            filled += kept.count_ones() as usize / 8;
        }
    }

    /// # Safety
    /// Both point to 64 values of `bytes` (1 or 2) bytes.
    #[inline]
    #[target_feature(enable = "bmi1,bmi2,popcnt")]
    pub(super) unsafe fn expand64(bytes: usize, mask: u64, packed: *const u8, group: *mut u8) {
        let step = 8 / bytes;
        let mut taken = 0;
        for lane in (0..LANES).step_by(step) {
            let kept = spread(bytes, mask >> lane & ((1 << step) - 1));
            // SAFETY: `lane + step` is at most 64; no more values were taken than written, so the eight bytes end
            // inside as well.
            unsafe {
                let values = packed.add(taken).cast::<u64>().read_unaligned();
                group.add(lane * bytes).cast::<u64>().write_unaligned(_pdep_u64(values, kept));
            }
            taken += kept.count_ones() as usize / 8;
        }
    }

    /// # Safety
    /// Both point to 64 values of `bytes` (1 or 2) bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) unsafe fn compact512(bytes: usize, mask: u64, group: *const u8, packed: *mut u8) {
        // SAFETY: 64 bytes of 64, or twice 64 of 128: the second are behind at most 32 values.
        unsafe {
            if bytes == 1 {
                let values = _mm512_loadu_si512(group.cast());
                _mm512_storeu_si512(packed.cast(), _mm512_maskz_compress_epi8(mask, values));
            } else {
                let [lower, upper] = halves(mask);
                let values = _mm512_loadu_si512(group.cast());
                _mm512_storeu_si512(packed.cast(), _mm512_maskz_compress_epi16(lower, values));
                let values = _mm512_loadu_si512(group.add(64).cast());
                let packed = packed.add(2 * lower.count_ones() as usize);
                _mm512_storeu_si512(packed.cast(), _mm512_maskz_compress_epi16(upper, values));
            }
        }
    }

    /// # Safety
    /// Both point to 64 values of `bytes` (1 or 2) bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) unsafe fn expand512(bytes: usize, mask: u64, packed: *const u8, group: *mut u8) {
        // SAFETY: 64 bytes of 64, or twice 64 of 128: the second are behind at most 32 values.
        unsafe {
            if bytes == 1 {
                let values = _mm512_loadu_si512(packed.cast());
                _mm512_storeu_si512(group.cast(), _mm512_maskz_expand_epi8(mask, values));
            } else {
                let [lower, upper] = halves(mask);
                let values = _mm512_loadu_si512(packed.cast());
                _mm512_storeu_si512(group.cast(), _mm512_maskz_expand_epi16(lower, values));
                let values = _mm512_loadu_si512(packed.add(2 * lower.count_ones() as usize).cast());
                _mm512_storeu_si512(group.add(64).cast(), _mm512_maskz_expand_epi16(upper, values));
            }
        }
    }

    /// The lower and the upper 32 bits.
    #[allow(clippy::cast_possible_truncation, reason = "the halves of 64 bits")]
    fn halves(mask: u64) -> [u32; 2] {
        [mask as u32, (mask >> 32) as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::Random;

    #[test]
    fn zeros_are_taken_out_and_put_back() {
        let mut random = Random(3);
        let masks = [u64::MAX, 0, 1, 1 << 63, random.next(), random.next() & random.next(), u64::MAX >> 7];
        let bytes: Vec<u8> = (0..masks.len() * LANES).map(|_| random.next().to_le_bytes()[7]).collect();
        let halves: Vec<[u8; 2]> = bytes.iter().map(|&byte| [byte, !byte]).collect();
        let flags: Vec<u8> =
            (0..bytes.len()).map(|i| u8::from(masks[i / LANES] >> (i % LANES) & 1 == 1)).collect();
        let mut found = [0; 7];
        masks_of(&flags, &mut found);
        assert_eq!(found, masks);
        for isa in Isa::available() {
            check(isa, &masks, &flags, &bytes);
            check(isa, &masks, &flags, &halves);
        }
    }

    fn check<V: Value + PartialEq + std::fmt::Debug>(isa: Isa, masks: &[u64], flags: &[u8], values: &[V]) {
        let kept = values.iter().zip(flags).filter(|(_, flag)| **flag == 1);
        let expected: Vec<V> = kept.map(|(value, _)| *value).collect();
        let mut packed = values.to_vec();
        let count = compact(isa, masks, &mut packed);
        assert_eq!(&packed[..count], expected, "{isa:?}");
        assert_eq!(count, super::count(masks));
        let mut groups = vec![[values[0]; LANES]; masks.len()];
        expand(isa, masks, &expected, &mut groups);
        for ((value, flag), back) in values.iter().zip(flags).zip(groups.as_flattened()) {
            assert_eq!(*back, if *flag == 1 { *value } else { V::default() }, "{isa:?}");
        }
    }
}
