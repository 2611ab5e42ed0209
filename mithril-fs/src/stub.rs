//! The stub of a packed file: what is left of it in the lower directory.
//!
//! The extended attribute is the authority; the first block is only a notice for people who look below the
//! mount. `docs/FORMAT.md` specifies both.

use std::io;
use std::os::fd::AsFd;

use mithril_engine::id::{ManifestId, StoreId};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Where the authority is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Namespace {
    /// `trusted.mithril`: a privileged daemon. Others can neither see nor forge it.
    Trusted,
    /// `user.mithril`: a daemon without privileges. Whoever may write the file below the mount can forge it.
    User,
}

impl Namespace {
    /// The attribute's name.
    pub const fn name(self) -> &'static str {
        match self {
            Namespace::Trusted => "trusted.mithril",
            Namespace::User => "user.mithril",
        }
    }
}

impl Namespace {
    /// The name of the attribute that keeps a file plain.
    const fn keep_plain_name(self) -> &'static str {
        match self {
            Namespace::Trusted => "trusted.mithril.plain",
            Namespace::User => "user.mithril.plain",
        }
    }
}

/// Attribute names that the mount hides and refuses.
pub const RESERVED_NAMES: [&[u8]; 4] =
    [b"trusted.mithril", b"user.mithril", b"trusted.mithril.plain", b"user.mithril.plain"];

/// A file that somebody unpacked: it stays plain while it has this size and modification time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeepPlain {
    /// Bytes.
    pub size: u64,
    /// Modification time in ns since 1970.
    pub mtime_ns: i64,
}

impl KeepPlain {
    /// Reads the attribute of the file at `path`; `None` if there is none, or none that is understood.
    pub fn read(path: &str, namespace: Namespace) -> Option<Self> {
        let mut value = [0; 17];
        let len = rustix::fs::getxattr(path, namespace.keep_plain_name(), &mut value[..]).ok()?;
        let (size, mtime) = value[..len].split_first_chunk::<8>()?;
        Some(Self { size: u64::from_le_bytes(*size), mtime_ns: i64::from_le_bytes(mtime.try_into().ok()?) })
    }

    /// Sets the attribute.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write(&self, path: &str, namespace: Namespace) -> io::Result<()> {
        let mut value = [0; 16];
        value[..8].copy_from_slice(&self.size.to_le_bytes());
        value[8..].copy_from_slice(&self.mtime_ns.to_le_bytes());
        Ok(rustix::fs::setxattr(path, namespace.keep_plain_name(), &value, XattrFlags::empty())?)
    }

    /// Removes the attribute, since the file may be packed; none is no error.
    pub fn remove(path: &str, namespace: Namespace) {
        // Left over, it names a size and time that the file does not have any more.
        let _ = rustix::fs::removexattr(path, namespace.keep_plain_name());
    }
}

/// Version of the attribute's layout.
const VERSION: u64 = 1;
/// Bytes of the attribute. 64 is what ext4 keeps inside a 256-byte inode, beside nothing else: one more and
/// every packed file would cost a block.
pub const AUTHORITY_BYTES: usize = 64;

/// What the attribute of a packed file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Authority {
    /// The store that holds the manifest.
    pub store: StoreId,
    /// The file's manifest.
    pub manifest: ManifestId,
    /// Plaintext bytes; the lower file has this size too.
    pub size: u64,
    /// Modification time in ns since 1970: what recovery restores.
    pub mtime_ns: i64,
    /// Inode number of the lower file. A copy of the stub has another one, and is refused.
    pub inode: u64,
}

/// Why an attribute is not believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Distrust {
    /// Wrong length.
    #[error("the packed-file attribute has {0} bytes instead of {AUTHORITY_BYTES}")]
    Length(usize),
    /// Later version.
    #[error("the packed-file attribute has version {0}; upgrade mithril to read this file")]
    Version(u64),
    /// Another directory's stub.
    #[error(
        "the file's bytes are in store {found}, not in this directory's store {expected}; restore it from there"
    )]
    Store {
        /// The store that the attribute names.
        found: StoreId,
        /// Ours.
        expected: StoreId,
    },
    /// Changed below the mount.
    #[error("the packed file has size {found} below the mount instead of {expected}: it was changed there")]
    Size {
        /// The lower file's size.
        found: u64,
        /// What the attribute says.
        expected: u64,
    },
    /// A copy.
    #[error(
        "the packed file has inode {found} below the mount instead of {expected}: it is a copy of a stub, not the file"
    )]
    Inode {
        /// The lower file's inode.
        found: u64,
        /// What the attribute says.
        expected: u64,
    },
}

impl Authority {
    /// The attribute's bytes.
    pub fn encode(&self) -> [u8; AUTHORITY_BYTES] {
        let mut bytes = [0; AUTHORITY_BYTES];
        bytes[0..8].copy_from_slice(&(VERSION << StoreId::BITS | self.store.get()).to_le_bytes());
        bytes[8..40].copy_from_slice(self.manifest.as_bytes());
        bytes[40..48].copy_from_slice(&self.size.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.mtime_ns.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.inode.to_le_bytes());
        bytes
    }

