use proptest::prelude::*;

use super::*;
use crate::codec::rans::LANES;
use crate::codec::tests::Random;

const BF16: Kind = Kind { width: 2, fraction_bits: 8, pairs: false };
const F16: Kind = Kind { width: 2, fraction_bits: 11, pairs: false };
const F32: Kind = Kind { width: 4, fraction_bits: 8, pairs: false };
const F64: Kind = Kind { width: 8, fraction_bits: 5, pairs: false };
const COMPLEX64: Kind = Kind { width: 4, fraction_bits: 8, pairs: true };
const COMPLEX128: Kind = Kind { width: 8, fraction_bits: 5, pairs: true };
const KINDS: [Kind; 6] = [BF16, F16, F32, F64, COMPLEX64, COMPLEX128];

/// The first byte of a body, and the kind of the first block behind it if there is no side information.
const PLAIN_BLOCK: usize = 1;
const CODED: u8 = 2;

/// What a chunk is encoded to, the same by every instruction set; and it comes back by each. The second result is
/// whether it needs the moments.
fn roundtrip(raw: &[u8], kind: Kind, grid: Option<Grid>, moments: Option<&[u8]>) -> (Vec<u8>, bool) {
    let mut scratch = FloatScratch::default();
    let mut expected = Vec::new();
    let prediction = predict(raw, kind, grid, moments);
    let needed = encode_for(Isa::Portable, raw, kind, prediction, moments, &mut scratch, &mut expected);
    for isa in Isa::available() {
        let mut encoded = Vec::new();
        assert_eq!(encode_for(isa, raw, kind, prediction, moments, &mut scratch, &mut encoded), needed);
        assert!(encoded == expected, "{isa:?} {kind:?} {}", raw.len());
        let mut out = vec![0xaa; raw.len()];
        decode_for(isa, &encoded, moments.filter(|_| needed), &mut scratch, &mut out).unwrap();
        assert!(out == raw, "{isa:?} {kind:?} {}", raw.len());
    }
    (expected, needed)
}

fn number(kind: Kind, value: f64) -> Vec<u8> {
    #[allow(clippy::cast_possible_truncation, reason = "rounded")]
    match (kind.width, kind.fraction_bits) {
        (2, 8) => half::bf16::from_f64(value).to_le_bytes().to_vec(),
        (2, _) => half::f16::from_f64(value).to_le_bytes().to_vec(),
        (4, _) => (value as f32).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    }
}

/// Normal numbers of a kind.
fn normal(kind: Kind, count: usize, deviation: f64, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..count).flat_map(|_| number(kind, random.normal() * deviation)).collect()
}

/// Numbers that are as large as their row and their column say, signed or not, some rows being zero.
fn moments(kind: Kind, rows: usize, columns: usize, signed: bool) -> Vec<u8> {
    let mut random = Random(99);
    let sizes: Vec<f64> = (0..rows + columns).map(|_| 4f64.powf(random.normal())).collect();
    (0..rows * columns)
        .flat_map(|i| {
            let (row, column) = (i / columns, i % columns);
            let size = if row % 17 == 3 { 0.0 } else { 1e-6 * sizes[row] * sizes[rows + column] };
            let normal = random.normal();
            number(kind, size * if signed { normal } else { normal * normal })
        })
        .collect()
}

#[test]
fn weights_come_back_at_lengths_around_every_seam() {
    for kind in KINDS {
        let numbers = normal(kind, 9000, 0.02, 5);
        for count in (0..260).chain([511, 512, 513, TILE - 1, TILE, TILE + 1, 8191, 8192, 8193]) {
            roundtrip(&numbers[..count * kind.width], kind, None, None);
        }
        for extra in 1..2 * kind.width {
            roundtrip(&numbers[..4000 * kind.width + extra], kind, None, None);
        }
    }
}

#[test]
fn blocks_meet_without_a_seam() {
    for kind in [BF16, F32] {
        let numbers = normal(kind, 2 * BLOCK_ELEMENTS + 65, 0.02, 6);
        for count in [BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS, BLOCK_ELEMENTS + 1, 2 * BLOCK_ELEMENTS + 65] {
            let (encoded, _) = roundtrip(&numbers[..count * kind.width], kind, None, None);
            assert!(encoded.len() < count * kind.width * 9 / 10);
        }
    }
}

