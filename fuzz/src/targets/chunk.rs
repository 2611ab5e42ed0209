//! Encoded chunks, of every format, with a base and without.

use std::time::Duration;

use mithril_engine::codec::{self, Against, Format, Grid, Input, Isa, Level, Options, Scratch};
use mithril_engine::quantize::{self, Bound, Quantization, Scheme};
use mithril_engine::tensor::Element;

use super::made;
use crate::case::Case;
use crate::guarded::Edge;
use crate::random::Random;
use crate::target::{Checked, Ground, Outcome, Target, as_it_is};

/// What buffers of the codec take that do not grow with the chunk: planes of a block at its widest (1 MiB), elements
/// and escapes of a block, tables.
const SCRATCH_BYTES: usize = 3 << 20;

/// Seeds of a format.
const SEEDS_MAX: usize = 160;

pub(crate) fn targets() -> Vec<Target> {
    let target = |name, what, seeds| Target {
        name,
        what,
        seeds,
        tokens: &[],
        repair: as_it_is,
        heap_limit,
        time_limit: Duration::from_millis(500),
        check: decode_everywhere,
    };
    vec![
        target("chunk", "codec::decode, all formats", || {
            let all = [Format::Raw, Format::Same, Format::Planes, Format::Delta16, Format::Zstd];
            let more = [Format::Float, Format::Context16, Format::Context32, Format::Scaled, Format::Rounded];
            all.into_iter().chain(more).flat_map(|format| seeds(format).into_iter().take(40)).collect()
        }),
        target("planes", "codec::decode, byte planes", || seeds(Format::Planes)),
        target("plane-block", "codec::decode, one plane block", plane_blocks),
        target("palette", "codec::decode, palettes", palettes),
        target("delta16", "codec::decode, 16-bit differences", || seeds(Format::Delta16)),
        target("zstd", "codec::decode, zstd frames", || seeds(Format::Zstd)),
        target("float", "codec::decode, floats by themselves", || seeds(Format::Float)),
        target("context16", "codec::decode, 16-bit changes in context", || seeds(Format::Context16)),
        target("context32", "codec::decode, 32-bit differences in context", || seeds(Format::Context32)),
        target("scaled", "codec::decode, quantized floats", || seeds(Format::Scaled)),
        target("rounded", "codec::decode, roundings of wider floats", || seeds(Format::Rounded)),
        Target {
            name: "encode",
            what: "codec::encode of anything, which must come back",
            seeds: plaintexts,
            tokens: &[b"\0\0\0\0\0\0\0\0", &[0xff; 8], b"\0\0\x80\x7f", b"\0\0\xc0\xff", b"\x80\x7f\x80\xff"],
            repair: as_it_is,
            // Besides the codec's buffers: the planes of a block, tables of contexts, and what zstd would take.
            heap_limit: |case| 12 * SCRATCH_BYTES + 32 * (case.input.len() + case.len),
            // zstd at its highest level.
            time_limit: Duration::from_secs(4),
            check: encode,
        },
    ]
}

/// Scaled chunks have their places in words, and the rest as bytes and floats; others have at most a plane more than
/// there are elements.
fn heap_limit(case: &Case) -> usize {
    SCRATCH_BYTES * Isa::ALL.len() + 16 * case.len + 4 * case.input.len()
}

