//! Talking to a daemon whose directory is covered by its own mount: a socket in a directory of its user, named
//! by the mount's device number.

pub mod backend;
pub mod client;
pub mod protocol;
pub mod server;
pub mod socket;

pub use backend::Backend;
