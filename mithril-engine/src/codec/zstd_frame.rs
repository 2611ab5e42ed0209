//! zstd as a coder: its Huffman stage alone for planes, all of it for bytes.
//!
//! A Huffman block is a zstd frame (RFC 8878) without its magic number, whose blocks hold literals and no sequences:
//! the match finder is told to skip all of it. libzstd's Huffman decoder is faster than any that is portable.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat, ParamSwitch, Strategy};

use super::{DecodeError, Decoded};

/// The window of frames with a base: base and chunk at their longest.
const DELTA_WINDOW_LOG: u32 = 23;

fn frame_parameters() -> [CParameter; 4] {
    [
        CParameter::Format(FrameFormat::Magicless),
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ]
}

/// Contexts for planes.
#[derive(Default)]
pub(super) struct Huffman {
    compressor: Option<CCtx<'static>>,
    decompressor: Option<DCtx<'static>>,
}

impl std::fmt::Debug for Huffman {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Huffman")
    }
}

impl Huffman {
    /// Appends the frame; `false`, with nothing useful appended, if it would not be shorter than `plane`.
    pub(super) fn compress(&mut self, plane: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(context) = prepared(&mut self.compressor, new_huffman) else { return false };
        compress_into(context, plane, out)
    }

    /// Decodes a frame of exactly `plane.len()` bytes.
    pub(super) fn decompress(&mut self, frame: &[u8], plane: &mut [u8]) -> Decoded<()> {
        let context =
            prepared(&mut self.decompressor, new_decompressor).ok_or(DecodeError::Malformed("no memory"))?;
        decompress_into(context, frame, plane)
    }
}

fn prepared<T>(slot: &mut Option<T>, make: impl FnOnce() -> Option<T>) -> Option<&mut T> {
    if slot.is_none() {
        *slot = make();
    }
    slot.as_mut()
}

fn new_huffman() -> Option<CCtx<'static>> {
    let mut context = CCtx::try_create()?;
    let search = [
        CParameter::CompressionLevel(1),
        CParameter::Strategy(Strategy::ZSTD_fast),
        CParameter::WindowLog(17),
        // The smallest tables, and steps longer than a block: no match is ever looked for.
        CParameter::HashLog(6),
        CParameter::MinMatch(7),
        CParameter::TargetLength(128 << 10),
        CParameter::LiteralCompressionMode(ParamSwitch::Enable),
    ];
    for parameter in frame_parameters().into_iter().chain(search) {
        context.set_parameter(parameter).ok()?;
    }
    Some(context)
}

fn new_decompressor() -> Option<DCtx<'static>> {
    let mut context = DCtx::try_create()?;
    context.set_parameter(DParameter::Format(FrameFormat::Magicless)).ok()?;
    context.set_parameter(DParameter::WindowLogMax(DELTA_WINDOW_LOG)).ok()?;
    Some(context)
}

/// Compresses to the end of `out`, into at most as many bytes as there are.
fn compress_into(context: &mut CCtx<'_>, bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.resize(start + bytes.len(), 0);
    let written = context.compress2(&mut out[start..], bytes);
    out.truncate(start + written.unwrap_or(0));
    written.is_ok()
}

fn decompress_into(context: &mut DCtx<'_>, frame: &[u8], out: &mut [u8]) -> Decoded<()> {
    let len = out.len();
    match context.decompress(out, frame) {
        Ok(written) if written == len => Ok(()),
        Ok(_) => Err(DecodeError::Malformed("a zstd frame has another length")),
        Err(_) => Err(DecodeError::Malformed("a zstd frame does not decode")),
    }
}

/// Contexts for bytes.
#[derive(Default)]
pub(super) struct ZstdScratch {
    compressor: Option<CCtx<'static>>,
    decompressor: Option<DCtx<'static>>,
}

impl std::fmt::Debug for ZstdScratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ZstdScratch")
    }
}

impl ZstdScratch {
    /// Appends the frame of `bytes`, with `base` as its prefix; `false` if it would not be shorter.
    pub(super) fn compress(
        &mut self,
        bytes: &[u8],
        base: Option<&[u8]>,
        level: i32,
        out: &mut Vec<u8>,
    ) -> bool {
        match base {
            None => prepared(&mut self.compressor, || new_compressor(None)).is_some_and(|context| {
                context.set_parameter(CParameter::CompressionLevel(level)).is_ok()
                    && compress_into(context, bytes, out)
            }),
            // The prefix must live as long as its context: one for each call. Such chunks are few.
            Some(base) => new_compressor(Some(DELTA_WINDOW_LOG)).is_some_and(|mut context: CCtx<'_>| {
                context.set_parameter(CParameter::CompressionLevel(level)).is_ok()
                    && context.ref_prefix(base).is_ok()
                    && compress_into(&mut context, bytes, out)
            }),
        }
    }

    /// Decodes a frame of exactly `out.len()` bytes.
    pub(super) fn decompress(&mut self, frame: &[u8], base: Option<&[u8]>, out: &mut [u8]) -> Decoded<()> {
        let memory = DecodeError::Malformed("no memory");
        match base {
            None => {
                decompress_into(prepared(&mut self.decompressor, new_decompressor).ok_or(memory)?, frame, out)
            }
            Some(base) => {
                let mut context: DCtx<'_> = new_decompressor().ok_or(memory)?;
                context.ref_prefix(base).map_err(|_| DecodeError::WrongBase)?;
                decompress_into(&mut context, frame, out)
            }
        }
    }
}

fn new_compressor<'a>(window_log: Option<u32>) -> Option<CCtx<'a>> {
    let mut context = CCtx::try_create()?;
    for parameter in frame_parameters() {
        context.set_parameter(parameter).ok()?;
    }
    if let Some(window_log) = window_log {
        context.set_parameter(CParameter::WindowLog(window_log)).ok()?;
    }
    Some(context)
}
