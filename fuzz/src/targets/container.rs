//! Containers of tensors: whatever a file holds, its layout must be sane, and the file must survive compression.

use std::time::Duration;

use mithril_engine::checkpoint::mcp::{self, Compression, McpFile, Piece};
use mithril_engine::tensor::{self, Container, Element};

use super::made;
use super::pickle;
use crate::case::Case;
use crate::random::Random;
use crate::target::{Checked, Outcome, Target, as_it_is};

/// What looking at a file takes at least: slices of it, the end of an archive.
const LOOK_BYTES: usize = 1 << 20;
/// What a byte of a header becomes at most: values of pickles have one byte or more each, and their lists grow by
/// doubling.
const BYTES_PER_BYTE: usize = 512;
/// What compressing takes beside the file: contexts and windows of chunks.
const COMPRESS_BYTES: usize = 48 << 20;

/// One case in so many is compressed and read again.
const COMPRESSED_ONE_IN: u64 = 64;

pub(crate) fn targets() -> Vec<Target> {
    let target = |name, what, seeds: fn() -> Vec<Case>, tokens, check| Target {
        name,
        what,
        seeds,
        tokens,
        repair: as_it_is,
        heap_limit,
        time_limit: Duration::from_secs(1),
        check,
    };
    vec![
        target("safetensors", "tensor::inspect", safetensors, JSON, |case, _| {
            inspected(case, &case.input, Container::Safetensors)
        }),
        target("torch-zip", "tensor::inspect", torch_zips, ZIP, |case, _| {
            inspected(case, &case.input, Container::TorchZip)
        }),
        target("torch-legacy", "tensor::inspect", torch_legacies, pickle::TOKENS, |case, _| {
            inspected(case, &case.input, Container::TorchLegacy)
        }),
        Target {
            repair: pickle::programs,
            ..target(
                "pickle",
                "tensor::inspect, pickles in a whole archive",
                pickles,
                pickle::TOKENS,
                |case, _| {
                    let archive = made::zip(&[
                        ("archive/data.pkl", &case.input),
                        ("archive/data/0", &[1; 48]),
                        ("archive/data/1", &[2; 16]),
                    ]);
                    inspected(case, &archive, Container::TorchZip)
                },
            )
        },
        target("npy", "tensor::inspect", npys, NUMPY, |case, _| inspected(case, &case.input, Container::Npy)),
        target("npz", "tensor::inspect", npzs, NUMPY, |case, _| inspected(case, &case.input, Container::Npz)),
        target("unknown", "tensor::inspect, files of no known format", unknowns, &[], |case, _| {
            inspected(case, &case.input, Container::Unknown)
        }),
    ]
}

const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\u0000",
    b"-1",
    b"0",
    b"1e9",
    b"18446744073709551615",
    b"9223372036854775808",
    b"\"dtype\":\"F32\"",
    b"\"shape\":[4]",
    b"\"data_offsets\":[0,4]",
    b"\"__metadata__\":{}",
    b"\"F4\"",
    b"\"BF16\"",
    b"\"NEW\"",
    b"null",
    b"true",
    b"[[[[[[[[",
];
const ZIP: &[&[u8]] = &[
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"PK\x06\x07",
    b"\xff\xff\xff\xff",
    b"\x01\0\x08\0",
    b"data.pkl",
    b"data/0",
    b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
];
const NUMPY: &[&[u8]] = &[
    b"\x93NUMPY\x01\0",
    b"\x93NUMPY\x02\0",
    b"'descr'",
    b"'<f4'",
    b"'|b1'",
    b"'>i8'",
    b"'<c16'",
    b"'shape': ",
    b"(",
    b")",
    b",",
    b"18446744073709551615",
    b"4294967296",
    b".npy",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"\xff\xff",
];

fn is_compressed(case: &Case) -> bool {
    (case.choice >> 16).is_multiple_of(COMPRESSED_ONE_IN)
}

fn heap_limit(case: &Case) -> usize {
    let looked = LOOK_BYTES + BYTES_PER_BYTE * case.input.len();
    if is_compressed(case) { looked + COMPRESS_BYTES + 8 * case.input.len() } else { looked }
}

fn inspected(case: &Case, file: &[u8], wanted: Container) -> Checked {
    let layout = tensor::inspect(&file).map_err(|error| format!("reading memory failed: {error}"))?;
    let mut end = 0;
    for tensor in &layout.tensors {
        if tensor.range.is_empty() || tensor.range.offset < end || tensor.range.end() > file.len() as u64 {
            return Err(format!("tensor {:?} is empty, out of order or outside of the file", tensor.name));
        }
        end = tensor.range.end();
    }
    if is_compressed(case) {
        survives(file)?;
    }
    Ok(if layout.container == wanted { Outcome::Accepted } else { Outcome::Refused })
}

