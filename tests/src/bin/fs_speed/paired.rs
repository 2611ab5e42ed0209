//! Seconds of two ways, measured in turns.

/// Seconds of one way and of the other, pair by pair.
#[derive(Default)]
pub(crate) struct Paired {
    pairs: Vec<(f64, f64)>,
}

impl Paired {
    /// Measures two of each in a pair, the first way first and last or in the middle by turns: what a machine does every
    /// second time, as it frees and reuses blocks, falls on both alike.
    pub(crate) fn measure(pairs: usize, mut seconds: impl FnMut(bool) -> f64) -> Self {
        let mut measured = Self::default();
        for pair in 0..pairs {
            let (mut first, mut second) = (0.0, 0.0);
            for turn in 0..4 {
                let is_first = (turn == 0 || turn == 3) == (pair % 2 == 0);
                *if is_first { &mut first } else { &mut second } += seconds(is_first) / 2.0;
            }
            measured.pairs.push((first, second));
        }
        measured
    }

    /// The median of each way's seconds.
    pub(crate) fn medians(&self) -> (f64, f64) {
        (median(self.pairs.iter().map(|pair| pair.0)), median(self.pairs.iter().map(|pair| pair.1)))
    }

    /// The median of the ratios, and its interval.
    pub(crate) fn ratio(&self) -> String {
        let mut ratios: Vec<f64> = self.pairs.iter().map(|(first, second)| first / second).collect();
        ratios.sort_by(f64::total_cmp);
        // The second smallest and largest of nine bound the median with 96 %.
        let bound = usize::from(ratios.len() >= 5);
        let (low, high) = (ratios[bound], ratios[ratios.len() - 1 - bound]);
        format!("{:.3} [{low:.3}, {high:.3}]", median(ratios.iter().copied()))
    }
}

/// The median.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