#[test]
fn every_pattern_of_sixteen_bits_comes_back() {
    let mut random = Random(2);
    for kind in [BF16, F16] {
        let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        roundtrip(&patterns, kind, None, None);
        // One pattern in 32 elements does not keep a block from being coded.
        for share in [2, 32] {
            let mut weights = normal(kind, 65536 * share, 0.02, 3);
            let places = weights.as_chunks_mut::<2>().0.chunks_exact_mut(share);
            for (pattern, places) in (0..=u16::MAX).zip(places) {
                let place = usize::try_from(random.next()).unwrap() % share;
                places[place] = pattern.to_le_bytes();
            }
            let (encoded, _) = roundtrip(&weights, kind, None, None);
            assert!(share == 2 || encoded[PLAIN_BLOCK] == CODED);
        }
    }
}

#[test]
fn special_values_between_weights_come_back() {
    let mut random = Random(12);
    for kind in KINDS {
        let specials: Vec<Vec<u8>> = [
            0.0,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            5e-324,
            -1e-40,
            6e-8,
            1e-310,
            f64::MAX,
            1.0,
        ]
        .into_iter()
        .map(|value| number(kind, value))
        .chain((0..4).map(|_| random.next().to_le_bytes()[..kind.width].to_vec()))
        .collect();
        for (index, special) in specials.iter().enumerate() {
            for stride in [1, 3, 50, 5000] {
                let mut numbers = normal(kind, 10_000, 0.02, 7);
                for place in numbers.chunks_exact_mut(kind.width).skip(index).step_by(stride) {
                    place.copy_from_slice(special);
                }
                roundtrip(&numbers, kind, None, None);
            }
        }
        let mix: Vec<u8> = (0..9000).flat_map(|i| specials[i % 7 * i % specials.len()].clone()).collect();
        roundtrip(&mix, kind, None, None);
    }
}

#[test]
fn random_patterns_are_kept_as_they_are() {
    let mut random = Random(31);
    let bytes: Vec<u8> = (0..80_000).map(|_| random.next().to_le_bytes()[7]).collect();
    for kind in KINDS {
        let (encoded, _) = roundtrip(&bytes, kind, None, None);
        assert!(encoded.len() <= bytes.len() + 2, "{kind:?}");
    }
}

#[test]
fn zeros_cost_little() {
    let mut random = Random(41);
    for kind in KINDS {
        for share in [1, 10, 50, 90, 99] {
            let mut numbers = normal(kind, 30_000, 0.02, 7);
            for element in numbers.chunks_exact_mut(kind.width) {
                if random.next() % 100 < share {
                    element.fill(0);
                }
            }
            // A group in part, and whole tiles.
            numbers[700 * kind.width..12_000 * kind.width].fill(0);
            let (encoded, _) = roundtrip(&numbers, kind, None, None);
            let rest = 18_700 * kind.width * (100 - usize::try_from(share).unwrap()) / 100;
            // At most a bit for each element that may be zero.
            assert!(encoded.len() < rest + 18_700 / 8 + 1000, "{kind:?} {share}: {}", encoded.len());
        }
        let same = number(kind, 0.5).repeat(20_000);
        assert_eq!(roundtrip(&same, kind, None, None).0.len(), 2 + kind.width);
    }
}

#[test]
fn rounded_numbers_take_no_more_than_what_they_were() {
    let rounded: Vec<f64> = normal(BF16, 50_000, 0.02, 8)
        .as_chunks()
        .0
        .iter()
        .map(|x| half::bf16::from_le_bytes(*x).to_f64())
        .collect();
    let sizes = [BF16, F32, F64].map(|kind| {
        let numbers: Vec<u8> = rounded.iter().flat_map(|&value| number(kind, value)).collect();
        roundtrip(&numbers, kind, None, None).0.len()
    });
    assert!(sizes[1] < sizes[0] + 100 && sizes[2] < sizes[0] + sizes[0] / 20, "{sizes:?}");
}

#[test]
fn parts_that_differ_are_coded_apart() {
    for kind in [COMPLEX64, COMPLEX128] {
        let first = normal(kind, 5000, 1.0, 1);
        let same = roundtrip(&first, kind, None, None).0;
        assert_eq!(same[0] & FLAG_PARTS, 0);
        let second = normal(kind, 5000, 1e-4, 2);
        let mut pairs = Vec::new();
        for (first, second) in first.chunks(kind.width).zip(second.chunks(kind.width)) {
            pairs.extend_from_slice(first);
            pairs.extend_from_slice(second);
        }
        pairs.extend_from_slice(&[1; 11][..kind.width + 3]);
        let (encoded, _) = roundtrip(&pairs, kind, None, None);
        assert_eq!(encoded[0] & FLAG_PARTS, FLAG_PARTS);
    }
}

