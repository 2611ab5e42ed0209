//! What a stub says and when: with [`super::unpack`] and [`super::heal`] the only code that changes one.
//!
//! The order of durable steps, so that a crash between any two leaves a file that reads right:
//!
//! * pack: chunks and manifest durable, attribute set, file synced, blocks punched, notice written, times restored.
//! * unpack: bytes written, times restored, file synced, attribute removed, file synced.
//! * truncate to nothing: truncated with the attribute still set, synced, attribute removed.
//!
//! While the attribute is there, it is the truth, whatever the blocks hold; with a size of 0 it means empty.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use mithril_engine::id::ManifestId;
use rustix::fs::{AtFlags, CWD, FileType, OFlags, Timestamps};
use rustix::io::{Errno, Result};

use super::node::{Content, Handles, Node};
use super::{Overlay, lower};
use crate::fault::{self, Point};
use crate::stub::{self, Authority, Namespace};

/// The kernel closes a passthrough file a little after it told us of the release.
const LEASE_PATIENCE: Duration = Duration::from_millis(300);

/// How long descriptors get before they are looked for again.
const LEASE_PAUSE: Duration = Duration::from_millis(2);

/// A file at the time its bytes were read for packing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fingerprint {
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
    changes: u64,
}

impl Fingerprint {
    pub(crate) fn of(node: &Node) -> Result<Self> {
        let changes = node.changes();
        let stat = node.stat()?;
        Ok(Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: lower::mtime_ns(&stat),
            ctime_ns: lower::ctime_ns(&stat),
            changes,
        })
    }
}

/// Why a file is not packed now. All of these are normal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Somebody has it open through the mount.
    Open,
    /// Somebody below the mount, or a mapping, has it.
    Leased,
    /// It changed since it was read.
    Changed,
}

