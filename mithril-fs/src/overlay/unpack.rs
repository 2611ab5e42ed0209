//! Making packed files plain. It takes as long as a file is big, so nobody but those who want to change the file
//! waits for it: others read from the store until the last byte is back, open, close and truncate.
//!
//! The steps hold the content in its place for a moment each, so that a truncation to nothing comes between two of
//! them, and ends the rest.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use mithril_engine::file::names::Names;
use mithril_engine::file::read::PackedFile;
use mithril_engine::format::manifest::Extent;
use rustix::fs::{FallocateFlags, OFlags, Stat};
use rustix::io::{Errno, Result};

use super::node::{Content, Node};
use super::state::Mode;
use super::transition::make_stub;
use super::{Overlay, lower};
use crate::fault::{self, Point};
use crate::stub::{self, KeepPlain, Namespace};

/// Bytes that are decoded and written at once.
const STEP_BYTES: u64 = 4 << 20;

/// Counts as an open handle while it lives: no packer comes between, and whoever opens the file meanwhile is not given
/// passthrough unless somebody has it already.
pub(crate) struct Held<'a> {
    overlay: &'a Overlay,
    node: &'a Arc<Node>,
    mode: Mode,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // As after a close: somebody may have closed it meanwhile, and nobody was told.
        if self.overlay.let_go(self.node, self.mode, false, None) {
            self.overlay.watcher.closed(self.node, true);
        }
    }
}

/// Why the bytes were not all moved.
enum Halt {
    /// The file was truncated to nothing, which made it plain.
    Emptied,
    /// An error, told already where a caller would not understand it.
    Failed(Errno),
}

impl From<Errno> for Halt {
    fn from(error: Errno) -> Self {
        Halt::Failed(error)
    }
}

impl Overlay {
    /// Keeps the file as it is open while the result lives.
    pub(crate) fn hold<'a>(&'a self, node: &'a Arc<Node>) -> Result<Held<'a>> {
        let mut handles = node.handles();
        if handles.open.is_idle() {
            self.load_content(node)?;
        }
        let mode = if handles.open.has(Mode::Passthrough) { Mode::Passthrough } else { Mode::Daemon };
        handles.open.opened(mode);
        Ok(Held { overlay: self, node, mode })
    }

    /// Makes a file plain, if it is packed, and notes that somebody wanted it so: it stays plain until it changes.
    pub(crate) fn unpack_to_stay(&self, node: &Arc<Node>) -> Result<()> {
        // No packer comes between the two.
        let _held = self.hold(node)?;
        let was_packed = matches!(*node.content(), Content::Packed(_));
        self.unpack(node)?;
        let namespace = self.namespace.ok_or(Errno::OPNOTSUPP)?;
        keep_plain(&node.stat()?)
            .write(&lower::proc_path(&node.fd), namespace)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        fault::reached(Point::KeepPlainNoted);
        // Others may have much to sync in a file that was plain. If the note is lost, it is packed again.
        if was_packed { rustix::fs::fsync(lower::reopen(&node.fd, OFlags::RDONLY)?) } else { Ok(()) }
    }

    /// Makes a packed file plain, whether it is open or not. May take as long as the file is big: not for threads that
    /// answer the kernel.
    pub(crate) fn unpack(&self, node: &Arc<Node>) -> Result<()> {
        let _held = self.hold(node)?;
        let _turn = node.unpacking();
        let file = match &*node.content() {
            Content::Packed(file) => Arc::clone(file),
            Content::Plain | Content::Unknown => return Ok(()),
        };
        let namespace = self.namespace.ok_or(Errno::OPNOTSUPP)?;
        let lower = lower::reopen(&node.fd, OFlags::RDWR)?;
        match (Unpacking { overlay: self, node, file: &file, lower: &lower }).run(namespace) {
            Ok(()) | Err(Halt::Emptied) => Ok(()),
            Err(Halt::Failed(error)) => Err(error),
        }
    }
}

