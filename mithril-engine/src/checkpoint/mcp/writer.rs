//! Compressing a checkpoint. The output is only ever appended to, so that it may be a pipe.

use std::collections::HashSet;
use std::io::Write;

use rayon::prelude::*;

use super::lossy::{Losses, Lossy};
use super::matching::Matching;
use super::reference::Reference;
use crate::checkpoint::{CompressionConfig, Level};
use crate::chunk::{self, Piece};
use crate::codec::{self, Against, Input, Scratch};
use crate::error::{Error, Result};
use crate::file::{moments, twins};
use crate::format::manifest::{Extent, Manifest};
use crate::format::mcp::{self, Base, Footer, Loss, Record};
use crate::id::ChunkId;
use crate::quantize::Report;
use crate::range::ByteRange;
use crate::source::{self, Source};
use crate::tensor::{self, Layout};

/// Pieces that are encoded before their results are written: enough for many processors, and at most some 80 MiB.
const WINDOW_PIECES: usize = 64;

/// Bytes of a hole that are hashed at a time.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// How a file is compressed.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Compression {
    /// Level and threads.
    pub config: CompressionConfig,
    /// Whether floats are rounded first.
    pub lossy: Option<Lossy>,
}

/// How far a compression is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Bytes of the file that are done.
    pub done_bytes: u64,
    /// Bytes of the file.
    pub total_bytes: u64,
    /// Bytes written so far.
    pub stored_bytes: u64,
}

/// What a compression did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Bytes of the file.
    pub original_bytes: u64,
    /// Bytes that were written.
    pub compressed_bytes: u64,
    /// Different chunks.
    pub chunks: u64,
    /// Chunks that are based on the reference.
    pub deltas: u64,
}

/// Compresses `source` to `out`, against `reference` where that is smaller, with the threads of the current pool
/// ([`CompressionConfig::threads`] does not count here). Every chunk is decoded again and compared before it is written.
///
/// # Errors
/// Those of reading and writing; `Invalid` for a file with too many pieces.
pub fn compress(
    source: &dyn Source,
    reference: Option<&Reference<'_>>,
    how: &Compression,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    let layout = tensor::inspect(source).map_err(|e| Error::io("inspect", "the file", e))?;
    let spans = source::data_spans(source).map_err(|e| Error::io("seek in", "the file", e))?;
    let pieces = chunk::cut(&layout, &spans);
    let matching = reference.map(matching).transpose()?;
    let own_bases = match how.lossy {
        // What is rounded here is not what the file has.
        Some(_) => vec![OwnBase::None; pieces.len()],
        None => own_bases(source, &layout, &pieces, how.config.level)?,
    };
    let job = Job { source, reference, matching, layout: &layout, how };
    let mut losses = Losses::default();
    let mut written = Written::begin(out, source.size())?;
    for (window, own_bases) in pieces.chunks(WINDOW_PIECES).zip(own_bases.chunks(WINDOW_PIECES)) {
        let known = &written.known;
        let encoded: Vec<Result<Encoded>> = window
            .par_iter()
            .zip(own_bases)
            .map_init(Worker::default, |worker, (piece, own)| job.encode(piece, *own, known, worker))
            .collect();
        for (piece, encoded) in window.iter().zip(encoded) {
            let mut encoded = encoded?;
            if !written.takes(&encoded) {
                encoded = job.encode(piece, OwnBase::None, &written.known, &mut Worker::default())?;
            }
            if let Some(report) = &encoded.loss {
                losses.add(piece, report);
            }
            written.add(piece, &encoded)?;
        }
        progress(written.progress());
    }
    let losses = how.lossy.as_ref().map_or_else(Vec::new, |lossy| losses.finish(lossy));
    written.finish(&layout, reference, losses)
}

/// What a piece may be based on in the file itself.
#[derive(Clone, Copy)]
enum OwnBase {
    None,
    /// What it is expected to be the rounding of.
    Master(ByteRange),
    /// The second moments of the elements of which it seems to have the first ones.
    Moments(ByteRange),
}

fn own_bases(source: &dyn Source, layout: &Layout, pieces: &[Piece], level: Level) -> Result<Vec<OwnBase>> {
    let mut units = twins::units(source, layout, pieces).map_err(|e| Error::io("read", "the file", e))?;
    if level == Level::Max {
        moments::pair(&mut units, &layout.tensors, pieces);
    }
    let mut bases = vec![OwnBase::None; pieces.len()];
    for unit in units {
        let range = pieces[unit.piece].range;
        for rounding in unit.roundings {
            bases[rounding] = OwnBase::Master(range);
        }
        if let Some(first) = unit.first_moments {
            bases[first] = OwnBase::Moments(range);
        }
    }
    Ok(bases)
}

