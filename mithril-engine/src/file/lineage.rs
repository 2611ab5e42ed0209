//! Which earlier file may be the base of a new one: decided by names alone.
//!
//! Training writes the same thing again and again under names that differ in a number: `step_100.pt` and
//! `step_200.pt` in one directory, or `checkpoint-100/model.safetensors` and `checkpoint-200/model.safetensors`. The
//! digits are wildcards; the nearest earlier number is the likeliest base. Which candidate really is one is tried
//! out on the files' tensors.

use std::cmp::Ordering;

/// A name with its runs of digits taken out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    /// The name with each run of digits replaced by one NUL, which no name contains.
    shape: Vec<u8>,
    /// The runs without leading zeros; any length, so no integers.
    numbers: Vec<Vec<u8>>,
}

impl Pattern {
    /// The pattern of a name, UTF-8 or not.
    pub fn of(name: &[u8]) -> Self {
        let (mut shape, mut numbers) = (Vec::with_capacity(name.len()), Vec::new());
        let mut rest = name;
        while let Some(&first) = rest.first() {
            if first.is_ascii_digit() {
                let run = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let significant = rest[..run].iter().position(|&digit| digit != b'0').unwrap_or(run);
                shape.push(0);
                numbers.push(rest[significant..run].to_vec());
                rest = &rest[run..];
            } else {
                shape.push(first);
                rest = &rest[1..];
            }
        }
        Self { shape, numbers }
    }

    /// Whether the name has a number at all.
    pub fn has_numbers(&self) -> bool {
        !self.numbers.is_empty()
    }

    /// How the numbers of two names of one shape compare; `None` if the shapes differ.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        let by_value = |a: &Vec<u8>, b: &Vec<u8>| a.len().cmp(&b.len()).then_with(|| a.cmp(b));
        (self.shape == other.shape).then(|| {
            let pairs = self.numbers.iter().zip(&other.numbers);
            pairs.map(|(a, b)| by_value(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        })
    }

    /// Whether its numbers say which part of one step it is, rather than which step: the same name is then found in
    /// the directory of another step.
    pub fn is_shard(&self) -> bool {
        const PARTS: [&[u8]; 8] =
            [b"-of-", b"rank", b"shard", b"rng_state", b"__", b"mp_", b"part", b"worker"];
        PARTS.iter().any(|part| self.shape.windows(part.len()).any(|window| window == *part))
    }
}

/// The names of `others` that are earlier versions of `name`, the nearest first, `limit` at most.
pub fn earlier<'a>(name: &[u8], others: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> Vec<&'a [u8]> {
    let pattern = Pattern::of(name);
    if !pattern.has_numbers() {
        return Vec::new();
    }
    let mut found: Vec<(Pattern, &[u8])> = others
        .into_iter()
        .map(|other| (Pattern::of(other), other))
        .filter(|(other, _)| other.compare(&pattern) == Some(Ordering::Less))
        .collect();
    found.sort_by(|(a, _), (b, _)| b.compare(a).unwrap_or(Ordering::Equal));
    found.into_iter().take(limit).map(|(_, name)| name).collect()
}

/// A file beside the new one, for the choice by age and size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, in ns since 1970.
    pub mtime_ns: i64,
}

/// Where no number tells: the latest file of the same suffix whose size is within a factor of two, written no later
/// than the new one.
pub fn alike<'a>(new: Neighbour<'_>, others: impl IntoIterator<Item = Neighbour<'a>>) -> Option<&'a [u8]> {
    let suffix = |name: &[u8]| name.iter().rposition(|&byte| byte == b'.').map(|dot| name[dot..].to_vec());
    let wanted = suffix(new.name);
    others
        .into_iter()
        .filter(|other| {
            other.name != new.name && suffix(other.name) == wanted && other.mtime_ns <= new.mtime_ns
        })
        .filter(|other| other.size / 2 <= new.size && new.size / 2 <= other.size)
        .max_by_key(|other| other.mtime_ns)
        .map(|other| other.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn earlier_of<'a>(name: &str, others: &[&'a str]) -> Vec<&'a str> {
        let others = others.iter().map(|other| other.as_bytes());
        earlier(name.as_bytes(), others, 9)
            .into_iter()
            .map(|found| std::str::from_utf8(found).unwrap())
            .collect()
    }

    #[test]
    fn the_nearest_earlier_number_comes_first() {
        let files = [
            "step_9.pt",
            "step_10.pt",
            "step_100.pt",
            "step_0200.pt",
            "step_1000.pt",
            "step_x.pt",
            "step_9.bin",
        ];
        assert_eq!(earlier_of("step_200.pt", &files), ["step_100.pt", "step_10.pt", "step_9.pt"]);
        assert_eq!(earlier_of("step_9.pt", &files), [""; 0]);
        assert_eq!(earlier_of("model.pt", &files), [""; 0]);
    }

    #[test]
    fn numbers_of_any_length_compare_by_value() {
        let long = "9".repeat(40);
        let longer = format!("step_1{}.pt", "0".repeat(40));
        assert_eq!(earlier_of(&longer, &[&format!("step_{long}.pt")]).len(), 1);
    }

    #[test]
    fn names_that_are_not_utf8_work() {
        let found = earlier(b"\xff-2", [&b"\xff-1"[..], b"\xfe-1"], 9);
        assert_eq!(found, [b"\xff-1"]);
    }

    #[test]
    fn parts_of_a_step_are_told_from_steps() {
        for part in [
            "model-00001-of-00004.safetensors",
            "__0_0.distcp",
            "mp_rank_00_model_states.pt",
            "rng_state_3.pth",
        ] {
            assert!(Pattern::of(part.as_bytes()).is_shard(), "{part}");
        }
        for step in ["step_100.pt", "checkpoint-20.pt", "epoch=3-step=100.ckpt", "iter_0000100"] {
            assert!(!Pattern::of(step.as_bytes()).is_shard(), "{step}");
        }
    }

    #[test]
    fn without_numbers_the_latest_of_its_kind_is_taken() {
        let file = |name, size, mtime_ns| Neighbour { name, size, mtime_ns };
        let others = [
            file(&b"a.pt"[..], 100, 1),
            file(b"b.pt", 150, 2),
            file(b"c.pt", 1000, 3),
            file(b"d.bin", 100, 4),
            file(b"e.pt", 100, 9),
        ];
        assert_eq!(alike(file(b"best.pt", 100, 5), others), Some(&b"b.pt"[..]));
        assert_eq!(alike(file(b"best.txt", 100, 5), others), None);
    }
}
