//! What the kernel is told of a file's attributes, and for how long it may believe it.
//!
//! Everything that changes a file comes by here or through the kernel, which then knows: but for what is written to a
//! mapping. So while a file is open for writing, the kernel asks each time; and after that, if that was in passthrough,
//! until it is shown that no mapping is left. Packing and unpacking change a file's times for a moment: what is
//! seen meanwhile is not to be kept either.

use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, Stat};
use rustix::io::Result;

use super::node::{Handles, Node};
use super::{Overlay, lower};

/// How long the kernel may believe attributes, where it may.
pub(crate) const ATTRIBUTE_TTL: Duration = Duration::from_secs(1);

/// What the kernel is told of an inode.
pub(crate) struct Told {
    pub(crate) node: Arc<Node>,
    pub(crate) stat: Stat,
    /// Whether it may believe that for a while.
    pub(crate) steady: bool,
}

impl Told {
    /// Looks at an inode.
    pub(crate) fn of(node: Arc<Node>) -> Result<Self> {
        if node.kind != FileType::RegularFile {
            let stat = node.stat()?;
            return Ok(Self { node, stat, steady: true });
        }
        // Nobody is waited for: whoever has one of these is about to change the file.
        let (turn, handles) = (node.try_unpacking(), node.try_handles());
        let stat = node.stat()?;
        let steady = match (turn, handles) {
            (Some(_turn), Some(mut handles)) => {
                let steady = is_steady(&node, &mut handles);
                if steady {
                    node.tell();
                }
                steady
            }
            _ => false,
        };
        Ok(Self { node, stat, steady })
    }
}

impl Overlay {
    /// Attributes changed, or will, in a way that the kernel does not see.
    pub(super) fn forget_attributes(&self, node: &Node) {
        if node.is_believed(ATTRIBUTE_TTL)
            && let Some(kernel) = self.kernel.get()
        {
            kernel.forget_attributes(node.id);
        }
    }
}

fn is_steady(node: &Node, handles: &mut Handles) -> bool {
    if handles.writers > 0 {
        return false;
    }
    !is_mapped(node, handles)
}

/// Whether a mapping may be left that writes unseen.
pub(super) fn is_mapped(node: &Node, handles: &mut Handles) -> bool {
    if handles.maybe_mapped {
        handles.maybe_mapped = !nobody_writes(node);
    }
    handles.maybe_mapped
}

/// Whether no descriptor and no mapping is left through which the file could be written: a lease for readers is only given
/// then.
fn nobody_writes(node: &Node) -> bool {
    let Ok(file) = lower::reopen_quietly(&node.fd) else { return false };
    // Given back at once, also if that fails: by closing.
    lower::take_reading_lease(&file).is_ok_and(|()| lower::drop_lease(&file).is_ok())
}