#[test]
fn rows_and_columns_predict_moments() {
    for (kind, rows, columns) in [(F32, 100, 300), (BF16, 70, 600), (F64, 60, 200), (F16, 90, 200)] {
        let numbers = moments(kind, rows, columns, false);
        let alone = roundtrip(&numbers, kind, None, None).0;
        let (predicted, needed) = roundtrip(&numbers, kind, Some(Grid { columns, first: 0 }), None);
        assert!(!needed);
        if kind == F16 {
            continue; // What is that small has no exponent left.
        }
        assert_eq!(predicted[0] & FLAG_GRID, FLAG_GRID, "{kind:?}");
        assert!(
            predicted.len() + rows * columns / 32 < alone.len(),
            "{} of {}",
            predicted.len(),
            alone.len()
        );
        // Chunks begin and end anywhere in a row.
        for first in [1, columns - 1, columns / 2, 7 * columns + 3] {
            let from = first * kind.width;
            let part = &numbers[from..numbers.len() - 5 * kind.width - 1];
            let (encoded, _) = roundtrip(part, kind, Some(Grid { columns, first }), None);
            assert_eq!(encoded[0] & FLAG_GRID, FLAG_GRID, "{kind:?}");
        }
    }
}

#[test]
fn second_moments_predict_the_first() {
    let (rows, columns) = (100, 300);
    for kind in [F32, BF16, F64] {
        let second = moments(kind, rows, columns, false);
        let mut random = Random(17);
        let first: Vec<u8> = second
            .chunks_exact(kind.width)
            .flat_map(|second| {
                let value = match kind.width {
                    2 => half::bf16::from_le_bytes(second.try_into().unwrap()).to_f64(),
                    4 => f64::from(f32::from_le_bytes(second.try_into().unwrap())),
                    _ => f64::from_le_bytes(second.try_into().unwrap()),
                };
                number(kind, value.sqrt() * random.normal())
            })
            .collect();
        let grid = Some(Grid { columns, first: 0 });
        let alone = roundtrip(&first, kind, grid, None).0;
        for grid in [None, grid] {
            let (encoded, needed) = roundtrip(&first, kind, grid, Some(&second));
            assert!(needed && encoded.len() < alone.len(), "{kind:?}");
            let mut out = vec![0; first.len()];
            let mut decode =
                |moments| decode_for(isa(), &encoded, moments, &mut FloatScratch::default(), &mut out);
            assert_eq!(decode(None), Err(DecodeError::WrongBase));
            assert_eq!(decode(Some(&second[1..])), Err(DecodeError::WrongBase));
        }
        // Of another length, they are not used.
        assert!(!roundtrip(&first, kind, None, Some(&second[kind.width..])).1);
    }
}

#[test]
fn what_does_not_predict_is_not_used() {
    for kind in KINDS {
        let numbers = normal(kind, 60_000, 0.02, 5);
        let other = normal(kind, 60_000, 0.02, 6);
        let (encoded, needed) =
            roundtrip(&numbers, kind, Some(Grid { columns: 300, first: 0 }), Some(&other));
        assert!(!needed && encoded[0] & (FLAG_GRID | FLAG_MOMENTS) == 0, "{kind:?}");
        for columns in [0, 1, 15, 59_999, 60_000, usize::MAX] {
            roundtrip(&numbers, kind, Some(Grid { columns, first: usize::MAX }), None);
        }
    }
}

