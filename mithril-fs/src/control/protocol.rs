//! What travels over the control socket, and what the commands print with `--json`: one JSON object a line.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::printable::printable;

/// A path below the mounted directory; empty for the directory itself. Not necessarily UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(OsString);

impl RelPath {
    /// The path with these bytes.
    pub fn new(path: impl Into<OsString>) -> Self {
        Self(path.into())
    }

    /// As a path, to be joined to a root.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The path `name` below this one.
    pub fn join(&self, name: &OsStr) -> Self {
        if self.0.is_empty() {
            Self(name.to_owned())
        } else {
            Self(self.as_path().join(name).into_os_string())
        }
    }
}

impl From<PathBuf> for RelPath {
    fn from(path: PathBuf) -> Self {
        Self(path.into_os_string())
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string_lossy();
        f.write_str(&if text.is_empty() { ".".to_owned() } else { printable(&text) })
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A string where the path is UTF-8, else its bytes as an array of numbers.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathOnWire {
    Text(String),
    Bytes(Vec<u8>),
}

impl Serialize for RelPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => PathOnWire::Text(text.to_owned()),
            None => PathOnWire::Bytes(self.0.as_bytes().to_vec()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match PathOnWire::deserialize(deserializer)? {
            PathOnWire::Text(text) => text.into(),
            PathOnWire::Bytes(bytes) => OsString::from_vec(bytes),
        }))
    }
}

/// A command to the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// How things stand.
    Status,
    /// Pack everything that can be packed, now.
    Sync,
    /// List files at or below a path.
    List {
        /// A file or a directory.
        path: RelPath,
    },
    /// Pack one file, or the files below a directory.
    Pack {
        /// A file or a directory.
        path: RelPath,
    },
    /// Say what `Pack` would come to, by a sample.
    Estimate {
        /// A file or a directory.
        path: RelPath,
    },
    /// Make one file, or the files below a directory, plain, and leave them so until they change.
    Unpack {
        /// A file or a directory.
        path: RelPath,
    },
    /// Read and check everything.
    Verify {
        /// Rebuild the index from the packs first.
        repair_index: bool,
    },
    /// Give back the space that nothing needs.
    Gc {
        /// Only say how much it would be.
        dry_run: bool,
    },
    /// Begin to pack no file until `Resume`, or until the mount ends.
    Pause,
    /// Go on packing, also where it waits for something that is lacking.
    Resume,
    /// End the daemon and unmount.
    Stop {
        /// Pack what is queued first.
        drain: bool,
        /// Detach although the mount is in use.
        lazy: bool,
    },
}

/// A line of the daemon's answer: any number of `Progress`, then one of the others.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Still working.
    Progress(Progress),
    /// To `Status`.
    Status(Box<Status>),
    /// To `Sync` and `Pack`.
    Packed(PackReport),
    /// To `Estimate`.
    Estimated(EstimateReport),
    /// To `Unpack`.
    Unpacked(UnpackReport),
    /// To `List`.
    Files(Listing),
    /// To `Verify`.
    Verified(VerifyReport),
    /// To `Gc`.
    Collected(GcReport),
    /// To `Pause` and `Resume`.
    Packing(PauseReport),
    /// To `Stop`: the mount is gone, or was detached. If the request was not lazy, the daemon keeps the connection open
    /// until it has let go of the directory.
    Stopping(StopReport),
    /// The command failed.
    Failed(CommandError),
}

/// How far a command is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The file that is being worked on, if there is one.
    pub path: Option<RelPath>,
    /// Logical bytes done so far.
    pub done_bytes: u64,
    /// Logical bytes in all, as known now.
    pub total_bytes: u64,
    /// Stored bytes so far (of what is done), for the ratio.
    pub stored_bytes: u64,
}

/// What went wrong with a command, for a person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// What happened and what to do about it.
    pub message: String,
    /// The exit code of the command line.
    pub exit_code: u8,
}

/// Files and directories that could not be looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Unseen {
    /// The first ones, with the reason.
    pub named: Vec<(RelPath, String)>,
    /// How many more there are.
    pub more: u64,
}

impl Unseen {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.named.len() as u64 + self.more
    }
}

/// Plain files that are large enough to be packed, and that are not going to be without more to happen. In the answer to
/// `Sync` and `Pack` also those that were tried and wait to be tried again.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LeftPlain {
    /// The first ones, with the reason.
    pub named: Vec<(RelPath, String)>,
    /// How many more there are.
    pub more: u64,
    /// How many of all of them are so for now only: in use, failed, not tried yet. The others stay plain until they
    /// change: hardly compressible, or unpacked by hand.
    pub for_now: u64,
}

impl LeftPlain {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.named.len() as u64 + self.more
    }
}

