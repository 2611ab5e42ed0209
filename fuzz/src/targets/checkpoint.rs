//! Compressed buffers and compressed checkpoints.

use std::time::Duration;

use mithril_engine::checkpoint::mcp::{self, Compression, Lossy, McpFile, Piece, Reference, Scales};
use mithril_engine::checkpoint::{CheckpointCompressor, CompressionConfig, DType, Level};
use mithril_engine::quantize::{Bound, Scheme};
use mithril_engine::source::Source;

use super::made;
use crate::case::Case;
use crate::random::Random;
use crate::target::{Checked, Ground, Outcome, Target, as_it_is};

const MAGIC: &[u8; 8] = b"MITHRMCP";
const HEADER_BYTES: usize = 16;
const TRAILER_BYTES: usize = 48;

/// Longest footer that a trailer may claim, before and after compression.
const FOOTER_MAX_BYTES: usize = 256 << 20;

/// Files that claim to be longer are not read as a whole: most of them are holes.
const READ_MAX_BYTES: u64 = 4 << 20;

/// What is decoded at a time, at its longest: 64 chunks of a file, which is no longer than what is read here.
const WINDOW_BYTES: usize = 32 << 20;

pub(crate) fn targets() -> Vec<Target> {
    let target = Target {
        name: "frame",
        what: "CheckpointCompressor::decompress_against",
        seeds: frames,
        tokens: &[b"MCF\x01"],
        repair: as_it_is,
        // The buffer, and what decoding a piece takes.
        heap_limit: |case| 2 * case.len + (8 << 20) + 64 * case.input.len(),
        time_limit: Duration::from_secs(1),
        check: frame,
    };
    vec![
        target,
        Target {
            name: "mcp",
            what: "McpFile, as it is in its file",
            seeds: files,
            tokens: &[MAGIC],
            repair: as_it_is,
            heap_limit: |case| FOOTER_MAX_BYTES + WINDOW_BYTES + 64 * case.input.len(),
            time_limit: Duration::from_secs(2),
            check: |case, _| file(case, case.input.clone()),
        },
        Target {
            name: "mcp-footer",
            what: "McpFile, changed before its footer was compressed and hashed",
            seeds: footers,
            tokens: &[],
            repair: as_it_is,
            heap_limit: |case| WINDOW_BYTES + 128 * case.input.len(),
            time_limit: Duration::from_secs(2),
            check: |case, _| file(case, with_footer(&case.input)),
        },
    ]
}

const DTYPES: [DType; 6] =
    [DType::BFloat16, DType::Float32, DType::Float64, DType::Int16, DType::UInt8, DType::Bytes];

fn frame(case: &Case, _: &mut Ground) -> Checked {
    let compressor = CheckpointCompressor::new(CompressionConfig::default());
    let dtype = DTYPES[usize::from((case.choice >> 8).to_le_bytes()[0]) % DTYPES.len()];
    match compressor.decompress_against(&case.input, dtype, case.len, case.base.as_deref()) {
        Ok(bytes) if bytes.len() == case.len => Ok(Outcome::Accepted),
        Ok(bytes) => Err(format!("{} bytes instead of {}", bytes.len(), case.len)),
        Err(_) => Ok(Outcome::Refused),
    }
}

fn frames() -> Vec<Case> {
    let mut random = Random::new(1, "frames");
    let mut cases = Vec::new();
    for (code, dtype) in (0u64..).zip(DTYPES) {
        for count in [0, 1, 100, 3000, 540_000] {
            let raw = made::elements(dtype.element(), count, &mut random);
            let base = made::moved(&raw, dtype.width(), 0.1, &mut random);
            for base in [None, Some(base)] {
                let compressor =
                    CheckpointCompressor::new(CompressionConfig::default().with_level(Level::Fast));
                let Ok(input) = compressor.compress_against(&raw, dtype, base.as_deref()) else { continue };
                cases.push(Case { input, base, len: raw.len(), choice: code << 8 | 1 });
            }
        }
    }
    cases
}

