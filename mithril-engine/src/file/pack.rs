//! Packing: a source becomes chunks in packs and a manifest. One of the two hot paths.
//!
//! The way of a piece: read, hash, known already? else encode against its base, decode what was encoded and
//! compare it with what was read, append. Pieces go that way in parallel and are appended in file order, so that a
//! sequential reader reads packs sequentially.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::bases::Bases;
use super::moments;
use super::ordered::ordered;
use super::twins::{self, Unit};
use crate::chunk::{self, Piece};
use crate::codec::{self, Against, Input, Level, Options, Scratch};
use crate::error::{Error, Result};
use crate::format::manifest::{self, Extent, Manifest};
use crate::id::{Checksum, ChunkId, ManifestId};
use crate::range::ByteRange;
use crate::settings::MAX_DELTA_DEPTH;
use crate::source::{self, Source};
use crate::store::{ChunkStat, Identity, PackWriter, Proof, ReadScratch, Store};
use crate::tensor::{self, Layout};

/// Pieces after which the pages of a source are given up: a call for each would cost more than it gives.
const DONE_PIECES: usize = 16;

/// Pieces of a file that are encoded to judge a base, or whether the file is worth packing at all.
const TRIAL_PIECES: usize = 6;

/// A candidate that has bases for no more than this share of a file is not tried.
const MIN_COVERAGE: f64 = 0.1;

/// A file whose encoding would keep more than this share of its bytes stays plain: the gain would not pay for
/// decoding it at every read.
const WORTHWHILE_SHARE: f64 = 0.97;

/// What a source is packed against and who may stop it.
pub struct Packing<'a> {
    /// Where chunks are looked up and bases are read.
    pub store: &'a Store,
    /// Threads that encode.
    pub pool: &'a rayon::ThreadPool,
    /// The level that chunks are encoded with.
    pub level: Level,
    /// Manifests of earlier files, likeliest first. Each is tried on a sample of the file.
    pub candidates: &'a [Manifest],
    /// Set by whoever wants the work to end early.
    pub cancel: &'a AtomicBool,
    /// Called with the plaintext and stored bytes done so far.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// What became of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Its chunks and its manifest are in the writer.
    Packed(Packed),
    /// Encoded, it would be hardly smaller.
    NotWorthwhile,
}

/// A packed source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packed {
    /// Its manifest.
    pub manifest: ManifestId,
    /// Plaintext bytes.
    pub logical_bytes: u64,
    /// Bytes that were added to the packs for it.
    pub stored_bytes: u64,
    /// Which of the candidates was used.
    pub base: Option<usize>,
}

/// Buffers of one encoding thread.
#[derive(Default)]
struct Worker {
    raw: Vec<u8>,
    rounding: Vec<u8>,
    /// Second moments, while the first ones are encoded.
    moments: Vec<u8>,
    base: Vec<u8>,
    check: Vec<u8>,
    codec: Scratch,
    reader: ReadScratch,
}

/// A piece after encoding.
struct Encoded {
    piece: usize,
    chunk: Identity,
    body: Body,
}

enum Body {
    /// The store has it, and it was read back.
    Known,
    /// It is new.
    New { bytes: Vec<u8>, base: Option<ChunkId> },
    /// The store has it and cannot read it: encoded to stand alone.
    Replacement { bytes: Vec<u8> },
}

