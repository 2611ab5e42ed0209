//! What a caller may choose.

use crate::codec::{Level, Options};

/// How buffers and files are compressed. Reading needs none of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CompressionConfig {
    /// How much time is spent for the ratio.
    pub level: Level,
    /// Whether numbers are taken apart into planes and compared with their base. Without, they are bytes like any
    /// others, which zstd sees as they are.
    pub byte_grouping: bool,
    /// Threads to encode and decode with; 0 stands for as many as there are processors.
    pub threads: usize,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self { level: Level::default(), byte_grouping: true, threads: 0 }
    }
}

impl CompressionConfig {
    /// The same with the level that goes with a level of zstd: up to 1 is fast, up to 9 the default, more is max.
    #[must_use]
    pub const fn with_zstd_level(mut self, level: i32) -> Self {
        self.level = Level::from_zstd(level);
        self
    }

    /// The same with another level.
    #[must_use]
    pub const fn with_level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// The same with numbers taken apart or not.
    #[must_use]
    pub const fn with_byte_grouping(mut self, byte_grouping: bool) -> Self {
        self.byte_grouping = byte_grouping;
        self
    }

    /// The same with another number of threads.
    #[must_use]
    pub const fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// What the codec is told.
    pub(super) const fn options(&self) -> Options {
        Options { level: self.level, planes: self.byte_grouping }
    }
}
