//! The command line of `mithril-checkpoint`: files to compressed checkpoints and back, without a mount.

pub mod arguments;
mod bench;
mod compress;
mod decompress;
mod diff;
mod failure;
mod files;
mod index;
mod info;
mod input;
mod verify;

use arguments::{Arguments, Command};
use failure::Failure;

use crate::exit::ExitCode;

/// Runs a command; prints its errors.
pub fn run(arguments: &Arguments) -> ExitCode {
    let done = match &arguments.command {
        Command::Compress(flags) => compress::run(flags),
        Command::Decompress(flags) => decompress::run(flags),
        Command::Info(flags) => info::run(flags),
        Command::Diff(flags) => diff::run(flags),
        Command::Verify(flags) => verify::run(flags),
        Command::Bench(flags) => bench::run(flags),
    };
    match done {
        Ok(()) => ExitCode::Ok,
        Err(Failure { message, code }) => {
            eprintln!("mithril-checkpoint: {message}");
            code
        }
    }
}
