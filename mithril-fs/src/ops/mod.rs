//! Operations on a directory and its store that need no mount: list, verify, collect, cat, unpack. The daemon runs them too.

pub mod cat;
pub mod collect;
pub mod list;
pub mod offline;
pub mod unpack;
pub mod verify;
pub mod walk;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use mithril_engine::store::Store;

use crate::stub::Namespace;

/// A directory as it is below any mount.
#[derive(Clone)]
pub struct Directory<'a> {
    /// The lower directory.
    pub root: BorrowedFd<'a>,
    /// Its store.
    pub store: Arc<Store>,
    /// Where its stubs keep their authority; `None` if it cannot have any.
    pub namespace: Option<Namespace>,
}
