//! A reader of pickles that executes nothing.
//!
//! It follows the pickle machine's opcodes (protocols 0 to 5) as far as needed to know which tensors an object holds
//! and under which names. Classes and functions are only names to it: a call of anything but torch's own rebuilding
//! functions is an opaque value that holds its arguments. Written from the documentation in CPython's `pickletools`.

use std::collections::{HashMap, HashSet};

use super::Element;

/// Values that one pickle may have: bounds memory to some 100 MB.
const MAX_VALUES: usize = 1 << 20;
/// Containers inside each other that are looked into.
const MAX_DEPTH: usize = 200;
/// Longest name of a tensor.
const MAX_NAME_BYTES: usize = 1024;

/// A tensor that a pickle refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) name: String,
    /// The storage that its elements are in.
    pub(super) storage: String,
    pub(super) element: Element,
    /// First element in the storage.
    pub(super) first: u64,
    pub(super) shape: Vec<u64>,
}

/// A pickle that was read.
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
    /// Bytes up to and with its end.
    pub(super) len: usize,
}

/// A value, by its place in the list of all.
type Id = usize;

#[derive(Clone, Debug)]
enum Value {
    Opaque,
    Int(i64),
    Text(String),
    /// A class or function: module and name with a blank between.
    Global(String),
    /// A tuple, list, set, or an unknown object with what it was made of.
    Sequence(Vec<Id>),
    Map(Vec<(Id, Id)>),
    Storage {
        element: Option<Element>,
        key: String,
    },
    Tensor {
        storage: Id,
        element: Option<Element>,
        first: u64,
        shape: Vec<u64>,
    },
}

/// Why a pickle is not understood.
pub(super) type Refused = &'static str;

/// The message for a pickle that goes on after the bytes that are there.
pub(super) const CUT_SHORT: Refused = "the pickle is cut short";