/// Decodes on every instruction set, and with buffers that were used before or that were not. All must say the same.
fn decode_everywhere(case: &Case, ground: &mut Ground) -> Checked {
    let edge = Edge::of(case.choice);
    let Ground { input, base, out, expected, scratch } = ground;
    let input = input.hold(&case.input, edge);
    let base = case.base.as_deref().map(|bytes| base.hold(bytes, edge));
    let mut first = None;
    // Once more with the last one: where there is only one, two results are compared all the same.
    let last = Isa::available().last();
    for (round, isa) in Isa::available().chain(last).enumerate() {
        codec::limit_isa(isa);
        let mut fresh = Scratch::default();
        let is_fresh = (case.choice >> 8).is_multiple_of(16) && round == 1;
        let scratch = if is_fresh { &mut fresh } else { &mut scratch[round] };
        let target = out.buffer(case.len, [0x00, 0xff, 0xa5, 0x5a][round], edge);
        let decoded = codec::decode(input, base, scratch, target);
        if !out.is_intact() {
            return Err(format!("{isa:?} writes outside of its buffer"));
        }
        match (&first, decoded) {
            (None, Ok(())) => {
                expected.clear();
                expected.extend_from_slice(out.bytes());
                first = Some(true);
            }
            (None, Err(_)) => first = Some(false),
            (Some(true), Ok(())) if out.bytes() == expected => {}
            (Some(true), Ok(())) => return Err(format!("{isa:?} decodes to other bytes")),
            (Some(false), Err(_)) => {}
            (Some(true), Err(error)) => return Err(format!("{isa:?} refuses what others decode: {error}")),
            (Some(false), Ok(())) => return Err(format!("{isa:?} decodes what others refuse")),
        }
    }
    if *input != case.input || base.is_some_and(|base| Some(base) != case.base.as_deref()) {
        return Err("the input or the base was written to".to_owned());
    }
    Ok(if first == Some(true) { Outcome::Accepted } else { Outcome::Refused })
}

/// Encodes the input as the choice says, and decodes it again.
fn encode(case: &Case, ground: &mut Ground) -> Checked {
    let choice = case.choice;
    let byte = |index: u32| usize::from((choice >> (8 * index)).to_le_bytes()[0]);
    let element = Element::ALL[byte(1) % Element::ALL.len()];
    let level = Level::ALL[if case.input.len() > 4096 { byte(2) % 2 } else { byte(2) % 3 }];
    let count = case.input.len() / element.width();
    let columns = 1 + byte(4) % count.max(1);
    let grid = (byte(3) & 1 == 1).then_some(Grid { columns, first: byte(5) % columns });
    let base = case.base.as_deref();
    let raw = Input {
        raw: &case.input,
        element,
        grid: grid.filter(|_| count > 0),
        moments: base.filter(|base| byte(3) & 2 != 0 && base.len() == case.input.len()),
        base: base.filter(|_| byte(3) & 4 == 0),
    };
    let isas: Vec<Isa> = Isa::available().collect();
    codec::limit_isa(isas[byte(6) % isas.len()]);
    let options = Options { level, planes: byte(3) & 24 != 0 };
    let mut encoded = Vec::new();
    let against = codec::encode(&raw, options, &mut ground.scratch[0], &mut encoded);
    if encoded.len() > case.input.len() + 16 {
        return Err(format!("{} bytes become {}", case.input.len(), encoded.len()));
    }
    let base = match against {
        Against::Nothing => None,
        Against::Base => raw.base,
        Against::Moments => raw.moments,
    };
    let (len, edge) = (case.input.len(), Edge::of(choice));
    let chunk = Case {
        input: encoded,
        base: base.map(<[u8]>::to_vec),
        len,
        choice: if edge == Edge::Front { 0 } else { 1 },
    };
    match decode_everywhere(&chunk, ground)? {
        Outcome::Accepted if ground.expected == case.input => Ok(Outcome::Accepted),
        Outcome::Accepted => Err(format!("{:?} decodes to other bytes", Format::of(&chunk.input))),
        Outcome::Refused => Err(format!("{:?} does not decode", Format::of(&chunk.input))),
    }
}

/// Lengths in elements: around those at which groups, tiles and blocks end.
const COUNTS: [usize; 13] = [1, 2, 7, 63, 64, 65, 129, 500, 1025, 4097, 9000, 20_000, 131_075];

