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
