//! The names of things: plaintext digests for chunks and manifests, and the ids of stores and packs. And what tells
//! that bytes are still those that had a name.

use std::fmt;

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Bytes that an id takes on disk.
            pub const LEN: usize = $len;

            /// The id with exactly these bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The id's bytes, as they are stored.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

digest_id!(
    /// The BLAKE3 of a chunk's plaintext. Encodings come and go; this never changes.
    ChunkId,
    32
);
digest_id!(
    /// The BLAKE3 of a manifest's encoded bytes before compression.
    ManifestId,
    32
);
digest_id!(
    /// The first 16 bytes of the BLAKE3 of a pack's footer; the pack's file name in hex.
    PackId,
    16
);

digest_id!(
    /// The BLAKE3 of an encoded node of a volume's tree.
    NodeId,
    32
);

impl NodeId {
    /// The id of these encoded bytes.
    pub fn of(encoded: &[u8]) -> Self {
        Self(*blake3::hash(encoded).as_bytes())
    }
}

digest_id!(
    /// The BLAKE3 of a blob of a content store.
    Address,
    32
);

impl Address {
    /// The address of these bytes.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
}

impl std::str::FromStr for Address {
    type Err = crate::Error;

    /// Parses 64 hex digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = blake3::Hash::from_hex(text);
        parsed.map(|hash| Self(*hash.as_bytes())).map_err(|_| {
            crate::Error::invalid("address", format!("{text:?} is not what BLAKE3 gives: 64 hex digits"))
        })
    }
}

impl ChunkId {
    /// The id of these plaintext bytes.
    pub fn of(plaintext: &[u8]) -> Self {
        Self(*blake3::hash(plaintext).as_bytes())
    }
}

impl ManifestId {
    /// The id of these encoded manifest bytes.
    pub fn of(encoded: &[u8]) -> Self {
        Self(*blake3::hash(encoded).as_bytes())
    }
}

impl PackId {
    /// The id of a pack with this footer.
    pub fn of(footer: &[u8]) -> Self {
        let mut id = [0; Self::LEN];
        id.copy_from_slice(&blake3::hash(footer).as_bytes()[..Self::LEN]);
        Self(id)
    }

    /// Parses the 32 hex digits of a pack's file name; `None` for any other name.
    pub fn from_hex(name: &str) -> Option<Self> {
        let digits = name.as_bytes();
        if digits.len() != 2 * Self::LEN || !digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut id = [0; Self::LEN];
        for (byte, pair) in id.iter_mut().zip(name.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }
}

/// The XXH3-64 of a chunk's plaintext: tells ten times faster than its BLAKE3 whether bytes that were read are those that
/// were packed, and does not name them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checksum(u64);

impl Checksum {
    /// Bytes that a checksum takes on disk.
    pub const LEN: usize = 8;

    /// The checksum of these bytes.
    pub fn of(plaintext: &[u8]) -> Self {
        Self(twox_hash::XxHash3_64::oneshot(plaintext))
    }

    /// The checksum with this value.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its value.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// The random 56-bit name of one store: a stub says which store its bytes are in, so that a stub that was
/// copied into another directory is refused instead of answered with somebody else's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StoreId(u64);

impl StoreId {
    /// Bits of a store id: it shares one 64-bit word of a stub with the format version.
    pub const BITS: u32 = 56;

    /// The id with these low 56 bits; the rest is dropped.
    pub const fn from_low_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// The id as a number below 2^56.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_id_survives_its_file_name() {
        let id = PackId::of(b"footer");
        assert_eq!(PackId::from_hex(&id.to_string()), Some(id));
    }

    /// The value that XXH3-64's own description gives for no bytes at all, so that no other variant of it is used.
    #[test]
    fn a_checksum_is_xxh3() {
        assert_eq!(Checksum::of(b"").bits(), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn names_that_are_no_pack_are_refused() {
        for name in ["", "12", "lock", &"g".repeat(32), &"A".repeat(32), &"ä".repeat(16), &"0".repeat(34)] {
            assert_eq!(PackId::from_hex(name), None, "{name}");
        }
    }

    #[test]
    fn a_store_id_keeps_56_bits() {
        assert_eq!(StoreId::from_low_bits(u64::MAX).get(), u64::MAX >> 8);
    }
}
