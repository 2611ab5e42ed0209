//! Exit codes.

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ExitCode {
    /// It did what it was asked.
    Ok = 0,
    /// It failed; nothing was lost.
    Failed = 1,
    /// The arguments are wrong.
    Usage = 2,
    /// Nothing is mounted there, or its daemon cannot be reached.
    NotMounted = 3,
    /// The directory is mounted or locked by another process already.
    AlreadyMounted = 4,
    /// Damaged data was found.
    Damaged = 5,
    /// The mount is in use.
    Busy = 6,
    /// Some files could not be treated and stay as they are.
    Partial = 7,
}

/// The codes, for `--help`.
pub const HELP: &str = "Exit codes:\n  0 done\n  1 failed\n  2 wrong arguments\n  3 not mounted, or its daemon cannot be \
reached\n  4 mounted or locked by another process\n  5 damaged data was found\n  6 the mount is in use\n  7 some files \
stay as they are";

impl ExitCode {
    /// The code with this number; `Failed` for any other.
    pub fn from_number(number: u8) -> Self {
        use ExitCode::{AlreadyMounted, Busy, Damaged, Failed, NotMounted, Ok, Partial, Usage};
        let all = [Ok, Failed, Usage, NotMounted, AlreadyMounted, Damaged, Busy, Partial];
        all.into_iter().find(|code| *code as u8 == number).unwrap_or(Failed)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code as u8)
    }
}