fn matching(reference: &Reference<'_>) -> Result<Matching> {
    let spans = source::data_spans(reference.source);
    let spans = spans.map_err(|e| Error::io("seek in", "the reference", e))?;
    Ok(Matching::new(&reference.layout, &spans))
}

/// Buffers of an encoding thread.
#[derive(Default)]
struct Worker {
    moments: Vec<u8>,
    base: Vec<u8>,
    check: Vec<u8>,
    codec: Scratch,
}

struct Encoded {
    id: ChunkId,
    raw: Vec<u8>,
    /// `None` if the chunk was written before.
    new: Option<(Vec<u8>, Base)>,
    /// The second moments that it is based on.
    moments: Option<ChunkId>,
    /// How far `raw` is from what was read.
    loss: Option<Report>,
}

struct Job<'a> {
    source: &'a dyn Source,
    reference: Option<&'a Reference<'a>>,
    matching: Option<Matching>,
    layout: &'a Layout,
    how: &'a Compression,
}

impl Job<'_> {
    fn encode(
        &self,
        piece: &Piece,
        own: OwnBase,
        known: &HashSet<ChunkId>,
        worker: &mut Worker,
    ) -> Result<Encoded> {
        let len = usize::try_from(piece.range.len).map_err(|_| Error::corrupt("piece", "too long"))?;
        let mut raw = vec![0; len];
        self.source
            .read_exact_at(&mut raw, piece.range.offset)
            .map_err(|e| Error::io("read", "the file", e))?;
        let quantized = match &self.how.lossy {
            Some(lossy) => lossy.apply(piece, self.layout, &raw)?,
            None => None,
        };
        let loss = quantized.as_ref().map(|quantized| quantized.report);
        if let Some(quantized) = &quantized {
            raw.copy_from_slice(&quantized.bytes);
        }
        let id = ChunkId::of(&raw);
        if known.contains(&id) {
            return Ok(Encoded { id, raw, new: None, moments: None, loss });
        }
        let Worker { moments, base, check, codec: scratch } = worker;
        let mut bytes = Vec::with_capacity(len / 2);
        let rounded_from = match own {
            OwnBase::Master(range) => {
                self.read(range, base)?;
                Some(range).filter(|_| codec::encode_rounded(&raw, piece.element, base, scratch, &mut bytes))
            }
            OwnBase::None | OwnBase::Moments(_) => None,
        };
        let second = match own {
            OwnBase::Moments(range) => {
                self.read(range, moments)?;
                // No chunk is its own base.
                Some(range).filter(|_| *moments != raw)
            }
            OwnBase::None | OwnBase::Master(_) => None,
        };
        let against = match (&quantized, rounded_from) {
            (_, Some(range)) => Base::Own(range),
            (Some(quantized), None) => {
                codec::encode_quantized(quantized, piece.element, scratch, &mut bytes);
                Base::None
            }
            (None, None) => {
                let range = self.read_base(piece, base)?;
                let with = range.is_some().then_some(base.as_slice());
                let options = self.how.config.options();
                let against = codec::encode(
                    &Input {
                        raw: &raw,
                        element: piece.element,
                        grid: piece.grid(&self.layout.tensors),
                        moments: second.is_some().then_some(moments.as_slice()),
                        base: with,
                    },
                    options,
                    scratch,
                    &mut bytes,
                );
                match against {
                    Against::Nothing => Base::None,
                    Against::Base => range.map_or(Base::None, Base::Reference),
                    Against::Moments => second.map_or(Base::None, Base::Moments),
                }
            }
        };
        let decoded_with = match against {
            Base::None => None,
            Base::Reference(_) | Base::Own(_) => Some(base.as_slice()),
            Base::Moments(_) => Some(moments.as_slice()),
        };
        check.resize(len, 0);
        codec::decode(&bytes, decoded_with, scratch, check)
            .map_err(|e| Error::corrupt(format!("chunk {id} just after encoding"), e.to_string()))?;
        if *check != raw {
            return Err(Error::corrupt(
                format!("chunk {id} just after encoding"),
                "it decodes to other bytes",
            ));
        }
        let moments = matches!(against, Base::Moments(_)).then(|| ChunkId::of(moments));
        Ok(Encoded { id, raw, new: Some((bytes, against)), moments, loss })
    }

    fn read(&self, range: ByteRange, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.resize(usize::try_from(range.len).unwrap_or(0), 0);
        self.source.read_exact_at(bytes, range.offset).map_err(|e| Error::io("read", "the file", e))
    }

    /// Reads what a piece may be based on.
    fn read_base(&self, piece: &Piece, base: &mut Vec<u8>) -> Result<Option<ByteRange>> {
        let (Some(reference), Some(matching)) = (self.reference, &self.matching) else { return Ok(None) };
        let Some(range) = matching.find(piece, &self.layout.tensors) else { return Ok(None) };
        base.resize(usize::try_from(range.len).unwrap_or(0), 0);
        let read = reference.source.read_exact_at(base, range.offset);
        read.map_err(|e| Error::io("read", "the reference", e))?;
        Ok(Some(range))
    }
}

