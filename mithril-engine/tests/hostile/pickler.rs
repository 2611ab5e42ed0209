//! Pickles of protocol 2, as torch writes them, and such as nobody would.

use std::collections::HashMap;

/// Builds a pickle.
pub(crate) struct Pickler {
    pub(crate) bytes: Vec<u8>,
    remembered: u32,
    known: HashMap<String, u32>,
}

impl Pickler {
    pub(crate) fn new() -> Self {
        Self { bytes: b"\x80\x02".to_vec(), remembered: 0, known: HashMap::new() }
    }

    pub(crate) fn op(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Remembers what is on top.
    pub(crate) fn remember(&mut self) -> u32 {
        let key = self.remembered;
        self.remembered += 1;
        match u8::try_from(key) {
            Ok(key) => self.op(&[b'q', key]),
            Err(_) => {
                self.op(b"r");
                self.op(&key.to_le_bytes());
            }
        }
        key
    }

    pub(crate) fn recall(&mut self, key: u32) {
        match u8::try_from(key) {
            Ok(key) => self.op(&[b'h', key]),
            Err(_) => {
                self.op(b"j");
                self.op(&key.to_le_bytes());
            }
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.op(b"X");
        self.op(&u32::try_from(text.len()).expect("it is short").to_le_bytes());
        self.op(text.as_bytes());
    }

    /// A text that is written once.
    pub(crate) fn interned(&mut self, text: &str) {
        if let Some(&key) = self.known.get(text) {
            return self.recall(key);
        }
        self.text(text);
        let key = self.remember();
        self.known.insert(text.to_owned(), key);
    }

    /// A class or function.
    pub(crate) fn global(&mut self, module: &str, name: &str) {
        let line = format!("c{module}\n{name}\n");
        if let Some(&key) = self.known.get(&line) {
            return self.recall(key);
        }
        self.op(line.as_bytes());
        let key = self.remember();
        self.known.insert(line, key);
    }

    pub(crate) fn int(&mut self, value: u32) {
        match (u8::try_from(value), u16::try_from(value)) {
            (Ok(value), _) => self.op(&[b'K', value]),
            (_, Ok(value)) => {
                self.op(b"M");
                self.op(&value.to_le_bytes());
            }
            _ => {
                self.op(b"J");
                self.op(&value.to_le_bytes());
            }
        }
    }

    /// A storage of fp32 numbers.
    pub(crate) fn storage(&mut self, key: &str, elements: u32) {
        self.op(b"(");
        self.interned("storage");
        self.global("torch", "FloatStorage");
        self.interned(key);
        self.interned("cpu");
        self.int(elements);
        self.op(b"t");
        self.remember();
        self.op(b"Q");
    }

    /// A matrix of fp32 numbers in a storage of its own.
    pub(crate) fn matrix(&mut self, key: &str, rows: u32, columns: u32) {
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.op(b"(");
        self.storage(key, rows * columns);
        self.int(0);
        for (first, second) in [(rows, columns), (columns, 1)] {
            self.int(first);
            self.int(second);
            self.op(b"\x86");
            self.remember();
        }
        self.op(b"\x89");
        self.global("collections", "OrderedDict");
        self.op(b")R");
        self.remember();
        self.op(b"t");
        self.remember();
        self.op(b"R");
        self.remember();
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.op(b".");
        self.bytes
    }
}
