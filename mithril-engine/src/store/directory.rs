//! The store's files, by descriptor.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::format::pack::{self, Entry, HEADER_BYTES, TRAILER_BYTES};
use crate::id::{PackId, StoreId};
use crate::step::{self, Step};

const PACKS: &str = "packs";
const INDEX: &str = "index";
const INDEX_NEW: &str = "index.new";
/// What the names of packs that are being written begin with.
const UNFINISHED: &str = "tmp-";

/// A file that has the name of a pack.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackFile {
    pub(super) id: PackId,
    pub(super) len: u64,
}

/// The directory of a store.
#[derive(Debug)]
pub(super) struct Directory {
    root: OwnedFd,
    packs: OwnedFd,
}

impl Directory {
    /// Opens the directory, makes what is missing, and removes what unfinished writers left.
    pub(super) fn open(dir: BorrowedFd<'_>) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root =
            rustix::fs::openat(dir, c".", flags, Mode::empty()).map_err(|e| Error::io("open", ".", e))?;
        match rustix::fs::mkdirat(&root, PACKS, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                step::reached(Step::PacksMade);
                rustix::fs::fsync(&root).map_err(|e| Error::io("sync", ".", e))?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::io("create", PACKS, error)),
        }
        let packs = rustix::fs::openat(&root, PACKS, flags, Mode::empty())
            .map_err(|e| Error::io("open", PACKS, e))?;
        let this = Self { root, packs };
        for name in this.names()? {
            if name.starts_with(UNFINISHED) {
                this.remove(&name)?;
                step::reached(Step::LeftoverRemoved);
            }
        }
        Ok(this)
    }

    /// The names in the directory of packs.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let failed = |e| Error::io("list", PACKS, e);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.packs).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The packs, the one that was written last at the end as far as the file system tells.
    pub(super) fn packs(&self) -> Result<Vec<PackFile>> {
        let mut packs = Vec::new();
        for name in self.names()? {
            let Some(id) = PackId::from_hex(&name) else { continue };
            let stat = rustix::fs::statat(&self.packs, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| Error::io("stat", format!("{PACKS}/{name}"), e))?;
            let len = u64::try_from(stat.st_size).unwrap_or(0);
            packs.push(((stat.st_mtime, stat.st_mtime_nsec), PackFile { id, len }));
        }
        packs.sort_by_key(|(modified, pack)| (*modified, pack.id));
        Ok(packs.into_iter().map(|(_, pack)| pack).collect())
    }

    fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.packs, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io("remove", format!("{PACKS}/{name}"), error)),
        }
    }

    /// Opens a pack for reading.
    pub(super) fn open_pack(&self, id: PackId) -> Result<File> {
        let name = id.to_string();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.packs, &name, flags, Mode::empty()) {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::NOENT) => Err(super::not_found(format!("pack {name}"))),
            Err(error) => Err(Error::io("open", format!("{PACKS}/{name}"), error)),
        }
    }

    /// Removes a pack.
    pub(super) fn remove_pack(&self, id: PackId) -> Result<()> {
        self.remove(&id.to_string())?;
        step::reached(Step::PackRemoved);
        Ok(())
    }

    /// Begins a pack under a name that says it is not finished.
    pub(super) fn create_unfinished(&self, serial: u64) -> Result<(Unfinished<'_>, File)> {
        let name = format!("{UNFINISHED}{}-{serial}", std::process::id());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.packs, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(|e| Error::io("create", format!("{PACKS}/{name}"), e))?;
        step::reached(Step::PackBegun);
        Ok((Unfinished { directory: self, name: Some(name) }, File::from(fd)))
    }

    /// Makes renames of packs durable.
    pub(super) fn sync_packs(&self) -> Result<()> {
        rustix::fs::fsync(&self.packs).map_err(|e| Error::io("sync", PACKS, e))
    }

    /// The index as it is; empty if there is none.
    pub(super) fn read_index(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.root, INDEX, flags, Mode::empty()) {
            Ok(fd) => {
                File::from(fd).read_to_end(&mut bytes).map_err(|e| Error::io("read", INDEX, e))?;
                Ok(bytes)
            }
            Err(Errno::NOENT) => Ok(bytes),
            Err(error) => Err(Error::io("open", INDEX, error)),
        }
    }

    /// Opens the index for appending.
    pub(super) fn open_index(&self) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.root, INDEX, flags, Mode::empty())
            .map_err(|e| Error::io("open", INDEX, e))?;
        Ok(File::from(fd))
    }

    /// Replaces the index as a whole, durably.
    pub(super) fn replace_index(&self, bytes: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.root, INDEX_NEW, flags, Mode::from_raw_mode(0o600))
            .map_err(|e| Error::io("create", INDEX_NEW, e))?;
        let file = File::from(fd);
        file.write_all_at(bytes, 0).and_then(|()| file.sync_all()).map_err(|e| {
            // On a full disk the half that was written is in the way of whoever makes room.
            let _ = rustix::fs::unlinkat(&self.root, INDEX_NEW, AtFlags::empty());
            Error::io("write", INDEX_NEW, e)
        })?;
        step::reached(Step::IndexWritten);
        rustix::fs::renameat(&self.root, INDEX_NEW, &self.root, INDEX)
            .map_err(|e| Error::io("rename", INDEX_NEW, e))?;
        step::reached(Step::IndexRenamed);
        rustix::fs::fsync(&self.root).map_err(|e| Error::io("sync", ".", e))?;
        step::reached(Step::IndexSynced);
        Ok(())
    }
}

