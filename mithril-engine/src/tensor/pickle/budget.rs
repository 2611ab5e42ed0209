//! How much a pickle may make us hold.

use super::Refused;

/// Bytes that may be held for each byte of the pickle that was read. The pickles of `torch.save` need 7 to 10: a tensor
/// takes 100 to 150 bytes there, and nine values, a name and a shape here, some 1000 bytes with what lists keep to grow.
const BYTES_PER_BYTE: usize = 32;

/// What may be held however short the pickle is: lists grow by doubling.
const LEAST_BYTES: usize = 1 << 20;

/// What may be held however long it is: enough for half a million tensors.
const MOST_BYTES: usize = 512 << 20;

/// What an allocation takes besides what was asked for.
pub(super) const ALLOCATION_BYTES: usize = 32;

/// Counts the bytes that are held for a pickle. Nothing is ever given back: what lists leave behind when they grow is
/// not counted, and is at most half of what they take then.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    held: usize,
    limit: usize,
}

impl Budget {
    pub(super) const fn new() -> Self {
        Self { held: 0, limit: LEAST_BYTES }
    }

    /// Says that `len` bytes of the pickle were read.
    pub(super) fn allow_for(&mut self, len: usize) {
        self.limit = LEAST_BYTES.saturating_add(len.saturating_mul(BYTES_PER_BYTE)).min(MOST_BYTES);
    }

    /// Counts `bytes` more.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), Refused> {
        self.held = self.held.saturating_add(bytes);
        if self.held > self.limit { Err("the pickle holds too much for its length") } else { Ok(()) }
    }

    /// Makes room for `more` items, and counts it.
    pub(super) fn make_room<T>(&mut self, list: &mut Vec<T>, more: usize) -> Result<(), Refused> {
        let needed = list.len().saturating_add(more);
        if needed <= list.capacity() {
            return Ok(());
        }
        // Growing by what is asked for would copy the list each time.
        let capacity = if list.capacity() == 0 { needed } else { needed.max(2 * list.capacity()) };
        let allocation = if list.capacity() == 0 { ALLOCATION_BYTES } else { 0 };
        self.hold((capacity - list.capacity()).saturating_mul(size_of::<T>()).saturating_add(allocation))?;
        list.reserve_exact(capacity - list.len());
        Ok(())
    }

    /// Adds an item to a list, and counts what that takes.
    pub(super) fn push<T>(&mut self, list: &mut Vec<T>, item: T) -> Result<(), Refused> {
        self.make_room(list, 1)?;
        list.push(item);
        Ok(())
    }
}
