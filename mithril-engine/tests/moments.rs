//! First moments of Adam that are packed by the second ones beside them.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use mithril_engine::Error;
use mithril_engine::codec::Level;
use mithril_engine::format::manifest::Manifest;
use mithril_engine::id::{ChunkId, ManifestId};
use mithril_engine::store::Store;

use common::{open, pack_files_at, packs, read_file, safetensors};

const COUNT: u32 = 20_000;

fn hash(number: u32, seed: u32) -> u32 {
    (number ^ seed.wrapping_mul(0x27d4_eb2f))
        .wrapping_mul(0x9e37_79b1)
        .rotate_left(9)
        .wrapping_mul(0x85eb_ca6b)
}

/// Positive numbers of any size.
fn second(seed: u32) -> Vec<u8> {
    let number = |i| {
        let hash = hash(i, seed);
        (60 + hash % 48) << 23 | hash >> 9
    };
    (0..COUNT).flat_map(|i| number(i).to_le_bytes()).collect()
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

/// The same numbers, but for some.
fn moved(numbers: &[u8], step: u8) -> Vec<u8> {
    let mut moved = numbers.to_vec();
    moved.iter_mut().step_by(1000).for_each(|byte| *byte = byte.wrapping_add(step));
    moved
}

fn file(first: &[u8], second: &[u8]) -> Vec<u8> {
    safetensors(&[("state.0.exp_avg", "F32", first.to_vec()), ("state.0.exp_avg_sq", "F32", second.to_vec())])
}

fn pack(store: &Store, level: Level, bytes: &[u8], bases: &[Manifest]) -> ManifestId {
    pack_files_at(store, level, &[(bytes, bases)]).unwrap()[0]
}

fn depth(store: &Store, plaintext: &[u8]) -> Option<u8> {
    store.chunk(&ChunkId::of(plaintext)).map(|stat| stat.depth)
}

fn errors(store: &Store) -> usize {
    store.verify(&mut |_, _| ControlFlow::Continue(())).errors.len()
}

#[test]
fn first_moments_are_packed_by_the_second_ones_at_the_level_that_waits_for_it() {
    let second = second(1);
    let first = first(&second, 2);
    let beside = file(&first, &second);
    let alone = safetensors(&[("a", "F32", first.clone()), ("b", "F32", second.clone())]);
    let packed = |level, bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let id = pack(&open(dir.path()).unwrap(), level, bytes, &[]);
        let store = Arc::new(open(dir.path()).unwrap());
        assert!(read_file(&store, id).unwrap() == bytes);
        assert_eq!(errors(&store), 0);
        assert_eq!(depth(&store, &second), Some(0));
        (depth(&store, &first), store.usage().pack_bytes)
    };
    let (depth, by_moments) = packed(Level::Max, &beside);
    let (depth_alone, without) = packed(Level::Max, &alone);
    assert_eq!((depth, depth_alone), (Some(1), Some(0)));
    assert!(by_moments * 20 < without * 19, "{by_moments} beside {without}");
    for level in [Level::Fast, Level::Default] {
        assert_eq!(packed(level, &beside).0, Some(0));
    }
}

#[test]
fn what_is_shorter_against_the_file_before_is_a_delta() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let seconds = second(1);
    let firsts = first(&seconds, 2);
    // Of the next file the second moments are almost the same, and of the one behind it the first ones.
    let (next, other) = (moved(&seconds, 1), first(&seconds, 3));
    let files = [(&firsts, &seconds), (&other, &next), (&moved(&other, 1), &next)];
    let mut bases = Vec::new();
    for (first, second) in files {
        let bytes = file(first, second);
        let id = pack(&store, Level::Max, &bytes, &bases);
        assert!(read_file(&store, id).unwrap() == bytes);
        bases = vec![store.read_manifest(&id).unwrap()];
    }
    let depths = files.map(|(first, second)| [first, second].map(|x| depth(&store, x).unwrap()));
    assert_eq!(depths, [[1, 0], [2, 1], [3, 1]]);
}

