//! The arguments of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mithril_engine::codec::Level;
use mithril_engine::settings::PACK_MIN_BYTES;

use crate::exit;
use crate::packer;

/// Keeps machine-learning checkpoints small: a directory whose files are packed in the background.
#[derive(Parser, Debug)]
#[command(name = "mithril-fs", version, after_help = exit::HELP)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Mount a directory over itself, or somewhere else.
    Mount(MountFlags),
    /// End a mount. What is queued is packed after the next mount.
    Umount(UmountFlags),
    /// Pack everything now, and wait for it.
    Sync(PathFlags),
    /// Say how a directory stands: sizes, ratio, queue, errors.
    Status(QueryFlags),
    /// List files with what they take.
    Ls(QueryFlags),
    /// Pack files now, also those that the mount leaves plain by itself.
    Pack(PackFlags),
    /// Begin to pack no file until `resume`. The one that is being packed is finished; nothing is lost.
    Pause(MountPathFlags),
    /// Go on packing, also at once where it waits for room.
    Resume(MountPathFlags),
    /// Make packed files plain again, until they change; also without a mount. Broken off, it goes on the next time.
    Unpack(UnpackFlags),
    /// Write a file's content to standard output, also without a mount.
    Cat(PathFlags),
    /// Read and check everything.
    Verify(VerifyFlags),
    /// Give back the space of what no file needs any more.
    Gc(GcFlags),
}

/// Flags of `mount`.
#[derive(Args, Debug)]
pub struct MountFlags {
    /// The directory that keeps the files.
    pub directory: PathBuf,
    /// Where to mount it; over itself if not given.
    pub mountpoint: Option<PathBuf>,
    /// Stay in the foreground, and log to standard error.
    #[arg(long, short)]
    pub foreground: bool,
    /// Do all I/O in the daemon, even where the kernel could do that of plain files.
    #[arg(long)]
    pub no_passthrough: bool,
    /// Do not pack closed files.
    #[arg(long)]
    pub no_packing: bool,
    /// Pack by itself only what matches, like 'step_*.pt' for names or 'run/**/model.*' for paths; may be repeated.
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    pub include: Vec<String>,
    /// Leave plain what matches, and all below a directory that does; may be repeated.
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    pub exclude: Vec<String>,
    /// Leave smaller files plain.
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = min_size)]
    pub min_size: u64,
    /// Leave the newest N steps of each file plain until newer ones come. A file without steps is its newest one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub hot: usize,
    /// Pack also what was there before the directory was first mounted, in this mount and in later ones.
    #[arg(long)]
    pub pack_existing: bool,
    /// Seconds that a file must have been closed before it is packed.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub settle: f64,
    /// Time spent on packing for the ratio: fast, default or max. Reading takes as long as the formats that it chose.
    #[arg(long, default_value_t = Level::Default)]
    pub level: Level,
    /// Bytes of files that are packed in a second, like 200MiB; 0 for no limit. Nothing else is slowed.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = super::format::parse_size)]
    pub pack_rate: u64,
    /// Let other users use the mount.
    #[arg(long)]
    pub allow_other: bool,
    /// Threads that encode and decode; 0 for one a processor.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Memory for decoded chunks, like 96MiB.
    #[arg(long, value_name = "SIZE", default_value = "96MiB", value_parser = super::format::parse_size)]
    pub cache_size: u64,
    /// Where the daemon logs; `.mithril/daemon.log` in the directory if not given.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// What is logged: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: tracing::Level,
}

fn glob(text: &str) -> Result<String, String> {
    packer::glob(text).map(|_| text.to_owned())
}

fn min_size(text: &str) -> Result<u64, String> {
    let size = super::format::parse_size(text)?;
    if size >= PACK_MIN_BYTES { Ok(size) } else { Err("files below 64 KiB are never packed".to_owned()) }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("must be between 0 and 86400".to_owned())
    }
}

/// Flags of `umount`.
#[derive(Args, Debug)]
pub struct UmountFlags {
    /// The mount, the directory that it is of, or something below one of them.
    pub path: PathBuf,
    /// Pack what is queued first.
    #[arg(long)]
    pub drain: bool,
    /// Take the mount out of the tree although it is in use.
    #[arg(long)]
    pub lazy: bool,
    /// End it although its daemon hangs, also after --lazy: who waits for it gets an error, and the daemon is killed.
    #[arg(long, conflicts_with_all = ["drain", "lazy"])]
    pub force: bool,
}

/// A path.
#[derive(Args, Debug)]
pub struct PathFlags {
    /// A mounted directory, its mount, or something below one of them; some commands also take one that is not mounted.
    pub path: PathBuf,
}

/// A mount.
#[derive(Args, Debug)]
pub struct MountPathFlags {
    /// The mount, the directory that it is of, or something below one of them.
    #[arg(default_value = ".")]
    pub path: PathBuf,
}

/// Flags of `pack`.
#[derive(Args, Debug)]
pub struct PackFlags {
    /// Files, or directories for all below them.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Say first what it will come to, by a sample.
    #[arg(long, short)]
    pub recursive: bool,
    /// Only say what it would come to.
    #[arg(long)]
    pub estimate: bool,
}

/// Flags of `unpack`.
#[derive(Args, Debug)]
pub struct UnpackFlags {
    /// Files, or directories for all below them.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// All below a directory, as without it.
    #[arg(long, short)]
    pub recursive: bool,
}

/// A path, and how to answer.
#[derive(Args, Debug)]
pub struct QueryFlags {
    /// A directory or a file, mounted or not.
    pub path: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `verify`.
#[derive(Args, Debug)]
pub struct VerifyFlags {
    /// The directory, mounted or not.
    pub path: PathBuf,
    /// Write the index anew from the packs first.
    #[arg(long)]
    pub repair_index: bool,
}

/// Flags of `gc`.
#[derive(Args, Debug)]
pub struct GcFlags {
    /// The directory, mounted or not.
    pub path: PathBuf,
    /// Only say how much it would be.
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_mount_needs_one_argument() {
        let parsed = Arguments::try_parse_from(["mithril-fs", "mount", "/ckpt"]).unwrap();
        let Command::Mount(flags) = parsed.command else { panic!("not a mount") };
        assert_eq!((flags.mountpoint, flags.cache_size), (None, 96 << 20));
        assert!(Arguments::try_parse_from(["mithril-fs", "mount", "/ckpt", "--settle", "-1"]).is_err());
    }
}
