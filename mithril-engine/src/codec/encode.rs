//! Which formats a chunk is offered to, and the shortest of what they make of it.

use super::choice::{self, Changes, Choice, Delta, Order};
use super::dispatch::{Isa, isa};
use super::float::{self, Grid};
use super::numeric::Transform;
use super::{
    Against, Level, Options, Scratch, context16, context32, delta16, palette, planes, rounded, scaled, tag,
};
use crate::quantize::Quantized;
use crate::tensor::Element;

/// Chunks that are shorter than this may be shorter in a format that has no tables to send.
const SMALL_BYTES: usize = 64 << 10;

/// Where byte planes would take less than this share of what a float format took, they are tried.
const PLANES_SHARE: f64 = 0.97;

/// Where a palette takes less than this share of what byte planes would, nothing else is tried.
const PALETTE_SHARE: f64 = 0.95;

/// A chunk, and what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its bytes.
    pub raw: &'a [u8],
    /// What they are. A trailing part of an element is allowed.
    pub element: Element,
    /// How they lie in their tensor, if it is a matrix.
    pub grid: Option<Grid>,
    /// The second moments of the same elements, of the same type, if these are first moments of Adam: they tell the
    /// exponents of a first moment better than anything else.
    pub moments: Option<&'a [u8]>,
    /// A chunk that is expected to be similar. Deltas of numbers need one of the same length; one of another length
    /// is only of use to [`Element::Bytes`].
    pub base: Option<&'a [u8]>,
}

impl<'a> Input<'a> {
    /// A chunk about which nothing else is known.
    pub const fn new(raw: &'a [u8], element: Element) -> Self {
        Self { raw, element, grid: None, moments: None, base: None }
    }

    /// With a base, or without.
    #[must_use]
    pub const fn against(self, base: Option<&'a [u8]>) -> Self {
        Self { base, ..self }
    }
}

/// How an element type is taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Number {
    /// Bytes of what is transformed.
    pub(super) width: usize,
    /// Whether there is a sign to rotate.
    pub(super) signed: bool,
}

impl Number {
    fn of(element: Element) -> Option<Self> {
        let (width, signed) = match element {
            Element::F16 | Element::Bf16 => (2, true),
            Element::F32 | Element::Complex64 => (4, true),
            Element::F64 | Element::Complex128 => (8, true),
            Element::I16 | Element::U16 => (2, false),
            Element::I32 | Element::U32 => (4, false),
            Element::I64 | Element::U64 => (8, false),
            Element::F8E4M3 | Element::F8E5M2 | Element::F8E4M3Fnuz | Element::F8E5M2Fnuz => (1, true),
            Element::I8 | Element::U8 | Element::F8E8M0 => (1, false),
            Element::Bytes | Element::Bool => return None,
        };
        Some(Self { width, signed })
    }
}

/// The formats that a level may write here, beside those that are fast everywhere.
#[derive(Clone, Copy)]
struct Formats {
    /// Floats by themselves.
    float: bool,
    /// Changes of 16-bit elements in context.
    context16: InContext,
    /// Differences of 32-bit floats in context.
    context32: bool,
    /// All of them, and the shortest is kept.
    all: bool,
    /// The level of zstd.
    zstd: i32,
}

/// Which changes of 16-bit elements are coded in context.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InContext {
    None,
    /// Those where almost all elements changed.
    Most,
    All,
}

impl Formats {
    /// The vector coders are faster than Huffman's code where there are vectors for them. But with vectors of 256 bits,
    /// changes of 16 bits are only if they are most; where they are few a bitmap passes over the rest at the speed of memory.
    /// Elsewhere only `max` waits for them.
    fn of(level: Level) -> Self {
        let zstd = level.zstd();
        match level {
            Level::Fast => {
                Self { float: false, context16: InContext::None, context32: false, all: false, zstd }
            }
            Level::Default => {
                let avx2 = isa() >= Isa::Avx2;
                let context16 = match isa() {
                    Isa::Portable => InContext::None,
                    Isa::Avx2 => InContext::Most,
                    Isa::Avx512 => InContext::All,
                };
                Self { float: avx2, context16, context32: avx2, all: false, zstd }
            }
            Level::Max => Self { float: true, context16: InContext::All, context32: true, all: true, zstd },
        }
    }
}

/// Encodes a chunk, appending to `out`. The base is used only where that is smaller, judged on a sample. The result is
/// never longer than the chunk and [`EXPANSION_MAX_BYTES`](super::EXPANSION_MAX_BYTES).
pub fn encode(input: &Input<'_>, options: Options, scratch: &mut Scratch, out: &mut Vec<u8>) -> Against {
    let start = out.len();
    let Input { raw, base, .. } = *input;
    if base == Some(raw) {
        out.push(tag::SAME);
        return Against::Base;
    }
    let against = match Number::of(input.element).filter(|_| options.planes) {
        Some(number) => encode_numbers(input, number, Formats::of(options.level), scratch, out),
        None => {
            out.push(tag::ZSTD);
            let fits = scratch.zstd.compress(raw, base, options.level.zstd(), out);
            if !fits {
                out.truncate(start);
            }
            if base.is_some() && fits { Against::Base } else { Against::Nothing }
        }
    };
    if out.len() == start || out.len() - start > raw.len() {
        out.truncate(start);
        out.push(tag::RAW);
        out.extend_from_slice(raw);
        return Against::Nothing;
    }
    against
}

