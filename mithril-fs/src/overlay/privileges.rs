//! Programs that give rights to whoever runs them: setuid, setgid, capabilities.
//!
//! Whoever writes to one without the right to keep these takes them off. In passthrough nobody would: the kernel
//! leaves it to us, and we do not see the write. So such files are never passthrough; a writer who comes to one beside
//! passthrough handles has its I/O sent to us; and a file does not become one while somebody else writes in
//! passthrough.

use std::ffi::OsStr;

use rustix::io::{Errno, Result};

use super::lower;
use super::node::{Handles, Node};

/// Setuid and setgid.
pub(crate) const SPECIAL_BITS: u32 = 0o6000;

/// The attribute that gives capabilities.
const CAPABILITIES: &str = "security.capability";

/// Whether a file gives rights to whoever runs it. One that cannot be asked is taken for one.
pub(crate) fn is_special(node: &Node) -> bool {
    node.stat().map_or(true, |stat| stat.st_mode & SPECIAL_BITS != 0) || has_capabilities(node)
}

/// Whether an attribute of this name makes a file special.
pub(crate) fn gives_rights(name: &OsStr) -> bool {
    name == CAPABILITIES
}

/// Refuses to make a file special while somebody else writes to it unseen. Who asks may: they can write what they like
/// before they ask.
pub(crate) fn may_become_special(handles: &Handles, caller: u32) -> Result<()> {
    if handles.unseen_writers.iter().any(|&writer| writer != caller) { Err(Errno::BUSY) } else { Ok(()) }
}

/// Takes setuid, setgid and capabilities off, as the kernel asks when somebody without the right to keep them
/// changes a file.
pub(crate) fn drop_special_bits(node: &Node) -> Result<()> {
    let stat = node.stat()?;
    let mut mode = stat.st_mode & 0o7777;
    mode &= !0o4000;
    if mode & 0o2010 == 0o2010 {
        mode &= !0o2000;
    }
    if mode != stat.st_mode & 0o7777 {
        rustix::fs::chmod(lower::proc_path(&node.fd), rustix::fs::Mode::from_raw_mode(mode))?;
    }
    if has_capabilities(node) {
        rustix::fs::removexattr(lower::proc_path(&node.fd), CAPABILITIES)?;
    }
    Ok(())
}

/// Whether a program gives capabilities to whoever runs it.
fn has_capabilities(node: &Node) -> bool {
    matches!(rustix::fs::getxattr_query(lower::proc_path(&node.fd), CAPABILITIES), Ok(1..))
}
