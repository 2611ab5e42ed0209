//! What the pickle machine works with: values that refer to each other by place, and to the pickle for their texts.

use super::budget::Budget;
use super::{Element, Refused};

/// Longest key of a storage. Torch counts its storages, or takes an address.
const MAX_KEY_BYTES: usize = 256;

/// A value: by its place in the list of all, or itself where it is small. Lists of millions of numbers are common (what
/// a data loader has yet to read), and take 4 bytes a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ref(u32);

impl Ref {
    /// A value that nothing can be put into and that is of no interest: None, booleans, floats, bytes.
    pub(super) const ATOM: Ref = Ref(u32::MAX);
    /// The empty tuple: torch's pickles have one or two a tensor.
    pub(super) const EMPTY: Ref = Ref(u32::MAX - 1);
    /// Set in small numbers.
    const SMALL: u32 = 1 << 31;

    /// A number that is small and not negative.
    fn small(number: i64) -> Option<Self> {
        let number = u32::try_from(number).ok().filter(|&number| number < Self::SMALL - 2)?;
        Some(Self(number | Self::SMALL))
    }

    fn number(self) -> Option<i64> {
        let is_number = self.0 & Self::SMALL != 0 && self != Self::ATOM && self != Self::EMPTY;
        is_number.then_some(i64::from(self.0 & !Self::SMALL))
    }

    /// Its place in the list of all, if it has one.
    pub(super) fn place(self) -> Option<usize> {
        (self.0 & Self::SMALL == 0).then_some(self.0 as usize)
    }
}

/// Bytes of the pickle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

/// A value that has a place.
#[derive(Debug)]
pub(super) enum Value {
    Opaque,
    Int(i64),
    Text(Span),
    /// A class or function.
    Global {
        module: Span,
        name: Span,
    },
    /// A tuple, list or set.
    Sequence(Vec<Ref>),
    /// An unknown object: what it was made of, then what was put into it.
    Object {
        arguments: Ref,
        items: Vec<Ref>,
    },
    /// Keys and values by turns.
    Map(Vec<Ref>),
    /// An object with the state in this map.
    State(Ref),
    Storage {
        element: Option<Element>,
        key: Span,
    },
    Tensor {
        storage: Ref,
        element: Option<Element>,
        first: u64,
        /// A sequence of numbers.
        shape: Ref,
    },
}

/// All values of a pickle.
pub(super) struct Values<'a> {
    bytes: &'a [u8],
    list: Vec<Value>,
}

impl<'a> Values<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, list: Vec::new() }
    }

    /// How many have a place.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn add(&mut self, value: Value, budget: &mut Budget) -> Result<Ref, Refused> {
        // The budget ends long before the places do.
        let place = u32::try_from(self.list.len()).ok().filter(|&place| place < Ref::SMALL);
        let place = place.ok_or("the pickle has too many values")?;
        budget.push(&mut self.list, value)?;
        Ok(Ref(place))
    }

    /// A number, in the list only if it must.
    pub(super) fn int(&mut self, number: i64, budget: &mut Budget) -> Result<Ref, Refused> {
        Ref::small(number).map_or_else(|| self.add(Value::Int(number), budget), Ok)
    }

    /// The value, if it has a place.
    pub(super) fn get(&self, at: Ref) -> Option<&Value> {
        self.list.get(at.place()?)
    }

    pub(super) fn get_mut(&mut self, at: Ref) -> Option<&mut Value> {
        self.list.get_mut(at.place()?)
    }

    /// What an object with a state stands for: its map.
    pub(super) fn resolve(&self, at: Ref) -> Ref {
        match self.get(at) {
            Some(Value::State(map)) => *map,
            _ => at,
        }
    }

    pub(super) fn bytes_of(&self, span: Span) -> &'a [u8] {
        let start = span.start as usize;
        self.bytes.get(start..start + span.len as usize).unwrap_or_default()
    }

    pub(super) fn number(&self, at: Ref) -> Option<i64> {
        at.number().or(match self.get(at) {
            Some(Value::Int(number)) => Some(*number),
            _ => None,
        })
    }

    /// The items of a sequence.
    pub(super) fn items(&self, at: Ref) -> Option<&[Ref]> {
        match self.get(at) {
            Some(Value::Sequence(items)) => Some(items),
            _ => (at == Ref::EMPTY).then_some(&[]),
        }
    }

    pub(super) fn text(&self, at: Ref) -> Option<Span> {
        match self.get(at) {
            Some(Value::Text(text)) => Some(*text),
            _ => None,
        }
    }

    /// A text as the key of a storage.
    pub(super) fn key(&self, at: Ref) -> Option<&'a str> {
        self.text(at).and_then(|text| self.as_key(text))
    }

    /// The same of the text itself.
    pub(super) fn as_key(&self, text: Span) -> Option<&'a str> {
        let key = std::str::from_utf8(self.bytes_of(text)).ok()?;
        (key.len() <= MAX_KEY_BYTES).then_some(key)
    }

    /// The module and the name of a class or function.
    pub(super) fn global(&self, at: Ref) -> Option<(&'a [u8], &'a [u8])> {
        match self.get(at) {
            Some(Value::Global { module, name }) => Some((self.bytes_of(*module), self.bytes_of(*name))),
            _ => None,
        }
    }
}
