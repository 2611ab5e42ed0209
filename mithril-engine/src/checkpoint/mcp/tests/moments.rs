//! First moments of Adam that are compressed by the second ones beside them.

use super::*;
use crate::checkpoint::{CompressionConfig, Level};
use crate::format::manifest::{Extent, Manifest};
use crate::format::mcp::{self, Base, Footer, Record};
use crate::id::ChunkId;
use crate::range::ByteRange;
use crate::tensor::{Container, Element};

fn hash(number: u32, seed: u32) -> u32 {
    (number ^ seed.wrapping_mul(0x27d4_eb2f))
        .wrapping_mul(0x9e37_79b1)
        .rotate_left(9)
        .wrapping_mul(0x85eb_ca6b)
}

/// Positive numbers of any size.
fn second(count: u32, seed: u32) -> Vec<u8> {
    let number = |i| {
        let hash = hash(i, seed);
        (60 + hash % 48) << 23 | hash >> 9
    };
    (0..count).flat_map(|i| number(i).to_le_bytes()).collect()
}

/// Numbers with a sign, about as large as the roots of others.
fn first(second: &[u8], seed: u32) -> Vec<u8> {
    let exponents = second.as_chunks::<4>().0.iter().map(|x| u32::from_le_bytes(*x) >> 23 & 0xff);
    let numbers = exponents.zip(0..).map(|(exponent, i)| {
        let hash = hash(i, seed);
        (hash & 1) << 31 | ((exponent + 127) / 2 - (hash >> 1 & 1)) << 23 | hash >> 9
    });
    numbers.flat_map(u32::to_le_bytes).collect()
}

/// A file of tensors that lie as they are given.
fn file(tensors: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut header, mut data) = (String::new(), Vec::new());
    for (name, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        let comma = if header.is_empty() { '{' } else { ',' };
        let count = bytes.len() / 4;
        header += &format!(
            "{comma}\"{name}\":{{\"dtype\":\"F32\",\"shape\":[{count}],\"data_offsets\":[{start},{end}]}}"
        );
        data.extend_from_slice(bytes);
    }
    header.push('}');
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn compressed_at(level: Level, bytes: &[u8], reference: Option<&Reference<'_>>) -> Vec<u8> {
    let how = Compression { config: CompressionConfig::default().with_level(level), lossy: None };
    let mut out = Vec::new();
    compress(&bytes, reference, &how, &mut out, &mut |_| {}).unwrap();
    out
}

fn by_moments(file: &McpFile) -> usize {
    file.chunks().unwrap().iter().filter(|chunk| chunk.is_by_moments && chunk.stored_bytes > 0).count()
}

#[test]
fn first_moments_are_compressed_by_the_second_ones_at_the_level_that_waits_for_it() {
    let second = second(700_000, 1);
    let first = first(&second, 2);
    let bytes = file(&[("w.exp_avg", &first), ("w.exp_avg_sq", &second)]);
    let other_names = file(&[("w.a", &first), ("w.b", &second)]);
    let out = compressed_at(Level::Max, &bytes, None);
    let without = compressed_at(Level::Max, &other_names, None).len();
    assert!(out.len() * 20 < without * 19, "{} beside {without}", out.len());
    let back = open(out).unwrap();
    assert_eq!(by_moments(&back), 3);
    assert!(all_of(&back).unwrap() == bytes);
    back.verify().unwrap();
    for (start, end) in [(200_000, 200_100), (1_048_000, 1_050_000), (2_700_000, 2_900_000)] {
        let mut part = vec![0; end - start];
        back.read_exact_at(&mut part, start as u64).unwrap();
        assert!(part == bytes[start..end], "{start}..{end}");
    }
    assert_eq!(by_moments(&open(compressed_at(Level::Default, &bytes, None)).unwrap()), 0);
}

#[test]
fn second_moments_may_be_a_delta_themselves() {
    let before = second(50_000, 1);
    let mut after = before.clone();
    after[77] ^= 1;
    let old = file(&[("w.m", &first(&before, 2)), ("w.v", &before)]);
    let new = file(&[("w.m", &first(&after, 3)), ("w.v", &after)]);
    let source = &old[..];
    let reference = Reference::plain(b"old".to_vec(), &source).unwrap();
    let mut back = open(compressed_at(Level::Max, &new, Some(&reference))).unwrap();
    let chunks = back.chunks().unwrap();
    assert!(chunks.iter().any(|chunk| chunk.is_delta) && by_moments(&back) == 1);
    assert!(all_of(&back).is_err());
    back.set_reference(Box::new(Owned(old))).unwrap();
    assert!(all_of(&back).unwrap() == new);
}

