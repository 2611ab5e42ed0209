#![allow(clippy::cast_possible_truncation, reason = "any bits of random numbers will do")]

use proptest::prelude::*;

use super::super::tests::Random;
use super::groups::GROUP_BYTES;
use super::*;

mod golden;

/// Encodes with every instruction set, and decodes with every other: all bytes must be the same. Returns the encoding.
fn roundtrip(raw: &[u8], base: &[u8]) -> Vec<u8> {
    let mut scratch = Scratch::default();
    let mut encodings: Vec<(Isa, Vec<u8>)> = Vec::new();
    for isa in Isa::available() {
        let mut encoded = Vec::new();
        encode_with(isa, raw, base, &mut Parts::of(&mut scratch), &mut encoded);
        encodings.push((isa, encoded));
    }
    let encoded = encodings[0].1.clone();
    for (isa, other) in encodings {
        assert!(other == encoded, "{isa:?} encodes {} bytes in another way", raw.len());
    }
    assert!(encoded.len() <= raw.len() + 1 + raw.len().div_ceil(BLOCK_BYTES));
    for isa in Isa::available() {
        assert!(decoded(isa, &encoded, base).unwrap() == raw, "{isa:?} decodes {} bytes wrong", raw.len());
    }
    encoded
}

fn decoded(isa: Isa, encoded: &[u8], base: &[u8]) -> Decoded<Vec<u8>> {
    let mut out = vec![0xaa; base.len()];
    decode_with(isa, encoded, base, &mut Parts::of(&mut Scratch::default()), &mut out)?;
    Ok(out)
}

/// The kind of the first block.
fn kind_of(encoded: &[u8]) -> u8 {
    encoded[1]
}

