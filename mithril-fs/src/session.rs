//! The FUSE session: mounting, serving, ending.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};

use crate::adapter::{Adapter, Notices};
use crate::overlay::Overlay;

/// Threads that answer the kernel. More than processors: some of them wait for disks.
const THREADS: usize = 8;

/// File-system type of the mount, as `/proc/self/mountinfo` shows it after `fuse.`.
pub(crate) const SUBTYPE: &str = "mithril-fs";

/// How a session is set up.
pub(crate) struct SessionSettings<'a> {
    /// Where.
    pub(crate) mountpoint: &'a Path,
    /// What `mount` shows as the source.
    pub(crate) source: String,
    /// Whether to ask for passthrough.
    pub(crate) passthrough: bool,
    /// Whether other users may use the mount.
    pub(crate) allow_other: bool,
    /// Whether set-user-id programs work: only a privileged daemon can allow it.
    pub(crate) set_user_id: bool,
    /// Whether device files work, likewise.
    pub(crate) devices: bool,
}

/// A mount that is being served.
pub(crate) struct Served {
    /// Ends when the mount is gone.
    pub(crate) session: BackgroundSession,
    /// Whether plain files are passed through; if not, why.
    pub(crate) passthrough: Result<(), String>,
}

/// Mounts and begins to serve.
pub(crate) fn serve(overlay: &Arc<Overlay>, settings: &SessionSettings<'_>) -> std::io::Result<Served> {
    let granted = Arc::new(OnceLock::new());
    let adapter = Adapter::new(Arc::clone(overlay), settings.passthrough, Arc::clone(&granted));
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(settings.source.clone()),
        MountOption::Subtype(SUBTYPE.to_owned()),
        MountOption::DefaultPermissions,
    ];
    if settings.set_user_id {
        config.mount_options.push(MountOption::Suid);
    }
    if settings.devices {
        config.mount_options.push(MountOption::Dev);
    }
    config.acl = if settings.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let session = Session::new(adapter, settings.mountpoint, &config)?;
    overlay.tell_kernel(Box::new(Notices(session.notifier())));
    let session = session.spawn()?;
    let passthrough = granted.get().cloned().unwrap_or_else(|| Err("the kernel did not answer".to_owned()));
    Ok(Served { session, passthrough })
}