/// Reads one pickle from the front of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, Refused> {
    Machine { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
        .run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    fn take(&mut self, len: u64) -> Result<&'a [u8], Refused> {
        let len = usize::try_from(len).map_err(|_| CUT_SHORT)?;
        let end = self.at.checked_add(len).ok_or(CUT_SHORT)?;
        let bytes = self.bytes.get(self.at..end).ok_or(CUT_SHORT)?;
        self.at = end;
        Ok(bytes)
    }

    fn number(&mut self, width: u64) -> Result<u64, Refused> {
        Ok(self.take(width)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<String, Refused> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(CUT_SHORT)?;
        self.at += len + 1;
        Ok(String::from_utf8_lossy(&rest[..len]).into_owned())
    }

    fn push(&mut self, value: Value) -> Result<(), Refused> {
        let id = self.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn add(&mut self, value: Value) -> Result<Id, Refused> {
        if self.values.len() == MAX_VALUES {
            return Err("the pickle has too many values");
        }
        self.values.push(value);
        Ok(self.values.len() - 1)
    }

    fn pop(&mut self) -> Result<Id, Refused> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("the pickle takes more than it put");
        }
        self.stack.pop().ok_or("the pickle takes more than it put")
    }

    /// What was put since the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Id>, Refused> {
        let mark = self.marks.pop().ok_or("the pickle has no mark")?;
        if mark > self.stack.len() {
            return Err("the pickle takes more than it put");
        }
        Ok(self.stack.split_off(mark))
    }

    fn text(&mut self, len: u64) -> Result<(), Refused> {
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.push(Value::Text(text))
    }

    fn skip(&mut self, len: u64) -> Result<(), Refused> {
        self.take(len)?;
        self.push(Value::Opaque)
    }

    fn remember(&mut self, key: u64) -> Result<(), Refused> {
        let top = *self.stack.last().ok_or("the pickle remembers nothing")?;
        if self.memo.len() > MAX_VALUES {
            return Err("the pickle has too many values");
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), Refused> {
        let id = *self.memo.get(&key).ok_or("the pickle recalls what it did not remember")?;
        self.stack.push(id);
        Ok(())
    }

    /// A number that is spelled out in a line.
    fn spelled(&mut self) -> Result<u64, Refused> {
        self.line()?.trim().parse().map_err(|_| "the pickle has an odd number")
    }

    fn run(mut self) -> Result<Pickle, Refused> {
        loop {
            // References to one value may be put any number of times: the stack is bounded by the bytes read.
            match self.number(1)? {
                0x2e => {
                    let root = self.pop()?;
                    return Ok(Pickle { values: self.values, root, len: self.at });
                }
                opcode => self.step(u8::try_from(opcode).unwrap_or(0))?,
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Refused> {
        match opcode {
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                // On a mark, it takes the mark.
                let on_mark = self.marks.last() == Some(&self.stack.len());
                let _ = if on_mark { self.marks.pop() } else { Some(self.pop()?) };
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or("the pickle takes more than it put")?;
                self.stack.push(top);
            }
            b'N' | 0x88 | 0x89 | 0x97 => self.push(Value::Opaque)?,
            0x98 => {}
            b'I' | b'L' => {
                let line = self.line()?;
                let number = line.trim_end_matches('L').trim().parse();
                self.push(number.map_or(Value::Opaque, Value::Int))?;
            }
            b'F' => {
                self.line()?;
                self.push(Value::Opaque)?;
            }
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(i64::from(number)))?;
            }
            b'K' | b'M' => {
                let number = self.number(if opcode == b'K' { 1 } else { 2 })?;
                self.push(Value::Int(i64::try_from(number).unwrap_or(0)))?;
            }
            0x8a | 0x8b => self.long(if opcode == 0x8a { 1 } else { 4 })?,
            b'G' => self.skip(8)?,
            b'S' | b'V' => {
                let line = self.line()?;
                self.push(Value::Text(line.trim_matches(['\'', '"']).to_owned()))?;
            }
            b'T' | b'X' => self.counted_text(4)?,
            b'U' | 0x8c => self.counted_text(1)?,
            0x8d => self.counted_text(8)?,
            b'B' => self.counted_bytes(4)?,
            b'C' => self.counted_bytes(1)?,
            0x8e | 0x96 => self.counted_bytes(8)?,
            b')' | b']' | 0x8f => self.push(Value::Sequence(Vec::new()))?,
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(Value::Sequence(items))?;
            }
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            b'}' => self.push(Value::Map(Vec::new()))?,
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Map(pairs(&items)))?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(vec![(key, value)])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.insert(pairs(&items))?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(format!("{module} {name}")))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let global = match (&self.values[module], &self.values[name]) {
                    (Value::Text(module), Value::Text(name)) => Value::Global(format!("{module} {name}")),
                    _ => Value::Opaque,
                };
                self.push(global)?;
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments)?;
            }
            0x92 => {
                let (keywords, arguments, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.push(Value::Sequence(vec![callable, arguments, keywords]))?;
            }
            b'o' => {
                let items = self.pop_mark()?;
                self.push(Value::Sequence(items))?;
            }
            b'i' => {
                self.line()?;
                self.line()?;
                let items = self.pop_mark()?;
                self.push(Value::Sequence(items))?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'p' => {
                let key = self.spelled()?;
                self.remember(key)?;
            }
            b'q' | b'r' => {
                let key = self.number(if opcode == b'q' { 1 } else { 4 })?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'g' => {
                let key = self.spelled()?;
                self.recall(key)?;
            }
            b'h' | b'j' => {
                let key = self.number(if opcode == b'h' { 1 } else { 4 })?;
                self.recall(key)?;
            }
            b'P' => {
                self.line()?;
                self.push(Value::Opaque)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id);
                self.push(storage)?;
            }
            0x82..=0x84 => self.skip(1 << (opcode - 0x82))?,
            _ => return Err("the pickle has an unknown opcode"),
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let bytes = self.take(N as u64)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    fn counted_text(&mut self, width: u64) -> Result<(), Refused> {
        let len = self.number(width)?;
        self.text(len)
    }

    fn counted_bytes(&mut self, width: u64) -> Result<(), Refused> {
        let len = self.number(width)?;
        self.skip(len)
    }

    /// An integer of any length; what does not fit 64 bits is opaque.
    fn long(&mut self, width: u64) -> Result<(), Refused> {
        let len = self.number(width)?;
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
        let value = (bytes.len() <= 8).then(|| {
            let mut all = [if negative { 0xff } else { 0 }; 8];
            all[..bytes.len()].copy_from_slice(bytes);
            i64::from_le_bytes(all)
        });
        self.push(value.map_or(Value::Opaque, Value::Int))
    }

    fn tuple(&mut self, len: usize) -> Result<(), Refused> {
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Sequence(items))
    }

    fn top(&mut self) -> Result<&mut Value, Refused> {
        let top = *self.stack.last().ok_or("the pickle takes more than it put")?;
        Ok(&mut self.values[top])
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<(), Refused> {
        match self.top()? {
            Value::Sequence(list) => list.extend(items),
            other => *other = Value::Sequence(items),
        }
        Ok(())
    }

    fn insert(&mut self, items: Vec<(Id, Id)>) -> Result<(), Refused> {
        match self.top()? {
            Value::Map(map) => map.extend(items),
            // An object that behaves like a dictionary.
            Value::Sequence(list) => list.extend(items.into_iter().map(|(_, value)| value)),
            _ => {}
        }
        Ok(())
    }

    /// Sets an object's state: what is in it is in the object.
    fn build(&mut self, state: Id) -> Result<(), Refused> {
        let state_value = match &self.values[state] {
            Value::Map(map) => Some(map.clone()),
            _ => None,
        };
        match (self.top()?, state_value) {
            (Value::Map(_) | Value::Tensor { .. }, _) => {}
            (object, Some(map)) => *object = Value::Map(map),
            (Value::Sequence(list), None) => list.push(state),
            _ => {}
        }
        Ok(())
    }

    /// Calls nothing: torch's rebuilding functions are known by name, everything else holds its arguments.
    fn call(&mut self, callable: Id, arguments: Id) -> Result<(), Refused> {
        let Value::Sequence(items) = &self.values[arguments] else { return self.push(Value::Opaque) };
        let items = items.clone();
        let name = match &self.values[callable] {
            Value::Global(name) => name.as_str(),
            _ => "",
        };
        let value = match name {
            "collections OrderedDict" => Value::Map(Vec::new()),
            "torch._utils _rebuild_tensor" | "torch._utils _rebuild_tensor_v2" => self.tensor(&items, None),
            "torch._utils _rebuild_tensor_v3" => {
                let element = items.get(6).and_then(|&dtype| match &self.values[dtype] {
                    Value::Global(name) => dtype_element(name),
                    _ => None,
                });
                self.tensor(&items, element)
            }
            "torch._utils _rebuild_parameter" | "torch._utils _rebuild_parameter_with_state" => {
                match items.first() {
                    Some(&data) => self.values[data].clone(),
                    None => Value::Opaque,
                }
            }
            _ => Value::Sequence(items),
        };
        self.push(value)
    }

    fn tensor(&self, items: &[Id], element: Option<Element>) -> Value {
        let integer = |id: Id| match self.values[id] {
            Value::Int(number) => u64::try_from(number).ok(),
            _ => None,
        };
        let parts = (
            items.first(),
            items.get(1).and_then(|&id| integer(id)),
            items.get(2).map(|&id| &self.values[id]),
        );
        let (Some(&storage), Some(first), Some(Value::Sequence(shape))) = parts else { return Value::Opaque };
        let shape: Option<Vec<u64>> = shape.iter().map(|&dimension| integer(dimension)).collect();
        shape.map_or(Value::Opaque, |shape| Value::Tensor { storage, element, first, shape })
    }

    /// `('storage', torch.FloatStorage, '0', 'cpu', 1024)`
    fn storage(&self, id: Id) -> Value {
        let Value::Sequence(items) = &self.values[id] else { return Value::Opaque };
        let item = |index: usize| items.get(index).map(|&id| &self.values[id]);
        match (item(0), item(1), item(2)) {
            (Some(Value::Text(kind)), Some(Value::Global(class)), Some(Value::Text(key)))
                if kind == "storage" =>
            {
                Value::Storage { element: storage_element(class), key: key.clone() }
            }
            _ => Value::Opaque,
        }
    }
}

fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    items.as_chunks::<2>().0.iter().map(|&[key, value]| (key, value)).collect()
}

