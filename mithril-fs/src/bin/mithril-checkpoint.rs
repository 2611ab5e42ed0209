//! The command line of `mithril-checkpoint`.

use std::process::ExitCode;

use clap::Parser;
use mithril_fs::checkpoint::{self, arguments::Arguments};

fn main() -> ExitCode {
    checkpoint::run(&Arguments::parse()).into()
}