impl Overlay {
    /// Opens an idle plain file for packing, proving that nobody else has it open or mapped: what is written through
    /// a mapping that exists already would not move its times again.
    pub(crate) fn open_for_packing(
        &self,
        node: &Node,
    ) -> Result<std::result::Result<(File, Fingerprint), Refusal>> {
        let (handles, file) = match lease(node, || lower::reopen_quietly(&node.fd))? {
            Ok(leased) => leased,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let fingerprint = Fingerprint::of(node)?;
        lower::drop_lease(&file)?;
        drop(handles);
        Ok(Ok((file, fingerprint)))
    }

    /// Turns a plain file into a stub for `manifest`, which is durable and was compared with the file's bytes when
    /// the file had this `fingerprint`. The caller has closed every descriptor of its own.
    pub(crate) fn commit(
        &self,
        node: &Node,
        namespace: Namespace,
        manifest: ManifestId,
        fingerprint: Fingerprint,
    ) -> Result<std::result::Result<(), Refusal>> {
        // What is dirty is written before anybody has to wait for it: the sync under the locks is short then.
        if !node.handles().open.is_idle() {
            return Ok(Err(Refusal::Open));
        }
        rustix::fs::fdatasync(lower::reopen_quietly(&node.fd)?)?;
        // The lease is held to the end: nobody can open the file below, and with the handles locked nobody above.
        let (mut handles, file) = match lease(node, || lower::reopen(&node.fd, OFlags::RDWR))? {
            Ok(leased) => leased,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut content = node.content_mut();
        if Fingerprint::of(node)? != fingerprint {
            return Ok(Err(Refusal::Changed));
        }
        fault::reached(Point::Commit);
        let stat = node.stat()?;
        let authority = Authority {
            store: self.store.id(),
            manifest,
            size: fingerprint.size,
            mtime_ns: fingerprint.mtime_ns,
            inode: stat.st_ino,
        };
        let set = stub::write_attribute(&file, namespace, &authority)
            .and_then(|()| {
                fault::reached(Point::AttributeSet);
                Ok(rustix::fs::fsync(&file)?)
            })
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        if let Err(error) = set {
            // Not known to be durable: plain it stays.
            stub::remove_attribute(&file, namespace).map_err(|_| error)?;
            return Err(error);
        }
        fault::reached(Point::AttributeSynced);
        *content = Content::Unknown;
        handles.cached = None;
        // From here on the file is packed. What is left gives space back; recovery does it again if we cannot.
        if let Err(error) = make_stub(&file, &authority) {
            self.report(node, "packed, but its blocks could not be given back,", &error);
        }
        let returned = lower::drop_lease(&file);
        drop((content, handles));
        self.forget_attributes(node);
        returned?;
        Ok(Ok(()))
    }

    /// Truncates to nothing, in either state; works even where the packed bytes are lost. Call with the handles
    /// locked.
    pub(crate) fn empty(&self, node: &Node) -> Result<()> {
        let mut content = node.content_mut();
        let lower = lower::reopen(&node.fd, OFlags::WRONLY)?;
        rustix::fs::ftruncate(&lower, 0)?;
        if let Some(namespace) = self.namespace
            && stub::read_attribute(&lower, namespace).map_err(|_| Errno::IO)?.is_some()
        {
            fault::reached(Point::Emptied);
            rustix::fs::fsync(&lower)?;
            fault::reached(Point::EmptySynced);
            stub::remove_attribute(&lower, namespace).map_err(|_| Errno::IO)?;
            fault::reached(Point::EmptyPlain);
        }
        *content = Content::Plain;
        Ok(())
    }

    /// Sets times. A new modification time of a packed file is noted in its stub too, so that recovery does not bring
    /// the old one back.
    pub(crate) fn set_times(&self, node: &Node, times: &Timestamps) -> Result<()> {
        let set = || rustix::fs::utimensat(CWD, lower::proc_path(&node.fd), times, AtFlags::empty());
        let keeps_mtime = times.last_modification.tv_nsec == rustix::fs::UTIME_OMIT;
        if keeps_mtime || node.kind != FileType::RegularFile {
            return set();
        }
        // Both under the content's lock: a packing or unpacking that ends in between would bring the old time back,
        // and it would be taken for the new one.
        let content = node.content_mut();
        set()?;
        let (Some(namespace), Content::Unknown | Content::Packed(_)) = (self.namespace, &*content) else {
            return Ok(());
        };
        let authority = match self.authority(node) {
            Ok(Some(authority)) => authority,
            // Its owner may set its times, and not read it: neither can a daemon of theirs.
            Ok(None) | Err(Errno::ACCESS) => return Ok(()),
            Err(error) => return Err(error),
        };
        fault::reached(Point::TimeSet);
        let mtime_ns = lower::mtime_ns(&node.stat()?);
        let file = lower::reopen(&node.fd, OFlags::RDONLY)?;
        stub::write_attribute(&file, namespace, &Authority { mtime_ns, ..authority }).map_err(|_| Errno::IO)
    }
}

/// Gives the blocks back, and says in the first one what this is.
pub(super) fn make_stub(file: &File, authority: &Authority) -> Result<()> {
    lower::punch(file, authority.size)?;
    fault::reached(Point::BlocksPunched);
    let notice = stub::NOTICE.as_bytes();
    let len = notice.len().min(usize::try_from(authority.size).unwrap_or(usize::MAX));
    file.write_all_at(&notice[..len], 0)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    fault::reached(Point::NoticeWritten);
    lower::set_mtime(file, authority.mtime_ns)?;
    fault::reached(Point::StubTimed);
    Ok(())
}

/// Opens an idle file and takes its lease, which proves that nobody else has it. Waits a little for descriptors that are
/// just being closed, but with nothing locked: who wants to open a file that somebody keeps mapped does not wait for it.
fn lease<'a>(
    node: &'a Node,
    open: impl Fn() -> Result<File>,
) -> Result<std::result::Result<(MutexGuard<'a, Handles>, File), Refusal>> {
    let deadline = Instant::now() + LEASE_PATIENCE;
    loop {
        let handles = node.handles();
        if !handles.open.is_idle() {
            return Ok(Err(Refusal::Open));
        }
        let file = open()?;
        match lower::take_lease(&file) {
            Ok(()) => return Ok(Ok((handles, file))),
            Err(Errno::AGAIN | Errno::BUSY) if Instant::now() < deadline => {}
            // Not ours, or a file system without leases: whether it is in use cannot be known.
            Err(
                Errno::AGAIN | Errno::BUSY | Errno::ACCESS | Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP,
            ) => return Ok(Err(Refusal::Leased)),
            Err(error) => return Err(error),
        }
        drop(file);
        drop(handles);
        std::thread::sleep(LEASE_PAUSE);
    }
}