/// The name of a pack that is being written. Dropped before the pack has a name of its own, it is removed.
#[derive(Debug)]
pub(super) struct Unfinished<'a> {
    directory: &'a Directory,
    name: Option<String>,
}

impl Unfinished<'_> {
    /// Gives the pack its name. Its bytes are durable.
    pub(super) fn finish(mut self, id: PackId) -> Result<()> {
        let Some(name) = self.name.take() else { return Ok(()) };
        let packs = &self.directory.packs;
        rustix::fs::renameat(packs.as_fd(), &name, packs.as_fd(), id.to_string()).map_err(|e| {
            let _ = self.directory.remove(&name);
            Error::io("rename", format!("{PACKS}/{name}"), e)
        })?;
        step::reached(Step::PackNamed);
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // It is removed at the next opening otherwise.
            let _ = self.directory.remove(&name);
        }
    }
}

/// What a pack says of itself.
#[derive(Debug)]
pub(super) struct PackSummary {
    pub(super) store: StoreId,
    pub(super) entries: Vec<Entry>,
    pub(super) len: u64,
}

/// Reads header and footer of a pack and checks them against each other and against its name.
pub(super) fn summarize(file: &File, id: PackId) -> Result<PackSummary> {
    let what = format!("pack {id}");
    let damaged = |reason: &str| Error::corrupt(what.clone(), reason);
    let failed = |e| Error::io("read", format!("{PACKS}/{id}"), e);
    let len = file.metadata().map_err(failed)?.len();
    let frame = (HEADER_BYTES + TRAILER_BYTES) as u64;
    if len < frame {
        return Err(damaged("it is too short"));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(failed)?;
    let store = pack::decode_header(&header)?;
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, len - TRAILER_BYTES as u64).map_err(failed)?;
    let (footer_len, footer_id) = pack::decode_trailer(&trailer)?;
    let room = len - frame;
    if footer_id != id || footer_len as u64 > room {
        return Err(damaged("its trailer is of another pack"));
    }
    let mut footer = vec![0; footer_len];
    file.read_exact_at(&mut footer, len - TRAILER_BYTES as u64 - footer_len as u64).map_err(failed)?;
    if PackId::of(&footer) != id {
        return Err(damaged("its footer does not match its name"));
    }
    let entries = pack::decode_footer(&footer)?;
    let blobs: u64 = entries.iter().map(|entry| u64::from(entry.stored_len)).sum();
    if blobs != room - footer_len as u64 {
        return Err(damaged("its blobs do not add up to its length"));
    }
    Ok(PackSummary { store, entries, len })
}
