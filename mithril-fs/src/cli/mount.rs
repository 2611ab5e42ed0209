//! `mount`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::Outcome;
use super::arguments::MountFlags;
use super::background::{self, Ready};
use crate::control::client;
use crate::control::protocol::CommandError;
use crate::control::protocol::{Answer, Request};
use crate::daemon;
use crate::exit::ExitCode;
use crate::mounting::log::{self, Escaped};
use crate::mounting::mountinfo::{self, OurMount};
use crate::mounting::unmount;
use crate::overlay::STORE_DIR;
use crate::printable::printable;
use crate::settings::{MountSettings, PackPolicy};

fn failed(code: ExitCode, message: String) -> CommandError {
    CommandError { message, exit_code: code as u8 }
}

pub(super) fn mount(flags: &MountFlags) -> Outcome {
    let mut ready = Ready::inherited();
    let settings = settings(flags);
    if !flags.foreground && !ready.is_detached() {
        check(&settings?)?;
        for notice in background::detach()? {
            eprintln!("mithril-fs: {}", printable(&notice));
        }
        return Ok(ExitCode::Ok);
    }
    let result = settings.and_then(|settings| {
        check(&settings)?;
        let detached = ready.is_detached();
        let begin_log = |store: BorrowedFd<'_>| begin_log(flags, detached, store);
        daemon::run(settings, begin_log, |notices| ready.tell(Ok(notices)))
    });
    if let Err(error) = &result {
        ready.tell(Err(error));
    }
    result.map(|()| ExitCode::Ok)
}

/// The flags as plain data.
fn settings(flags: &MountFlags) -> Result<MountSettings, CommandError> {
    let absolute = |path: &Path| {
        mountinfo::absolute(path)
            .map_err(|error| failed(ExitCode::Failed, format!("{}: {error}", path.display())))
    };
    let directory = absolute(&flags.directory)?;
    let mountpoint = flags.mountpoint.as_deref().map_or_else(|| Ok(directory.clone()), absolute)?;
    Ok(MountSettings {
        directory,
        mountpoint,
        passthrough: !flags.no_passthrough,
        packing: !flags.no_packing,
        policy: PackPolicy {
            include: flags.include.clone(),
            exclude: flags.exclude.clone(),
            min_size: flags.min_size,
            hot: flags.hot,
            existing: flags.pack_existing,
        },
        settle: Duration::from_secs_f64(flags.settle),
        level: flags.level,
        pack_rate: flags.pack_rate,
        allow_other: flags.allow_other,
        threads: flags.threads,
        cache_bytes: usize::try_from(flags.cache_size).unwrap_or(usize::MAX),
    })
}

/// Detaches mounts whose daemon is gone, and refuses where one is at work.
fn check(settings: &MountSettings) -> Result<(), CommandError> {
    let list =
        |error: io::Error| failed(ExitCode::Failed, format!("cannot read the list of mounts: {error}"));
    for path in [&settings.directory, &settings.mountpoint] {
        // As many as there are: mounts may lie on top of each other.
        while let Some(mount) = mountinfo::covering(path).map_err(list)? {
            if !mountinfo::is_dead(&mount.mountpoint) {
                return Err(failed(
                    ExitCode::AlreadyMounted,
                    format!(
                        "{} is on a mithril mount already ({} at {}, by {}); unmount it first: mithril-fs umount {}",
                        path.display(),
                        mount.source.display(),
                        mount.mountpoint.display(),
                        server_of(&mount),
                        mount.mountpoint.display()
                    ),
                ));
            }
            if let Err(error) = unmount::unmount(&mount.mountpoint, true) {
                return Err(failed(
                    ExitCode::Failed,
                    format!(
                        "the daemon of {} died, and the mount cannot be detached: {error:?}",
                        mount.mountpoint.display()
                    ),
                ));
            }
        }
        if !path.is_dir() {
            return Err(failed(ExitCode::Failed, format!("{} is not a directory", path.display())));
        }
    }
    let nested =
        settings.mountpoint != settings.directory && settings.mountpoint.starts_with(&settings.directory);
    if nested {
        return Err(failed(
            ExitCode::Usage,
            "the mount point lies inside the directory; mount it over itself or elsewhere".to_owned(),
        ));
    }
    Ok(())
}

/// The process that serves a mount, as far as it can be asked.
fn server_of(mount: &OurMount) -> String {
    match client::ask(mount, &Request::Status, &mut |_| {}) {
        Ok(Answer::Status(status)) => format!("process {} of user {}", status.pid, mount.owner),
        _ => format!("a process of user {}", mount.owner),
    }
}

/// Logs to where the flags say: in the background to a file, by default in the store's directory. Without a log of its
/// own, a daemon still serves: a full disk must not keep anybody from their files.
fn begin_log(
    flags: &MountFlags,
    detached: bool,
    store: BorrowedFd<'_>,
) -> Result<Option<String>, CommandError> {
    let level = flags.log_level;
    match &flags.log {
        _ if !detached => log_to(io::stderr(), level),
        Some(path) => log_to(open_log(path)?, level),
        None => match log::open(store) {
            Ok(file) => log_to(file, level),
            Err(error) => return Ok(Some(format!("there is no log: {STORE_DIR}/daemon.log: {error}"))),
        },
    }
    Ok(None)
}

/// Opens the log that a flag names.
fn open_log(path: &Path) -> Result<File, CommandError> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > log::LOG_MAX_BYTES) {
        let _ = std::fs::rename(path, path.with_extension("log.1"));
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| failed(ExitCode::Failed, format!("cannot log to {}: {error}", path.display())))
}

fn log_to(writer: impl Write + Send + 'static, level: tracing::Level) {
    let builder = tracing_subscriber::fmt().with_max_level(level).with_target(false);
    // A second call in one process changes nothing; there is none. Colours would be escaped.
    let _ = builder.with_ansi(false).with_writer(Mutex::new(Escaped(writer))).try_init();
}