/// Chunks of a format, as the encoder writes them.
fn seeds(wanted: Format) -> Vec<Case> {
    let mut random = Random::new(1, "chunks");
    let mut found = Vec::new();
    let mut scratch = Scratch::default();
    for count in COUNTS {
        for element in Element::ALL {
            if count > 100_000 && !matches!(element, Element::Bf16 | Element::F32 | Element::U8) {
                continue;
            }
            let tail = usize::from(random.one_in(4));
            let raw = [made::elements(element, count, &mut random), vec![7; tail]].concat();
            if wanted == Format::Scaled {
                found.extend(scaled(&raw[..raw.len() - tail], element, &mut scratch));
            } else if wanted == Format::Rounded {
                found.extend(rounded(&raw[..raw.len() - tail], element, &mut random, &mut scratch));
            } else {
                found.extend(encodings(wanted, &raw, element, &mut random, &mut scratch));
            }
        }
    }
    found.retain(|case| Format::of(&case.input) == Some(wanted));
    // Of the lengths alike.
    let step = found.len().div_ceil(SEEDS_MAX).max(1);
    found.into_iter().step_by(step).collect()
}

fn encodings(
    wanted: Format,
    raw: &[u8],
    element: Element,
    random: &mut Random,
    scratch: &mut Scratch,
) -> Vec<Case> {
    let width = element.width();
    let mut cases = Vec::new();
    let mut add = |encoded: Vec<u8>, base: Option<&[u8]>, len: usize| {
        cases.push(Case { input: encoded, base: base.map(<[u8]>::to_vec), len, choice: 1 });
    };
    if wanted == Format::Raw {
        add([&[0], raw].concat(), None, raw.len());
        return cases;
    }
    let bases: Vec<Vec<u8>> =
        [0.0, 0.01, 0.2, 0.9].map(|share| made::moved(raw, width, share, random)).to_vec();
    for base in &bases {
        let mut out = Vec::new();
        if matches!(wanted, Format::Context16 | Format::Context32) {
            if codec::encode_context16(raw, element, base, scratch, &mut out)
                || codec::encode_context32(raw, element, base, scratch, &mut out)
            {
                add(out, Some(base), raw.len());
            }
            continue;
        }
        codec::limit_isa(if wanted == Format::Delta16 { Isa::Portable } else { Isa::Avx512 });
        let level = if wanted == Format::Float { Level::Max } else { Level::Fast };
        let options = Options { level, planes: true };
        let columns = 1 + random.below(60).min(raw.len() / width);
        let grid = Grid { columns, first: random.below(columns) };
        let input = Input {
            grid: (raw.len() >= width).then_some(grid),
            moments: (wanted == Format::Float).then_some(base),
            base: (wanted != Format::Float).then_some(base),
            ..Input::new(raw, element)
        };
        for input in [input, Input::new(raw, element)] {
            out.clear();
            let base = match codec::encode(&input, options, scratch, &mut out) {
                Against::Nothing => None,
                Against::Base => input.base,
                Against::Moments => input.moments,
            };
            add(out.clone(), base, raw.len());
        }
    }
    codec::limit_isa(Isa::Avx512);
    cases
}

fn scaled(raw: &[u8], element: Element, scratch: &mut Scratch) -> Vec<Case> {
    if !quantize::applies_to(element) {
        return Vec::new();
    }
    let mut raw = raw.to_vec();
    // A NaN, which is kept exactly.
    raw.iter_mut().skip(5 * element.width()).take(element.width()).for_each(|byte| *byte = 0xff);
    [(128, 0, 0.004), (7, 3, 0.004), (1, 0, 1e-9)]
        .into_iter()
        .filter_map(|(block_elements, phase, share)| {
            let how = Quantization { scheme: Scheme::Int8, bound: Bound::Relative(share), block_elements };
            let quantized = quantize::quantize(&raw, element, phase, &how).ok()?;
            let mut out = Vec::new();
            codec::encode_quantized(&quantized, element, scratch, &mut out);
            Some(Case { input: out, base: None, len: raw.len(), choice: 1 })
        })
        .collect()
}

