//! The store and the packing of files into it, on real directories.

mod common;

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mithril_engine::Error;
use mithril_engine::codec::Level;
use mithril_engine::file::cache::ChunkCache;
use mithril_engine::file::pack::{self, Outcome, Packing};
use mithril_engine::file::read::{PackedFile, ReadAhead};
use mithril_engine::format::manifest::{Extent, Manifest};
use mithril_engine::id::{ChunkId, ManifestId};
use mithril_engine::range::ByteRange;
use mithril_engine::source::Source;
use mithril_engine::store::{Proof, ReadScratch};
use mithril_engine::tensor::{Container, Element};
use proptest::prelude::*;

use common::{open, pack_file, pool, read_file, safetensors, weights};

#[test]
fn files_come_back_from_a_store_that_was_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (first, second) = (weights(1_500_000, 0), weights(1_500_000, 3));
    let base = pack_file(&store, &first, &[]);
    let delta = pack_file(&store, &second, &[store.read_manifest(&base).unwrap()]);
    let id = store.id();
    drop(store);
    let store = Arc::new(open(dir.path()).unwrap());
    assert_eq!(store.id(), id);
    assert!(read_file(&store, base).unwrap() == first);
    assert!(read_file(&store, delta).unwrap() == second);
    let Extent::Chunk { id, .. } = store.read_manifest(&delta).unwrap().extents[0] else { panic!("a hole") };
    assert_eq!(store.chunk(&id).map(|stat| stat.depth), Some(1));
}

#[test]
fn weights_beside_their_masters_take_no_space_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let file = |seed: u32| {
        let masters: Vec<f32> = (0..600_000u32)
            .map(|i| {
                let hash = (i ^ 77).wrapping_mul(0x9e37_79b1).rotate_left(9).wrapping_mul(0x85eb_ca6b);
                f32::from_bits(0x3c00_0000 + (hash >> 7) + (i % 7) * seed)
            })
            .collect();
        let mut bf16: Vec<u8> = masters.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
        // As one that was changed by hand.
        bf16[5000] ^= 1;
        let f16 = masters.iter().flat_map(|x| half::f16::from_f32_const(*x).to_le_bytes()).collect();
        let wide: Vec<u8> = masters.iter().flat_map(|x| x.to_le_bytes()).collect();
        (
            safetensors(&[("a", "BF16", bf16.clone()), ("model.w", "F32", wide.clone()), ("b", "F16", f16)]),
            safetensors(&[("model.w", "F32", wide)]),
        )
    };
    let stored = || store.usage().pack_bytes;
    let (first, second) = (file(0), file(300));
    let before = stored();
    let masters = pack_file(&store, &first.1, &[]);
    let alone = stored() - before;
    let before = stored();
    let base = pack_file(&store, &first.0, &[store.read_manifest(&masters).unwrap()]);
    assert!(stored() - before < 4000, "{} beside {alone}", stored() - before);
    // The next step: masters against those of before, and all of it chained.
    let next = pack_file(&store, &second.0, &[store.read_manifest(&base).unwrap()]);
    let store = Arc::new(store);
    for (id, bytes) in [(masters, &first.1), (base, &first.0), (next, &second.0)] {
        assert!(read_file(&store, id).unwrap() == *bytes);
    }
}

#[test]
fn reads_of_any_range_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let bytes = weights(2_000_000, 0);
    let id = pack_file(&store, &bytes, &[]);
    let cache = Arc::new(ChunkCache::new(Arc::clone(&store), 2 << 20));
    let file =
        Arc::new(PackedFile::open(id, cache, Some(ReadAhead { pool: pool(), bytes: 4 << 20 })).unwrap());
    let len = bytes.len() as u64;
    for (offset, count) in [
        (0, 1),
        (0, 4_000_000),
        (1 << 20, 1 << 20),
        ((1 << 20) - 1, 2),
        (len - 1, 10),
        (len, 5),
        (len + 9, 1),
    ] {
        let start = usize::try_from(offset.min(len)).unwrap();
        let expected = &bytes[start..(start + count).min(bytes.len())];
        assert!(file.read_with(offset, count, |found| found == expected).unwrap(), "{count} at {offset}");
    }
    // Several readers at once, each in order.
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (file, bytes) = (&file, &bytes);
            scope.spawn(move || {
                let mut offset = thread * 1000;
                while offset < len {
                    let start = usize::try_from(offset).unwrap();
                    let end = (start + 100_000).min(bytes.len());
                    assert!(file.read_with(offset, 100_000, |found| found == &bytes[start..end]).unwrap());
                    offset += 100_000;
                }
            });
        }
    });
}

/// Zeros without an end, but for some bytes.
struct Sparse {
    len: u64,
    data: Vec<(u64, Vec<u8>)>,
}