/// `torch FloatStorage`
fn storage_element(class: &str) -> Option<Element> {
    let name = class.strip_prefix("torch ").or_else(|| class.strip_prefix("torch.cuda "))?;
    Some(match name.strip_suffix("Storage")? {
        "Double" => Element::F64,
        "Float" => Element::F32,
        "Half" => Element::F16,
        "BFloat16" => Element::Bf16,
        "Long" => Element::I64,
        "Int" => Element::I32,
        "Short" => Element::I16,
        "Char" => Element::I8,
        "Byte" => Element::U8,
        "Bool" => Element::Bool,
        "ComplexFloat" => Element::Complex64,
        "ComplexDouble" => Element::Complex128,
        _ => return None,
    })
}

/// `torch float8_e4m3fn`
fn dtype_element(name: &str) -> Option<Element> {
    Some(match name.strip_prefix("torch ")? {
        "float64" => Element::F64,
        "float32" => Element::F32,
        "float16" => Element::F16,
        "bfloat16" => Element::Bf16,
        "float8_e4m3fn" => Element::F8E4M3,
        "float8_e5m2" => Element::F8E5M2,
        "float8_e4m3fnuz" => Element::F8E4M3Fnuz,
        "float8_e5m2fnuz" => Element::F8E5M2Fnuz,
        "float8_e8m0fnu" => Element::F8E8M0,
        "int64" => Element::I64,
        "int32" => Element::I32,
        "int16" => Element::I16,
        "int8" => Element::I8,
        "uint64" => Element::U64,
        "uint32" => Element::U32,
        "uint16" => Element::U16,
        "uint8" => Element::U8,
        "bool" => Element::Bool,
        "complex64" => Element::Complex64,
        "complex128" => Element::Complex128,
        _ => return None,
    })
}