/// 16-bit floats beside masters that are cut off to them, with exceptions and without.
fn rounded(raw: &[u8], element: Element, random: &mut Random, scratch: &mut Scratch) -> Vec<Case> {
    let masters: Vec<u8> = raw
        .as_chunks::<2>()
        .0
        .iter()
        .flat_map(|half| match element {
            Element::F16 => half::f16::from_le_bytes(*half).to_f32().to_le_bytes(),
            _ => [random.byte(), random.byte(), half[0], half[1]],
        })
        .collect();
    [None, Some(raw.len() / 3)]
        .into_iter()
        .filter_map(|exception| {
            let mut raw = raw.to_vec();
            if let Some(byte) = exception.and_then(|place| raw.get_mut(place)) {
                *byte ^= 0x10;
            }
            let mut out = Vec::new();
            let is_one = codec::encode_rounded(&raw, element, &masters, scratch, &mut out);
            is_one.then(|| Case { input: out, base: Some(masters.clone()), len: raw.len(), choice: 1 })
        })
        .collect()
}

/// Chunks of bytes in one block, which are a plane block and three bytes before it.
fn plane_blocks() -> Vec<Case> {
    let mut random = Random::new(2, "plane blocks");
    let mut scratch = Scratch::default();
    let mut cases = Vec::new();
    for count in COUNTS {
        // Shares of the usual byte: a raw block, Huffman's code, one bitmap, bitmaps of bitmaps.
        for one_in in [1, 2, 3, 20, 300, 5000] {
            let raw: Vec<u8> = (0..count.min(131_072))
                .map(|_| if random.one_in(one_in) { random.byte() & random.byte() | 1 } else { 0 })
                .collect();
            let mut input = Vec::new();
            let options = Options { level: Level::Fast, planes: true };
            codec::encode(&Input::new(&raw, Element::U8), options, &mut scratch, &mut input);
            cases.push(Case { input, base: None, len: raw.len(), choice: 1 });
        }
    }
    cases.retain(|case| Format::of(&case.input) == Some(Format::Planes));
    cases
}

/// Chunks of few values, of every width.
fn palettes() -> Vec<Case> {
    let mut random = Random::new(4, "palettes");
    let mut scratch = Scratch::default();
    let mut cases = Vec::new();
    for count in COUNTS.into_iter().filter(|count| *count < 10_000) {
        for element in [Element::U8, Element::Bf16, Element::I32, Element::F64] {
            // Places of 1, 2, 4 and 8 bits, with places that have no value and without.
            for values in [2, 3, 4, 9, 16, 100, 256] {
                let width = element.width();
                let table: Vec<u8> = (0..values * width).map(|_| random.byte()).collect();
                let mut raw: Vec<u8> = (0..count)
                    .flat_map(|_| table.chunks_exact(width).nth(random.below(values)).unwrap_or_default())
                    .copied()
                    .collect();
                raw.extend(vec![7; count % width]);
                let mut input = Vec::new();
                let options = Options { level: Level::Fast, planes: true };
                codec::encode(&Input::new(&raw, element), options, &mut scratch, &mut input);
                cases.push(Case { input, base: None, len: raw.len(), choice: 1 });
            }
        }
    }
    // Tag, width and transform.
    cases.retain(|case| case.input.starts_with(&[2]) && case.input.get(2) == Some(&5));
    cases
}

/// Plaintexts, each with a base that is near it.
fn plaintexts() -> Vec<Case> {
    let mut random = Random::new(3, "plaintexts");
    let mut cases = Vec::new();
    for count in COUNTS.into_iter().filter(|count| *count < 10_000) {
        for (code, element) in (0u64..).zip(Element::ALL) {
            let raw = made::elements(element, count, &mut random);
            let base = made::moved(&raw, element.width(), 0.1, &mut random);
            let choice = random.next() & !0xff00 | code << 8;
            cases.push(Case { len: raw.len(), base: random.one_in(2).then_some(base), input: raw, choice });
        }
    }
    cases
}
