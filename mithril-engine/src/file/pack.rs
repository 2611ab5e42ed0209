//! Packing: a source becomes chunks in packs and a manifest. One of the two hot paths.
//!
//! The way of a piece: read, hash, known already? else encode against its base, decode what was encoded and
//! compare it with what was read, append. Pieces of a window go that way in parallel and are appended in
//! file order, so that a sequential reader reads packs sequentially.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::bases::Bases;
use crate::chunk::{self, Piece};
use crate::codec::{self, Against, Input, Options, Scratch};
use crate::error::{Error, Result};
use crate::format::manifest::{self, Extent, Manifest};
use crate::id::{ChunkId, ManifestId};
use crate::range::ByteRange;
use crate::settings::MAX_DELTA_DEPTH;
use crate::source::{self, Source};
use crate::store::{PackWriter, ReadScratch, Store};
use crate::tensor::{self, Layout};

/// Pieces that are encoded before their results are appended: enough to keep every core busy at the seams, at
/// most some 20 MiB of results.
const WINDOW_PIECES: usize = 16;

/// Pieces of a file that are encoded to judge a base, or whether the file is worth packing at all.
const TRIAL_PIECES: usize = 6;

/// A file whose encoding would keep more than this share of its bytes stays plain: the gain would not pay for
/// decoding it at every read.
const WORTHWHILE_SHARE: f64 = 0.97;

/// What a source is packed against and who may stop it.
pub struct Packing<'a> {
    /// Where chunks are looked up and bases are read.
    pub store: &'a Store,
    /// Threads that encode.
    pub pool: &'a rayon::ThreadPool,
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
    base: Vec<u8>,
    check: Vec<u8>,
    codec: Scratch,
    reader: ReadScratch,
}

/// A piece after encoding.
struct Encoded {
    id: ChunkId,
    len: u32,
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
    let workers = Workers::default();
    let job = Job { source, packing, layout: &layout, workers: &workers };

    let (base, promising) = job.choose_base(&pieces)?;
    if !promising {
        return Ok(Outcome::NotWorthwhile);
    }
    let bases = base.map(|index| Bases::new(&packing.candidates[index]));

    let logical_bytes = source.size();
    let mut appended =
        Appended { writer, extents: Vec::with_capacity(pieces.len()), stored_bytes: 0, position: 0 };
    // While one window is encoded, the one before it is appended.
    let mut windows = pieces.chunks(WINDOW_PIECES);
    let mut before = None;
    loop {
        let next = windows.next();
        if next.is_none() && before.is_none() {
            break;
        }
        let (encoded, result) = packing.pool.install(|| {
            rayon::join(
                || next.map(|window| (window, job.encode_window(window, bases.as_ref()))),
                || {
                    let Some((window, encoded)) = before.take() else { return Ok(()) };
                    appended.append(window, encoded)?;
                    // The file is about to lose its bytes: giving up their pages now, beside the encoding, is for
                    // free, and the packs that are written take their place while they are still warm.
                    source.done_with(range_of(window));
                    Ok(())
                },
            )
        });
        result?;
        (packing.progress)(appended.position, appended.stored_bytes);
        before = encoded;
    }
    let Appended { writer, mut extents, stored_bytes, position } = appended;
    if logical_bytes > position {
        extents.push(Extent::Hole { len: logical_bytes - position });
    }
    let data_bytes: u64 = pieces.iter().map(|piece| piece.range.len).sum();
    if stored_bytes as f64 > data_bytes as f64 * WORTHWHILE_SHARE {
        return Ok(Outcome::NotWorthwhile);
    }
    let manifest = Manifest { container: layout.container, tensors: layout.tensors.clone(), extents };
    debug_assert_eq!(manifest.file_len(), logical_bytes);
    let (manifest, added) = writer.put_manifest(&manifest)?;
    Ok(Outcome::Packed(Packed { manifest, logical_bytes, stored_bytes: stored_bytes + added, base }))
}

/// From the first byte of the pieces to the last.
fn range_of(window: &[Piece]) -> ByteRange {
    let (Some(first), Some(last)) = (window.first(), window.last()) else {
        return ByteRange { offset: 0, len: 0 };
    };
    ByteRange { offset: first.range.offset, len: last.range.end() - first.range.offset }
}

/// What has gone to the packs so far.
struct Appended<'a, 'b> {
    writer: &'a mut PackWriter<'b>,
    extents: Vec<Extent>,
    stored_bytes: u64,
    /// End of the last piece in the file.
    position: u64,
}

