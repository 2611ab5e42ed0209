//! The index on disk, kept in step with the catalog as well as the disk allows.
//!
//! It holds nothing that the packs do not. So what cannot be written to it now (the disk is full, say) is no
//! failure: it is kept, and written with what comes next.

use std::os::unix::fs::FileExt;

use super::directory::Directory;
use crate::error::{Error, Result};
use crate::format::index;
use crate::format::pack::Entry;
use crate::id::{PackId, StoreId};
use crate::step::{self, Step};

/// The log that the catalog is loaded from.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Bytes of the file that are good; the next record goes there.
    end: u64,
    /// What is to be written there.
    pending: Vec<u8>,
    /// The file is missing or wrong: `pending` is all of it.
    is_anew: bool,
    /// Records of packs that are gone: once they are most of the log, it is written anew.
    dead_records: usize,
}

impl Log {
    /// The log in the file, of which this many bytes are good.
    pub(super) fn resume(end: usize, dead_records: usize) -> Self {
        Self { end: end as u64, dead_records, ..Self::default() }
    }

    /// A log that takes the place of the one in the file.
    pub(super) fn anew(store: StoreId) -> Self {
        Self { pending: index::encode_header(store).to_vec(), is_anew: true, ..Self::default() }
    }

    pub(super) fn add(&mut self, pack: PackId, entries: &[Entry]) {
        index::put_added(&mut self.pending, pack, entries);
    }

    pub(super) fn remove(&mut self, pack: PackId) {
        index::put_removed(&mut self.pending, pack);
        self.dead_records += 2;
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Whether most of the log is about packs that are gone.
    pub(super) fn is_mostly_dead(&self, packs: usize) -> bool {
        self.dead_records > 64 + packs
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// `Io`; it is still to be written then.
    pub(super) fn flush(&mut self, directory: &Directory) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.is_anew {
            directory.replace_index(&self.pending)?;
        } else {
            let file = directory.open_index()?;
            file.write_all_at(&self.pending, self.end).map_err(|e| {
                // What was written of it would be read as torn: take it back.
                let _ = file.set_len(self.end);
                Error::io("write", "index", e)
            })?;
            step::reached(Step::IndexAppended);
        }
        self.end += self.pending.len() as u64;
        self.pending = Vec::new();
        self.is_anew = false;
        Ok(())
    }

    /// Writes what is not written yet, or leaves it for the next time. Not synced either: after a crash the packs
    /// tell.
    pub(super) fn try_flush(&mut self, directory: &Directory) {
        if let Err(error) = self.flush(directory) {
            tracing::warn!(%error, "the index cannot be written; the packs have all of it");
        }
    }
}
