//! Who is told what happens to files: those that may be packed, and names that change.

use std::path::Path;
use std::sync::Arc;

use super::node::Node;

/// Is told what happens to files. Called from the threads that answer the kernel: must return at once.
pub(crate) trait Watcher: Send + Sync {
    /// The last handle of a plain regular file was released.
    fn closed(&self, node: &Arc<Node>, written: bool);

    /// A regular file has one more name.
    fn linked(&self, node: &Arc<Node>, path: &Path);

    /// A file or directory has another path now; with `exchanged`, the other one has the old path.
    fn renamed(&self, from: &Path, to: &Path, exchanged: bool);

    /// Runs a system call that moves or adds names, in a way that a walk of the whole tree can notice.
    fn names_change(&self, call: &mut dyn FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()>;
}