/// How a daemon stands.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Where the mount is.
    pub mountpoint: PathBuf,
    /// The directory below it, as it was given.
    pub directory: PathBuf,
    /// The daemon; 0 if none runs.
    pub pid: u32,
    /// Whether plain files are opened with passthrough; if not, why.
    pub passthrough: Option<String>,
    /// Whether packing is on; if not, why (no user xattrs, no hole punching).
    pub packing: Option<String>,
    /// Why no file is begun just now, if none is: somebody paused it, or something is lacking.
    #[serde(default)]
    pub paused: Option<String>,
    /// Files in the packed state.
    pub packed_files: u64,
    /// Bytes of the packed files as their users see them.
    pub logical_bytes: u64,
    /// Bytes that the packs and the index take.
    pub stored_bytes: u64,
    /// Files waiting to be packed.
    pub queued_files: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// The file that is being packed.
    pub packing_path: Option<RelPath>,
    /// Packing speed in bytes of plaintext a second, over the files packed since the mount; 0 if none.
    pub pack_bytes_per_second: f64,
    /// Read requests for packed files that the daemon answered, and their bytes.
    pub read_requests: u64,
    /// Bytes of those.
    pub read_bytes: u64,
    /// Bytes of packed files that were decoded for that, or ahead of it.
    pub decoded_bytes: u64,
    /// Write requests that the daemon served (none in passthrough), and their bytes.
    pub write_requests: u64,
    /// Bytes of those.
    pub write_bytes: u64,
    /// `fsync` and `fdatasync` requests for files that the daemon served; they reach it in passthrough too.
    pub fsync_requests: u64,
    /// `fsync` requests for directories.
    pub fsyncdir_requests: u64,
    /// Handles opened in passthrough since the mount.
    pub passthrough_opens: u64,
    /// Errors since the mount, latest last; bounded.
    pub errors: Vec<String>,
    /// Files that are plain and wait for nothing. Empty while packing is off.
    #[serde(default)]
    pub left_plain: LeftPlain,
    /// What is not counted, since it could not be looked at.
    #[serde(default)]
    pub unseen: Unseen,
}

/// The state of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileState {
    /// Bytes in the lower file.
    Plain,
    /// Bytes in the store.
    Packed,
    /// A stub that does not fit: unreadable.
    Damaged,
}

/// A file of `ls`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path.
    pub path: RelPath,
    /// Its size as users see it.
    pub logical_bytes: u64,
    /// What it takes: blocks of a plain file; of a packed one, its stub and the encoded chunks that it was the
    /// first to need, each chunk counted once over the files of one listing.
    pub stored_bytes: u64,
    /// Its state.
    pub state: FileState,
    /// Chunks of it that are deltas, by the longest chain under one; 0 if none is.
    pub chain_depth: u8,
    /// The file whose chunks most of its deltas are against, if it is still there.
    pub base: Option<RelPath>,
    /// Why it is plain, if it is and is going to stay so without more to happen.
    #[serde(default)]
    pub plain_because: Option<String>,
}

/// What `ls` found.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Listing {
    /// By path.
    pub files: Vec<FileEntry>,
    /// What could not be looked at.
    #[serde(default)]
    pub unseen: Unseen,
}

/// What packing came to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PackReport {
    /// Files packed.
    pub files: u64,
    /// Their logical bytes.
    pub logical_bytes: u64,
    /// What was added to the store for them.
    pub stored_bytes: u64,
    /// Files left plain.
    pub left_plain: LeftPlain,
    /// Files that would have been left plain if they had not been asked for: the first ones, with the reason.
    #[serde(default)]
    pub overruled: Vec<(RelPath, String)>,
    /// Why packing stopped before all was done, if it did.
    #[serde(default)]
    pub paused: Option<String>,
    /// What could not be looked at.
    #[serde(default)]
    pub unseen: Unseen,
}

/// What packing would come to, by a sample.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct EstimateReport {
    /// Files that would be packed.
    pub files: u64,
    /// Their bytes.
    pub logical_bytes: u64,
    /// Files of which some was encoded.
    pub sampled_files: u64,
    /// The share of the bytes that would be stored. Deltas against files that are not packed yet are not foreseen.
    pub share: f64,
    /// How long it would take, if nothing else is packed.
    pub seconds: f64,
}

/// What unpacking came to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct UnpackReport {
    /// Files that are plain now.
    pub files: u64,
    /// Their bytes.
    pub logical_bytes: u64,
    /// Files that stayed packed, with the reason.
    pub failed: Vec<(RelPath, String)>,
    /// Whether no file of the whole directory needs its store any more. Only known without a mount.
    #[serde(default)]
    pub store_is_free: bool,
}

/// How packing stands after a command that stops it or lets it go on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PauseReport {
    /// Why no file is begun, if none is.
    pub paused: Option<String>,
    /// The file that is being packed, and is finished all the same.
    pub active: Option<RelPath>,
    /// Files that wait.
    pub queued_files: u64,
    /// Their bytes.
    pub queued_bytes: u64,
}

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Packed files read to the end.
    pub files: u64,
    /// Packs read to the end.
    pub packs: u64,
    /// Chunks decoded and compared with their names.
    pub chunks: u64,
    /// Everything that is wrong in the store: packs, index, chunks.
    pub store_errors: Vec<String>,
    /// Files that cannot be read whole, with the reason.
    pub damaged_files: Vec<(RelPath, String)>,
    /// What could not be looked at.
    #[serde(default)]
    pub unseen: Unseen,
}

/// What a collection gave back, or would.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GcReport {
    /// Chunks and manifests that nothing needs.
    pub dead_blobs: u64,
    /// Packs deleted whole.
    pub deleted_packs: u64,
    /// Packs whose live part was copied to a new one.
    pub rewritten_packs: u64,
    /// Bytes given back.
    pub freed_bytes: u64,
    /// Bytes that stay.
    pub kept_bytes: u64,
}

/// What is left to do after an unmount.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StopReport {
    /// Files that the next mount will pack.
    pub queued: Vec<RelPath>,
    /// Their bytes.
    pub queued_bytes: u64,
    /// The file that the daemon is still busy with, and ends after: its disk is slow. It may get packed yet.
    #[serde(default)]
    pub busy_with: Option<RelPath>,
}
