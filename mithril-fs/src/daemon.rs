//! The daemon: puts the parts together, serves until the mount ends, and answers the commands.
//!
//! Order of life: lower directory opened and locked, what it can do probed, store opened, mount made, commands
//! answered, the whole directory looked through once. Order of death: mount gone, packing stopped, socket closed.

mod commands;
mod signals;
mod tree;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mithril_engine::file::cache::ChunkCache;
use mithril_engine::file::read::ReadAhead;
use mithril_engine::store::Store;
use rustix::fs::{Mode, OFlags};

use crate::control::protocol::{CommandError, RelPath, StopReport};
use crate::events::{Events, Watcher};
use crate::overlay::node::Node;
use crate::overlay::{Overlay, Parts, STORE_DIR};
use crate::packer::{Packer, PackerParts};
use crate::session::{self, SessionSettings};
use crate::settings::MountSettings;
use tree::TreeGuard;

/// Bytes that are decoded ahead of a sequential reader: enough for every core to have a chunk under way.
const AHEAD_BYTES: u64 = 8 << 20;

/// After a signal, how long open handles may keep a daemon whose mount is detached.
const LINGER: Duration = Duration::from_secs(5);

/// A daemon that serves.
pub(crate) struct Daemon {
    overlay: Arc<Overlay>,
    /// The packer, or why there is none.
    packer: Result<Arc<Packer>, String>,
    passthrough: Result<(), String>,
    settings: MountSettings,
    tree: Arc<TreeGuard>,
    /// The lower directory.
    root: OwnedFd,
    /// What was left when the mount ended, once it did.
    stopping: AtomicBool,
    packer_thread: Mutex<Option<JoinHandle<()>>>,
}