/// Packs `source` into `writer`. On `NotWorthwhile` or an error the writer holds chunks that nothing needs: drop it.
///
/// # Errors
/// `Cancelled` if `cancel` was set; those of the source, of the store and of the writer.
pub fn pack(source: &dyn Source, packing: &Packing<'_>, writer: &mut PackWriter<'_>) -> Result<Outcome> {
    let mut layout = tensor::inspect(source).map_err(|e| Error::io("inspect", "source", e))?;
    manifest::limit_tensors(&mut layout.tensors);
    let spans = source::data_spans(source).map_err(|e| Error::io("seek in", "source", e))?;
    let pieces = chunk::cut(&layout, &spans);
    let mut units = twins::units(source, &layout, &pieces).map_err(|e| Error::io("read", "source", e))?;
    if packing.level == Level::Max {
        moments::pair(&mut units, &layout.tensors, &pieces);
    }
    let workers = Workers::default();
    // A rounding is a link more than what it is the rounding of, and so are first moments than the second ones.
    let depth_limit = MAX_DELTA_DEPTH - u8::from(units.len() < pieces.len());
    let job = Job { source, packing, layout: &layout, pieces: &pieces, depth_limit, workers: &workers };

    let (base, promising) = job.choose_base()?;
    if !promising {
        return Ok(Outcome::NotWorthwhile);
    }
    let bases = base.map(|index| Bases::new(&packing.candidates[index]));

    let logical_bytes = source.size();
    let chunks = vec![None; pieces.len()];
    let mut appended = Appended { writer, chunks, logical_bytes: 0, stored_bytes: 0 };
    let mut done = Vec::new();
    let encode = |unit: usize| workers.with(|worker| job.encode_unit(&units[unit], bases.as_ref(), worker));
    ordered(packing.pool, units.len(), encode, |encoded| {
        appended.append(encoded?, &job, &mut done)?;
        if done.len() >= DONE_PIECES {
            // The file is about to lose its bytes: giving up their pages now is for free, and the packs that are written
            // take their place while they are still warm.
            for range in ranges_of(std::mem::take(&mut done), &pieces) {
                source.done_with(range);
            }
        }
        (packing.progress)(appended.logical_bytes, appended.stored_bytes);
        Ok(())
    })?;
    ranges_of(done, &pieces).into_iter().for_each(|range| source.done_with(range));
    let Appended { writer, chunks, logical_bytes: data_bytes, stored_bytes } = appended;
    if stored_bytes as f64 > data_bytes as f64 * WORTHWHILE_SHARE {
        return Ok(Outcome::NotWorthwhile);
    }
    let extents = extents_of(&pieces, &chunks, logical_bytes)?;
    let manifest = Manifest { container: layout.container, tensors: layout.tensors.clone(), extents };
    debug_assert_eq!(manifest.file_len(), logical_bytes);
    let (manifest, added) = writer.put_manifest(&manifest)?;
    Ok(Outcome::Packed(Packed { manifest, logical_bytes, stored_bytes: stored_bytes + added, base }))
}

/// What a sample of a source came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Estimate {
    /// Bytes that were encoded.
    pub sampled_bytes: u64,
    /// What they took then. As many as before, if packing would not pay.
    pub encoded_bytes: u64,
}

/// Encodes a few pieces of `source`, against the first of the candidates if it fits, and keeps nothing of it.
///
/// # Errors
/// As of [`pack`].
pub fn estimate(source: &dyn Source, packing: &Packing<'_>) -> Result<Estimate> {
    let mut layout = tensor::inspect(source).map_err(|e| Error::io("inspect", "source", e))?;
    manifest::limit_tensors(&mut layout.tensors);
    let spans = source::data_spans(source).map_err(|e| Error::io("seek in", "source", e))?;
    let pieces = chunk::cut(&layout, &spans);
    let (workers, depth_limit) = (Workers::default(), MAX_DELTA_DEPTH);
    let job = Job { source, packing, layout: &layout, pieces: &pieces, depth_limit, workers: &workers };
    let bases = packing.candidates.first().map(Bases::new);
    let bases = bases.filter(|bases| bases.coverage(&pieces, &layout.tensors) > MIN_COVERAGE);
    let sample = spread(&pieces, TRIAL_PIECES);
    let sampled_bytes = job.bytes_of(&sample);
    let encoded_bytes = job.trial(&sample, bases.as_ref())?;
    let pays = encoded_bytes as f64 <= sampled_bytes as f64 * WORTHWHILE_SHARE;
    Ok(Estimate { sampled_bytes, encoded_bytes: if pays { encoded_bytes } else { sampled_bytes } })
}

/// The ranges of some pieces; those that touch are one.
fn ranges_of(mut indices: Vec<usize>, pieces: &[Piece]) -> Vec<ByteRange> {
    indices.sort_unstable();
    let mut ranges: Vec<ByteRange> = Vec::new();
    for range in indices.into_iter().map(|index| pieces[index].range) {
        match ranges.last_mut() {
            Some(last) if last.end() == range.offset => last.len += range.len,
            _ => ranges.push(range),
        }
    }
    ranges
}

