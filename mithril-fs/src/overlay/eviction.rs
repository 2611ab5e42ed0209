//! Files that the kernel remembers cost a descriptor each, and descriptors have a limit. Before it is reached the kernel
//! is asked to forget names that nobody uses just then; it asks for them again when it needs them.
//!
//! Asking takes the lock of the directory in the kernel, which somebody may hold who waits for us: so it has a thread of its
//! own, which nobody waits for. Whoever looks up names faster than that is slowed down a little instead.
//!
//! Directories are not forgotten: the kernel would cut off whoever has one as their working directory.

use std::ffi::OsStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::FileType;

use super::node::{Node, NodeId};
use super::steady::is_mapped;
use super::{Overlay, lower};

/// What the kernel can be told without having asked.
pub(crate) trait Kernel: Send + Sync {
    /// It is to ask for an inode's attributes again.
    fn forget_attributes(&self, id: NodeId);

    /// It is to forget a name, and the inode with it if it has no other use for that.
    fn forget_name(&self, parent: NodeId, name: &OsStr);
}

/// How many inodes may be known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity(usize);

impl Capacity {
    /// What `descriptors` allow for: open files and the store need some too.
    pub(crate) fn of_descriptors(descriptors: u64) -> Self {
        Self(usize::try_from(descriptors).unwrap_or(usize::MAX) / 4 * 3)
    }

    /// From here on names are forgotten.
    fn high(self) -> usize {
        self.0 / 3 * 2
    }

    /// Down to here.
    fn low(self) -> usize {
        self.0 / 2
    }
}

/// How long what cannot be forgotten or let go of yet is left alone.
const PAUSE: Duration = Duration::from_millis(20);

/// The same, of what somebody has for long.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a look-up waits if names come faster than they are forgotten: others get at the directory meanwhile.
const BRAKE: Duration = Duration::from_millis(1);

/// Wakes the thread that has names forgotten.
#[derive(Default)]
pub(crate) struct Bell {
    calls: Mutex<Calls>,
    heard: Condvar,
}

/// What the thread is called for.
#[derive(Default)]
struct Calls {
    /// There are too many names.
    full: bool,
    /// Inodes that the kernel has forgotten while somebody here still had them.
    left: Vec<NodeId>,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        self.lock().full = true;
        self.heard.notify_one();
    }

    /// Leaves an inode to be let go of.
    pub(super) fn leave(&self, id: NodeId) {
        self.lock().left.push(id);
        self.heard.notify_one();
    }

    /// Waits to be called, for a pause at most if there is one.
    fn wait(&self, pause: Option<Duration>) -> Calls {
        let is_quiet = |calls: &mut Calls| !calls.full && calls.left.is_empty();
        let calls = self.lock();
        let mut calls = match pause {
            None => self.heard.wait_while(calls, is_quiet).unwrap_or_else(PoisonError::into_inner),
            Some(pause) => {
                self.heard
                    .wait_timeout_while(calls, pause, is_quiet)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        std::mem::take(&mut calls)
    }
}

impl Overlay {
    /// Makes room before another inode becomes known.
    pub(super) fn make_room(&self) {
        let known = self.nodes.len();
        if known >= self.capacity.high() {
            self.bell.ring();
        }
        if known >= self.capacity.0 {
            std::thread::sleep(BRAKE);
        }
    }

    /// Has names forgotten whenever there are too many, and lets go of what the kernel has forgotten, for as long as the
    /// process lives.
    pub(crate) fn evict(self: Arc<Self>) {
        let mut left: Vec<NodeId> = Vec::new();
        let (mut pause, mut full) = (PAUSE, false);
        loop {
            let calls = self.bell.wait((full || !left.is_empty()).then_some(pause));
            pause = if calls.left.is_empty() && !calls.full { (pause * 2).min(LONGEST_PAUSE) } else { PAUSE };
            left.extend(calls.left);
            left.sort_unstable();
            left.dedup();
            // A deleted file keeps its blocks for as long as it is here.
            left.retain(|&id| self.nodes.let_go(id));
            if full || calls.full {
                full = self.forget_names();
                if full {
                    // Nothing more can be forgotten just now: others get at the table first.
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Has names forgotten, each once until it is looked up again. Returns whether there are too many still.
    fn forget_names(&self) -> bool {
        let known = self.nodes.len();
        if known <= self.capacity.high() {
            return false;
        }
        for node in self.nodes.pin_some(known - self.capacity.low(), is_idle_file) {
            let place = if is_unused(&node) { node.take_place() } else { None };
            if let (Some((parent, name)), Some(kernel)) = (place, self.kernel.get())
                && self.is_named(&node, parent, &name)
            {
                kernel.forget_name(parent, &name);
            }
            self.nodes.unpin(node);
        }
        self.nodes.len() > self.capacity.high()
    }

    /// Whether an inode has this name still: it may have been renamed, and be something else's now.
    fn is_named(&self, node: &Node, parent: NodeId, name: &OsStr) -> bool {
        let found =
            self.nodes.get(parent).and_then(|parent| lower::locate(&parent.fd, name)).and_then(lower::stat);
        found.is_ok_and(|stat| NodeId(stat.st_ino) == node.id)
    }
}

/// Whether it is a file that nobody has open. Quick: all look-ups wait meanwhile.
fn is_idle_file(node: &Node) -> bool {
    node.kind != FileType::Directory
        && node.has_place()
        && node.try_handles().is_some_and(|handles| handles.open.is_idle())
}

/// Whether nobody would notice that its name is looked up again.
fn is_unused(node: &Node) -> bool {
    node.try_handles().is_some_and(|mut handles| handles.open.is_idle() && !is_mapped(node, &mut handles))
}