impl Source for Sparse {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        buffer.fill(0);
        for (start, bytes) in &self.data {
            let from = offset.max(*start);
            let to = (offset + buffer.len() as u64).min(start + bytes.len() as u64);
            if from < to {
                let at = |position, base| usize::try_from(position - base).unwrap();
                buffer[at(from, offset)..at(to, offset)]
                    .copy_from_slice(&bytes[at(from, *start)..at(to, *start)]);
            }
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<ByteRange>> {
        let span = |(start, bytes): &(u64, Vec<u8>)| {
            let end = start + bytes.len() as u64;
            (end > offset).then(|| ByteRange { offset: *start.max(&offset), len: end - start.max(&offset) })
        };
        Ok(self.data.iter().find_map(span))
    }
}

#[test]
fn a_file_of_terabytes_that_is_mostly_holes_is_packed_by_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let parts = |step| (0..3).map(|i| (5 + (i << 42), weights(400_000, step + i))).collect();
    let mut bases: Vec<Manifest> = Vec::new();
    let mut stored = Vec::new();
    for step in [0, 10] {
        let source = Sparse { len: 15 << 40, data: parts(step) };
        let (pin, cancel) = (store.pin(), AtomicBool::new(false));
        let mut writer = pin.writer().unwrap();
        let pool = pool();
        let packing = Packing {
            store: &store,
            pool: &pool,
            level: Level::Default,
            candidates: &bases,
            cancel: &cancel,
            progress: &|_, _| {},
        };
        let outcome = pack::pack(&source, &packing, &mut writer).unwrap();
        let Outcome::Packed(packed) = outcome else { panic!("not worthwhile") };
        writer.finish().unwrap();
        let manifest = store.read_manifest(&packed.manifest).unwrap();
        assert_eq!(manifest.file_len(), 15 << 40);
        assert!(manifest.extents.len() < 10, "{}", manifest.extents.len());
        bases = vec![manifest];
        stored.push(packed.stored_bytes);
    }
    // Each part has its base, the last as well as the first.
    assert!(stored[1] * 4 < stored[0], "{stored:?}");
}

#[test]
fn packing_that_is_cancelled_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let pin = store.pin();
    let mut writer = pin.writer().unwrap();
    let cancel = AtomicBool::new(false);
    let stop = |_: u64, _: u64| cancel.store(true, Ordering::Relaxed);
    let packing = Packing {
        store: &store,
        pool: &pool(),
        level: Level::Default,
        candidates: &[],
        cancel: &cancel,
        progress: &stop,
    };
    let bytes = weights(30_000_000, 0);
    assert!(matches!(pack::pack(&&bytes[..], &packing, &mut writer), Err(Error::Cancelled)));
    drop(writer);
    assert_eq!(fs::read_dir(dir.path().join("packs")).unwrap().count(), 0);
    assert_eq!(store.usage().chunks, 0);
}

#[test]
fn what_an_unfinished_writer_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    fs::write(dir.path().join("packs/tmp-1-2"), b"half a pack").unwrap();
    drop(open(dir.path()).unwrap());
    assert_eq!(fs::read_dir(dir.path().join("packs")).unwrap().count(), 0);
}

#[test]
fn collection_keeps_what_the_roots_need_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let (first, second, third) = (weights(500_000, 0), weights(500_000, 3), weights(400_000, 11));
    let base = pack_file(&store, &first, &[]);
    let delta = pack_file(&store, &second, &[store.read_manifest(&base).unwrap()]);
    let other = pack_file(&store, &third[100..], &[]);
    let foretold = store.collect(|| Ok(vec![delta]), true).unwrap();
    assert_eq!(store.usage().packs, 3, "a dry run deleted something");
    let collected = store.collect(|| Ok(vec![delta]), false).unwrap();
    assert_eq!((foretold.freed_bytes, foretold.dead_blobs), (collected.freed_bytes, collected.dead_blobs));
    assert!(collected.freed_bytes > 400_000, "{collected:?}");
    assert!(read_file(&store, delta).unwrap() == second);
    assert!(matches!(read_file(&store, other), Err(Error::NotFound { .. })));
    drop(store);
    let store = Arc::new(open(dir.path()).unwrap());
    assert!(read_file(&store, delta).unwrap() == second);
    assert!(store.verify(&mut |_, _| ControlFlow::Continue(())).errors.is_empty());
    // A root that cannot be read stops it before anything is deleted.
    assert!(store.collect(|| Ok(vec![base, other]), false).is_err());
    assert!(read_file(&store, delta).unwrap() == second);
}

#[test]
fn readers_do_not_notice_a_collection() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let kept: Vec<(ManifestId, Vec<u8>)> = (0..3)
        .map(|seed| {
            let bytes = weights(300_000, 1000 + seed);
            (pack_file(&store, &bytes, &[]), bytes)
        })
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..10 {
                pack_file(&store, &weights(200_000, 5000 + round)[..300_000], &[]);
                let roots = kept.iter().map(|(id, _)| *id).collect();
                store.collect(|| Ok(roots), false).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    for (id, bytes) in &kept {
                        assert!(read_file(&store, *id).unwrap() == *bytes);
                    }
                }
            });
        }
    });
}

