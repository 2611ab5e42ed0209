//! Joining contexts: each that has frequencies of its own must be worth them.

use super::entropy::{LOG2_FRACTION, information};

/// Bits that a context with these counts takes, its frequencies included, in units of 2^-16.
fn cost(counts: &[u32], bits_a_frequency: u64) -> u64 {
    const BITS_A_CONTEXT: u64 = 8;
    let (mut all, mut parts, mut bits) = (0, 0, BITS_A_CONTEXT);
    for &count in counts.iter().filter(|count| **count > 0) {
        all += count;
        parts += information(count);
        bits += bits_a_frequency;
    }
    // The logarithm is rounded down, so the parts may be more than the whole by a little.
    information(all).saturating_sub(parts) + (bits << LOG2_FRACTION)
}

/// Joins neighbouring contexts, each with the counts of its classes, as long as that is cheaper, where a frequency that is
/// not 0 takes so many bits. Returns for each of `contexts` the group that it is in, and the counts of the groups.
pub(super) fn merge<const N: usize, const CLASSES: usize>(
    contexts: &[[u32; CLASSES]; N],
    bits_a_frequency: u64,
) -> ([u8; N], Vec<[u32; CLASSES]>) {
    type Counts<const CLASSES: usize> = [u32; CLASSES];
    let cost = |counts: &Counts<CLASSES>| cost(counts, bits_a_frequency);
    let mut groups = contexts.to_vec();
    let mut costs: Vec<u64> = groups.iter().map(cost).collect();
    let mut group_of: [u8; N] = std::array::from_fn(|context| context.to_le_bytes()[0]);
    let join = |a: &Counts<CLASSES>, b: &Counts<CLASSES>| -> Counts<CLASSES> {
        std::array::from_fn(|class| a[class] + b[class])
    };
    let mut joined: Vec<u64> = groups.windows(2).map(|pair| cost(&join(&pair[0], &pair[1]))).collect();
    loop {
        let mut best = None;
        for (i, &together) in joined.iter().enumerate() {
            if let Some(gain) = (costs[i] + costs[i + 1]).checked_sub(together + 1)
                && best.is_none_or(|(most, _)| gain > most)
            {
                best = Some((gain, i));
            }
        }
        let Some((_, i)) = best else { return (group_of, groups) };
        groups[i] = join(&groups[i], &groups[i + 1]);
        groups.remove(i + 1);
        costs[i] = joined[i];
        costs.remove(i + 1);
        joined.remove(i);
        for neighbour in [i.checked_sub(1), Some(i)].into_iter().flatten() {
            if let (Some(a), Some(b)) = (groups.get(neighbour), groups.get(neighbour + 1)) {
                joined[neighbour] = cost(&join(a, b));
            }
        }
        for group in group_of.iter_mut().filter(|group| usize::from(**group) > i) {
            *group -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_merge_where_they_are_alike() {
        let mut contexts = [[0; 32]; 4];
        (contexts[0][1], contexts[0][2]) = (1000, 1000);
        (contexts[1][1], contexts[1][2]) = (500, 510);
        (contexts[2][7], contexts[2][9]) = (5000, 400);
        let (group_of, groups) = merge(&contexts, 10);
        assert_eq!(group_of, [0, 0, 1, 1]);
        assert_eq!((groups.len(), groups[0][1], groups[1][7]), (2, 1500, 5000));
    }
}
