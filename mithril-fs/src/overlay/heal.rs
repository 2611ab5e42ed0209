//! Finishing what a crash interrupted.
//!
//! A stub that still has blocks was being packed (they are all of the file) or unpacked (they are some of it). They are
//! given back only once every chunk of the file was read: until then they may be the last copy.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use mithril_engine::file::read::PackedFile;
use mithril_engine::format::manifest::Extent;
use mithril_engine::id::{ChunkId, ManifestId};
use mithril_engine::store::{Proof, ReadScratch};
use rustix::fs::{OFlags, Stat};
use rustix::io::{Errno, Result};

use super::node::{Content, Node};
use super::transition::make_stub;
use super::{Overlay, lower};
use crate::fault::{self, Point};
use crate::stub::{self, Authority};

/// A packed file that is not what it should be below.
struct Unfinished {
    authority: Authority,
    /// Its change time.
    ctime_ns: i64,
}

impl Overlay {
    /// Gives blocks of a packed file back and restores its times, whether it is open or not. Where the store has lost
    /// some of its bytes and the blocks below still hold them all, makes it plain instead. Returns whether there was
    /// anything to do.
    pub(crate) fn heal(&self, node: &Node) -> Result<bool> {
        let Some(Unfinished { authority, ctime_ns }) = self.unfinished(node)? else { return Ok(false) };
        let file = self
            .packed_file(authority.manifest)
            .map_err(|error| self.report(node, "cannot restore", &error))?;
        if file.len() != authority.size {
            return Err(self.report(node, "cannot restore", &"its manifest has another length"));
        }
        // All this is read without a lock: what was found holds if the file is still the same afterwards.
        let damage = self.read_all(&file).err();
        let below = match &damage {
            None => None,
            Some(_) if is_whole_below(node, &file)? => Some(ctime_ns),
            Some(damage) => {
                let error =
                    format!("{damage}; the blocks below are not all of it either, and were left as they are");
                return Err(self.report(node, "cannot restore", &error));
            }
        };
        fault::reached(Point::HealProven);
        let finished = self.finish(node, authority.manifest, below)?;
        if let (true, Some(damage)) = (finished, damage) {
            let action = "the store has lost some of a file that was whole below: it is plain again,";
            self.report(node, action, &damage);
        }
        Ok(finished)
    }

    /// What a stub says, if it was not finished.
    fn unfinished(&self, node: &Node) -> Result<Option<Unfinished>> {
        let _content = node.content_mut();
        let Some(authority) = self.authority(node)? else { return Ok(None) };
        let stat = node.stat()?;
        let ctime_ns = lower::ctime_ns(&stat);
        Ok((!is_clean(&stat, &authority)).then_some(Unfinished { authority, ctime_ns }))
    }

    /// Does the last step, if the file is still that one: makes the stub, or, with the change time that the blocks had
    /// when they were found whole, the file plain.
    fn finish(&self, node: &Node, manifest: ManifestId, whole_below: Option<i64>) -> Result<bool> {
        // Whoever unpacks it writes all of it.
        let _turn = node.unpacking();
        let mut content = node.content_mut();
        // Read again: somebody may have set a time meanwhile.
        let Some(authority) = self.authority(node)?.filter(|now| now.manifest == manifest) else {
            return Ok(false);
        };
        let Some(ctime_ns) = whole_below else {
            make_stub(&lower::reopen(&node.fd, OFlags::RDWR)?, &authority)?;
            self.forget_attributes(node);
            return Ok(true);
        };
        let namespace = self.namespace.ok_or(Errno::OPNOTSUPP)?;
        if lower::ctime_ns(&node.stat()?) != ctime_ns {
            return Ok(false);
        }
        let lower = lower::reopen(&node.fd, OFlags::RDWR)?;
        lower::set_mtime(&lower, authority.mtime_ns)?;
        fault::reached(Point::PlainTimed);
        rustix::fs::fsync(&lower)?;
        fault::reached(Point::PlainSynced);
        stub::remove_attribute(&lower, namespace).map_err(|_| Errno::IO)?;
        fault::reached(Point::AttributeRemoved);
        rustix::fs::fsync(&lower)?;
        fault::reached(Point::PlainDurable);
        *content = Content::Plain;
        self.forget_attributes(node);
        Ok(true)
    }

    /// Reads every chunk of a file from the store, which checks them against their names.
    fn read_all(&self, file: &PackedFile) -> mithril_engine::Result<()> {
        let (mut scratch, mut plaintext) = (ReadScratch::default(), Vec::new());
        for extent in &file.manifest().extents {
            if let Extent::Chunk { id, len, .. } = extent {
                plaintext.resize(*len as usize, 0);
                self.store.read_chunk(id, Proof::Name, &mut scratch, &mut plaintext)?;
            }
        }
        Ok(())
    }
}

/// Whether the lower file itself holds every byte of a packed file, by the names of its chunks.
fn is_whole_below(node: &Node, file: &Arc<PackedFile>) -> Result<bool> {
    let lower = lower::reopen_quietly(&node.fd)?;
    let mut bytes = Vec::new();
    let mut position = 0;
    for extent in &file.manifest().extents {
        match extent {
            Extent::Chunk { id, len, .. } => {
                bytes.resize(*len as usize, 0);
                match lower.read_exact_at(&mut bytes, position) {
                    Ok(()) if ChunkId::of(&bytes) == *id => {}
                    Ok(()) => return Ok(false),
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
                    Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
                }
            }
            Extent::Hole { len } => match rustix::fs::seek(&lower, rustix::fs::SeekFrom::Data(position)) {
                Ok(data) if data < position + len => return Ok(false),
                Ok(_) | Err(Errno::NXIO) => {}
                Err(error) => return Err(error),
            },
        }
        position += extent.len();
    }
    Ok(true)
}

/// Whether a stub has no more blocks than its notice, and the right time. Attributes may take a block of their own.
fn is_clean(stat: &Stat, authority: &Authority) -> bool {
    const STUB_BLOCKS_512: i64 = 3 * 4096 / 512;
    stat.st_blocks <= STUB_BLOCKS_512 && lower::mtime_ns(stat) == authority.mtime_ns
}