#[test]
fn no_damage_to_a_pack_gives_wrong_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = weights(40_000, 0);
    let id = pack_file(&open(dir.path()).unwrap(), &bytes, &[]);
    let pack = fs::read_dir(dir.path().join("packs")).unwrap().next().unwrap().unwrap().path();
    let (good, index) = (fs::read(&pack).unwrap(), fs::read(dir.path().join("index")).unwrap());
    let check = |what: &str| match open(dir.path()).map(Arc::new).and_then(|store| read_file(&store, id)) {
        Ok(read) => assert!(read == bytes, "{what}: wrong bytes"),
        Err(Error::Corrupt { .. } | Error::NotFound { .. } | Error::Unsupported { .. }) => {}
        Err(other) => panic!("{what}: {other}"),
    };
    for at in (0..good.len()).step_by(97).chain(0..40).chain(good.len() - 200..good.len()) {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&pack, &damaged).unwrap();
        check(&format!("flip at {at}"));
        let _ = fs::remove_file(dir.path().join("index"));
        check(&format!("flip at {at} without an index"));
        fs::write(dir.path().join("index"), &index).unwrap();
    }
    for len in (0..good.len()).step_by(4999) {
        fs::write(&pack, &good[..len]).unwrap();
        check(&format!("cut to {len}"));
        fs::write(dir.path().join("index"), &index).unwrap();
    }
}

#[test]
fn a_damaged_index_is_rebuilt_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = weights(40_000, 0);
    let id = pack_file(&open(dir.path()).unwrap(), &bytes, &[]);
    let index = fs::read(dir.path().join("index")).unwrap();
    for at in 0..index.len() {
        let mut damaged = index.clone();
        damaged[at] ^= 0x41;
        fs::write(dir.path().join("index"), &damaged).unwrap();
        match open(dir.path()) {
            Ok(store) => assert!(read_file(&Arc::new(store), id).unwrap() == bytes, "byte {at}"),
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

/// Stores that earlier builds wrote, before chunks had checksums and after: whoever changes a layout raises its version
/// instead.
#[test]
fn the_golden_stores_are_read() {
    for name in ["store", "store-checksums"] {
        read_golden_store(name);
    }
}

fn read_golden_store(name: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("packs")).unwrap();
    fs::copy(golden.join("index"), dir.path().join("index")).unwrap();
    for pack in fs::read_dir(golden.join("packs")).unwrap().flatten() {
        fs::copy(pack.path(), dir.path().join("packs").join(pack.file_name())).unwrap();
    }
    let store = Arc::new(open(dir.path()).unwrap());
    let manifests = store.manifests();
    assert_eq!(manifests.len(), 2);
    let mut lengths = Vec::new();
    for id in manifests {
        let bytes = read_file(&store, id).unwrap();
        assert!(bytes == weights(40_000, 0) || bytes == weights(40_000, 3));
        lengths.push(bytes.len());
    }
    assert_eq!(lengths, [80_000, 80_000]);
    let verified = store.verify(&mut |_, _| ControlFlow::Continue(()));
    assert_eq!((verified.chunks, verified.errors.as_slice()), (2, &[][..]), "{name}");
}

fn manifests() -> impl Strategy<Value = Manifest> {
    let extent = prop_oneof![
        (any::<[u8; 32]>(), 1u32..4_000_000, 0usize..21).prop_map(|(id, len, element)| Extent::Chunk {
            id: ChunkId::from_bytes(id),
            len,
            element: Element::ALL[element],
        }),
        (1u64..1 << 40).prop_map(|len| Extent::Hole { len }),
    ];
    proptest::collection::vec(extent, 0..20).prop_map(|extents| Manifest {
        container: Container::Safetensors,
        tensors: Vec::new(),
        extents,
    })
}

proptest! {
    #[test]
    fn manifests_survive_their_encoding(manifest in manifests()) {
        prop_assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
    }

    #[test]
    fn random_bytes_are_no_manifest_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::decode(&bytes);
        let _ = Manifest::decode(&[&[1, 0][..], &bytes].concat());
    }
}

#[test]
fn a_chunk_is_read_with_its_own_length_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let bytes = weights(40_000, 0);
    let id = pack_file(&store, &bytes, &[]);
    let Extent::Chunk { id, len, .. } = store.read_manifest(&id).unwrap().extents[0] else {
        panic!("a hole")
    };
    let mut out = vec![0; len as usize + 1];
    assert!(store.read_chunk(&id, Proof::Name, &mut ReadScratch::default(), &mut out).is_err());
}
