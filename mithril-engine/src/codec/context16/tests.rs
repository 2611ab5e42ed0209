#![allow(clippy::cast_possible_truncation, reason = "any bits of random numbers will do")]

use proptest::prelude::*;

use super::model::GROUP_BYTES;
use super::*;

mod golden;

/// A small generator of repeatable numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 20) % end
    }
}

const KINDS: [Kind; 3] = [Kind::Bf16, Kind::F16, Kind::Integer];

/// Encodes with every instruction set, and decodes with every other: all bytes must be the same. Returns the encoding.
fn roundtrip(raw: &[u8], base: &[u8], kind: Kind) -> Vec<u8> {
    let mut scratch = BlockScratch::default();
    let mut encodings: Vec<(Isa, Vec<u8>)> = Vec::new();
    for isa in Isa::available() {
        let mut encoded = Vec::new();
        encode_with(isa, raw, base, kind, &mut scratch, &mut encoded);
        encodings.push((isa, encoded));
    }
    let encoded = encodings[0].1.clone();
    for (isa, other) in encodings {
        assert!(other == encoded, "{isa:?} encodes {kind:?} of {} bytes in another way", raw.len());
    }
    assert!(encoded.len() <= raw.len() + 1 + raw.len().div_ceil(2 * BLOCK_ELEMENTS));
    for isa in Isa::available() {
        let mut out = vec![0xaa; raw.len()];
        decode_with(isa, &encoded, base, &mut scratch, &mut out).unwrap();
        assert!(out == raw, "{isa:?} decodes {kind:?} of {} bytes to something else", raw.len());
    }
    encoded
}

fn words(words: impl IntoIterator<Item = u16>) -> Vec<u8> {
    words.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// Weights around the middle of the exponents, as training leaves them.
fn weights(count: usize, random: &mut Random) -> Vec<u8> {
    words((0..count).map(|_| {
        let exponent = 0x3d - (random.next().trailing_zeros() as u16).min(12);
        (random.next() as u16 & 0x807f) | exponent << 7
    }))
}

/// The same after a step that moves `percent` of them by up to `most`, smaller ones more often.
fn moved(base: &[u8], percent: u64, most: u16, random: &mut Random) -> Vec<u8> {
    let mut raw = base.to_vec();
    for element in raw.as_chunks_mut::<2>().0 {
        let bits = u16::from_le_bytes(*element);
        let likely = percent * if bits >> 7 & 1 == 0 { 3 } else { 1 } / 2;
        if random.below(100) < likely {
            let by = 1 + random.below(most.into()) as u16;
            let up = random.next() & 1 == 0;
            *element = if up { bits.wrapping_add(by) } else { bits.wrapping_sub(by) }.to_le_bytes();
        }
    }
    raw
}

#[test]
fn every_bit_pattern_comes_back_against_extreme_bases() {
    let all = words(0..=u16::MAX);
    for base in [0, 0x8000, 0x7f80, 0xff80, 0x7fc1, 0xffff, 0x7fff, 0x3f80, 1, 0x8001, 0x7c00] {
        let base = words(std::iter::repeat_n(base, 1 << 16));
        for kind in KINDS {
            roundtrip(&all, &base, kind);
            roundtrip(&base, &all, kind);
        }
    }
    let mut random = Random(7);
    let shuffled = words((0..1 << 16).map(|_| random.next() as u16));
    for kind in KINDS {
        roundtrip(&shuffled, &all, kind);
    }
}

#[test]
fn every_small_length_comes_back() {
    let mut random = Random(3);
    for len in (0..300).chain([511, 512, 513, 4095, 4096, 4097]) {
        let mut base = weights(len / 2, &mut random);
        base.resize(len, 77);
        for percent in [1, 10, 60] {
            let mut raw = moved(&base, percent, 9, &mut random);
            roundtrip(&raw, &base, KINDS[len % 3]);
            if let Some(last) = raw.last_mut() {
                *last ^= 1;
            }
            roundtrip(&raw, &base, KINDS[(len + 1) % 3]);
        }
    }
}

#[test]
fn groups_halves_and_blocks_meet_without_a_seam() {
    let mut random = Random(5);
    for groups in [1, 2, 3, 5, 62, 63, 64, 65] {
        for elements in [64 * groups - 1, 64 * groups, 64 * groups + 1, 64 * groups + 33] {
            let base = weights(elements, &mut random);
            for (percent, most) in [(2, 2), (20, 40), (80, 3), (90, 60000)] {
                roundtrip(&moved(&base, percent, most, &mut random), &base, Kind::Bf16);
            }
        }
    }
    for elements in [BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS, BLOCK_ELEMENTS + 1] {
        let base = weights(elements, &mut random);
        for percent in [3, 70] {
            roundtrip(&moved(&base, percent, 4, &mut random), &base, Kind::Bf16);
        }
    }
}

#[test]
fn every_kind_of_block_is_used_and_small_where_it_should_be() {
    let mut random = Random(11);
    let base = weights(1 << 17, &mut random);
    assert_eq!(roundtrip(&base, &base, Kind::Bf16), [0, kind::SAME]);
    let noise = words((0..1 << 17).map(|_| random.next() as u16));
    assert_eq!(roundtrip(&noise, &base, Kind::Bf16)[1], kind::RAW);
    let sparse = roundtrip(&moved(&base, 2, 1, &mut random), &base, Kind::Bf16);
    assert_eq!(sparse[1], kind::SPARSE);
    // 2% changed: 0.141 bits for which, and 1 bit for the direction of each.
    assert!((sparse.len() as f64) < 1.05 * f64::from(1 << 17) * 0.161 / 8.0 + 600.0, "{}", sparse.len());
    let dense = roundtrip(&moved(&base, 100, 2, &mut random), &base, Kind::Bf16);
    assert_eq!(dense[1], kind::DENSE);
    assert!(dense.len() < base.len() / 6, "{}", dense.len());
    for kind in [Kind::F16, Kind::Integer] {
        let sparse = roundtrip(&moved(&base, 2, 1, &mut random), &base, kind);
        assert!(sparse.len() < base.len() / 80, "{kind:?} {}", sparse.len());
    }
}

/// Short blocks of both kinds, each with its base.
fn samples() -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut random = Random(13);
    [(3, 2), (12, 300), (70, 2), (90, 30000)]
        .into_iter()
        .map(|(percent, most)| {
            let base = weights(1400, &mut random);
            let raw = moved(&base, percent, most, &mut random);
            let encoded = roundtrip(&raw, &base, Kind::Bf16);
            (raw, base, encoded)
        })
        .collect()
}

