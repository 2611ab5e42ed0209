//! A reader of pickles that executes nothing.
//!
//! It follows the pickle machine's opcodes (protocols 0 to 5) as far as needed to know which tensors an object holds
//! and under which names. Classes and functions are only names to it: a call of anything but torch's own rebuilding
//! functions is an opaque value that holds its arguments. Written from the documentation in CPython's `pickletools`.
//!
//! A pickle may refer to one value any number of times, a few bytes each. So nothing is ever copied: texts stay in the
//! pickle, values are told by their place, and what is held is counted against a [`Budget`].

mod budget;
mod input;
mod machine;
mod torch;
mod value;
mod walk;

use super::Element;
use budget::Budget;
use value::{Ref, Value, Values};

/// A tensor that a pickle refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found<'a> {
    pub(super) name: String,
    /// The storage that its elements are in.
    pub(super) storage: &'a str,
    pub(super) element: Element,
    /// First element in the storage.
    pub(super) first: u64,
    pub(super) shape: Vec<u64>,
}

/// A pickle that was read.
pub(super) struct Pickle<'a> {
    values: Values<'a>,
    root: Ref,
    /// Bytes up to and with its end.
    pub(super) len: usize,
    /// What is left for the names and shapes of tensors.
    budget: Budget,
}

/// Why a pickle is not understood.
pub(super) type Refused = &'static str;

/// The message for a pickle that goes on after the bytes that are there.
pub(super) const CUT_SHORT: Refused = "the pickle is cut short";

/// Reads one pickle from the front of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle<'_>, Refused> {
    machine::Machine::new(bytes)?.run()
}

impl<'a> Pickle<'a> {
    /// The tensors, named by where they are: `optimizer.state.0.exp_avg`. Each is named once, by the first way to it.
    /// Those for which the budget is too small are left out.
    pub(super) fn tensors(&self) -> Vec<Found<'a>> {
        walk::tensors(self)
    }

    /// The texts of a list, as the keys of storages in a legacy file.
    pub(super) fn texts(&self) -> impl Iterator<Item = &'a str> {
        let items = match self.values.get(self.root) {
            Some(Value::Sequence(items)) => &items[..],
            _ => &[],
        };
        items.iter().filter_map(|&item| self.values.key(item))
    }
}
