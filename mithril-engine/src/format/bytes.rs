//! Reading and writing of integers and lengths, checked.

use crate::error::{Error, Result};

/// Longest varint: 64 bits, 7 a byte.
const VARINT_MAX_BYTES: u32 = 10;

/// Reads from bytes that nobody vouches for.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// What is read, for errors.
    what: &'a str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'a str) -> Self {
        Self { bytes, what }
    }

    /// An error about what is read.
    pub(crate) fn corrupt(&self, reason: &str) -> Error {
        Error::corrupt(self.what, reason)
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) =
            self.bytes.split_at_checked(len).ok_or_else(|| self.corrupt("it ends too early"))?;
        self.bytes = rest;
        Ok(head)
    }

    /// The next bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A varint: 7 bits a byte, least significant first, the top bit set on all but the last. The shortest
    /// spelling is the only one.
    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for position in 0..VARINT_MAX_BYTES {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if position == VARINT_MAX_BYTES - 1 && bits > 1 {
                return Err(self.corrupt("a number does not fit 64 bits"));
            }
            value |= bits << (7 * position);
            if byte & 0x80 == 0 {
                if byte == 0 && position > 0 {
                    return Err(self.corrupt("a number is not spelled in its shortest way"));
                }
                return Ok(value);
            }
        }
        Err(self.corrupt("a number does not fit 64 bits"))
    }

    /// A varint that counts things of at least `least` bytes each: more than fit in what is left is a lie.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.varint()?;
        let fits = (self.bytes.len() / least.max(1)) as u64;
        if count > fits {
            return Err(self.corrupt("it counts more than it holds"));
        }
        usize::try_from(count).map_err(|_| self.corrupt("it counts more than fits in memory"))
    }

    /// Bytes that were not read yet.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether everything was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything must have been read.
    pub(crate) fn end(&self) -> Result<()> {
        if self.is_at_end() { Ok(()) } else { Err(self.corrupt("bytes are left over")) }
    }
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_survive() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes, "test");
            assert_eq!(reader.varint().unwrap(), value);
            reader.end().unwrap();
        }
    }

    #[test]
    fn varints_that_are_too_long_or_padded_are_refused() {
        for bytes in [
            &[0x80u8, 0][..],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0x80],
        ] {
            assert!(Reader::new(bytes, "test").varint().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_count_is_checked_against_what_is_there() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, 1 << 40);
        assert!(Reader::new(&bytes, "test").count(1).is_err());
    }
}
