//! Making full packs durable, a few at a time, while the next ones are written.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::error::{Error, Result};
use crate::settings::PACK_SYNCS;

/// Syncs that are under way. Each has a thread and a descriptor, and there are never more than [`PACK_SYNCS`].
#[derive(Debug, Default)]
pub(super) struct Syncs {
    running: VecDeque<JoinHandle<io::Result<()>>>,
    /// One failed: whoever goes on in spite of its error is told again.
    has_failed: bool,
}

impl Syncs {
    /// Begins to make a file durable, and closes it after that. Waits for the oldest sync if there are too many.
    ///
    /// # Errors
    /// `Io` of the one that was waited for.
    pub(super) fn begin(&mut self, file: File) -> Result<()> {
        if self.running.len() >= PACK_SYNCS {
            self.wait_for_oldest()?;
        }
        let file = Arc::new(file);
        let synced = Arc::clone(&file);
        match thread::Builder::new().name("sync-pack".to_owned()).spawn(move || synced.sync_all()) {
            Ok(thread) => {
                self.running.push_back(thread);
                Ok(())
            }
            // No thread is to be had: it takes longer, that is all.
            Err(_) => self.note(file.sync_all()),
        }
    }

    /// Waits for all of them.
    ///
    /// # Errors
    /// `Io` of the first that failed.
    pub(super) fn wait(&mut self) -> Result<()> {
        while !self.running.is_empty() {
            self.wait_for_oldest()?;
        }
        if self.has_failed { Err(failed(io::Error::other("an earlier pack was not synced"))) } else { Ok(()) }
    }

    fn wait_for_oldest(&mut self) -> Result<()> {
        let Some(oldest) = self.running.pop_front() else { return Ok(()) };
        self.note(oldest.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked"))))
    }

    fn note(&mut self, synced: io::Result<()>) -> Result<()> {
        self.has_failed |= synced.is_err();
        synced.map_err(failed)
    }
}

impl Drop for Syncs {
    fn drop(&mut self) {
        // Nothing is left open behind the writer's back.
        for thread in self.running.drain(..) {
            let _ = thread.join();
        }
    }
}

fn failed(error: io::Error) -> Error {
    Error::io("sync", "a pack", error)
}
