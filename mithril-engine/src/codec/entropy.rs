//! Counting bytes, and what a code for them would take.

/// How often each byte value occurs.
pub(super) type Histogram = [u32; 256];

/// Counts bytes. Four counters for each value, since equal neighbours would wait for each other.
pub(super) fn count(bytes: &[u8]) -> Histogram {
    let mut counters = [[0u32; 256]; 4];
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        for (i, &byte) in word.iter().enumerate() {
            counters[i % 4][usize::from(byte)] += 1;
        }
    }
    for &byte in rest {
        counters[0][usize::from(byte)] += 1;
    }
    std::array::from_fn(|value| counters.iter().map(|counter| counter[value]).sum())
}

/// Bits that an ideal code of single symbols takes for all of them.
pub(super) fn bits(histogram: &Histogram) -> f64 {
    let total: f64 = histogram.iter().map(|&count| f64::from(count)).sum();
    let sum: f64 = histogram
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| f64::from(count) * f64::from(count).log2())
        .sum();
    if total > 0.0 { total * total.log2() - sum } else { 0.0 }
}

/// The most frequent value and its count.
pub(super) fn most_frequent(histogram: &Histogram) -> (u8, u32) {
    let mut best = (0, histogram[0]);
    for (value, &count) in (0..=u8::MAX).zip(histogram) {
        if count > best.1 {
            best = (value, count);
        }
    }
    best
}

/// Binary places of [`log2`].
pub(super) const LOG2_FRACTION: u32 = 16;

/// The logarithms of 1 to 2 in steps of 1/256, in units of 2^-24.
const LOG2: [u32; 257] = {
    let mut logs = [0; 257];
    let mut step = 0;
    while step < 256 {
        // Bit by bit: squaring doubles the logarithm.
        let mut x = (256 + step as u64) << 23;
        let (mut log, mut bit) = (0u32, 0);
        while bit < 24 {
            x = (x * x) >> 31;
            log <<= 1;
            if x >> 32 != 0 {
                log |= 1;
                x >>= 1;
            }
            bit += 1;
        }
        logs[step] = log;
        step += 1;
    }
    logs[256] = 1 << 24;
    logs
};

/// The binary logarithm in units of 2^-16; 0 for 0. Integers, since the library's logarithm differs between systems.
pub(super) fn log2(x: u64) -> u64 {
    if x == 0 {
        return 0;
    }
    let fraction = (x << x.leading_zeros()) << 1;
    let place = usize::from((fraction >> 56).to_le_bytes()[0]);
    let between = fraction >> 40 & 0xffff;
    let (low, high) = (u64::from(LOG2[place]), u64::from(LOG2[place + 1]));
    let log = low + (((high - low) * between) >> 16);
    (u64::from(x.ilog2()) << LOG2_FRACTION) + (log >> (24 - LOG2_FRACTION))
}

/// `x log2(x)` in units of 2^-16: the sum over the parts of something, taken from its own, is what an ideal code for the
/// parts takes.
pub(super) fn information(x: u32) -> u64 {
    u64::from(x) * log2(u64::from(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_close() {
        for x in (1..5000).chain([65535, 65536, 65537, 1 << 20, 52_428_802, u64::from(u32::MAX)]) {
            let exact = (x as f64).log2();
            assert!((log2(x) as f64 / 65536.0 - exact).abs() < 4e-5, "{x}");
        }
    }
}
