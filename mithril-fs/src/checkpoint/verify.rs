//! `verify`.

use super::arguments::VerifyFlags;
use super::failure::Failure;
use super::input;
use crate::exit::ExitCode;

pub(super) fn run(flags: &VerifyFlags) -> Result<(), Failure> {
    let mut worst: Option<Failure> = None;
    for path in &flags.files {
        let checked = input::open_compressed(path, flags.base.as_deref())
            .and_then(|file| file.verify().map_err(|error| Failure::of(path, &error)));
        match checked {
            Ok(()) => println!("{}: ok", path.display()),
            Err(failure) => {
                if let Some(before) = worst.replace(failure) {
                    eprintln!("mithril-checkpoint: {}", before.message);
                    let last = worst.take();
                    // Damage counts more than what could not be looked at.
                    worst = last.map(|last| Failure {
                        code: if before.code == ExitCode::Damaged { before.code } else { last.code },
                        ..last
                    });
                }
            }
        }
    }
    worst.map_or(Ok(()), Err)
}