/// What has been written so far.
struct Written<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    extents: Vec<Extent>,
    records: Vec<Record>,
    known: HashSet<ChunkId>,
    /// Those of them that are based on the file itself.
    own: HashSet<ChunkId>,
    /// Those that may not be, known or yet to come: others are based on them as their moments.
    moments: HashSet<ChunkId>,
    /// End of the last piece in the file.
    position: u64,
    /// Bytes written.
    stored: u64,
    total: u64,
}

impl<'a> Written<'a> {
    fn begin(out: &'a mut dyn Write, total: u64) -> Result<Self> {
        let mut this = Self {
            out,
            hasher: blake3::Hasher::new(),
            extents: Vec::new(),
            records: Vec::new(),
            known: HashSet::new(),
            own: HashSet::new(),
            moments: HashSet::new(),
            position: 0,
            stored: 0,
            total,
        };
        this.write(&mcp::header())?;
        Ok(this)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io("write", "the compressed checkpoint", e))?;
        self.stored += bytes.len() as u64;
        Ok(())
    }

    /// Whether a chunk can be written as it is encoded. Tensors may have bytes in common, so that the second moments of one
    /// are the first ones of another.
    fn takes(&self, encoded: &Encoded) -> bool {
        match encoded.new {
            Some((_, Base::Own(_) | Base::Moments(_))) if !self.known.contains(&encoded.id) => {
                !self.moments.contains(&encoded.id)
                    && encoded.moments.is_none_or(|moments| !self.own.contains(&moments))
            }
            _ => true,
        }
    }

    fn add(&mut self, piece: &Piece, encoded: &Encoded) -> Result<()> {
        self.skip_to(piece.range.offset);
        self.hasher.update(&encoded.raw);
        let raw_len = u32::try_from(encoded.raw.len()).map_err(|_| Error::corrupt("piece", "too long"))?;
        self.extents.push(Extent::Chunk { id: encoded.id, len: raw_len, element: piece.element });
        self.position = piece.range.end();
        // A window may hold the same chunk twice.
        if let Some((bytes, base)) = &encoded.new
            && self.known.insert(encoded.id)
        {
            let stored = ByteRange { offset: self.stored, len: bytes.len() as u64 };
            self.write(bytes)?;
            self.records.push(Record { id: encoded.id, raw_len, stored, base: *base });
            if matches!(base, Base::Own(_) | Base::Moments(_)) {
                self.own.insert(encoded.id);
            }
            self.moments.extend(encoded.moments);
        }
        Ok(())
    }

    /// What lies before `offset` and is no piece is a hole.
    fn skip_to(&mut self, offset: u64) {
        let mut left = offset.saturating_sub(self.position);
        if left == 0 {
            return;
        }
        self.extents.push(Extent::Hole { len: left });
        while left > 0 {
            let zeros = left.min(ZEROS.len() as u64);
            self.hasher.update(&ZEROS[..usize::try_from(zeros).unwrap_or(0)]);
            left -= zeros;
        }
        self.position = offset;
    }

    fn progress(&self) -> Progress {
        Progress { done_bytes: self.position, total_bytes: self.total, stored_bytes: self.stored }
    }

    fn finish(
        mut self,
        layout: &Layout,
        reference: Option<&Reference<'_>>,
        losses: Vec<Loss>,
    ) -> Result<Summary> {
        self.skip_to(self.total);
        if !self.moments.is_subset(&self.known) {
            return Err(Error::corrupt("the file", "it changed while it was read"));
        }
        let is_delta = |record: &&Record| matches!(record.base, Base::Reference(_));
        let deltas = self.records.iter().filter(is_delta).count() as u64;
        let footer = Footer {
            manifest: Manifest {
                container: layout.container,
                tensors: layout.tensors.clone(),
                extents: std::mem::take(&mut self.extents),
            },
            digest: *self.hasher.finalize().as_bytes(),
            // A file that shares nothing with its reference does not need it.
            reference: reference.filter(|_| deltas > 0).map(|reference| reference.id.clone()),
            records: std::mem::take(&mut self.records),
            losses,
        };
        self.write(&footer.encode()?)?;
        self.out.flush().map_err(|e| Error::io("write", "the compressed checkpoint", e))?;
        Ok(Summary {
            original_bytes: self.total,
            compressed_bytes: self.stored,
            chunks: footer.records.len() as u64,
            deltas,
        })
    }
}
