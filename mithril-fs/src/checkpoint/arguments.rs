//! The arguments of `mithril-checkpoint`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mithril_engine::checkpoint::mcp::{Lossy, Scales};
use mithril_engine::checkpoint::{CompressionConfig, Level};
use mithril_engine::quantize::{Bound, DEFAULT_BLOCK_ELEMENTS, Scheme};

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

/// What may be lost. Nothing, unless both `--lossy` and a bound are given.
#[derive(Args, Debug, Clone, Copy)]
pub struct LossyFlags {
    /// Round floats: int8, fp8-e4m3, fp8-e5m2, fp16 or bf16. Integers stay what they are.
    #[arg(long, value_name = "SCHEME", requires = "bound")]
    pub lossy: Option<Scheme>,
    /// The most that a number may be off; what would be further off is kept exactly.
    #[arg(long, value_name = "E", group = "bound", requires = "lossy")]
    pub max_error: Option<f64>,
    /// The same as a share of the largest number of its block or channel.
    #[arg(long, value_name = "SHARE", group = "bound", requires = "lossy", conflicts_with = "max_error")]
    pub max_relative_error: Option<f64>,
    /// Numbers that share a scale.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_BLOCK_ELEMENTS, value_parser = block, requires = "lossy")]
    pub block: usize,
    /// One scale for each row of a tensor instead.
    #[arg(long, requires = "lossy", conflicts_with = "block")]
    pub per_channel: bool,
}

fn block(text: &str) -> Result<usize, String> {
    let value = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if value == 0 { Err("a block has one number at least".to_owned()) } else { Ok(value) }
}

impl LossyFlags {
    /// What the engine is told.
    pub fn lossy(&self) -> Option<Lossy> {
        let bound = match (self.max_error, self.max_relative_error) {
            (Some(error), _) => Bound::Absolute(error),
            (None, Some(share)) => Bound::Relative(share),
            (None, None) => return None,
        };
        let scales = if self.per_channel { Scales::Channel } else { Scales::Block(self.block) };
        self.lossy.map(|scheme| Lossy { scheme, bound, scales })
    }
}

/// Flags of `compress`.
#[derive(Args, Debug)]
pub struct CompressFlags {
    /// The file; `-` is standard input. With `-r` the directory. An index (`model.safetensors.index.json`) stands for
    /// itself and its shards.
    pub input: PathBuf,
    /// Where to write it; `-` is standard output. The input's name with `.mcp` behind it if not given. With `-r`, and
    /// for an index, a directory.
    #[arg(long, short)]
    pub output: Option<PathBuf>,
    /// An earlier checkpoint, compressed or not, to store only the difference from. It is needed to decompress. With
    /// `-r`, and for an index, a directory with files of the same names.
    #[arg(long)]
    pub base: Option<PathBuf>,
    /// How to compress.
    #[command(flatten)]
    pub codec: CodecFlags,
    /// What may be lost.
    #[command(flatten)]
    pub lossy: LossyFlags,
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