/// The note that keeps a file plain as it is.
pub(crate) fn keep_plain(stat: &Stat) -> KeepPlain {
    KeepPlain { size: u64::try_from(stat.st_size).unwrap_or(0), mtime_ns: lower::mtime_ns(stat) }
}

/// A file whose bytes are moving back.
struct Unpacking<'a> {
    overlay: &'a Overlay,
    node: &'a Node,
    file: &'a Arc<PackedFile>,
    lower: &'a File,
}

impl Unpacking<'_> {
    fn is_still(&self, content: &Content) -> bool {
        matches!(content, Content::Packed(now) if Arc::ptr_eq(now, self.file))
    }

    /// Does something while the file stays packed.
    fn step<T>(&self, work: impl FnOnce() -> Result<T>) -> std::result::Result<T, Halt> {
        let content = self.node.content();
        if self.is_still(&content) { Ok(work()?) } else { Err(Halt::Emptied) }
    }

    fn run(&self, namespace: Namespace) -> std::result::Result<(), Halt> {
        match self.restore_bytes() {
            Ok(()) => {}
            Err(Halt::Emptied) => return Err(Halt::Emptied),
            Err(Halt::Failed(error)) => {
                self.give_up();
                return Err(Halt::Failed(error));
            }
        }
        fault::reached(Point::BytesRestored);
        // Read now: somebody may have set a time while the bytes moved.
        self.step(|| {
            let authority = self.overlay.authority(self.node)?.ok_or(Errno::IO)?;
            lower::set_mtime(self.lower, authority.mtime_ns)
        })?;
        fault::reached(Point::PlainTimed);
        rustix::fs::fsync(self.lower)?;
        fault::reached(Point::PlainSynced);
        self.step(|| stub::remove_attribute(self.lower, namespace).map_err(|_| Errno::IO))?;
        fault::reached(Point::AttributeRemoved);
        rustix::fs::fsync(self.lower)?;
        fault::reached(Point::PlainDurable);
        let mut content = self.node.content_mut();
        if self.is_still(&content) {
            *content = Content::Plain;
        }
        drop(content);
        self.overlay.forget_attributes(self.node);
        Ok(())
    }

    /// Gives the blocks back that were written already.
    fn give_up(&self) {
        let stubbed = self.step(|| {
            let authority = self.overlay.authority(self.node)?.ok_or(Errno::IO)?;
            make_stub(self.lower, &authority)
        });
        if let Err(Halt::Failed(error)) = stubbed {
            self.overlay.report(
                self.node,
                "unpacking failed, and its blocks could not be given back,",
                &error,
            );
        }
    }

    /// Writes the plaintext over the stub. Holes stay holes.
    fn restore_bytes(&self) -> std::result::Result<(), Halt> {
        let mut position = 0;
        // The space first: a full disk is met before anything was touched.
        for extent in &self.file.manifest().extents {
            self.step(|| match extent {
                Extent::Chunk { .. } => reserve(self.lower, position, extent.len()),
                Extent::Hole { len } => {
                    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    rustix::fs::fallocate(self.lower, flags, position, *len)
                }
            })?;
            position += extent.len();
        }
        fault::reached(Point::SpaceReserved);
        let mut buffer = Vec::new();
        let mut offset = 0;
        // Once it is plain, nothing else says what it was.
        let mut names = Names::new(self.file.manifest());
        while let Some(data) = self.file.next_data(offset) {
            let step = data.len.min(STEP_BYTES);
            buffer.resize(usize::try_from(step).map_err(|_| Errno::NOMEM)?, 0);
            self.file
                .read_exact_at(&mut buffer, data.offset)
                .and_then(|()| names.update(&buffer))
                .map_err(|error| self.overlay.report(self.node, "cannot unpack", &error))?;
            fault::reached(Point::UnpackStep);
            self.step(|| {
                let written = self.lower.write_all_at(&buffer, data.offset);
                written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            })?;
            offset = data.offset + step;
        }
        Ok(())
    }
}

/// Reserves space where the lower file system can; where it cannot, writing tells.
fn reserve(file: &File, offset: u64, len: u64) -> Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, len) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}
