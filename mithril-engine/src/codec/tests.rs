use proptest::prelude::*;

use super::*;
use crate::tensor::Element;

/// A small generator of repeatable numbers (xorshift64*).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Roughly normal with deviation 1.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
    }
}

fn bf16_weights(count: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..count).flat_map(|_| half::bf16::from_f64(random.normal() * 0.05).to_le_bytes()).collect()
}

/// The same weights after a step that moves some of them.
fn moved(weights: &[u8], share: f64, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut moved = weights.to_vec();
    for element in moved.as_chunks_mut::<2>().0 {
        if (random.next() >> 11) as f64 / (1u64 << 53) as f64 <= share {
            let up = random.next() & 1 == 0;
            let bits = u16::from_le_bytes(*element);
            *element = if up { bits.wrapping_add(1) } else { bits.wrapping_sub(1) }.to_le_bytes();
        }
    }
    moved
}

fn roundtrip(raw: &[u8], element: Element, base: Option<&[u8]>) -> usize {
    let mut scratch = Scratch::default();
    let mut encoded = Vec::new();
    let input = Input::new(raw, element).against(base);
    let against = encode(&input, Options::default(), &mut scratch, &mut encoded);
    assert!(encoded.len() <= raw.len() + 16);
    let base = base.filter(|_| against == Against::Base);
    let mut out = vec![0xaa; raw.len()];
    decode(&encoded, base, &mut scratch, &mut out).unwrap();
    assert!(out == raw, "{element:?}");
    encoded.len()
}

#[test]
fn every_element_type_comes_back_at_every_small_length() {
    let mut random = Random(1);
    for element in Element::ALL {
        for len in (0..70).chain([255, 256, 257, 4095, 4096, 4097]) {
            let raw: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[7]).collect();
            let mut base = raw.clone();
            if let Some(byte) = base.first_mut() {
                *byte ^= 1;
            }
            roundtrip(&raw, element, None);
            roundtrip(&raw, element, Some(&raw));
            roundtrip(&raw, element, Some(&base));
            roundtrip(&raw, element, Some(&base[..len / 2]));
        }
    }
}

#[test]
fn blocks_meet_without_a_seam() {
    for count in [BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS, BLOCK_ELEMENTS + 1, 2 * BLOCK_ELEMENTS + 3] {
        let mut weights = bf16_weights(count, 3);
        weights.push(7);
        for share in [0.0, 0.01, 0.5, 1.0] {
            roundtrip(&moved(&weights, share, 5), Element::Bf16, Some(&weights));
        }
        roundtrip(&weights, Element::Bf16, None);
        for element in [Element::F32, Element::F64, Element::U8, Element::I64] {
            roundtrip(&weights, element, None);
            roundtrip(&moved(&weights, 0.1, 5), element, Some(&weights));
        }
    }
}

#[test]
fn special_values_come_back() {
    let specials: Vec<u8> =
        [0u32, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0001, 0xffff_ffff, 1, 0x8000_0001]
            .iter()
            .cycle()
            .take(5000)
            .flat_map(|bits| bits.to_le_bytes())
            .collect();
    let other: Vec<u8> = specials.iter().rev().copied().collect();
    for element in Element::ALL {
        roundtrip(&specials, element, Some(&other));
        roundtrip(&vec![0; 40_000], element, Some(&other[..20_000]));
    }
}

#[test]
fn weights_shrink_as_they_should() {
    let weights = bf16_weights(500_000, 11);
    let alone = roundtrip(&weights, Element::Bf16, None);
    assert!(alone * 100 < weights.len() * 70, "alone: {alone} of {}", weights.len());
    // An entropy of 0.141 bits for which of them moved, and 0.02 for the direction.
    let sparse = roundtrip(&moved(&weights, 0.02, 13), Element::Bf16, Some(&weights));
    assert!((sparse as f64) < 500_000.0 * 0.161 / 8.0 * 1.25, "sparse: {sparse}");
    let frozen = roundtrip(&weights, Element::Bf16, Some(&weights));
    assert_eq!(frozen, 1);
}

