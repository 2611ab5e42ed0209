//! The pickle machine: opcodes to values.

use super::budget::Budget;
use super::input::Input;
use super::torch::{self, Made};
use super::value::{Ref, Value, Values};
use super::{Pickle, Refused};

const TOOK_TOO_MUCH: Refused = "the pickle takes more than it put";

/// A pickle while it is read.
pub(super) struct Machine<'a> {
    input: Input<'a>,
    values: Values<'a>,
    stack: Vec<Ref>,
    marks: Vec<u32>,
    /// Pickles number what they remember from 0; numbers far beyond that are beyond the budget.
    memo: Vec<Option<Ref>>,
    /// Entries of it that are there.
    remembered: usize,
    budget: Budget,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Refused> {
        Ok(Self {
            input: Input::new(bytes)?,
            values: Values::new(bytes),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            remembered: 0,
            budget: Budget::new(),
        })
    }

    pub(super) fn run(mut self) -> Result<Pickle<'a>, Refused> {
        loop {
            let opcode = self.input.array::<1>()?[0];
            self.budget.allow_for(self.input.at());
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok(Pickle { values: self.values, root, len: self.input.at(), budget: self.budget });
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Refused> {
        match opcode {
            0x80 => drop(self.input.span(1)?),
            0x95 => drop(self.input.span(8)?),
            b'(' => {
                let mark = u32::try_from(self.stack.len()).map_err(|_| "the pickle has too many values")?;
                self.budget.push(&mut self.marks, mark)?;
            }
            b'0' => {
                // On a mark, it takes the mark.
                if self.marks.last().is_some_and(|&mark| mark as usize == self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => {
                let mark = self.mark()?;
                self.stack.truncate(mark);
            }
            b'2' => self.put(self.top()?)?,
            b'N' | 0x88 | 0x89 | 0x97 => self.put(Ref::ATOM)?,
            0x98 => {}
            b'I' | b'L' => {
                let number = self.input.spelled()?;
                self.put_int(number)?;
            }
            b'F' => {
                self.input.line()?;
                self.put(Ref::ATOM)?;
            }
            b'J' => {
                let number = i32::from_le_bytes(self.input.array()?);
                self.put_int(Some(i64::from(number)))?;
            }
            b'K' | b'M' => {
                let number = self.input.number(if opcode == b'K' { 1 } else { 2 })?;
                self.put_int(i64::try_from(number).ok())?;
            }
            0x8a | 0x8b => self.long(if opcode == 0x8a { 1 } else { 4 })?,
            b'G' => self.skip(8)?,
            b'S' | b'V' => {
                let text = self.input.quoted()?;
                self.put_value(Value::Text(text))?;
            }
            b'T' | b'X' => self.counted_text(4)?,
            b'U' | 0x8c => self.counted_text(1)?,
            0x8d => self.counted_text(8)?,
            b'B' => self.counted_bytes(4)?,
            b'C' => self.counted_bytes(1)?,
            0x8e | 0x96 => self.counted_bytes(8)?,
            b')' => self.put(Ref::EMPTY)?,
            b']' | 0x8f => self.put_value(Value::Sequence(Vec::new()))?,
            b't' | b'l' | 0x91 | b'o' => {
                let mark = self.mark()?;
                self.put_sequence(mark)?;
            }
            0x85..=0x87 => {
                let len = usize::from(opcode - 0x84);
                let from = self.stack.len().checked_sub(len).filter(|&from| from >= self.floor());
                self.put_sequence(from.ok_or(TOOK_TOO_MUCH)?)?;
            }
            b'a' => self.extend(self.stack.len().saturating_sub(1))?,
            b'e' | 0x90 => {
                let mark = self.mark()?;
                self.extend(mark)?;
            }
            b'}' => self.put_value(Value::Map(Vec::new()))?,
            b'd' => {
                let mark = self.mark()?;
                let items = self.take_from(mark, 2)?;
                self.put_value(Value::Map(items))?;
            }
            b's' => self.insert(self.stack.len().saturating_sub(2))?,
            b'u' => {
                let mark = self.mark()?;
                self.insert(mark)?;
            }
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.put_value(Value::Global { module, name })?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                self.put_value(match (self.values.text(module), self.values.text(name)) {
                    (Some(module), Some(name)) => Value::Global { module, name },
                    _ => Value::Opaque,
                })?;
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments)?;
            }
            // A class, its arguments, its named ones.
            0x92 => {
                let from = self.stack.len().checked_sub(3).filter(|&from| from >= self.floor());
                self.put_sequence(from.ok_or(TOOK_TOO_MUCH)?)?;
            }
            b'i' => {
                self.input.line()?;
                self.input.line()?;
                let mark = self.mark()?;
                self.put_sequence(mark)?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'p' => {
                let key = self.spelled_key()?;
                self.remember(key)?;
            }
            b'q' | b'r' => {
                let key = self.input.number(if opcode == b'q' { 1 } else { 4 })?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.remembered as u64)?,
            b'g' => {
                let key = self.spelled_key()?;
                self.recall(key)?;
            }
            b'h' | b'j' => {
                let key = self.input.number(if opcode == b'h' { 1 } else { 4 })?;
                self.recall(key)?;
            }
            b'P' => {
                self.input.line()?;
                self.put_value(Value::Opaque)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.put_value(torch::storage(&self.values, id))?;
            }
            0x82..=0x84 => {
                self.input.span(1 << (opcode - 0x82))?;
                self.put_value(Value::Opaque)?;
            }
            _ => return Err("the pickle has an unknown opcode"),
        }
        Ok(())
    }

    fn counted_text(&mut self, width: usize) -> Result<(), Refused> {
        let len = self.input.number(width)?;
        let text = self.input.span(len)?;
        self.put_value(Value::Text(text))
    }

    fn counted_bytes(&mut self, width: usize) -> Result<(), Refused> {
        let len = self.input.number(width)?;
        self.skip(len)
    }

    fn skip(&mut self, len: u64) -> Result<(), Refused> {
        self.input.span(len)?;
        self.put(Ref::ATOM)
    }

    /// An integer of any length; what does not fit 64 bits is of no interest.
    fn long(&mut self, width: usize) -> Result<(), Refused> {
        let len = self.input.number(width)?;
        let number = self.input.long(len)?;
        self.put_int(number)
    }

    fn spelled_key(&mut self) -> Result<u64, Refused> {
        let key = self.input.spelled()?.and_then(|key| u64::try_from(key).ok());
        key.ok_or("the pickle has an odd number")
    }

    // The stack and the memo.

    fn put(&mut self, value: Ref) -> Result<(), Refused> {
        self.budget.push(&mut self.stack, value)
    }

    fn put_value(&mut self, value: Value) -> Result<(), Refused> {
        let value = self.values.add(value, &mut self.budget)?;
        self.put(value)
    }

    fn put_int(&mut self, number: Option<i64>) -> Result<(), Refused> {
        let value = match number {
            Some(number) => self.values.int(number, &mut self.budget)?,
            None => Ref::ATOM,
        };
        self.put(value)
    }

    /// Makes a sequence of what lies on the stack from `from` on.
    fn put_sequence(&mut self, from: usize) -> Result<(), Refused> {
        let items = self.take_from(from, 1)?;
        self.put_value(Value::Sequence(items))
    }

    /// Where the stack ends for those who take from it.
    fn floor(&self) -> usize {
        self.marks.last().map_or(0, |&mark| mark as usize)
    }

    fn pop(&mut self) -> Result<Ref, Refused> {
        let above = self.stack.len() > self.floor();
        self.stack.pop().filter(|_| above).ok_or(TOOK_TOO_MUCH)
    }

    fn top(&self) -> Result<Ref, Refused> {
        self.stack.last().copied().ok_or(TOOK_TOO_MUCH)
    }

    /// Takes the last mark away: where what was put since then begins.
    fn mark(&mut self) -> Result<usize, Refused> {
        let mark = self.marks.pop().ok_or("the pickle has no mark")? as usize;
        if mark > self.stack.len() { Err(TOOK_TOO_MUCH) } else { Ok(mark) }
    }

    /// What lies on the stack from `from` on, in whole groups of `group`.
    fn take_from(&mut self, from: usize, group: usize) -> Result<Vec<Ref>, Refused> {
        let len = (self.stack.len() - from) / group * group;
        let mut items = Vec::new();
        if len > 0 {
            self.budget.make_room(&mut items, len)?;
            items.extend_from_slice(&self.stack[from..from + len]);
        }
        self.stack.truncate(from);
        Ok(items)
    }

    fn remember(&mut self, key: u64) -> Result<(), Refused> {
        let top = self.top().map_err(|_| "the pickle remembers nothing")?;
        let key = usize::try_from(key).map_err(|_| "the pickle has an odd number")?;
        if key >= self.memo.len() {
            let more = key - self.memo.len() + 1;
            self.budget.make_room(&mut self.memo, more)?;
            self.memo.resize(key + 1, None);
        }
        self.remembered += usize::from(self.memo[key].is_none());
        self.memo[key] = Some(top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), Refused> {
        let known = usize::try_from(key).ok().and_then(|key| *self.memo.get(key)?);
        self.put(known.ok_or("the pickle recalls what it did not remember")?)
    }

    // Values that change.

    /// Adds what lies on the stack from `from` on to the list under it.
    fn extend(&mut self, from: usize) -> Result<(), Refused> {
        let to = self.under(from)?;
        let Self { values, stack, budget, .. } = self;
        match values.get_mut(to) {
            Some(Value::Sequence(list) | Value::Object { items: list, .. }) => {
                budget.make_room(list, stack.len() - from)?;
                list.extend_from_slice(&stack[from..]);
            }
            Some(value @ Value::Opaque) => {
                let mut list = Vec::new();
                budget.make_room(&mut list, stack.len() - from)?;
                list.extend_from_slice(&stack[from..]);
                *value = Value::Sequence(list);
            }
            _ => {}
        }
        stack.truncate(from);
        Ok(())
    }

    /// Adds the keys and values that lie on the stack from `from` on to the map under them.
    fn insert(&mut self, from: usize) -> Result<(), Refused> {
        let to = self.under(from)?;
        let to = self.values.resolve(to);
        let Self { values, stack, budget, .. } = self;
        let (pairs, _) = stack[from..].as_chunks::<2>();
        match values.get_mut(to) {
            Some(Value::Map(map)) => {
                budget.make_room(map, pairs.len() * 2)?;
                map.extend_from_slice(pairs.as_flattened());
            }
            // An object that behaves like a dictionary.
            Some(Value::Sequence(list) | Value::Object { items: list, .. }) => {
                budget.make_room(list, pairs.len())?;
                list.extend(pairs.iter().map(|&[_, value]| value));
            }
            _ => {}
        }
        stack.truncate(from);
        Ok(())
    }

    /// What lies under what may be taken from `from` on.
    fn under(&self, from: usize) -> Result<Ref, Refused> {
        let under = from.checked_sub(1).filter(|&under| under >= self.floor() && from <= self.stack.len());
        under.map(|under| self.stack[under]).ok_or(TOOK_TOO_MUCH)
    }

    /// Sets an object's state: what is in it is in the object.
    fn build(&mut self, state: Ref) -> Result<(), Refused> {
        let top = self.top()?;
        let state = self.values.resolve(state);
        let is_map = matches!(self.values.get(state), Some(Value::Map(_)));
        match self.values.get_mut(top) {
            Some(object @ (Value::Opaque | Value::Sequence(_) | Value::Object { .. })) if is_map => {
                *object = Value::State(state);
            }
            Some(Value::Sequence(list) | Value::Object { items: list, .. }) => {
                self.budget.push(list, state)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Everything but torch's own functions makes an object that holds its arguments.
    fn call(&mut self, callable: Ref, arguments: Ref) -> Result<(), Refused> {
        let made = match self.values.items(arguments) {
            None => Some(Made::New(Value::Opaque)),
            Some(items) => torch::call(&self.values, callable, items),
        };
        match made {
            Some(Made::Same(value)) => self.put(value),
            Some(Made::New(value)) => self.put_value(value),
            None => self.put_value(Value::Object { arguments, items: Vec::new() }),
        }
    }
}
