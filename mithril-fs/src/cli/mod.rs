//! The command line: arguments to requests, answers to text or JSON.

pub mod arguments;
mod background;
pub(crate) mod bar;
mod force;
pub mod format;
mod mount;
mod query;
mod target;
mod work;

use arguments::{Arguments, Command};

use crate::control::protocol::{CommandError, Request};
use crate::exit::ExitCode;
use crate::fault;
use crate::printable::printable;

/// What a command that did not fail has to say with its exit code.
type Outcome = Result<ExitCode, CommandError>;

/// Runs a command; prints its errors.
pub fn run(arguments: Arguments) -> ExitCode {
    if let Err(refusal) = fault::prepare() {
        eprintln!("mithril-fs: {refusal}");
        return ExitCode::Usage;
    }
    let outcome = match arguments.command {
        Command::Mount(flags) => mount::mount(&flags),
        Command::Umount(flags) => work::umount(&flags),
        Command::Sync(flags) => work::sync(&flags),
        Command::Status(flags) => query::status(&flags),
        Command::Ls(flags) => query::ls(&flags),
        Command::Pack(flags) => work::pack(&flags),
        Command::Pause(flags) => work::pause(&flags, &Request::Pause),
        Command::Resume(flags) => work::pause(&flags, &Request::Resume),
        Command::Unpack(flags) => work::unpack(&flags),
        Command::Cat(flags) => query::cat(&flags),
        Command::Verify(flags) => work::verify(&flags),
        Command::Gc(flags) => work::gc(&flags),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("mithril-fs: {}", printable(&error.message));
        ExitCode::from_number(error.exit_code)
    })
}
