//! How the open handles of one inode may mix: the kernel's rules, and nothing else.
//!
//! The kernel refuses (EIO) a passthrough open beside handles that go through its page cache, and the other way
//! round. So the first handle of an inode decides for all that come while it is open:
//!
//! ```text
//!              open plain                      open packed, or passthrough impossible
//!   idle ───────────────▶ passthrough    idle ───────────────▶ daemon
//!   passthrough ─ open ─▶ passthrough    daemon ─ open ─▶ daemon (even if it turned plain meanwhile)
//!   last release ▶ idle                  last release ▶ idle
//! ```
//!
//! Only an idle inode may be packed. Unpacking keeps the mode: the handles that are open stay with the daemon.

/// Who serves reads and writes of a handle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Mode {
    /// The kernel, straight on the lower file.
    Passthrough,
    /// The daemon, through the kernel's page cache.
    Daemon,
}

/// The open handles of one inode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct OpenHandles {
    passthrough: u32,
    daemon: u32,
}

impl OpenHandles {
    /// The mode that the next handle must have. `packed` is asked of an idle inode only, since the answer is
    /// otherwise given by the handles that are open.
    pub(crate) fn next_mode(&self, packed: bool, passthrough_possible: bool) -> Mode {
        if self.passthrough > 0 {
            Mode::Passthrough
        } else if self.daemon > 0 || packed || !passthrough_possible {
            Mode::Daemon
        } else {
            Mode::Passthrough
        }
    }

    /// Counts a handle before the kernel hears of it.
    pub(crate) fn opened(&mut self, mode: Mode) {
        *self.count(mode) += 1;
        debug_assert!(self.passthrough == 0 || self.daemon == 0, "handles of both modes: {self:?}");
    }

    /// Takes a handle off.
    pub(crate) fn released(&mut self, mode: Mode) {
        let count = self.count(mode);
        debug_assert!(*count > 0, "released more handles than were opened");
        *count = count.saturating_sub(1);
    }

    /// Whether no handle is open. The file may still be mapped: only a lease tells.
    pub(crate) fn is_idle(&self) -> bool {
        self.passthrough == 0 && self.daemon == 0
    }

    /// Whether a handle of this mode is open.
    pub(crate) fn has(&self, mode: Mode) -> bool {
        match mode {
            Mode::Passthrough => self.passthrough > 0,
            Mode::Daemon => self.daemon > 0,
        }
    }

    fn count(&mut self, mode: Mode) -> &mut u32 {
        match mode {
            Mode::Passthrough => &mut self.passthrough,
            Mode::Daemon => &mut self.daemon,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// All sequences of opens, releases, packings and unpackings of up to three handles.
    #[test]
    fn no_reachable_state_mixes_modes_or_packs_under_a_handle() {
        let mut seen = HashSet::new();
        let mut todo = vec![(OpenHandles::default(), false)];
        while let Some((handles, packed)) = todo.pop() {
            if !seen.insert((handles, packed)) {
                continue;
            }
            assert!(!(handles.has(Mode::Passthrough) && handles.has(Mode::Daemon)));
            assert!(!(packed && handles.has(Mode::Passthrough)), "passthrough reads a stub");
            if handles.passthrough + handles.daemon < 3 {
                for possible in [false, true] {
                    let mut next = handles;
                    next.opened(handles.next_mode(packed, possible));
                    todo.push((next, packed));
                }
            }
            for mode in [Mode::Passthrough, Mode::Daemon] {
                if handles.has(mode) {
                    let mut next = handles;
                    next.released(mode);
                    todo.push((next, packed));
                }
            }
            if handles.is_idle() {
                todo.push((handles, true));
            }
            if packed {
                todo.push((handles, false));
            }
        }
        assert!(seen.len() > 8);
    }
}