/// What a level makes of a chunk by itself, which comes back.
fn at_level(level: Level, raw: &[u8], element: Element) -> (Format, usize) {
    let (mut scratch, mut encoded) = (Scratch::default(), Vec::new());
    let options = Options { level, ..Options::default() };
    assert_eq!(encode(&Input::new(raw, element), options, &mut scratch, &mut encoded), Against::Nothing);
    let mut out = vec![0; raw.len()];
    decode(&encoded, None, &mut scratch, &mut out).unwrap();
    assert!(out == raw);
    (Format::of(&encoded).unwrap(), encoded.len())
}

#[test]
fn the_level_chooses_the_formats() {
    let weights = bf16_weights(500_000, 11);
    let (fast, fast_len) = at_level(Level::Fast, &weights, Element::Bf16);
    let (max, max_len) = at_level(Level::Max, &weights, Element::Bf16);
    assert_eq!((fast, max), (Format::Planes, Format::Float));
    assert!(max_len < fast_len, "{max_len} {fast_len}");
    let default = if isa() >= Isa::Avx2 { (max, max_len) } else { (fast, fast_len) };
    assert_eq!(at_level(Level::Default, &weights, Element::Bf16), default);
    // Without predictions, fp16 has nothing that planes lack.
    let mut random = Random(31);
    let halves: Vec<u8> =
        (0..200_000).flat_map(|_| half::f16::from_f64(random.normal() * 0.02).to_le_bytes()).collect();
    assert_eq!(at_level(Level::Default, &halves, Element::F16).0, Format::Planes);
    // Angles as for positions: few values, one after the other, of which a coder of exponents alone makes nothing.
    let angles: Vec<f64> = (0..100_000u32).map(|i| f64::from(i / 64 % 16).sin()).collect();
    for (raw, element) in [
        (angles.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>(), Element::F64),
        (angles.iter().flat_map(|x| half::f16::from_f64(*x).to_le_bytes()).collect(), Element::F16),
    ] {
        let [(_, fast), (_, default), (_, max)] = Level::ALL.map(|level| at_level(level, &raw, element));
        assert!(fast * 2 < raw.len() && default <= fast && max <= default, "{fast} {default} {max}");
    }
}