impl Appended<'_, '_> {
    fn append(&mut self, window: &[Piece], encoded: Vec<Result<Encoded>>) -> Result<()> {
        for (piece, encoded) in window.iter().zip(encoded) {
            let Encoded { id, len, body } = encoded?;
            if piece.range.offset > self.position {
                self.extents.push(Extent::Hole { len: piece.range.offset - self.position });
            }
            self.stored_bytes += match body {
                Body::Known => 0,
                Body::New { bytes, base } => self.writer.put_chunk(id, len, &bytes, base)?,
                Body::Replacement { bytes } => self.writer.replace_chunk(id, len, &bytes)?,
            };
            self.extents.push(Extent::Chunk { id, len, element: piece.element });
            self.position = piece.range.end();
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
    workers: &'a Workers,
}

impl Job<'_> {
    /// Tries the candidates and no base at all on a sample. Returns the best, and whether packing pays.
    fn choose_base(&self, pieces: &[Piece]) -> Result<(Option<usize>, bool)> {
        let candidates: Vec<(usize, Bases)> = self
            .packing
            .candidates
            .iter()
            .enumerate()
            .map(|(index, manifest)| (index, Bases::new(manifest)))
            .filter(|(_, bases)| bases.coverage(pieces, &self.layout.tensors) > 0.1)
            .collect();
        // With few pieces the encoding itself is the trial, unless there is something to choose between.
        if candidates.len() <= 1 && pieces.len() <= 2 * TRIAL_PIECES {
            return Ok((candidates.first().map(|(index, _)| *index), true));
        }
        let sample = spread(pieces, TRIAL_PIECES);
        let raw: u64 = sample.iter().map(|piece| piece.range.len).sum();
        let trial = |bases: Option<&Bases>| -> Result<u64> {
            let sizes: Vec<Result<u64>> = self.packing.pool.install(|| {
                sample
                    .par_iter()
                    .map(|piece| {
                        Ok(match self.encode(piece, bases)?.body {
                            Body::Known => 0,
                            Body::New { bytes, .. } | Body::Replacement { bytes } => bytes.len() as u64,
                        })
                    })
                    .collect()
            });
            sizes.into_iter().sum()
        };
        let mut best = (None, u64::MAX);
        for (index, bases) in &candidates {
            let size = trial(Some(bases))?;
            if size < best.1 {
                best = (Some(*index), size);
            }
        }
        // A base whose deltas lose falls back to standalone chunk by chunk, so a trial without any is only
        // needed where there is no candidate.
        if best.0.is_none() {
            best.1 = trial(None)?;
        }
        Ok((best.0, best.1 as f64 <= raw as f64 * WORTHWHILE_SHARE))
    }

    /// Encodes the pieces of a window in parallel.
    fn encode_window(&self, window: &[Piece], bases: Option<&Bases>) -> Vec<Result<Encoded>> {
        window.par_iter().map(|piece| self.encode(piece, bases)).collect()
    }

    /// Encodes one piece and proves that it can be read back.
    fn encode(&self, piece: &Piece, bases: Option<&Bases>) -> Result<Encoded> {
        if self.packing.cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        self.workers.with(|worker| self.encode_with(piece, bases, worker))
    }

    fn encode_with(&self, piece: &Piece, bases: Option<&Bases>, worker: &mut Worker) -> Result<Encoded> {
        let Worker { raw, base, check, codec: scratch, reader } = worker;
        let len = u32::try_from(piece.range.len).map_err(|_| Error::corrupt("piece", "too long"))?;
        let raw = codec::sized(raw, len as usize);
        let check = codec::sized(check, len as usize);
        self.source.read_exact_at(raw, piece.range.offset).map_err(|e| Error::io("read", "source", e))?;
        let id = ChunkId::of(raw);
        let store = self.packing.store;
        let is_known = store.chunk(&id).is_some();
        if is_known {
            // The bytes are about to be dropped in favour of a chunk that was written long ago: read it.
            match store.read_chunk(&id, reader, check) {
                Ok(()) if check == raw => return Ok(Encoded { id, len, body: Body::Known }),
                Ok(()) => {
                    return Err(Error::corrupt(
                        format!("chunk {id}"),
                        "its plaintext differs from a file with the same digest",
                    ));
                }
                Err(error) => tracing::warn!(%error, "a stored chunk cannot be read; storing it anew"),
            }
        }
        let found = bases
            .filter(|_| !is_known)
            .and_then(|bases| bases.find(piece, &self.layout.tensors))
            .filter(|(id, _)| store.chunk(id).is_some_and(|stat| stat.depth < MAX_DELTA_DEPTH))
            .and_then(|(id, len)| {
                let base = codec::sized(base, len as usize);
                match store.read_chunk(&id, reader, base) {
                    Ok(()) => Some((id, &*base)),
                    Err(error) => {
                        tracing::warn!(%error, "a base cannot be read; coding without it");
                        None
                    }
                }
            });
        let mut bytes = Vec::with_capacity(raw.len() + codec::EXPANSION_MAX_BYTES);
        let base = found.map(|(_, base)| base);
        let against = codec::encode(
            &Input {
                raw,
                element: piece.element,
                grid: piece.grid(&self.layout.tensors),
                moments: None,
                base,
            },
            Options::default(),
            scratch,
            &mut bytes,
        );
        let found = found.filter(|_| against == Against::Base);
        codec::decode(&bytes, found.map(|(_, base)| base), scratch, check)
            .map_err(|e| Error::corrupt(format!("chunk {id} just after encoding"), e.to_string()))?;
        if check != raw {
            return Err(Error::corrupt(
                format!("chunk {id} just after encoding"),
                "it decodes to other bytes",
            ));
        }
        bytes.shrink_to_fit();
        let body = if is_known {
            Body::Replacement { bytes }
        } else {
            Body::New { bytes, base: found.map(|(id, _)| id) }
        };
        Ok(Encoded { id, len, body })
    }
}

/// Some pieces spread over the file: the largest of each stretch, since the small ones say little.
fn spread(pieces: &[Piece], count: usize) -> Vec<Piece> {
    let stretch = pieces.len().div_ceil(count).max(1);
    pieces
        .chunks(stretch)
        .filter_map(|part| part.iter().max_by_key(|piece| piece.range.len))
        .cloned()
        .collect()
}
