//! Values to tensors: what an object holds, under which names.

use std::fmt::Write;

use super::budget::{ALLOCATION_BYTES, Budget};
use super::torch::MAX_DIMENSIONS;
use super::value::{Ref, Value};
use super::{Element, Found, Pickle, Refused};

/// Containers inside each other that are looked into.
const MAX_DEPTH: usize = 200;
/// Longest name of a tensor.
const MAX_NAME_BYTES: usize = 1024;

/// The tensors of a pickle, each under the first of its names.
pub(super) fn tensors<'a>(pickle: &Pickle<'a>) -> Vec<Found<'a>> {
    let mut walk = Walk {
        pickle,
        name: String::new(),
        seen: Vec::new(),
        found: Vec::new(),
        budget: pickle.budget.clone(),
    };
    // Where the budget ends, what was found before is good.
    let _ = walk.all();
    walk.found
}

struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    /// Of what is looked at.
    name: String,
    /// What was looked at. So the work is that of reading every list once, however often it is referred to.
    seen: Vec<bool>,
    found: Vec<Found<'a>>,
    budget: Budget,
}

/// What a value is called inside of its container.
#[derive(Clone, Copy)]
enum Key {
    Index(usize),
    Value(Ref),
}

impl Walk<'_, '_> {
    fn all(&mut self) -> Result<(), Refused> {
        let values = &self.pickle.values;
        self.budget.make_room(&mut self.seen, values.len())?;
        self.seen.resize(values.len(), false);
        self.look(values.resolve(self.pickle.root), 0)
    }

    /// Looks at a value that was not looked at yet.
    fn look(&mut self, at: Ref, depth: usize) -> Result<(), Refused> {
        let pickle = self.pickle;
        let Some(seen) = at.place().and_then(|place| self.seen.get_mut(place)) else { return Ok(()) };
        if depth == MAX_DEPTH {
            return Ok(());
        }
        *seen = true;
        match pickle.values.get(at) {
            Some(&Value::Tensor { storage, element, first, shape }) => {
                self.find(storage, element, first, shape)?;
            }
            Some(Value::Sequence(items)) => self.look_into(items, 0, depth)?,
            Some(Value::Object { arguments, items }) => {
                let arguments_len = pickle.values.items(*arguments).map_or(0, <[Ref]>::len);
                if self.is_new(*arguments) {
                    self.look(*arguments, depth)?;
                }
                self.look_into(items, arguments_len, depth)?;
            }
            Some(Value::Map(items)) => {
                for &[key, value] in items.as_chunks::<2>().0 {
                    self.look_at(Key::Value(key), value, depth)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks at the items of a list, which are called by their number, from `first` on.
    fn look_into(&mut self, items: &[Ref], first: usize, depth: usize) -> Result<(), Refused> {
        for (index, &item) in items.iter().enumerate() {
            self.look_at(Key::Index(first + index), item, depth)?;
        }
        Ok(())
    }

    /// Looks at a value in a container.
    fn look_at(&mut self, key: Key, value: Ref, depth: usize) -> Result<(), Refused> {
        let value = self.pickle.values.resolve(value);
        if !self.is_new(value) {
            return Ok(());
        }
        let len = self.name.len();
        if self.append(key) {
            self.look(value, depth + 1)?;
        }
        self.name.truncate(len);
        Ok(())
    }

    /// Whether there may be tensors in a value that were not found yet.
    fn is_new(&self, value: Ref) -> bool {
        let holds = matches!(
            self.pickle.values.get(value),
            Some(Value::Tensor { .. } | Value::Sequence(_) | Value::Object { .. } | Value::Map(_))
        );
        holds && value.place().and_then(|place| self.seen.get(place)) == Some(&false)
    }

    /// Appends a key to the name; `false` if it would be too long.
    fn append(&mut self, key: Key) -> bool {
        let values = &self.pickle.values;
        if !self.name.is_empty() {
            self.name.push('.');
        }
        match key {
            Key::Index(index) => self.append_number(index),
            Key::Value(key) => {
                if let Some(text) = values.text(key) {
                    // Told by its length alone: it may be megabytes, and the key of a million values.
                    if self.name.len() + text.len as usize > MAX_NAME_BYTES {
                        return false;
                    }
                    self.name.push_str(&String::from_utf8_lossy(values.bytes_of(text)));
                } else if let Some(number) = values.number(key) {
                    self.append_number(number);
                } else {
                    self.name.push('?');
                }
            }
        }
        self.name.len() <= MAX_NAME_BYTES
    }

    fn append_number(&mut self, number: impl std::fmt::Display) {
        // Writing to a string does not fail.
        let _ = write!(self.name, "{number}");
    }

    fn find(
        &mut self,
        storage: Ref,
        element: Option<Element>,
        first: u64,
        shape: Ref,
    ) -> Result<(), Refused> {
        let values = &self.pickle.values;
        let Some(&Value::Storage { element: stored, key }) = values.get(storage) else { return Ok(()) };
        let (Some(key), Some(shape)) = (values.as_key(key), values.items(shape)) else { return Ok(()) };
        // A list may have grown since it was a shape.
        if shape.len() > MAX_DIMENSIONS {
            return Ok(());
        }
        let held = self.name.len() + size_of_val(shape) * 2 + 2 * ALLOCATION_BYTES;
        self.budget.hold(held)?;
        let dimension = |&item: &Ref| values.number(item).and_then(|dimension| u64::try_from(dimension).ok());
        let Some(shape) = shape.iter().map(dimension).collect() else { return Ok(()) };
        let element = element.or(stored).unwrap_or(Element::Bytes);
        let found = Found { name: self.name.clone(), storage: key, element, first, shape };
        self.budget.push(&mut self.found, found)
    }
}
