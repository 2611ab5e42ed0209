//! Zip archives of stored members, as torch writes them.

/// Builds an archive.
#[derive(Default)]
pub(crate) struct Zip {
    pub(crate) bytes: Vec<u8>,
    directory: Vec<u8>,
}

impl Zip {
    pub(crate) fn add(&mut self, name: &str, data: &[u8]) {
        let offset = u32::try_from(self.bytes.len()).expect("it is short");
        let name_len = u16::try_from(name.len()).expect("it is short");
        let len = u32::try_from(data.len()).expect("it is short");
        self.bytes.extend_from_slice(b"PK\x03\x04");
        // Version, flags, method, time, date, checksum.
        self.bytes.extend_from_slice(&[0; 14]);
        for value in [len, len] {
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
        self.bytes.extend_from_slice(&name_len.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(data);
        self.enter(name, len, offset);
    }

    /// Puts only an entry into the directory.
    pub(crate) fn enter(&mut self, name: &str, len: u32, offset: u32) {
        let name_len = u16::try_from(name.len()).expect("it is short");
        self.directory.extend_from_slice(b"PK\x01\x02");
        self.directory.extend_from_slice(&[0; 16]);
        for value in [len, len] {
            self.directory.extend_from_slice(&value.to_le_bytes());
        }
        self.directory.extend_from_slice(&name_len.to_le_bytes());
        self.directory.extend_from_slice(&[0; 12]);
        self.directory.extend_from_slice(&offset.to_le_bytes());
        self.directory.extend_from_slice(name.as_bytes());
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let Self { mut bytes, directory } = self;
        let (len, offset) = (directory.len(), bytes.len());
        bytes.extend_from_slice(&directory);
        bytes.extend_from_slice(b"PK\x05\x06");
        bytes.extend_from_slice(&[0; 8]);
        for value in [len, offset] {
            bytes.extend_from_slice(&u32::try_from(value).expect("it is short").to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 2]);
        bytes
    }
}