/// The chunks of the pieces, and the holes between them.
fn extents_of(
    pieces: &[Piece],
    chunks: &[Option<(ChunkId, u32)>],
    logical_bytes: u64,
) -> Result<Vec<Extent>> {
    let mut extents = Vec::with_capacity(pieces.len());
    let mut position = 0;
    for (piece, chunk) in pieces.iter().zip(chunks) {
        if piece.range.offset > position {
            extents.push(Extent::Hole { len: piece.range.offset - position });
        }
        let (id, len) = chunk.ok_or_else(|| Error::corrupt("file", "a piece of it was not encoded"))?;
        extents.push(Extent::Chunk { id, len, element: piece.element });
        position = piece.range.end();
    }
    if logical_bytes > position {
        extents.push(Extent::Hole { len: logical_bytes - position });
    }
    Ok(extents)
}

/// What has gone to the packs so far.
struct Appended<'a, 'b> {
    writer: &'a mut PackWriter<'b>,
    /// By piece.
    chunks: Vec<Option<(ChunkId, u32)>>,
    logical_bytes: u64,
    stored_bytes: u64,
}

impl Appended<'_, '_> {
    /// Appends the pieces of a unit, and notes their indices.
    fn append(&mut self, unit: Vec<Encoded>, job: &Job<'_>, done: &mut Vec<usize>) -> Result<()> {
        for mut encoded in unit {
            // Its base was new when it was encoded, and meanwhile the writer got the same chunk with more bases under it.
            if let Body::New { base: Some(base), .. } = encoded.body
                && !self.writer.contains(&encoded.chunk.id)
                && !self.writer.takes_base(&base)
            {
                encoded = job.workers.with(|worker| job.encode(encoded.piece, None, None, worker))?;
            }
            let Encoded { piece, chunk, body } = encoded;
            self.stored_bytes += match body {
                Body::Known => 0,
                Body::New { bytes, base } => self.writer.put_chunk(&chunk, &bytes, base)?,
                Body::Replacement { bytes } => self.writer.replace_chunk(&chunk, &bytes)?,
            };
            self.logical_bytes += u64::from(chunk.len);
            self.chunks[piece] = Some((chunk.id, chunk.len));
            done.push(piece);
        }
        Ok(())
    }
}

/// Buffers of the threads that are not encoding just now.
#[derive(Default)]
struct Workers(Mutex<Vec<Worker>>);

impl Workers {
    fn with<T>(&self, work: impl FnOnce(&mut Worker) -> T) -> T {
        let idle = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let mut worker = idle.unwrap_or_default();
        let result = work(&mut worker);
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(worker);
        result
    }
}

/// One source being packed.
struct Job<'a> {
    source: &'a dyn Source,
    packing: &'a Packing<'a>,
    layout: &'a Layout,
    pieces: &'a [Piece],
    /// Depth below which a chunk may be a base.
    depth_limit: u8,
    workers: &'a Workers,
}