fn floats(floats: impl IntoIterator<Item = f32>) -> Vec<u8> {
    floats.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn words(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn words_of(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Weights as training leaves them.
fn weights(count: usize, random: &mut Random) -> Vec<u8> {
    floats((0..count).map(|_| (random.normal() * 0.05) as f32))
}

/// The same after steps that move all of them by about `size`.
fn moved(base: &[u8], size: f64, random: &mut Random) -> Vec<u8> {
    floats(words_of(base).map(|bits| (f64::from(f32::from_bits(bits)) + random.normal() * size) as f32))
}

/// The same after `steps` of decay, but for some rows that move, too.
fn decayed(base: &[u8], steps: usize, decay: f32, random: &mut Random) -> Vec<u8> {
    let rows = base.chunks(4 * 384).enumerate().flat_map(|(row, bytes)| {
        let size = if row % 8 == 3 { 1e-4 } else { 0.0 };
        let values: Vec<f32> = words_of(bytes)
            .map(|bits| {
                let decayed = (0..steps).fold(f32::from_bits(bits), |value, _| value * (1.0 - decay));
                if size > 0.0 { decayed + (random.normal() * size) as f32 } else { decayed }
            })
            .collect();
        values
    });
    floats(rows)
}

/// Bit patterns of every sort.
const PATTERNS: [u32; 22] = [
    0,
    0x8000_0000,
    1,
    0x8000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x0100_0000,
    0x00ff_ffff,
    0x3f80_0000,
    0xbf80_0000,
    0x3f7f_ffff,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7f80_0001,
    0x7fc0_0000,
    0xffc0_1234,
    0x7fff_ffff,
    0xffff_ffff,
    0x0000_0002,
    0x4b80_0001,
];

#[test]
fn every_sort_of_number_comes_back_against_every_other() {
    let count = PATTERNS.len();
    let all = words((0..100 * count).map(|i| PATTERNS[i % count]));
    for shift in 0..count {
        let base = words((0..100 * count).map(|i| PATTERNS[(i + shift + i / count) % count]));
        roundtrip(&all, &base);
    }
    let mut random = Random(7);
    for base in PATTERNS {
        let base = words(std::iter::repeat_n(base, 5000));
        roundtrip(&words((0..5000).map(|_| random.next() as u32)), &base);
        roundtrip(&base, &words((0..5000).map(|_| random.next() as u32)));
        // Neighbours of every sort of number, and the number itself.
        let near = words_of(&base).map(|bits| bits.wrapping_add((random.next() % 5) as u32).wrapping_sub(2));
        roundtrip(&words(near), &base);
    }
}

#[test]
fn every_small_length_comes_back() {
    let mut random = Random(3);
    for len in (0..600).chain([1023, 1024, 1025, 4095, 4096, 4097, 16383, 16384, 16385]) {
        let mut base = weights(len / 4, &mut random);
        base.resize(len, 77);
        for size in [1e-9, 1e-5, 10.0] {
            let mut raw = moved(&base, size, &mut random);
            raw.resize(len, 78);
            roundtrip(&raw, &base);
        }
    }
}

#[test]
fn groups_and_blocks_meet_without_a_seam() {
    let mut random = Random(5);
    for groups in [63, 64, 65, 1471, 1472] {
        for elements in [LANES * groups - 1, LANES * groups, LANES * groups + 1] {
            let base = weights(elements, &mut random);
            roundtrip(&moved(&base, 1e-5, &mut random), &base);
            roundtrip(&decayed(&base, 10, 2e-7, &mut random), &base);
        }
    }
    for elements in [BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS, BLOCK_ELEMENTS + 1] {
        let base = weights(elements, &mut random);
        roundtrip(&moved(&base, 1e-4, &mut random), &base);
    }
}

/// What `encoded` takes of `raw`, in bits an element.
fn bits(encoded: &[u8], raw: &[u8]) -> f64 {
    encoded.len() as f64 * 32.0 / raw.len() as f64
}

#[test]
fn every_kind_of_block_is_used_and_small_where_it_should_be() {
    let mut random = Random(11);
    let base = weights(1 << 17, &mut random);
    assert_eq!(roundtrip(&base, &base), [KIND_F32, kind::SAME]);
    let noise = words((0..1 << 17).map(|_| random.next() as u32));
    assert_eq!(kind_of(&roundtrip(&noise, &base)), kind::RAW);

    // The mantissas of steps of 1e-6 begin at 2^-20, those of a weight of 0.05 end at 2^-28: 9 bits and what is
    // left open by the sign and the normal distribution, less for smaller weights more.
    let raw = moved(&base, 1e-6, &mut random);
    let encoded = roundtrip(&raw, &base);
    assert_eq!(kind_of(&encoded), kind::CODED);
    assert!(bits(&encoded, &raw) < 11.9, "{}", bits(&encoded, &raw));

    // The lower halves of rounded numbers are the same.
    let rounded = |bytes: &[u8]| words(words_of(bytes).map(|bits| bits & 0xffff_0000));
    let encoded = roundtrip(&rounded(&weights(1 << 17, &mut random)), &rounded(&base));
    assert_eq!(kind_of(&encoded), kind::PLANES);

    // A few elements of many have changed.
    let mut raw = base.clone();
    raw[4000] ^= 1;
    raw[123_456] ^= 0x80;
    let encoded = roundtrip(&raw, &base);
    assert!(encoded.len() < 400, "{}", encoded.len());
}

#[test]
fn decay_alone_costs_next_to_nothing() {
    let mut random = Random(13);
    let base = weights(1 << 17, &mut random);
    // A seventh of the rows is moved: their bits, and little more. One step is a factor, many are steps.
    for (steps, decay) in [(1, 1e-3), (1, 2e-7), (50, 2e-7)] {
        let raw = decayed(&base, steps, decay, &mut random);
        let encoded = roundtrip(&raw, &base);
        assert_eq!(kind_of(&encoded), kind::CODED);
        let bits = bits(&encoded, &raw);
        assert!(bits < 19.0 / 8.0 + 0.1, "{steps} {decay} {bits}");
    }
}

/// Never longer than byte planes of ordered differences by more than a header.
#[test]
fn planes_are_not_better() {
    let mut random = Random(17);
    let base = weights(1 << 17, &mut random);
    let moved_by = |size, random: &mut Random| moved(&base, size, random);
    let mut cases =
        [1e-9, 1e-7, 1e-5, 1e-3, 1e-2, 1e-1, 1.0].map(|size| moved_by(size, &mut random)).to_vec();
    cases.push(decayed(&base, 50, 3e-7, &mut random));
    cases.push(decayed(&base, 50, 1e-3, &mut random));
    cases.push(words(words_of(&moved(&base, 1e-3, &mut random)).map(|bits| bits & 0xffff_0000)));
    cases.push(words(words_of(&base).map(|bits| bits ^ 0x8000_0000)));
    cases.push(words(
        words_of(&base).map(|bits| bits.wrapping_add(u32::from(random.next().is_multiple_of(100)))),
    ));
    for (i, raw) in cases.iter().enumerate() {
        let mut planes = Vec::new();
        let transform = super::super::numeric::Transform::OrderedDifference;
        super::super::planes::encode(raw, 4, transform, Some(&base), &mut Scratch::default(), &mut planes);
        let encoded = roundtrip(raw, &base);
        assert!(encoded.len() <= planes.len() + 32, "case {i}: {} of {}", encoded.len(), planes.len());
    }
}

/// Short blocks of all kinds, each with its base.
fn samples() -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut random = Random(19);
    let base = weights(12_000, &mut random);
    let flipping = words(words_of(&base).map(|bits| bits ^ (random.next() as u32 & 0x8000_03ff)));
    let raws = [
        moved(&base, 1e-6, &mut random),
        words(words_of(&base).map(|bits| bits.wrapping_add((random.next() as u32) << 20))),
        decayed(&base, 30, 2e-7, &mut random),
        decayed(&base, 1, 1e-3, &mut random),
        flipping,
    ];
    raws.map(|raw| {
        let encoded = roundtrip(&raw, &base);
        (raw, base.clone(), encoded)
    })
    .to_vec()
}

#[test]
fn samples_are_of_all_kinds() {
    let samples = samples();
    let kinds: Vec<u8> = samples.iter().map(|(.., encoded)| kind_of(encoded)).collect();
    assert_eq!(kinds, [kind::CODED, kind::PLANES, kind::CODED, kind::CODED, kind::CODED]);
    // The predictions, and whether signs flip.
    assert_eq!(samples.iter().map(|(.., encoded)| encoded[2]).collect::<Vec<_>>(), [0, 0, 2, 1, 0]);
    assert_eq!((samples[0].2[3], samples[4].2[3]), (0, 1));
}

#[test]
fn every_truncation_and_every_extension_is_an_error() {
    for isa in Isa::available() {
        for (_, base, mut encoded) in samples() {
            for len in 0..encoded.len() {
                assert!(decoded(isa, &encoded[..len], &base).is_err(), "{len}");
            }
            encoded.push(0);
            assert!(decoded(isa, &encoded, &base).is_err());
            let (mut short, mut scratch) = (vec![0; base.len() - 4], Scratch::default());
            let result = decode_with(isa, &encoded, &base, &mut Parts::of(&mut scratch), &mut short);
            assert_eq!(result, Err(DecodeError::WrongBase));
        }
    }
}

/// All instruction sets make the same of damaged bytes, and none panics.
#[test]
fn damage_never_panics_and_is_the_same_everywhere() {
    let mut random = Random(23);
    for (_, base, encoded) in samples() {
        for round in 0..600 {
            let mut damaged = encoded.clone();
            // The header more often than the rest.
            let end = if round % 2 == 0 { damaged.len().min(200) } else { damaged.len() };
            damaged[(random.next() >> 20) as usize % end] ^= 1 << (random.next() % 8);
            let mut results = Isa::available().map(|isa| decoded(isa, &damaged, &base));
            let first = results.next();
            assert!(results.all(|result| Some(result) == first));
        }
    }
}

/// Every bit of the fields in front of the streams.
#[test]
fn damage_to_headers_is_an_error_or_gives_bytes() {
    for (_, base, encoded) in samples() {
        for bit in 0..8 * encoded.len().min(250) {
            let mut damaged = encoded.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut results = Isa::available().map(|isa| decoded(isa, &damaged, &base));
            let first = results.next();
            assert!(results.all(|result| Some(result) == first), "{bit}");
        }
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(
        body in proptest::collection::vec(any::<u8>(), 0..700),
        block in 0u8..5,
        len in 0usize..3 * GROUP_BYTES,
    ) {
        let mut bytes = vec![KIND_F32, block];
        bytes.extend(body);
        let base = vec![7; len];
        for isa in Isa::available() {
            let _ = decoded(isa, &bytes, &base);
        }
    }

    #[test]
    fn anything_comes_back(
        base in proptest::collection::vec(any::<u8>(), 0..9000),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..300),
    ) {
        let mut raw = base.clone();
        for (index, value) in flips {
            if !raw.is_empty() {
                let at = index.index(raw.len());
                raw[at] = value;
            }
        }
        roundtrip(&raw, &base);
    }

    #[test]
    fn floats_near_their_bases_come_back(
        moves in proptest::collection::vec((any::<f32>(), -40i32..40, any::<u32>()), 0..4000),
    ) {
        let base = words(moves.iter().map(|(value, ..)| value.to_bits()));
        let raw = words(moves.iter().map(|&(value, size, noise)| {
            let noise = if size < 0 { noise >> -size.max(-31) } else { 0 };
            value.to_bits().wrapping_add(noise)
        }));
        roundtrip(&raw, &base);
    }
}
