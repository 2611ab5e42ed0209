//! What a caller may choose: how much time to spend, and whether elements are taken apart at all.

use std::fmt;
use std::str::FromStr;

/// How much time the encoder spends for its ratio. Every level writes formats that every machine reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub enum Level {
    /// The least time: formats that are fast on every processor.
    Fast,
    /// What the file system uses: vector rANS for floats (fp16 only if it can be predicted) and for differences of 32-bit
    /// ones where the processor has AVX2 or more, and the fast formats elsewhere. 16-bit changes are coded in context where
    /// it has AVX-512, and with AVX2 where almost all elements changed.
    #[default]
    Default,
    /// Every format that may be shorter is tried on every processor, and the shortest kept. Files are searched for moments of
    /// Adam, of which the first ones are told by the second ones.
    Max,
}

impl Level {
    /// All levels, fastest first.
    pub const ALL: [Level; 3] = [Level::Fast, Level::Default, Level::Max];

    /// The level that goes with a zstd level: up to 1 is fast, up to 9 the default, more is max.
    pub const fn from_zstd(level: i32) -> Self {
        match level {
            ..=1 => Level::Fast,
            2..=9 => Level::Default,
            _ => Level::Max,
        }
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Fast => "fast",
            Level::Default => "default",
            Level::Max => "max",
        }
    }

    /// The zstd level for bytes that are no numbers.
    pub(super) const fn zstd(self) -> i32 {
        match self {
            Level::Fast => 1,
            Level::Default => 3,
            Level::Max => 19,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Level::ALL
            .into_iter()
            .find(|level| level.name() == name)
            .ok_or_else(|| format!("unknown level {name:?}: use fast, default or max"))
    }
}

/// How a chunk is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Options {
    /// How much time to spend.
    pub level: Level,
    /// Whether numbers are split into planes, or compared with their base, at all. Without, they are bytes like any
    /// others: zstd sees them as they are.
    pub planes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { level: Level::Default, planes: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert!("best".parse::<Level>().is_err());
        assert_eq!(
            [-5, 1, 3, 9, 19].map(Level::from_zstd),
            [Level::Fast, Level::Fast, Level::Default, Level::Default, Level::Max]
        );
    }
}