#[test]
fn integers_are_told_by_steps_and_by_what_repeats() {
    let mut random = Random(9);
    let wide = |values: &[u64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let narrow = |values: &[u64]| {
        values.iter().flat_map(|&x| u32::try_from(x).unwrap().to_le_bytes()).collect::<Vec<u8>>()
    };
    let counting: Vec<u64> = (0..150_000).collect();
    let mut sorted = Vec::new();
    let mut last = 0;
    for _ in 0..150_000 {
        last += random.next() % 100;
        sorted.push(last);
    }
    let tokens: Vec<u64> = (0..20_000).map(|_| random.next() % 32_000).collect();
    let epochs: Vec<u64> = (0..8).flat_map(|_| tokens.clone()).collect();
    for level in Level::ALL {
        for (raw, element) in [(wide(&counting), Element::I64), (narrow(&counting), Element::U32)] {
            let (format, len) = at_level(level, &raw, element);
            assert!(len < 1500, "{level:?} {element:?} {format:?} {len}");
        }
        // Seven bits a step, and a little.
        let (format, len) = at_level(level, &wide(&sorted), Element::U64);
        assert!(len * 8 < 150_000 * 8, "{level:?} {format:?} {len}");
        assert_eq!(format, Format::Planes);
        let (format, len) = at_level(level, &wide(&epochs), Element::I64);
        if level != Level::Fast {
            // What was there before costs little.
            assert!(len < 20_000 * 4, "{level:?} {format:?} {len}");
            assert_eq!(format, Format::Zstd);
        }
        let (format, len) = at_level(level, &wide(&tokens), Element::I64);
        assert!(len < 20_000 * 2 + 100, "{level:?} {format:?} {len}");
    }
    // Also beside a base that is smaller, and no help: offsets of other texts.
    let other: Vec<u64> = sorted.iter().map(|x| x / 2 + random.next() % 1000).collect();
    let len = roundtrip(&wide(&sorted), Element::U64, Some(&wide(&other)));
    assert!(len < 150_000, "{len}");
}

#[test]
fn steps_of_every_width_come_back() {
    let mut random = Random(8);
    let mut scratch = Scratch::default();
    for width in [1, 2, 4, 8] {
        for count in [0, 1, 2, 300, BLOCK_ELEMENTS + 3] {
            // From the least to the greatest and back, noise, and a tail.
            let mut raw: Vec<u8> = (0..count * width).map(|_| random.next().to_le_bytes()[0]).collect();
            for (index, element) in raw.chunks_exact_mut(width).enumerate().take(100) {
                element.fill(if index % 2 == 0 { 0 } else { 0xff });
            }
            raw.extend(vec![7; width - 1]);
            let mut encoded = Vec::new();
            planes::encode(&raw, width, numeric::Transform::Step, None, &mut scratch, &mut encoded);
            let mut out = vec![0; raw.len()];
            planes::decode(&encoded, None, &mut scratch, &mut out).unwrap();
            assert!(out == raw, "{width} {count}");
        }
    }
}

#[test]
fn few_values_are_in_a_palette() {
    let mut random = Random(10);
    let book: Vec<f32> = (0..16).map(|_| half::f16::from_f64(random.normal()).to_f32() * 0.05).collect();
    let mut places = |count: u64| -> Vec<usize> {
        (0..100_000).map(|_| usize::try_from(random.next() % count).unwrap()).collect()
    };
    let floats: Vec<u8> = places(16).iter().flat_map(|&place| book[place].to_le_bytes()).collect();
    let halves: Vec<u8> =
        places(3).iter().flat_map(|&place| half::f16::from_f32(book[place]).to_le_bytes()).collect();
    let doubles: Vec<u8> =
        places(100).iter().flat_map(|&place| (place as f64 * 0.037).to_le_bytes()).collect();
    // Unlike places, bytes of these integers tell the same thing several times.
    let integers: Vec<u8> =
        places(10).iter().flat_map(|&place| (place as u64 * 12_345_678).to_le_bytes()).collect();
    for level in Level::ALL {
        for (raw, element, bits) in [
            (&floats, Element::F32, 4.0),
            (&floats, Element::Complex64, 8.0),
            (&halves, Element::F16, 1.585),
            (&doubles, Element::F64, 6.644),
            (&integers, Element::I64, 3.322),
            (&integers, Element::U64, 3.322),
        ] {
            let (format, len) = at_level(level, raw, element);
            let taken = len as f64 * 8.0 / (raw.len() / element.width()) as f64;
            assert_eq!(format, Format::Planes);
            assert!(taken < bits * 1.05, "{level:?} {element:?} {taken}");
            // Also beside a base of which nothing stayed.
            let other: Vec<u8> = raw.iter().map(|byte| byte.wrapping_mul(3)).collect();
            assert!(roundtrip(raw, element, Some(&other)) <= len, "{element:?}");
            roundtrip(&raw[..raw.len() - 3], element, None);
        }
        // Sorted, they are told by their steps.
        let sorted: Vec<u8> = (0..100_000u64).flat_map(|i| (i / 9000).to_le_bytes()).collect();
        assert!(at_level(level, &sorted, Element::I64).1 < 1000);
    }
    // What repeats is found behind a palette, too.
    let repeated = integers[..40_000].repeat(20);
    assert!(at_level(Level::Max, &repeated, Element::I64).1 < 10_000);
}

#[test]
fn moments_of_another_length_are_ignored() {
    let raw = bf16_weights(20_000, 5);
    for element in [Element::Bf16, Element::F16] {
        let input = Input { moments: Some(&raw[..100]), ..Input::new(&raw, element) };
        let (mut scratch, mut encoded) = (Scratch::default(), Vec::new());
        assert_eq!(encode(&input, Options::default(), &mut scratch, &mut encoded), Against::Nothing);
        let mut out = vec![0; raw.len()];
        decode(&encoded, None, &mut scratch, &mut out).unwrap();
        assert!(out == raw);
    }
}

#[test]
fn floats_of_8_bits_move_in_their_order() {
    let mut random = Random(12);
    for element in [Element::F8E4M3, Element::F8E5M2] {
        // Weights about zero, a tenth of which move by a step, across it too.
        let base: Vec<u8> = (0..200_000)
            .map(|_| (random.next() % 2).to_le_bytes()[0] | (random.next().to_le_bytes()[0] & 0x80))
            .collect();
        let step = |x: u8, up: bool| {
            let ordered = if x & 0x80 != 0 { !x } else { x ^ 0x80 };
            let moved = if up { ordered.wrapping_add(1) } else { ordered.wrapping_sub(1) };
            if moved & 0x80 != 0 { moved ^ 0x80 } else { !moved }
        };
        let raw: Vec<u8> =
            base.iter()
                .map(|&x| {
                    if random.next().is_multiple_of(10) {
                        step(x, random.next().is_multiple_of(2))
                    } else {
                        x
                    }
                })
                .collect();
        let len = roundtrip(&raw, element, Some(&base));
        // 0.469 bits for which, and 0.1 for the direction.
        assert!((len as f64) < 200_000.0 * 0.569 / 8.0 * 1.1, "{element:?} {len}");
    }
}

#[test]
fn what_changed_almost_everywhere_is_coded_in_context_where_there_are_vectors() {
    let mut random = Random(15);
    let base = bf16_weights(400_000, 3);
    // By up to 50 representable values up or down: six bits and a half.
    let mut moved_by = |most: u64| -> Vec<u8> {
        let elements = base.as_chunks::<2>().0;
        let add = |x: u16, random: &mut Random| {
            x.wrapping_add((random.next() % (2 * most + 1)).to_le_bytes()[0].into())
                .wrapping_sub(u16::try_from(most).unwrap_or(0))
        };
        elements.iter().flat_map(|x| add(u16::from_le_bytes(*x), &mut random).to_le_bytes()).collect()
    };
    let most = moved_by(50);
    let many = moved_by(10);
    let format = |raw: &[u8], level| {
        let (mut scratch, mut encoded) = (Scratch::default(), Vec::new());
        let input = Input::new(raw, Element::Bf16).against(Some(&base));
        let options = Options { level, ..Options::default() };
        assert_eq!(encode(&input, options, &mut scratch, &mut encoded), Against::Base);
        Format::of(&encoded).unwrap()
    };
    assert_eq!(format(&most, Level::Fast), Format::Delta16);
    let vectors = if isa() >= Isa::Avx2 { Format::Context16 } else { Format::Delta16 };
    assert_eq!(format(&most, Level::Default), vectors);
    let wide_vectors = if isa() >= Isa::Avx512 { Format::Context16 } else { Format::Delta16 };
    assert_eq!(format(&many, Level::Default), wide_vectors);
    roundtrip(&most, Element::Bf16, Some(&base));
}

#[test]
fn moments_are_a_base() {
    let mut random = Random(6);
    let sizes: Vec<f32> =
        (0..20_000).map(|_| 2f32.powi(i32::try_from(random.next() % 40).unwrap() - 60)).collect();
    let second: Vec<u8> = sizes.iter().flat_map(|size| (size * size).to_le_bytes()).collect();
    #[allow(clippy::cast_possible_truncation, reason = "rounded")]
    let first: Vec<u8> =
        sizes.iter().flat_map(|size| (size * random.normal() as f32).to_le_bytes()).collect();
    let (mut scratch, mut encoded) = (Scratch::default(), Vec::new());
    let input = Input { moments: Some(&second), ..Input::new(&first, Element::F32) };
    let options = Options { level: Level::Max, ..Options::default() };
    assert_eq!(encode(&input, options, &mut scratch, &mut encoded), Against::Moments);
    let mut out = vec![0; first.len()];
    decode(&encoded, Some(&second), &mut scratch, &mut out).unwrap();
    assert!(out == first);
    assert_eq!(decode(&encoded, None, &mut scratch, &mut out), Err(DecodeError::WrongBase));
}

#[test]
fn of_base_and_moments_the_better_one_is_kept() {
    let mut random = Random(8);
    let (mut first, mut second, mut close, mut far) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..20_000 {
        let [exponent, sign, one, other] = [(); 4]
            .map(|()| random.next().to_le_bytes())
            .map(|x| u32::from_le_bytes([x[4], x[5], x[6], x[7]]));
        let exponent = 70 + exponent % 56;
        let number =
            |exponent: u32, fraction: u32| (sign & 1 << 31 | exponent << 23 | fraction >> 9).to_le_bytes();
        first.extend(number(exponent, one));
        second.extend(((2 * exponent - 127) << 23).to_le_bytes());
        close.extend(number(exponent, one ^ 1 << 12));
        far.extend(number(exponent + one % 4, other));
    }
    let options = Options { level: Level::Max, ..Options::default() };
    for (base, moments, expected) in [
        (&far, None, Against::Base),
        (&far, Some(&second[..]), Against::Moments),
        (&close, Some(&second[..]), Against::Base),
    ] {
        let input = Input { moments, ..Input::new(&first, Element::F32).against(Some(base)) };
        assert_eq!(encode(&input, options, &mut Scratch::default(), &mut Vec::new()), expected);
    }
}

#[test]
fn a_base_that_does_not_help_is_not_used() {
    let (weights, other) = (bf16_weights(100_000, 1), bf16_weights(100_000, 2));
    let mut encoded = Vec::new();
    let against = encode(
        &Input::new(&weights, Element::Bf16).against(Some(&other)),
        Options::default(),
        &mut Scratch::default(),
        &mut encoded,
    );
    assert_eq!(against, Against::Nothing);
}

#[test]
fn a_delta_without_its_base_is_an_error() {
    let weights = bf16_weights(10_000, 1);
    let (mut scratch, mut encoded) = (Scratch::default(), Vec::new());
    let raw = moved(&weights, 0.1, 2);
    assert_eq!(
        encode(
            &Input::new(&raw, Element::Bf16).against(Some(&weights)),
            Options::default(),
            &mut scratch,
            &mut encoded
        ),
        Against::Base
    );
    let mut out = vec![0; raw.len()];
    assert_eq!(decode(&encoded, None, &mut scratch, &mut out), Err(DecodeError::WrongBase));
    assert_eq!(decode(&encoded, Some(&weights[2..]), &mut scratch, &mut out), Err(DecodeError::WrongBase));
}

#[test]
fn every_truncation_and_every_extension_is_an_error() {
    let weights = bf16_weights(3000, 1);
    let text: Vec<u8> = b"{\"loss\": 0.25, \"step\": 100}\n".iter().cycle().take(5000).copied().collect();
    let mut scratch = Scratch::default();
    for (raw, element, base) in [
        (weights.clone(), Element::Bf16, None),
        (moved(&weights, 0.05, 3), Element::Bf16, Some(&weights[..])),
        (moved(&weights, 0.9, 3), Element::Bf16, Some(&weights[..])),
        (moved(&weights, 0.05, 3), Element::F32, Some(&weights[..])),
        (text.clone(), Element::Bytes, None),
        (text.clone(), Element::U32, None),
        (text, Element::Bytes, Some(&weights[..])),
    ] {
        let mut encoded = Vec::new();
        let against =
            encode(&Input::new(&raw, element).against(base), Options::default(), &mut scratch, &mut encoded);
        let base = base.filter(|_| against == Against::Base);
        let mut out = vec![0; raw.len()];
        for len in 0..encoded.len() {
            assert!(decode(&encoded[..len], base, &mut scratch, &mut out).is_err(), "{element:?} {len}");
        }
        encoded.push(0);
        assert!(decode(&encoded, base, &mut scratch, &mut out).is_err());
    }
}

#[test]
fn damage_never_panics() {
    let weights = bf16_weights(3000, 1);
    let raw = moved(&weights, 0.05, 3);
    let (mut scratch, mut random) = (Scratch::default(), Random(9));
    for (element, base) in
        [(Element::Bf16, None), (Element::Bf16, Some(&weights[..])), (Element::F32, Some(&weights[..]))]
    {
        let mut encoded = Vec::new();
        encode(&Input::new(&raw, element).against(base), Options::default(), &mut scratch, &mut encoded);
        let mut out = vec![0; raw.len()];
        for _ in 0..3000 {
            let mut damaged = encoded.clone();
            let at = usize::try_from(random.next()).unwrap() % damaged.len();
            damaged[at] ^= 1 << (random.next() % 8);
            // Right or wrong, it comes back: the digest over the plaintext tells which.
            let _ = decode(&damaged, base, &mut scratch, &mut out);
        }
    }
}

#[test]
fn context16_comes_back_by_its_tag_and_needs_its_base() {
    let base = bf16_weights(20_001, 1);
    let raw = moved(&base, 0.05, 2);
    let mut scratch = Scratch::default();
    for element in [Element::Bf16, Element::F16, Element::I16, Element::U16] {
        for end in [raw.len(), raw.len() - 1, 0] {
            let (raw, base) = (&raw[..end], &base[..end]);
            let (mut encoded, mut out) = (Vec::new(), vec![0; end]);
            assert!(encode_context16(raw, element, base, &mut scratch, &mut encoded));
            assert_eq!(Format::of(&encoded), Some(Format::Context16));
            decode(&encoded, Some(base), &mut scratch, &mut out).unwrap();
            assert!(out == raw, "{element:?}");
            assert_eq!(decode(&encoded, None, &mut scratch, &mut out), Err(DecodeError::WrongBase));
            let longer = [base, &[0, 0]].concat();
            assert_eq!(decode(&encoded, Some(&longer), &mut scratch, &mut out), Err(DecodeError::WrongBase));
        }
    }
    let mut none = Vec::new();
    assert!(!encode_context16(&raw, Element::F32, &base, &mut scratch, &mut none));
    assert!(!encode_context16(&raw, Element::Bf16, &base[2..], &mut scratch, &mut none));
    assert!(none.is_empty());
}

#[test]
fn context32_comes_back_by_its_tag_and_needs_its_base() {
    let mut random = Random(3);
    let base: Vec<u8> = (0..20_001)
        .flat_map(|_| (half::bf16::from_f64(random.normal()).to_f32() * 0.051).to_le_bytes())
        .collect();
    let raw: Vec<u8> = base
        .as_chunks()
        .0
        .iter()
        .flat_map(|bytes| {
            let step = half::bf16::from_f64(random.normal()).to_f32() * 1e-5;
            (f32::from_le_bytes(*bytes) + step).to_le_bytes()
        })
        .collect();
    let mut scratch = Scratch::default();
    for element in [Element::F32, Element::Complex64] {
        for end in [raw.len(), raw.len() - 1, 3, 0] {
            let (raw, base) = (&raw[..end], &base[..end]);
            let (mut encoded, mut out) = (Vec::new(), vec![0; end]);
            assert!(encode_context32(raw, element, base, &mut scratch, &mut encoded));
            assert_eq!(Format::of(&encoded), Some(Format::Context32));
            decode(&encoded, Some(base), &mut scratch, &mut out).unwrap();
            assert!(out == raw, "{element:?}");
            assert_eq!(decode(&encoded, None, &mut scratch, &mut out), Err(DecodeError::WrongBase));
            let longer = [base, &[0, 0]].concat();
            assert_eq!(decode(&encoded, Some(&longer), &mut scratch, &mut out), Err(DecodeError::WrongBase));
        }
    }
    let mut none = Vec::new();
    assert!(!encode_context32(&raw, Element::Bf16, &base, &mut scratch, &mut none));
    assert!(!encode_context32(&raw, Element::F32, &base[4..], &mut scratch, &mut none));
    assert!(none.is_empty());
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// Encodings that must stay readable: whoever changes a format adds a tag instead.
#[test]
fn golden_chunks_decode() {
    let base: Vec<u8> = (0..64u16).flat_map(|i| (0x3f80 + i).to_le_bytes()).collect();
    let mut changed = base.clone();
    changed[10] ^= 1;
    let text = b"step 1 loss 2.5\nstep 2 loss 2.5\nstep 3 loss 2.5\nstep 4 loss 2.5\n".to_vec();
    type Golden<'a> = (&'a str, &'a str, Option<&'a [u8]>, &'a [u8]);
    let mut zeros = [0; 512];
    for (element, value) in [(64, [0x80, 0x3f]), (66, [0x00, 0xc0]), (67, [0x80, 0x3f])] {
        zeros[2 * element..][..2].copy_from_slice(&value);
    }
    let float = format!("{GOLDEN_FLOAT}00200800{}20014020{}", "20".repeat(60), "01".repeat(60));
    let masters = unhex("0080803f0080813f0000803f");
    let counted = unhex("0a0000000c0000000b0000002c010000");
    let chosen = unhex("070000002c01000007000000000001002c0100002a");
    let golden: [Golden<'_>; 11] = [
        ("raw", "00616263", None, b"abc"),
        ("same", "01", Some(&base), &base),
        ("planes, run: bf16 infinities", "020201010001ff", None, &[0x80, 0x7f]),
        ("planes, raw and tail", "0202000001020003042a", None, &[1, 3, 2, 4, 42]),
        ("planes, steps", "0204040014040142000000000201000100", None, &counted),
        ("planes, palette", "02040502070000002c010000000001000084012a", None, &chosen),
        ("delta16 sparse", GOLDEN_SPARSE, Some(&base), &changed),
        ("delta16 dense", GOLDEN_DENSE, Some(&base), &changed),
        ("zstd", GOLDEN_ZSTD, None, &text),
        ("float, zeros apart", &float, None, &zeros),
        ("rounded", "09000100000200003412", Some(&masters), &[0x80, 0x3f, 0x82, 0x3f, 0x34, 0x12]),
    ];
    for (what, hex, base, expected) in golden {
        let mut out = vec![0; expected.len()];
        decode(&unhex(hex), base, &mut Scratch::default(), &mut out)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(out, expected, "{what}");
    }
}

const GOLDEN_SPARSE: &str = "03030100000000000020000000000000000100";
const GOLDEN_DENSE: &str = "030100000003000100000020000000000000000101";
const GOLDEN_FLOAT: &str = "0501020507000c0300000000010002\
    00e608000104\
    04f0020000000100000000";
const GOLDEN_ZSTD: &str = "040000fd000098737465702031206c6f737320322e350a32333404006013d01d6866da0906";

proptest! {
    #[test]
    fn anything_comes_back(
        raw in proptest::collection::vec(any::<u8>(), 0..3000),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..40),
        element in 0usize..21,
    ) {
        let mut base = raw.clone();
        for (index, value) in flips {
            if !base.is_empty() {
                let at = index.index(base.len());
                base[at] = value;
            }
        }
        roundtrip(&raw, Element::ALL[element], Some(&base));
    }

    #[test]
    fn garbage_never_panics(encoded in proptest::collection::vec(any::<u8>(), 0..400), tag in 0u8..10, len in 0usize..600) {
        let mut bytes = vec![tag];
        bytes.extend(encoded);
        let base = vec![7; len];
        let mut out = vec![0; len];
        let _ = decode(&bytes, Some(&base), &mut Scratch::default(), &mut out);
        let _ = decode(&bytes, None, &mut Scratch::default(), &mut out);
    }
}