    /// Reads the attribute's bytes; says nothing yet about whether they fit a file.
    ///
    /// # Errors
    /// `Length` or `Version`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Distrust> {
        let bytes: &[u8; AUTHORITY_BYTES] = bytes.try_into().map_err(|_| Distrust::Length(bytes.len()))?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let version = word(0) >> StoreId::BITS;
        if version != VERSION {
            return Err(Distrust::Version(version));
        }
        Ok(Self {
            store: StoreId::from_low_bits(word(0)),
            manifest: ManifestId::from_bytes(std::array::from_fn(|i| bytes[8 + i])),
            size: word(40),
            mtime_ns: word(48).cast_signed(),
            inode: word(56),
        })
    }

    /// Checks the attribute against our store and the lower file it was found on. A size of 0 is a truncation
    /// that was interrupted, and is believed: the file is empty.
    ///
    /// # Errors
    /// `Store`, `Inode` or `Size`.
    pub fn check(&self, store: StoreId, inode: u64, size: u64) -> Result<(), Distrust> {
        if self.store != store {
            return Err(Distrust::Store { found: self.store, expected: store });
        }
        if self.inode != inode {
            return Err(Distrust::Inode { found: inode, expected: self.inode });
        }
        if size != self.size && size != 0 {
            return Err(Distrust::Size { found: size, expected: self.size });
        }
        Ok(())
    }
}

/// Reads the raw attribute of an open file (not `O_PATH`); `None` if the file is plain.
///
/// # Errors
/// Those of the system, except that a file system without attributes holds plain files only.
pub fn read_attribute(file: impl AsFd, namespace: Namespace) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0; AUTHORITY_BYTES + 1];
    match rustix::fs::fgetxattr(file, namespace.name(), &mut value) {
        Ok(len) => Ok(Some(value[..len].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(Errno::RANGE) => Ok(Some(vec![0; AUTHORITY_BYTES + 1])),
        Err(error) => Err(error.into()),
    }
}

/// Sets the attribute.
///
/// # Errors
/// Those of the system.
pub fn write_attribute(file: impl AsFd, namespace: Namespace, authority: &Authority) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(file, namespace.name(), &authority.encode(), XattrFlags::empty())?)
}

/// Removes the attribute: the file is plain from here on. No attribute is no error.
///
/// # Errors
/// Those of the system.
pub fn remove_attribute(file: impl AsFd, namespace: Namespace) -> io::Result<()> {
    match rustix::fs::fremovexattr(file, namespace.name()) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What the first bytes of a stub say to whoever reads it below the mount. It is no valid beginning of any
/// format that we know, so most readers fail loudly.
pub const NOTICE: &str = "This file is packed by mithril. Its content is in the .mithril directory at the top of this \
tree.\nRead it through the mount: mithril-fs mount DIR. Or without one: mithril-fs cat FILE\n";

/// What is said of a file that [`is_orphan`].
pub const ORPHAN: &str = "it begins as the stub of a packed file does, but has no packed-file attribute: it is a copy \
that was made below the mount without attributes, or the attribute was lost; its bytes are not here";

/// Whether a file without the attribute is what a stub looks like without it: the notice, and then zeros. Only those
/// that are long enough to have been packed are looked at.
///
/// # Errors
/// Those of reading.
pub fn is_orphan(file: &std::fs::File, size: u64) -> io::Result<bool> {
    if size < mithril_engine::settings::PACK_MIN_BYTES {
        return Ok(false);
    }
    let mut head = [0; ORPHAN_BYTES];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut head, 0)?;
    let (notice, rest) = head.split_at(NOTICE.len());
    Ok(notice == NOTICE.as_bytes() && rest.iter().all(|byte| *byte == 0))
}

/// What of a file is looked at for that: a block.
const ORPHAN_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        Authority {
            store: StoreId::from_low_bits(0x00ab_cdef_0123_4567),
            manifest: ManifestId::of(b"manifest"),
            size: 5 << 30,
            mtime_ns: -1,
            inode: 42,
        }
    }

    #[test]
    fn an_authority_survives_its_encoding() {
        assert_eq!(Authority::decode(&authority().encode()), Ok(authority()));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        assert_eq!(Authority::decode(b"packed"), Err(Distrust::Length(6)));
        let mut later = authority().encode();
        later[7] = 2;
        assert_eq!(Authority::decode(&later), Err(Distrust::Version(2)));
    }

    #[test]
    fn a_stub_that_disagrees_with_its_file_is_refused() {
        let good = authority();
        assert_eq!(good.check(good.store, 42, 5 << 30), Ok(()));
        assert_eq!(good.check(good.store, 42, 0), Ok(()));
        assert!(matches!(good.check(good.store, 43, 5 << 30), Err(Distrust::Inode { .. })));
        assert!(matches!(good.check(good.store, 42, 1), Err(Distrust::Size { .. })));
        assert!(matches!(good.check(StoreId::from_low_bits(1), 42, 5 << 30), Err(Distrust::Store { .. })));
    }
}
