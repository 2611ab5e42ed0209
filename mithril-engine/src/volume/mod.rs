//! Volumes: the tree of a directory as immutable nodes, so that many machines can have it, each old state of it stays as it
//! was, and changes of two machines can be brought together path by path.
//!
//! A node is named by the BLAKE3 of its bytes. A directory is one node or, where it is large, a node of pages; which page
//! an entry is in depends on names alone, so that equal directories are equal nodes, however they came about, and a change
//! touches one page. [`draft`] changes trees; [`rebase`] brings changes to a tree that somebody else changed meanwhile.

pub mod draft;
pub mod entry;
pub mod node;
pub mod rebase;
pub mod root;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
pub use crate::id::NodeId;
use node::Node;

/// Where nodes come from.
pub trait NodeSource {
    /// The node with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, [`Error::Corrupt`] if its bytes have another id; those of the way there.
    fn node(&self, id: &NodeId) -> Result<Node>;
}

/// Nodes in memory.
#[derive(Debug, Default)]
pub struct MemoryNodes(Mutex<HashMap<NodeId, Vec<u8>>>);

impl MemoryNodes {
    /// None at first.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps encoded nodes.
    pub fn extend(&self, nodes: impl IntoIterator<Item = (NodeId, Vec<u8>)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(nodes);
    }
}

impl NodeSource for MemoryNodes {
    fn node(&self, id: &NodeId) -> Result<Node> {
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = nodes.get(id).ok_or_else(|| Error::NotFound { what: format!("node {id}") })?;
        Node::decode(id, bytes)
    }
}