fn encode_numbers(
    input: &Input<'_>,
    number: Number,
    formats: Formats,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Against {
    let start = out.len();
    let Some(base) = input.base.filter(|base| base.len() == input.raw.len()) else {
        return encode_alone(input, number, None, formats, scratch, out);
    };
    let mut order = None;
    let choice = match choice::choose(input.raw, number, base) {
        // That was judged without what the moments tell.
        Choice::Delta(delta) if input.moments.is_some() => Choice::Either(delta),
        // That was judged by their bytes, not by their values, steps or repetitions.
        Choice::Delta(delta) if palette::is_likely(input.raw, number.width) => Choice::Either(delta),
        Choice::Delta(delta) if is_integer(input.element) => {
            let Order { steps, repeats } = *order.insert(Order::of(input.raw, number));
            if steps || repeats { Choice::Either(delta) } else { Choice::Delta(delta) }
        }
        choice => choice,
    };
    match choice {
        Choice::Alone => encode_alone(input, number, order, formats, scratch, out),
        Choice::Delta(delta) => {
            encode_delta(input, base, number, delta, formats, scratch, out);
            Against::Base
        }
        Choice::Either(delta) => {
            let alone = encode_alone(input, number, order, formats, scratch, out);
            let shorter = keep_shorter(out, start, |out| {
                encode_delta(input, base, number, delta, formats, scratch, out);
            });
            if shorter { Against::Base } else { alone }
        }
    }
}

/// Encodes a chunk by itself. `order` is that of its integers, if it is known already.
fn encode_alone(
    input: &Input<'_>,
    number: Number,
    order: Option<Order>,
    formats: Formats,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Against {
    let start = out.len();
    let raw = input.raw;
    let is_integer = is_integer(input.element);
    let steps = order.map_or_else(|| is_integer && choice::steps(raw, number), |order| order.steps);
    if steps || !as_palette(raw, number, scratch, out) {
        let repeats = || is_integer && choice::repeats(raw, number, choice::RUN_ELEMENTS);
        let order = order.unwrap_or_else(|| Order { steps, repeats: repeats() });
        return encode_parts(input, number, order, formats, scratch, out);
    }
    let taken = out.len() - start;
    // Few values are in any order by chance, but for long.
    let run = choice::run_elements(raw.len() / number.width, taken);
    let order = Order { steps, repeats: is_integer && choice::repeats(raw, number, run) };
    let is_shortest = !formats.all
        && !order.repeats
        && (taken as f64) < choice::planes_bytes(raw, number) as f64 * PALETTE_SHARE;
    if is_shortest {
        return Against::Nothing;
    }
    let mut against = Against::Nothing;
    let encode = |out: &mut Vec<u8>| against = encode_parts(input, number, order, formats, scratch, out);
    if keep_shorter(out, start, encode) { against } else { Against::Nothing }
}

/// Appends a palette if there are few values, and then is `true`.
fn as_palette(raw: &[u8], number: Number, scratch: &mut Scratch, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if !palette::is_likely(raw, number.width) {
        return false;
    }
    out.push(tag::PLANES);
    let fits = palette::encode(raw, number.width, scratch, out);
    if !fits {
        out.truncate(start);
    }
    fits
}

/// Encodes the bytes or the parts of elements each by themselves.
fn encode_parts(
    input: &Input<'_>,
    number: Number,
    order: Order,
    formats: Formats,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Against {
    let start = out.len();
    let raw = input.raw;
    let is_integer = is_integer(input.element);
    let as_planes = |scratch: &mut Scratch, out: &mut Vec<u8>| {
        out.push(tag::PLANES);
        let transform = match number.signed {
            true => Transform::RotateSign,
            false if order.steps => Transform::Step,
            false => Transform::None,
        };
        planes::encode(raw, number.width, transform, None, scratch, out);
    };
    if is_integer {
        as_planes(scratch, out);
        // What repeats itself (rows of indices, batches of tokens) does so at distances that only a search finds.
        if formats.all || order.repeats {
            keep_shorter(out, start, |out| as_zstd(raw, formats.zstd, scratch, out));
        }
        return Against::Nothing;
    }
    let Some(kind) = float::Kind::of(input.element).filter(|_| formats.float) else {
        as_planes(scratch, out);
        return Against::Nothing;
    };
    let prediction = float::predict(raw, kind, input.grid, input.moments);
    // A symbol of fp16 is its upper byte: unless that is predicted, planes are as short, and faster.
    if !formats.all && input.element == Element::F16 && !prediction.is_any() {
        as_planes(scratch, out);
        return Against::Nothing;
    }
    out.push(tag::FLOAT);
    let predicted = float::encode(raw, kind, prediction, input.moments, scratch, out);
    // What repeats, or takes few values, is no use to a coder of exponents.
    let taken = out.len() - start;
    let try_planes = formats.all || (choice::planes_bytes(raw, number) as f64) < taken as f64 * PLANES_SHARE;
    let as_planes = try_planes && keep_shorter(out, start, |out| as_planes(scratch, out));
    if predicted && !as_planes { Against::Moments } else { Against::Nothing }
}

/// Whether an element is a whole number, and not what quantizing made of a float.
fn is_integer(element: Element) -> bool {
    matches!(
        element,
        Element::I8
            | Element::U8
            | Element::I16
            | Element::U16
            | Element::I32
            | Element::U32
            | Element::I64
            | Element::U64
    )
}

/// Appends a zstd frame, or the bytes as they are if it would not be shorter.
fn as_zstd(raw: &[u8], level: i32, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(tag::ZSTD);
    if !scratch.zstd.compress(raw, None, level, out) {
        out.truncate(start);
        out.push(tag::RAW);
        out.extend_from_slice(raw);
    }
}

fn encode_delta(
    input: &Input<'_>,
    base: &[u8],
    number: Number,
    delta: Delta,
    formats: Formats,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let raw = input.raw;
    let context16 = match formats.context16 {
        InContext::None => false,
        InContext::Most => delta == Delta::Small16(Changes::Most),
        InContext::All => true,
    };
    let in_context = context16 && encode_context16(raw, input.element, base, scratch, out)
        || formats.context32 && encode_context32(raw, input.element, base, scratch, out);
    let other = |scratch: &mut Scratch, out: &mut Vec<u8>| match delta {
        Delta::Small16(changes) => {
            out.push(tag::DELTA16);
            delta16::encode(raw, base, number.signed, changes == Changes::Few, scratch, out);
        }
        Delta::Planes => {
            out.push(tag::PLANES);
            let transform = if number.signed { Transform::OrderedDifference } else { Transform::Difference };
            planes::encode(raw, number.width, transform, Some(base), scratch, out);
        }
    };
    if !in_context {
        other(scratch, out);
    } else if formats.all || raw.len() < SMALL_BYTES {
        keep_shorter(out, start, |out| other(scratch, out));
    }
}

/// Encodes once more behind what `out` has from `start`, and keeps the shorter of both. Returns whether that is the
/// new one.
fn keep_shorter(out: &mut Vec<u8>, start: usize, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
    let middle = out.len();
    encode(out);
    let shorter = out.len() - middle < middle - start;
    if shorter {
        out.drain(start..middle);
    } else {
        out.truncate(middle);
    }
    shorter
}

/// Encodes what was quantized, appending to `out`: what [`decode`](super::decode) gives are its bytes. The result is
/// never longer than these and 16 more.
pub fn encode_quantized(quantized: &Quantized, element: Element, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let start = out.len();
    match &quantized.codes {
        Some(codes) => {
            out.push(tag::SCALED);
            scaled::encode(codes, element, &quantized.bytes, scratch, out);
        }
        None => {
            encode(&Input::new(&quantized.bytes, element), Options::default(), scratch, out);
        }
    }
    if out.len() - start > quantized.bytes.len() {
        out.truncate(start);
        out.push(tag::RAW);
        out.extend_from_slice(&quantized.bytes);
    }
}

/// Encodes 16-bit numbers against a base of the same length by the format context16, whatever [`encode`] would choose:
/// for comparisons. `false`, and nothing is appended, if they are none. The result is never longer than `raw.len() + 16`
/// for a chunk.
pub fn encode_context16(
    raw: &[u8],
    element: Element,
    base: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> bool {
    let kind = match element {
        Element::Bf16 => context16::Kind::Bf16,
        Element::F16 => context16::Kind::F16,
        Element::I16 | Element::U16 => context16::Kind::Integer,
        _ => return false,
    };
    if raw.len() != base.len() {
        return false;
    }
    out.push(tag::CONTEXT16);
    context16::encode(raw, base, kind, scratch, out);
    true
}

/// Encodes 32-bit floats against a base of the same length by the format context32, whatever [`encode`] would choose: for
/// comparisons. `false`, and nothing is appended, if they are none. The result is never longer than `raw.len() + 16` for a
/// chunk.
pub fn encode_context32(
    raw: &[u8],
    element: Element,
    base: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> bool {
    if !matches!(element, Element::F32 | Element::Complex64) || raw.len() != base.len() {
        return false;
    }
    out.push(tag::CONTEXT32);
    context32::encode(raw, base, scratch, out);
    true
}

/// Encodes 16-bit floats that are the rounding of the 32-bit floats of `master`, but for a few. `false`, and nothing is
/// appended, if they are not. What decodes them needs `master` as their base.
pub fn encode_rounded(
    raw: &[u8],
    element: Element,
    master: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    out.push(tag::ROUNDED);
    let is_rounded = rounded::encode(raw, element, master, &mut scratch.planes, out);
    if !is_rounded {
        out.truncate(start);
    }
    is_rounded
}