impl Pickle {
    /// The tensors, named by where they are: `optimizer.state.0.exp_avg`.
    pub(super) fn tensors(&self) -> Vec<Found> {
        let mut found = Vec::new();
        self.walk(self.root, &mut String::new(), 0, &mut HashSet::new(), &mut found);
        found
    }

    /// The texts of a list, as the keys of storages in a legacy file.
    pub(super) fn texts(&self) -> Vec<String> {
        let Value::Sequence(items) = &self.values[self.root] else { return Vec::new() };
        let text = |&id: &Id| match &self.values[id] {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        items.iter().filter_map(text).collect()
    }

    fn walk(&self, id: Id, path: &mut String, depth: usize, seen: &mut HashSet<Id>, found: &mut Vec<Found>) {
        if depth == MAX_DEPTH || path.len() > MAX_NAME_BYTES {
            return;
        }
        let children: Vec<(String, Id)> = match &self.values[id] {
            Value::Tensor { storage, element, first, shape } => {
                if let Value::Storage { element: stored, key } = &self.values[*storage] {
                    let element = element.or(*stored).unwrap_or(Element::Bytes);
                    let (name, storage) = (path.clone(), key.clone());
                    found.push(Found { name, storage, element, first: *first, shape: shape.clone() });
                }
                return;
            }
            // A container is looked into once, under the first of its names.
            Value::Sequence(_) | Value::Map(_) if !seen.insert(id) => return,
            Value::Sequence(items) => {
                items.iter().enumerate().map(|(index, &item)| (index.to_string(), item)).collect()
            }
            Value::Map(items) => items.iter().map(|&(key, value)| (self.key_name(key), value)).collect(),
            _ => return,
        };
        let len = path.len();
        for (key, child) in children {
            if len > 0 {
                path.push('.');
            }
            path.push_str(&key);
            self.walk(child, path, depth + 1, seen, found);
            path.truncate(len);
        }
    }

    fn key_name(&self, key: Id) -> String {
        match &self.values[key] {
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            _ => "?".to_owned(),
        }
    }
}