#[test]
fn tensors_with_bytes_in_common_make_no_circles() {
    let a = second(5000, 1);
    let b = first(&a, 2);
    let (c, zeros) = (first(&b, 3), vec![0; a.len()]);
    let chains = [
        // Each is based on the other, if it were for the names.
        file(&[("x.m", &a), ("x.v", &b), ("y.m", &b), ("y.v", &a)]),
        file(&[("x.m", &c), ("x.v", &b), ("y.m", &b), ("y.v", &a)]),
        file(&[("y.m", &b), ("y.v", &a), ("x.m", &c), ("x.v", &b)]),
        file(&[("y.v", &a), ("y.m", &b), ("x.v", &b), ("x.m", &c)]),
        file(&[("x.m", &zeros), ("x.v", &zeros), ("z.m", &b), ("z.v", &a), ("y.m", &b), ("y.v", &b)]),
    ];
    for (index, bytes) in chains.iter().enumerate() {
        let back = open(compressed_at(Level::Max, bytes, None)).unwrap();
        assert!(all_of(&back).unwrap() == *bytes, "{index}");
        back.verify().unwrap();
        assert_eq!(by_moments(&back), 1, "{index}");
    }
}

#[test]
fn no_damage_gives_wrong_first_moments() {
    let second = second(5000, 1);
    let bytes = file(&[("w.m", &first(&second, 2)), ("w.v", &second)]);
    let out = compressed_at(Level::Max, &bytes, None);
    let end = bytes.len() - second.len();
    let mut refused = 0;
    for at in (16..out.len() - 1000).step_by(37) {
        let mut damaged = out.clone();
        damaged[at] ^= 0x10;
        let mut part = vec![0; end];
        match open(damaged).map(|file| file.read_exact_at(&mut part, 0)) {
            Ok(Ok(())) => assert!(part == bytes[..end], "byte {at}"),
            _ => refused += 1,
        }
    }
    // All of the first moments, and some of the second.
    assert!(refused * 37 > out.len() / 2, "{refused}");
}

#[test]
fn circles_of_others_are_refused() {
    let chunks = [&[1u8; 100][..], &[2; 100], &[3; 200]];
    let ranges = [(0, 100), (100, 100), (200, 200)].map(|(offset, len)| ByteRange { offset, len });
    let [first, second, longer] = ranges;
    let read = |bases: [Base; 3]| {
        let mut out = mcp::header().to_vec();
        let (mut extents, mut records) = (Vec::new(), Vec::new());
        for ((bytes, range), base) in chunks.iter().zip(ranges).zip(bases) {
            let (id, raw_len) = (ChunkId::of(bytes), u32::try_from(range.len).unwrap());
            extents.push(Extent::Chunk { id, len: raw_len, element: Element::F32 });
            let stored = ByteRange { offset: out.len() as u64, len: range.len + 1 };
            records.push(Record { id, raw_len, stored, base });
            // As it is: that takes a base, and needs none.
            out.push(0);
            out.extend_from_slice(bytes);
        }
        let digest = *blake3::hash(&chunks.concat()).as_bytes();
        let manifest = Manifest { container: Container::Unknown, tensors: Vec::new(), extents };
        let footer = Footer { manifest, digest, reference: None, records, losses: Vec::new() };
        out.extend(footer.encode().unwrap());
        open(out).and_then(|file| all_of(&file))
    };
    assert_eq!(read([Base::Moments(second), Base::None, Base::None]).unwrap(), chunks.concat());
    for bases in [
        [Base::Moments(second), Base::Moments(first), Base::None],
        [Base::Moments(first), Base::None, Base::None],
        // That would end, but is not what moments are for.
        [Base::Moments(second), Base::Own(longer), Base::None],
        // No chunk begins there, and the file has ended.
        [Base::Moments(ByteRange { offset: 1, len: 100 }), Base::None, Base::None],
        [Base::Moments(ByteRange { offset: 301, len: 100 }), Base::None, Base::None],
    ] {
        assert!(matches!(read(bases), Err(Error::Corrupt { .. })), "{bases:?}");
    }
}
