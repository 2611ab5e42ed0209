//! What a directory of a volume says of a name.

use std::fmt;

use crate::error::{Error, Result};
use crate::format::bytes::{Reader, put_varint};
use crate::id::{ManifestId, NodeId};

/// Longest name, as Linux has it.
const NAME_MAX_BYTES: usize = 255;
/// Longest target of a symbolic link, and longest extended attribute, as Linux has them.
const TARGET_MAX_BYTES: usize = 4095;
const ATTRIBUTE_MAX_BYTES: usize = 64 << 10;

/// A name in a directory: bytes without a slash or a zero, neither empty nor `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is none.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let is_one = !matches!(bytes, b"" | b"." | b"..")
            && bytes.len() <= NAME_MAX_BYTES
            && !bytes.iter().any(|byte| matches!(byte, b'/' | 0));
        if is_one {
            Ok(Self(bytes.into()))
        } else {
            Err(Error::invalid("name", format!("{:?} is no name of a file", String::from_utf8_lossy(bytes))))
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What all kinds of files have.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// Permissions, set-id and sticky bits: the low 12 bits of `st_mode`.
    pub permissions: u16,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Modification time in ns since 1970.
    pub mtime_ns: i64,
    /// Extended attributes, by name.
    pub extended: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names of a volume with the same number other than 0 are links to one file.
    pub link: u64,
}

impl Attributes {
    /// As [`Entry::checked`].
    ///
    /// # Errors
    /// As there.
    pub fn checked(mut self) -> Result<Self> {
        self.extended.sort();
        let fits = |(name, value): &(Vec<u8>, Vec<u8>)| {
            name.len() <= NAME_MAX_BYTES && value.len() <= ATTRIBUTE_MAX_BYTES
        };
        let wrong = if self.permissions > 0o7777 {
            "permissions have more than 12 bits"
        } else if !self.extended.iter().all(fits) {
            "an extended attribute is longer than 255 bytes, or its value than 64 KiB"
        } else if self.extended.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            "an extended attribute is there twice"
        } else {
            return Ok(self);
        };
        Err(Error::invalid("attributes", wrong))
    }
}

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A file with these bytes.
    File {
        /// Its length.
        len: u64,
        /// What its bytes are; those of an empty file are known without.
        manifest: Option<ManifestId>,
    },
    /// A directory with these names.
    Directory(NodeId),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A named pipe.
    Pipe,
}

/// A name's entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it stands for.
    pub content: Content,
    /// All else.
    pub attributes: Attributes,
}

const FILE: u8 = 1;
const EMPTY: u8 = 2;
const DIRECTORY: u8 = 3;
const SYMLINK: u8 = 4;
const PIPE: u8 = 5;

/// Bytes that an entry takes at least: its kind, four short numbers, a time, a count.
pub(super) const ENTRY_LEAST_BYTES: usize = 14;

impl Entry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let attributes = &self.attributes;
        out.push(match &self.content {
            Content::File { manifest: Some(_), .. } => FILE,
            Content::File { manifest: None, .. } => EMPTY,
            Content::Directory(_) => DIRECTORY,
            Content::Symlink(_) => SYMLINK,
            Content::Pipe => PIPE,
        });
        put_varint(out, attributes.permissions.into());
        put_varint(out, attributes.user.into());
        put_varint(out, attributes.group.into());
        out.extend(attributes.mtime_ns.to_le_bytes());
        put_varint(out, attributes.link);
        put_varint(out, attributes.extended.len() as u64);
        for (name, value) in &attributes.extended {
            put_bytes(out, name);
            put_bytes(out, value);
        }
        match &self.content {
            Content::File { len, manifest: Some(manifest) } => {
                put_varint(out, *len);
                out.extend(manifest.as_bytes());
            }
            Content::Directory(node) => out.extend(node.as_bytes()),
            Content::Symlink(target) => put_bytes(out, target),
            Content::File { manifest: None, .. } | Content::Pipe => {}
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let kind = reader.u8()?;
        let small = |reader: &mut Reader<'_>| {
            u32::try_from(reader.varint()?).map_err(|_| reader.corrupt("an owner has more than 32 bits"))
        };
        let permissions = u16::try_from(reader.varint()?).ok().filter(|bits| *bits <= 0o7777);
        let mut attributes = Attributes {
            permissions: permissions.ok_or_else(|| reader.corrupt("permissions have more than 12 bits"))?,
            user: small(reader)?,
            group: small(reader)?,
            mtime_ns: i64::from_le_bytes(reader.array()?),
            link: reader.varint()?,
            extended: Vec::new(),
        };
        for _ in 0..reader.count(2)? {
            let name = take_bytes(reader, NAME_MAX_BYTES)?;
            if attributes.extended.last().is_some_and(|(last, _)| *last >= name) {
                return Err(reader.corrupt("extended attributes are out of order"));
            }
            attributes.extended.push((name, take_bytes(reader, ATTRIBUTE_MAX_BYTES)?));
        }
        let content = match kind {
            FILE => {
                let len = reader.varint()?;
                Content::File { len, manifest: Some(ManifestId::from_bytes(reader.array()?)) }
            }
            EMPTY => Content::File { len: 0, manifest: None },
            DIRECTORY => Content::Directory(NodeId::from_bytes(reader.array()?)),
            SYMLINK => Content::Symlink(take_bytes(reader, TARGET_MAX_BYTES)?),
            PIPE => Content::Pipe,
            _ => return Err(reader.corrupt("an entry is of no kind that is known")),
        };
        Ok(Self { content, attributes })
    }

    /// Checks that it can be read again, and puts its extended attributes in order.
    ///
    /// # Errors
    /// [`Error::Invalid`] if something is longer than it can be, or there twice.
    pub fn checked(mut self) -> Result<Self> {
        self.attributes = self.attributes.checked()?;
        let wrong = match &self.content {
            Content::Symlink(target) if target.len() > TARGET_MAX_BYTES => {
                "the target of a link has more than 4,095 bytes"
            }
            Content::File { len, manifest } if (*len == 0) != manifest.is_none() => {
                "a file has bytes and no manifest, or none and one"
            }
            _ => return Ok(self),
        };
        Err(Error::invalid("entry", wrong))
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory(_))
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

pub(super) fn take_bytes(reader: &mut Reader<'_>, most: usize) -> Result<Vec<u8>> {
    let len = reader.count(1)?;
    if len > most {
        return Err(reader.corrupt("a name, target or attribute is too long"));
    }
    Ok(reader.take(len)?.to_vec())
}
