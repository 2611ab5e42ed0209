//! How often each value class occurs in a context: counting, rounding, storing.

use super::super::{DecodeError, Decoded, take_u8};
use super::model::VALUE_CLASSES;

/// What the frequencies of a context add up to.
pub(super) const TOTAL: u16 = 1 << TOTAL_BITS;
/// Frequencies are sent in units of 2^-12 and used in units of 2^-16.
pub(super) const TOTAL_BITS: u32 = 12;
pub(super) const SCALE_BITS: u32 = 16 - TOTAL_BITS;

/// What a frequency takes where it is stored, about.
pub(super) const BITS_A_FREQUENCY: u64 = 10;

/// How often each value class occurs.
pub(super) type Counts = [u32; VALUE_CLASSES];

/// Frequencies of the value classes in a context. They add up to [`TOTAL`], none is all of it, and the last is not 0: so
/// no class ends at 2^16 but the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frequencies([u16; VALUE_CLASSES]);

impl Frequencies {
    /// Rounds counts: what was counted keeps a frequency.
    pub(super) fn from_counts(counts: &Counts) -> Self {
        let all: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        let mut frequencies = [0u16; VALUE_CLASSES];
        if all == u64::from(counts[VALUE_CLASSES - 1]) {
            frequencies[0] = 1;
        }
        for (frequency, &count) in frequencies.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
            let share = (u64::from(count) * u64::from(TOTAL) + all / 2) / all;
            *frequency = u16::try_from(share).unwrap_or(TOTAL).max(1);
        }
        frequencies[VALUE_CLASSES - 1] = frequencies[VALUE_CLASSES - 1].max(1);
        let mut sum: u16 = frequencies.iter().sum();
        while sum != TOTAL {
            // The greatest can bear it best; a quarter of it at a time.
            let mut greatest = 0;
            for class in 1..VALUE_CLASSES {
                if frequencies[class] > frequencies[greatest] {
                    greatest = class;
                }
            }
            let frequency = &mut frequencies[greatest];
            if sum < TOTAL {
                *frequency += TOTAL - sum;
                sum = TOTAL;
            } else {
                let less = (sum - TOTAL).min((*frequency / 4).max(1));
                *frequency -= less;
                sum -= less;
            }
        }
        Self(frequencies)
    }

    /// The frequency and the start of every class, in units of 2^-16.
    #[inline(always)]
    pub(super) fn intervals(&self) -> [(u16, u16); VALUE_CLASSES] {
        let mut start = 0u16;
        let mut intervals = [(0, 0); VALUE_CLASSES];
        for (interval, &frequency) in intervals.iter_mut().zip(&self.0) {
            *interval = (frequency << SCALE_BITS, start);
            // The last one ends at 2^16.
            start = start.wrapping_add(frequency << SCALE_BITS);
        }
        intervals
    }

    /// Appends them.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut class = 0;
        while class < VALUE_CLASSES {
            let frequency = self.0[class];
            let [low, high] = frequency.to_le_bytes();
            match frequency {
                0 => {
                    let zeros = self.0[class..].iter().take_while(|frequency| **frequency == 0).count();
                    out.extend_from_slice(&[0, zeros.to_le_bytes()[0]]);
                    class += zeros - 1;
                }
                1..128 => out.push(low),
                _ => out.extend_from_slice(&[128 | high, low]),
            }
            class += 1;
        }
    }

    /// Takes them from the front of `body`.
    pub(super) fn take(body: &mut &[u8]) -> Decoded<Self> {
        const WRONG: DecodeError = DecodeError::Malformed("the frequencies of a context are wrong");
        let mut frequencies = [0u16; VALUE_CLASSES];
        let (mut class, mut sum) = (0, 0);
        while class < VALUE_CLASSES {
            let frequency = match take_u8(body)? {
                0 => {
                    let zeros = usize::from(take_u8(body)?);
                    if zeros == 0 || zeros > VALUE_CLASSES - class {
                        return Err(WRONG);
                    }
                    class += zeros;
                    continue;
                }
                low @ 1..128 => u16::from(low),
                high => u16::from_le_bytes([take_u8(body)?, high & 127]),
            };
            frequencies[class] = frequency;
            sum += u32::from(frequency);
            class += 1;
        }
        let last = frequencies[VALUE_CLASSES - 1];
        if sum != u32::from(TOTAL) || last == 0 || last == TOTAL {
            return Err(WRONG);
        }
        Ok(Self(frequencies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roundtrip(counts: &Counts) -> Frequencies {
        let frequencies = Frequencies::from_counts(counts);
        assert_eq!(frequencies.0.iter().sum::<u16>(), TOTAL);
        assert!(counts.iter().zip(frequencies.0).all(|(&count, frequency)| count == 0 || frequency > 0));
        let mut stored = Vec::new();
        frequencies.put(&mut stored);
        let mut rest = &stored[..];
        assert_eq!(Frequencies::take(&mut rest), Ok(frequencies));
        assert!(rest.is_empty());
        for len in 0..stored.len() {
            assert!(Frequencies::take(&mut &stored[..len]).is_err());
        }
        frequencies
    }

    #[test]
    fn frequencies_come_back() {
        roundtrip(&[1; VALUE_CLASSES]);
        roundtrip(&[u32::MAX >> 6; VALUE_CLASSES]);
        for class in 0..VALUE_CLASSES {
            let mut counts = [0; VALUE_CLASSES];
            counts[class] = 1 << 20;
            let one = roundtrip(&counts);
            assert!(one.0.iter().all(|frequency| *frequency < TOTAL));
            counts = [1; VALUE_CLASSES];
            counts[class] = 1 << 20;
            roundtrip(&counts);
        }
        roundtrip(&[0; VALUE_CLASSES]);
    }

    #[test]
    fn intervals_follow_each_other_to_the_end() {
        let mut counts = [0; VALUE_CLASSES];
        counts[3] = 5;
        counts[9] = 1;
        let intervals = Frequencies::from_counts(&counts).intervals();
        for pair in intervals.windows(2) {
            assert_eq!(pair[0].1.checked_add(pair[0].0), Some(pair[1].1));
        }
        assert_eq!(u32::from(intervals[31].0) + u32::from(intervals[31].1), 1 << 16);
    }

    #[test]
    fn wrong_frequencies_are_refused() {
        let wrong: [&[u8]; 6] = [
            &[0, 31, 0x90, 0],       // one class is all
            &[0x8f, 0xff, 1, 0, 30], // none for the last class
            &[0, 33],                // too many zeros
            &[0, 0],                 // no zeros
            &[1, 0, 30, 1],          // too small a sum
            &[0xff, 0xff, 0, 30, 1], // too great a sum
        ];
        for bytes in wrong {
            assert!(Frequencies::take(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
        assert!(Frequencies::take(&mut &[0x8f, 0xff, 0, 30, 1][..]).is_ok());
    }
}