/// Bodies with every feature, the moments that they need, and the length of what they decode to.
fn bodies() -> Vec<(Vec<u8>, Option<Vec<u8>>, usize)> {
    let mut bodies = Vec::new();
    let mut add = |raw: &[u8], kind, grid, moments: Option<&[u8]>| {
        let (body, needed) = roundtrip(raw, kind, grid, moments);
        bodies.push((body, moments.filter(|_| needed).map(<[u8]>::to_vec), raw.len()));
    };
    add(&normal(BF16, 600, 0.02, 1)[..1199], BF16, None, None);
    let mut zeros = normal(F32, 600, 0.02, 1);
    zeros[300..1400].fill(0);
    add(&zeros, F32, None, None);
    add(&normal(F64, 300, 0.02, 1), F64, None, None);
    add(&normal(COMPLEX64, 300, 0.02, 1), COMPLEX64, None, None);
    let rounded: Vec<u8> = normal(BF16, 700, 0.02, 3)
        .as_chunks::<2>()
        .0
        .iter()
        .flat_map(|half| [0, 0, half[0], half[1]])
        .collect();
    add(&rounded, F32, None, None);
    add(&number(F32, 0.5).repeat(100), F32, None, None);
    let (rows, columns) = (60, 100);
    let second = moments(F32, rows, columns, false);
    let grid = Some(Grid { columns, first: 0 });
    let (body, _) = roundtrip(&second, F32, grid, None);
    assert_ne!(body[0] & FLAG_GRID, 0);
    let first: Vec<u8> = second
        .as_chunks()
        .0
        .iter()
        .zip(normal(F64, rows * columns, 1.0, 4).as_chunks().0)
        .flat_map(|(second, normal)| {
            number(F32, f64::from(f32::from_le_bytes(*second)).sqrt() * f64::from_le_bytes(*normal))
        })
        .collect();
    add(&first, F32, None, Some(&second));
    bodies
}

#[test]
fn every_truncation_and_every_extension_is_an_error() {
    let mut scratch = FloatScratch::default();
    for (body, moments, len) in bodies() {
        let mut out = vec![0; len];
        for isa in Isa::available() {
            let step = body.len() / 1500 + 1;
            for cut in (0..body.len()).step_by(step) {
                let result = decode_for(isa, &body[..cut], moments.as_deref(), &mut scratch, &mut out);
                assert!(result.is_err(), "{cut} {isa:?}");
            }
            let longer = [&body[..], &[0]].concat();
            assert!(decode_for(isa, &longer, moments.as_deref(), &mut scratch, &mut out).is_err());
        }
    }
}

#[test]
fn damage_never_panics_and_means_the_same_everywhere() {
    let mut scratch = FloatScratch::default();
    let mut random = Random(51);
    for (body, moments, len) in bodies() {
        // The fields are in front, and the streams are checked by their own tests.
        let early = (0..body.len().min(60) * 8).map(|bit| (bit / 8, 1 << (bit % 8)));
        let anywhere = (0..600).map(|_| {
            let at = usize::try_from(random.next()).unwrap() % body.len();
            (at, random.next().to_le_bytes()[7] | 1)
        });
        for (at, change) in early.chain(anywhere.collect::<Vec<_>>()) {
            let mut damaged = body.clone();
            damaged[at] ^= change;
            let mut expected = None;
            for isa in Isa::available() {
                let mut out = vec![0; len];
                let result = decode_for(isa, &damaged, moments.as_deref(), &mut scratch, &mut out);
                let found = result.is_ok().then_some(out);
                assert!(*expected.get_or_insert_with(|| found.clone()) == found, "{at} {change} {isa:?}");
            }
        }
        // Also of another length, which the body does not know.
        for len in (0..100).chain([len - 1, len + 1, 2 * len]) {
            let mut out = vec![0; len];
            let _ = decode_for(isa(), &body, Some(&vec![1; len]), &mut scratch, &mut out);
        }
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(
        header in (1u8..32, 0u8..3, 0u8..8, 0usize..3),
        garbage in proptest::collection::vec(any::<u8>(), 0..400),
        len in 0usize..3000,
    ) {
        let (flags, block, block_flags, shift) = header;
        let mut body = vec![flags, block, block_flags, [4, 7, 8][shift], 0, 0];
        body.extend(garbage);
        let moments = vec![9; len];
        for isa in Isa::available() {
            let mut out = vec![0; len];
            let _ = decode_for(isa, &body, Some(&moments), &mut FloatScratch::default(), &mut out);
        }
    }

    #[test]
    fn anything_comes_back(
        bits in proptest::collection::vec(prop_oneof![Just(0u32), any::<u32>(), 0x3f00_0000..0x3f80_0000u32], 0..1500),
        kind in 0..KINDS.len(),
        columns in 0usize..200,
        first in 0usize..500,
    ) {
        let raw: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        roundtrip(&raw, KINDS[kind], Some(Grid { columns, first }), Some(&raw));
    }
}

#[test]
fn a_group_and_a_tile_fit() {
    assert!(TILE.is_multiple_of(LANES) && BLOCK_ELEMENTS.is_multiple_of(TILE));
}