#[test]
fn chains_stay_as_short_as_others_whatever_tensors_have_in_common() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let mut seconds = second(1);
    let mut bases = Vec::new();
    for step in 1..8 {
        let id = pack(&store, Level::Max, &safetensors(&[("b.exp_avg_sq", "F32", seconds.clone())]), &bases);
        bases = vec![store.read_manifest(&id).unwrap()];
        seconds = moved(&seconds, step);
    }
    let middle = first(&seconds, 2);
    let last = first(&middle, 3);
    let bytes = safetensors(&[
        ("b.exp_avg", "F32", middle.clone()),
        ("b.exp_avg_sq", "F32", seconds.clone()),
        ("a.exp_avg", "F32", last.clone()),
        ("a.exp_avg_sq", "F32", middle.clone()),
    ]);
    let id = pack(&store, Level::Max, &bytes, &bases);
    assert!(read_file(&store, id).unwrap() == bytes);
    assert_eq!([&seconds, &middle, &last].map(|x| depth(&store, x)), [Some(7), Some(8), Some(0)]);
    // What is as deep as can be is nobody's base.
    let again = safetensors(&[("c.exp_avg", "F32", last), ("c.exp_avg_sq", "F32", middle.clone())]);
    let other = first(&middle, 4);
    let more = safetensors(&[("c.exp_avg", "F32", other.clone()), ("c.exp_avg_sq", "F32", middle)]);
    for bytes in [again, more] {
        let id = pack(&store, Level::Max, &bytes, &[]);
        assert!(read_file(&store, id).unwrap() == bytes);
    }
    assert_eq!(depth(&store, &other), Some(0));
    assert_eq!(errors(&store), 0);
}

#[test]
fn moments_that_are_each_others_are_stored_once_and_not_in_a_circle() {
    let one = second(1);
    let other = first(&one, 2);
    let zeros = vec![0; one.len()];
    let bytes = safetensors(&[
        ("a.m", "F32", one.clone()),
        ("a.v", "F32", other.clone()),
        ("b.m", "F32", other.clone()),
        ("b.v", "F32", one.clone()),
        ("c.m", "F32", zeros.clone()),
        ("c.v", "F32", zeros),
        ("d.m", "F32", one.clone()),
        ("d.v", "F32", one),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let id = pack(&store, Level::Max, &bytes, &[]);
    assert!(read_file(&store, id).unwrap() == bytes);
    assert_eq!((store.usage().chunks, errors(&store)), (4, 0));
}

#[test]
fn collection_keeps_second_moments_as_long_as_the_first_ones_need_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let second = second(1);
    let first = first(&second, 2);
    pack(&store, Level::Max, &file(&first, &second), &[]);
    let alone = safetensors(&[("w", "F32", first.clone())]);
    let kept = pack(&store, Level::Max, &alone, &[]);
    store.collect(|| Ok(vec![kept]), false).unwrap();
    drop(store);
    let store = Arc::new(open(dir.path()).unwrap());
    assert_eq!([&first, &second].map(|x| depth(&store, x)), [Some(1), Some(0)]);
    assert!(read_file(&store, kept).unwrap() == alone);
    assert_eq!(errors(&store), 0);
    store.collect(|| Ok(Vec::new()), false).unwrap();
    assert_eq!(store.usage().chunks, 0);
}

#[test]
fn damage_of_second_moments_never_gives_wrong_first_ones() {
    let dir = tempfile::tempdir().unwrap();
    let second = second(1);
    let first = first(&second, 2);
    pack(&open(dir.path()).unwrap(), Level::Max, &file(&first, &second), &[]);
    let alone = safetensors(&[("w", "F32", first)]);
    let id = pack(&open(dir.path()).unwrap(), Level::Max, &alone, &[]);
    let read = |dir: &Path| open(dir).map(Arc::new).and_then(|store| read_file(&store, id));
    // The one pack that has chunks of this size.
    let pack = packs(dir.path()).into_iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let good = fs::read(&pack).unwrap();
    let mut refused = 0;
    for at in (100..good.len() - 1000).step_by(3001) {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&pack, &damaged).unwrap();
        match read(dir.path()) {
            Ok(bytes) => assert!(bytes == alone, "byte {at}"),
            Err(Error::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    // Low halves of second moments tell nothing of the first ones, but their upper ones do.
    assert!(refused > 20, "{refused}");
    fs::write(&pack, &good).unwrap();
    assert!(read(dir.path()).unwrap() == alone);
}
