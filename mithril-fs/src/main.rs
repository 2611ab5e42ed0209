//! The command line of `mithril-fs`.

use std::process::ExitCode;

use clap::Parser;
use mithril_fs::cli;

fn main() -> ExitCode {
    cli::run(cli::arguments::Arguments::parse()).into()
}