impl Job<'_> {
    /// Tries the candidates and no base at all on a sample. Returns the best, and whether packing pays.
    fn choose_base(&self) -> Result<(Option<usize>, bool)> {
        let candidates: Vec<(usize, Bases)> = self
            .packing
            .candidates
            .iter()
            .enumerate()
            .map(|(index, manifest)| (index, Bases::new(manifest)))
            .filter(|(_, bases)| bases.coverage(self.pieces, &self.layout.tensors) > MIN_COVERAGE)
            .collect();
        // With few pieces the encoding itself is the trial, unless there is something to choose between.
        if candidates.len() <= 1 && self.pieces.len() <= 2 * TRIAL_PIECES {
            return Ok((candidates.first().map(|(index, _)| *index), true));
        }
        let sample = spread(self.pieces, TRIAL_PIECES);
        let raw = self.bytes_of(&sample);
        let mut best = (None, u64::MAX);
        for (index, bases) in &candidates {
            let size = self.trial(&sample, Some(bases))?;
            if size < best.1 {
                best = (Some(*index), size);
            }
        }
        // A base whose deltas lose falls back to standalone chunk by chunk, so a trial without any is only
        // needed where there is no candidate.
        if best.0.is_none() {
            best.1 = self.trial(&sample, None)?;
        }
        Ok((best.0, best.1 as f64 <= raw as f64 * WORTHWHILE_SHARE))
    }

    fn bytes_of(&self, sample: &[usize]) -> u64 {
        sample.iter().map(|&piece| self.pieces[piece].range.len).sum()
    }

    /// Bytes that some pieces take when they are encoded.
    fn trial(&self, sample: &[usize], bases: Option<&Bases>) -> Result<u64> {
        let sizes: Vec<Result<u64>> = self.packing.pool.install(|| {
            let size = |&piece: &usize| {
                let encoded = self.workers.with(|worker| self.encode(piece, bases, None, worker))?;
                Ok(match encoded.body {
                    Body::Known => 0,
                    Body::New { bytes, .. } | Body::Replacement { bytes } => bytes.len() as u64,
                })
            };
            sample.par_iter().map(size).collect()
        });
        sizes.into_iter().sum()
    }

    /// Encodes a piece, and what may be based on it.
    fn encode_unit(&self, unit: &Unit, bases: Option<&Bases>, worker: &mut Worker) -> Result<Vec<Encoded>> {
        let master = self.encode(unit.piece, bases, None, worker)?;
        let master_id = master.chunk.id;
        // What the store has may be as deep as any.
        let is_base = !matches!(master.body, Body::Known)
            || self.packing.store.chunk(&master_id).is_some_and(|stat| stat.depth < MAX_DELTA_DEPTH);
        let mut encoded = vec![master];
        let mut others = Vec::new();
        for &piece in &unit.roundings {
            match if is_base { self.encode_rounding(piece, master_id, worker)? } else { None } {
                Some(rounding) => encoded.push(rounding),
                None => others.push(piece),
            }
        }
        if let Some(piece) = unit.first_moments {
            std::mem::swap(&mut worker.raw, &mut worker.moments);
            encoded.push(self.encode(piece, bases, is_base.then_some(master_id), worker)?);
        }
        for piece in others {
            encoded.push(self.encode(piece, bases, None, worker)?);
        }
        Ok(encoded)
    }

    /// Encodes a piece as the rounding of the one that the worker has just encoded; `None` if it is not, or if the store
    /// has it.
    fn encode_rounding(&self, piece: usize, master: ChunkId, worker: &mut Worker) -> Result<Option<Encoded>> {
        let Worker { raw, rounding, check, codec: scratch, .. } = worker;
        let Piece { range, element, .. } = self.pieces[piece];
        let rounding = codec::sized(rounding, to_usize(range.len)?);
        self.source.read_exact_at(rounding, range.offset).map_err(|e| Error::io("read", "source", e))?;
        let chunk = Identity::of(rounding)?;
        let raw = &raw[..2 * rounding.len()];
        let mut bytes = Vec::new();
        if self.packing.store.chunk(&chunk.id).is_some()
            || !codec::encode_rounded(rounding, element, raw, scratch, &mut bytes)
        {
            return Ok(None);
        }
        let check = codec::sized(check, rounding.len());
        prove(&chunk.id, &bytes, Some(raw), rounding, scratch, check)?;
        Ok(Some(Encoded { piece, chunk, body: Body::New { bytes, base: Some(master) } }))
    }

    /// Encodes one piece and proves that it can be read back. If second moments are named, they are those that the worker
    /// has.
    fn encode(
        &self,
        index: usize,
        bases: Option<&Bases>,
        second: Option<ChunkId>,
        worker: &mut Worker,
    ) -> Result<Encoded> {
        if self.packing.cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let piece = &self.pieces[index];
        let Worker { raw, moments, base, check, codec: scratch, reader, .. } = worker;
        let raw = codec::sized(raw, to_usize(piece.range.len)?);
        let check = codec::sized(check, raw.len());
        self.source.read_exact_at(raw, piece.range.offset).map_err(|e| Error::io("read", "source", e))?;
        let chunk = Identity::of(raw)?;
        let id = chunk.id;
        let store = self.packing.store;
        let known = store.chunk(&id);
        let is_known = known.is_some();
        if let Some(known) = known {
            // The bytes are about to be dropped in favour of a chunk that was written long ago: read it.
            match store.read_chunk(&id, Proof::Comparison, reader, check) {
                Ok(())
                    if check == raw && known.checksum.is_none_or(|checksum| checksum == chunk.checksum) =>
                {
                    return Ok(Encoded { piece: index, chunk, body: Body::Known });
                }
                // Others believe it, and deltas may be against it: it must not change under them.
                Ok(()) if check != raw && is_believed(&id, &known, check) => {
                    return Err(Error::corrupt(
                        format!("chunk {id}"),
                        "its plaintext differs from a file with the same digest",
                    ));
                }
                Ok(()) => tracing::warn!(chunk = %id, "a stored chunk has rotted; storing it anew"),
                Err(error) => tracing::warn!(%error, "a stored chunk cannot be read; storing it anew"),
            }
        }
        let found = bases
            .filter(|_| !is_known)
            .and_then(|bases| bases.find(piece, &self.layout.tensors))
            .filter(|(id, _)| store.chunk(id).is_some_and(|stat| stat.depth < self.depth_limit))
            .and_then(|(id, len)| {
                let base = codec::sized(base, len as usize);
                match store.read_chunk(&id, Proof::Checksum, reader, base) {
                    Ok(()) => Some((id, &*base)),
                    Err(error) => {
                        tracing::warn!(%error, "a base cannot be read; coding without it");
                        None
                    }
                }
            });
        // What replaces a chunk stands alone, and no chunk is its own base.
        let second = second.filter(|second| !is_known && *second != id).map(|id| (id, &moments[..raw.len()]));
        let mut bytes = Vec::with_capacity(raw.len() + codec::EXPANSION_MAX_BYTES);
        let against = codec::encode(
            &Input {
                raw,
                element: piece.element,
                grid: piece.grid(&self.layout.tensors),
                moments: second.map(|(_, moments)| moments),
                base: found.map(|(_, base)| base),
            },
            Options { level: self.packing.level, ..Options::default() },
            scratch,
            &mut bytes,
        );
        let found = match against {
            Against::Nothing => None,
            Against::Base => found,
            Against::Moments => second,
        };
        prove(&id, &bytes, found.map(|(_, base)| base), raw, scratch, check)?;
        bytes.shrink_to_fit();
        let body = if is_known {
            Body::Replacement { bytes }
        } else {
            Body::New { bytes, base: found.map(|(id, _)| id) }
        };
        Ok(Encoded { piece: index, chunk, body })
    }
}

