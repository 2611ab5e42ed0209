//! What is done to the directory around the mount itself: what it can do, whose it is, how a mount is found and ended.

pub mod holders;
pub mod lock;
pub mod log;
pub mod mountinfo;
mod note;
pub mod probe;
pub mod readahead;
pub mod since;
pub mod unmount;
