//! Files that the kernel remembers cost a descriptor each, and descriptors have a limit. Before it is reached the kernel
//! is asked to forget names that nobody uses just then; it asks for them again when it needs them.
//!
//! Asking takes the lock of the directory in the kernel, which somebody may hold who waits for us: so it has a thread of its
//! own, which nobody waits for. Whoever looks up names faster than that is slowed down a little instead.
//!
//! Directories are not forgotten: the kernel would cut off whoever has one as their working directory.

use std::ffi::OsStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FileType;

use super::Overlay;
use super::node::{Node, NodeId};

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

/// Asked for again while there is nothing that can be forgotten.
const PAUSE: Duration = Duration::from_millis(20);

/// What a look-up waits if names come faster than they are forgotten: others get at the directory meanwhile.
const BRAKE: Duration = Duration::from_millis(1);

/// Wakes the thread that has names forgotten.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    fn wait(&self) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = self.heard.wait_while(rung, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
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

    /// Has names forgotten whenever there are too many, for as long as the process lives.
    pub(crate) fn evict(self: Arc<Self>) {
        loop {
            self.bell.wait();
            while self.nodes.len() > self.capacity.high() {
                let surplus = self.nodes.len() - self.capacity.low();
                let before = self.nodes.len();
                for node in self.nodes.pin_some(surplus, is_idle_file) {
                    let place = node.place();
                    self.nodes.unpin(node);
                    if let (Some((parent, name)), Some(kernel)) = (place, self.kernel.get()) {
                        kernel.forget_name(parent, &name);
                    }
                }
                if self.nodes.len() >= before {
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

/// Whether nobody would notice that a name is looked up again.
fn is_idle_file(node: &Node) -> bool {
    node.kind != FileType::Directory
        && node.try_handles().is_some_and(|handles| handles.open.is_idle() && !handles.maybe_mapped)
}