#[test]
fn every_truncation_and_every_extension_is_an_error() {
    for isa in Isa::available() {
        let mut scratch = BlockScratch::default();
        for (raw, base, mut encoded) in samples() {
            let mut out = vec![0; raw.len()];
            for len in 0..encoded.len() {
                assert!(decode_with(isa, &encoded[..len], &base, &mut scratch, &mut out).is_err(), "{len}");
            }
            encoded.push(0);
            assert!(decode_with(isa, &encoded, &base, &mut scratch, &mut out).is_err());
            assert!(decode_with(isa, &encoded, &base[2..], &mut scratch, &mut out).is_err());
        }
    }
}

/// All instruction sets make the same of damaged bytes, and none panics.
#[test]
fn damage_never_panics_and_is_the_same_everywhere() {
    let mut random = Random(17);
    for (raw, base, encoded) in samples() {
        for round in 0..400 {
            let mut damaged = encoded.clone();
            // The header more often than the words.
            let end = if round % 2 == 0 { damaged.len().min(120) } else { damaged.len() };
            damaged[random.below(end as u64) as usize] ^= 1 << random.below(8);
            let mut results = Vec::new();
            for isa in Isa::available() {
                let mut out = vec![0; raw.len()];
                let result = decode_with(isa, &damaged, &base, &mut BlockScratch::default(), &mut out);
                results.push(result.map(|()| out));
            }
            assert!(results.iter().all(|result| *result == results[0]));
        }
    }
}

/// The arithmetic of the coder with the greatest and smallest states and frequencies: what the encoder does, the decoder
/// must undo.
#[test]
fn rare_and_certain_changes_come_back() {
    let mut random = Random(19);
    let base = weights(1 << 16, &mut random);
    let mut raw = base.clone();
    raw[77_777] ^= 1;
    roundtrip(&raw, &base, Kind::Bf16);
    // Whole stretches changed, whole ones not: probabilities close to 0 and 1 side by side.
    for stretch in [GROUP_BYTES, 7 * GROUP_BYTES, 64 * GROUP_BYTES] {
        let mut raw = base.clone();
        for part in raw.chunks_mut(stretch).step_by(4) {
            part.iter_mut().step_by(2).for_each(|byte| *byte ^= 1);
        }
        roundtrip(&raw, &base, Kind::Bf16);
    }
    // One value is all, but for one.
    let mut raw =
        words(base.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes).wrapping_add(1)));
    roundtrip(&raw, &base, Kind::Integer);
    raw[99_999] ^= 0x80;
    roundtrip(&raw, &base, Kind::Integer);
}

proptest! {
    #[test]
    fn garbage_never_panics(
        body in proptest::collection::vec(any::<u8>(), 0..700),
        kind in 0u8..4,
        block in 0u8..5,
        len in 0usize..600,
    ) {
        let mut bytes = vec![kind, block];
        bytes.extend(body);
        let base = vec![7; len];
        for isa in Isa::available() {
            let _ = decode_with(isa, &bytes, &base, &mut BlockScratch::default(), &mut vec![0; len]);
        }
    }

    #[test]
    fn anything_comes_back(
        base in proptest::collection::vec(any::<u8>(), 0..2000),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..300),
        kind in 0usize..3,
    ) {
        let mut raw = base.clone();
        for (index, value) in flips {
            if !raw.is_empty() {
                let at = index.index(raw.len());
                raw[at] = value;
            }
        }
        roundtrip(&raw, &base, KINDS[kind]);
    }
}