/// Compresses the file, and reads it again.
fn survives(file: &[u8]) -> Result<(), String> {
    let mut out = Vec::new();
    let compressed = mcp::compress(&file, None, &Compression::default(), &mut out, &mut |_| {});
    compressed.map_err(|error| format!("it cannot be compressed: {error}"))?;
    let reopened = McpFile::open(Box::new(made::Bytes(out)));
    let reopened = reopened.map_err(|error| format!("what was compressed cannot be opened: {error}"))?;
    let mut whole = Vec::with_capacity(file.len());
    reopened
        .read_all(&mut |piece| {
            match piece {
                Piece::Data(bytes) => whole.extend_from_slice(bytes),
                Piece::Hole(len) => whole.resize(whole.len() + usize::try_from(len).unwrap_or(0), 0),
            }
            Ok(())
        })
        .map_err(|error| format!("what was compressed cannot be read: {error}"))?;
    if whole == file { Ok(()) } else { Err("it comes back as another file".to_owned()) }
}

fn safetensors() -> Vec<Case> {
    let plain = made::safetensors(&[("a", "U8", &[4], &[1, 2, 3, 4])]);
    let empty = made::safetensors(&[("a", "I64", &[0, 5], &[]), ("b", "F4", &[2, 3], &[1, 2, 3])]);
    let mut metadata = made::safetensors(&[("a", "F16", &[2], &[1, 2, 3, 4])]);
    // The header grows by what goes in behind its first byte.
    let more: &[u8] = br#""__metadata__":{"format":"pt"},"#;
    metadata.splice(9..9, more.iter().copied());
    let len = u64::from_le_bytes(std::array::from_fn(|i| metadata[i])) + more.len() as u64;
    metadata[..8].copy_from_slice(&len.to_le_bytes());
    [plain, empty, metadata, made::checkpoint(1), made::fixture("golden/step1.safetensors")]
        .into_iter()
        .map(Case::of)
        .collect()
}

fn torch_zips() -> Vec<Case> {
    ["training.pt", "sharded.distcp", "hostile.pt"]
        .into_iter()
        .map(|name| Case::of(made::fixture(&format!("fixtures/tensor/{name}"))))
        .collect()
}

fn torch_legacies() -> Vec<Case> {
    vec![Case::of(made::fixture("fixtures/tensor/legacy.pt"))]
}

/// The pickles of the archives that there are, and shorter ones.
fn pickles() -> Vec<Case> {
    let mut cases: Vec<Case> = pickle::EXAMPLES.iter().map(|pickle| Case::of(pickle.to_vec())).collect();
    for case in torch_zips() {
        // The first member of the first archive: a local header, a name and an extra field before it.
        let file = case.input;
        let field = |at: usize| usize::from(file[at]) | usize::from(file[at + 1]) << 8;
        let start = 30 + field(26) + field(28);
        let Some(end) = file.windows(4).position(|word| matches!(word, b"PK\x07\x08")) else { continue };
        cases.push(Case::of(file[start..end].to_vec()));
    }
    cases
}

fn npy(descr: &str, shape: &str, data: &[u8], version: u8) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let len = u32::try_from(header.len()).unwrap_or(0).to_le_bytes();
    let len = if version == 1 { &len[..2] } else { &len[..] };
    [b"\x93NUMPY", &[version, 0][..], len, header.as_bytes(), data].concat()
}

fn arrays() -> [Vec<u8>; 4] {
    [
        npy("<f4", "(3, 4)", &[1; 48], 1),
        npy("|b1", "()", &[1], 1),
        npy("<c16", "(1,)", &[3; 16], 2),
        npy("<i8", "(0, 7)", &[], 3),
    ]
}

fn npys() -> Vec<Case> {
    // An array of nothing is one all the same.
    arrays().into_iter().map(Case::of).collect()
}

fn npzs() -> Vec<Case> {
    let arrays = arrays();
    let members: Vec<(&str, &[u8])> = ["a.npy", "b.npy", "folder/c.npy", "d.npy"]
        .into_iter()
        .zip(arrays.iter().map(Vec::as_slice))
        .collect();
    let files = [made::zip(&members), made::zip(&members[..1]), made::fixture("fixtures/tensor/arrays.npz")];
    files.into_iter().map(Case::of).collect()
}

fn unknowns() -> Vec<Case> {
    let mut random = Random::new(1, "unknown");
    let mut cases = vec![Case::of(Vec::new()), Case::of(b"text".to_vec())];
    // Only files of 16 KiB and more are looked at, which takes its time.
    for bytes in [800, 15_000, 16_383, 16_384, 30_001] {
        for element in [Element::Bf16, Element::F32, Element::F64, Element::Bytes] {
            let mut file = made::elements(element, bytes / element.width() + 1, &mut random);
            file.truncate(bytes);
            cases.push(Case::of(file));
        }
    }
    cases
}