fn to_usize(len: u64) -> Result<usize> {
    usize::try_from(len).map_err(|_| Error::corrupt("piece", "longer than the address space"))
}

/// Whether who reads these bytes takes them for the chunk.
fn is_believed(id: &ChunkId, known: &ChunkStat, bytes: &[u8]) -> bool {
    match known.checksum {
        Some(checksum) => Checksum::of(bytes) == checksum,
        None => ChunkId::of(bytes) == *id,
    }
}

/// Decodes what was just encoded, and compares.
fn prove(
    id: &ChunkId,
    bytes: &[u8],
    base: Option<&[u8]>,
    raw: &[u8],
    scratch: &mut Scratch,
    check: &mut [u8],
) -> Result<()> {
    let wrong = |reason: String| Error::corrupt(format!("chunk {id} just after encoding"), reason);
    if cfg!(debug_assertions) {
        // What was decoded here before must not stand in for what a decoder leaves out.
        check.fill(!raw.first().copied().unwrap_or(0));
    }
    codec::decode(bytes, base, scratch, check).map_err(|e| wrong(e.to_string()))?;
    if check == raw { Ok(()) } else { Err(wrong("it decodes to other bytes".to_owned())) }
}

/// Some pieces spread over the file: the largest of each stretch, since the small ones say little.
fn spread(pieces: &[Piece], count: usize) -> Vec<usize> {
    let stretch = pieces.len().div_ceil(count).max(1);
    let indices: Vec<usize> = (0..pieces.len()).collect();
    indices
        .chunks(stretch)
        .filter_map(|part| part.iter().copied().max_by_key(|&index| pieces[index].range.len))
        .collect()
}