/// Opens a file and reads it in every way that there is; all must agree.
fn file(case: &Case, bytes: Vec<u8>) -> Checked {
    let Ok(mut file) = McpFile::open(Box::new(made::Bytes(bytes))) else { return Ok(Outcome::Refused) };
    if let Some(base) = &case.base
        && file.set_reference(Box::new(made::Bytes(base.clone()))).is_err()
    {
        return Ok(Outcome::Refused);
    }
    let size = file.size();
    if file.layout().tensors.iter().any(|tensor| tensor.range.end() > size) {
        return Err("a tensor lies outside of the file".to_owned());
    }
    if file.losses().iter().any(|loss| loss.tensor >= file.layout().tensors.len()) {
        return Err("a lossy tensor is not there".to_owned());
    }
    let chunks = file.chunks();
    if let Ok(chunks) = &chunks
        && !chunks.is_sorted_by(|one, next| one.range.end() <= next.range.offset)
    {
        return Err("chunks are out of order".to_owned());
    }
    let mut at = 0;
    // Data and holes, from one to the next.
    while let Ok(Some(data)) = file.next_data(at) {
        if data.is_empty() || data.offset < at || data.end() > size {
            return Err(format!("data at {data:?}, after {at}"));
        }
        at = data.end();
    }
    if size > READ_MAX_BYTES {
        return Ok(Outcome::Refused);
    }
    let mut whole = Vec::new();
    let read = file.read_all(&mut |piece| {
        match piece {
            Piece::Data(bytes) => whole.extend_from_slice(bytes),
            Piece::Hole(len) => whole.resize(whole.len() + usize::try_from(len).unwrap_or(0), 0),
        }
        Ok(())
    });
    if read.is_err() {
        return Ok(Outcome::Refused);
    }
    if whole.len() as u64 != size || chunks.is_err() {
        return Err("what was read is not what the file says of itself".to_owned());
    }
    let mut random = Random::new(case.choice, "ranges");
    for _ in 0..4 {
        let start = random.below(whole.len() + 1);
        let mut part = vec![1; random.below(whole.len() - start + 1)];
        let read = file.read_exact_at(&mut part, start as u64);
        if read.is_err() || part != whole[start..start + part.len()] {
            return Err(format!("{} bytes from {start} on are others by themselves", part.len()));
        }
    }
    let is_whole = blake3::hash(&whole).as_bytes() == file.digest();
    if file.verify().is_ok() != is_whole {
        return Err("verification is wrong about the digest".to_owned());
    }
    Ok(if is_whole { Outcome::Accepted } else { Outcome::Refused })
}

fn files() -> Vec<Case> {
    let (first, second) = (made::checkpoint(1), made::checkpoint(2));
    let mut cases = vec![
        Case::of(made::fixture("golden/step1.mcp")),
        Case::of(made::fixture("golden/moments.mcp")),
        Case {
            base: Some(made::fixture("golden/step1.safetensors")),
            ..Case::of(made::fixture("golden/step2.mcp"))
        },
    ];
    let lossy = Lossy { scheme: Scheme::Int8, bound: Bound::Absolute(1e-3), scales: Scales::Block(64) };
    for (lossy, base) in [(None, None), (Some(lossy), None), (None, Some(first.clone()))] {
        for bytes in [&second[..], &[], b"a file of no known format"] {
            let source = &base.as_deref().unwrap_or_default();
            let reference = base.is_some().then(|| Reference::plain(b"first".to_vec(), source)).transpose();
            let config = CompressionConfig::default().with_level(Level::Fast);
            let mut out = Vec::new();
            let Ok(reference) = reference else { continue };
            let how = Compression { config, lossy };
            if mcp::compress(&bytes, reference.as_ref(), &how, &mut out, &mut |_| {}).is_ok() {
                cases.push(Case { base: base.clone(), ..Case::of(out) });
            }
        }
    }
    cases
}

/// The same, taken apart: the length of the chunks (u32), the chunks, the footer as it was before compression.
fn footers() -> Vec<Case> {
    let apart = |case: Case| {
        let (rest, trailer) = case.input.split_at(case.input.len() - TRAILER_BYTES);
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| trailer[at + i])) as usize;
        let (chunks, stored) = rest.split_at(rest.len() - word(0));
        let footer = zstd::bulk::decompress(stored, word(4)).expect("a footer that was just written");
        let chunks = &chunks[HEADER_BYTES..];
        let len = u32::try_from(chunks.len()).expect("a small file");
        Case { input: [&len.to_le_bytes()[..], chunks, &footer].concat(), ..case }
    };
    files().into_iter().map(apart).collect()
}

/// Puts together what `footers` took apart.
fn with_footer(parts: &[u8]) -> Vec<u8> {
    let (len, rest) =
        parts.split_first_chunk().map_or((0, parts), |(len, rest)| (u32::from_le_bytes(*len), rest));
    let (chunks, footer) = rest.split_at((len as usize).min(rest.len()));
    let stored = zstd::bulk::compress(footer, 1).unwrap_or_default();
    let digest = blake3::hash(&stored);
    let lens = [stored.len(), footer.len()].map(|len| u32::try_from(len).unwrap_or(0).to_le_bytes()).concat();
    [&MAGIC[..], &[1, 0, 0, 0, 0, 0, 0, 0], chunks, &stored, &lens, digest.as_bytes(), MAGIC].concat()
}
