//! The arguments of `mithril-checkpoint`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mithril_engine::checkpoint::{CompressionConfig, Level};

use crate::exit;

/// Compresses machine-learning checkpoints, alone or against an earlier one, and gives them back byte for byte.
#[derive(Parser, Debug)]
#[command(name = "mithril-checkpoint", version, after_help = exit::HELP)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Compress a file, or every file of a directory.
    Compress(CompressFlags),
    /// Give back what was compressed.
    Decompress(DecompressFlags),
    /// Say what a file holds: tensors, types, encodings, ratios.
    Info(InfoFlags),
    /// Compare two checkpoints tensor by tensor.
    Diff(DiffFlags),
    /// Read and check a compressed file.
    Verify(VerifyFlags),
    /// Measure ratio and speed of each level on a file.
    Bench(BenchFlags),
}

/// Threads and level.
#[derive(Args, Debug, Clone, Copy)]
pub struct CodecFlags {
    /// Time spent for the ratio: fast, default or max.
    #[arg(long, default_value_t = Level::Default)]
    pub level: Level,
    /// Threads to work with; 0 takes all processors.
    #[arg(long, short = 'T', default_value_t = 0)]
    pub threads: usize,
}

impl CodecFlags {
    /// What the engine is told.
    pub fn config(&self) -> CompressionConfig {
        CompressionConfig::default().with_level(self.level).with_threads(self.threads)
    }
}

/// Flags of `compress`.
#[derive(Args, Debug)]
pub struct CompressFlags {
    /// The file; `-` is standard input. With `-r` the directory.
    pub input: PathBuf,
    /// Where to write it; `-` is standard output. The input's name with `.mcp` behind it if not given.
    #[arg(long, short)]
    pub output: Option<PathBuf>,
    /// An earlier checkpoint, compressed or not, to store only the difference from. It is needed to decompress. With
    /// `-r` a directory with files of the same names.
    #[arg(long)]
    pub base: Option<PathBuf>,
    /// How to compress.
    #[command(flatten)]
    pub codec: CodecFlags,
    /// Compress every file below a directory into another one.
    #[arg(long, short)]
    pub recursive: bool,
    /// Overwrite what is there.
    #[arg(long, short)]
    pub force: bool,
}

/// Flags of `decompress`.
#[derive(Args, Debug)]
pub struct DecompressFlags {
    /// The compressed file; `-` is standard input. With `-r` the directory.
    pub input: PathBuf,
    /// Where to write the file; `-` is standard output. The input's name without `.mcp` if not given.
    #[arg(long, short)]
    pub output: Option<PathBuf>,
    /// The checkpoint that a delta was made against; searched beside the input if not given.
    #[arg(long)]
    pub base: Option<PathBuf>,
    /// Threads to work with; 0 takes all processors.
    #[arg(long, short = 'T', default_value_t = 0)]
    pub threads: usize,
    /// Decompress every `.mcp` file below a directory into another one.
    #[arg(long, short)]
    pub recursive: bool,
    /// Overwrite what is there.
    #[arg(long, short)]
    pub force: bool,
}

/// Flags of `info`.
#[derive(Args, Debug)]
pub struct InfoFlags {
    /// The file, compressed or not.
    pub file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `diff`.
#[derive(Args, Debug)]
pub struct DiffFlags {
    /// The earlier checkpoint, compressed or not.
    pub old: PathBuf,
    /// The later one.
    pub new: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// How the size of the difference is measured.
    #[command(flatten)]
    pub codec: CodecFlags,
}

/// Flags of `verify`.
#[derive(Args, Debug)]
pub struct VerifyFlags {
    /// The compressed files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The checkpoint that a delta was made against; searched beside the file if not given.
    #[arg(long)]
    pub base: Option<PathBuf>,
}

/// Flags of `bench`.
#[derive(Args, Debug)]
pub struct BenchFlags {
    /// The file, compressed or not.
    pub file: PathBuf,
    /// An earlier checkpoint to compare with.
    #[arg(long)]
    pub base: Option<PathBuf>,
    /// Rounds; the best of them counts.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Threads to work with; 0 takes all processors.
    #[arg(long, short = 'T', default_value_t = 1)]
    pub threads: usize,
}
