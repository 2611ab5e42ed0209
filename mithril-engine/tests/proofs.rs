//! What proves the bytes of a chunk, for whom, and what follows where two proofs disagree.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mithril_engine::codec::Level;
use mithril_engine::file::pack::{self, Packing};
use mithril_engine::format::manifest::{Extent, Manifest};
use mithril_engine::id::{Checksum, ChunkId, ManifestId};
use mithril_engine::store::{Identity, Proof, ReadScratch, Store};
use mithril_engine::{Error, Result};

use common::{open, pack_file, pool, read_file, weights};

/// A chunk, encoded as it is, under any name and checksum.
fn put(store: &Store, chunk: &Identity, plaintext: &[u8]) {
    let pin = store.pin();
    let mut writer = pin.writer().unwrap();
    writer.put_chunk(chunk, &[&[0], plaintext].concat(), None).unwrap();
    writer.finish().unwrap();
}

/// For which proofs a chunk can be read.
fn readable(store: &Store, id: &ChunkId, len: usize) -> [bool; 3] {
    let mut out = vec![0; len];
    [Proof::Name, Proof::Checksum, Proof::Comparison]
        .map(|proof| store.read_chunk(id, proof, &mut ReadScratch::default(), &mut out).is_ok())
}

fn errors(store: &Store) -> Vec<String> {
    store.verify(&mut |_, _| ControlFlow::Continue(())).errors
}

/// The first chunk of a file that is packed here.
fn first_chunk(store: &Store, id: &ManifestId) -> ChunkId {
    let Extent::Chunk { id, .. } = store.read_manifest(id).unwrap().extents[0] else { panic!("a hole") };
    id
}

#[test]
fn a_wrong_checksum_is_found_and_packing_again_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let bytes = weights(50_000, 0);
    let right = Identity::of(&bytes).unwrap();
    put(&store, &Identity { checksum: Checksum::of(b"other"), ..right }, &bytes);
    assert_eq!(readable(&store, &right.id, bytes.len()), [false, false, true]);
    assert_eq!(errors(&store).len(), 1);
    let id = pack_file(&store, &bytes, &[]);
    assert_eq!(first_chunk(&store, &id), right.id);
    assert_eq!(readable(&store, &right.id, bytes.len()), [true; 3]);
    assert!(read_file(&store, id).unwrap() == bytes);
    // The copy that nobody reads is still wrong, until a collection takes it.
    assert_eq!(errors(&store).len(), 1);
    store.collect(|| Ok(vec![id]), false).unwrap();
    assert_eq!(errors(&store), [""; 0]);
    assert!(read_file(&store, id).unwrap() == bytes);
}

#[test]
fn what_readers_believe_is_not_replaced_by_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (bytes, others) = (weights(50_000, 0), weights(50_000, 3));
    let believed = Identity { id: ChunkId::of(&bytes), ..Identity::of(&others).unwrap() };
    put(&store, &believed, &others);
    assert_eq!(readable(&store, &believed.id, bytes.len()), [false, true, true]);
    assert_eq!(errors(&store).len(), 1);
    let pin = store.pin();
    let packing = Packing {
        store: &store,
        pool: &pool(),
        level: Level::Default,
        candidates: &[],
        cancel: &AtomicBool::new(false),
        progress: &|_, _| {},
    };
    let packed: Result<_> = pack::pack(&&bytes[..], &packing, &mut pin.writer().unwrap());
    assert!(matches!(packed, Err(Error::Corrupt { .. })), "{packed:?}");
    assert_eq!(readable(&store, &believed.id, bytes.len()), [false, true, true]);
}

#[test]
fn chunks_with_and_without_checksums_go_together_and_keep_them() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store");
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("packs")).unwrap();
    fs::copy(golden.join("index"), dir.path().join("index")).unwrap();
    for pack in fs::read_dir(golden.join("packs")).unwrap().flatten() {
        fs::copy(pack.path(), dir.path().join("packs").join(pack.file_name())).unwrap();
    }
    let store = Arc::new(open(dir.path()).unwrap());
    let old: Vec<Manifest> = store.manifests().iter().map(|id| store.read_manifest(id).unwrap()).collect();
    let checksum = |store: &Store, id: &ManifestId| store.chunk(&first_chunk(store, id)).unwrap().checksum;
    // What is there already is taken as it is; what is new is a delta against it, with a checksum.
    let base = pack_file(&store, &weights(40_000, 0), &[]);
    assert_eq!(checksum(&store, &base), None);
    let (bytes, dropped) = (weights(40_000, 5), weights(40_000, 7));
    let next = pack_file(&store, &bytes, &old);
    // Something in the same pack that nothing will need.
    let pair = common::pack_files(&store, &[(&dropped, &[]), (&weights(40_000, 9), &old[..])]).unwrap();
    assert!(store.chunk(&first_chunk(&store, &next)).unwrap().depth > 0);
    let roots = vec![base, next, pair[1]];
    let collected = store.collect(|| Ok(roots.clone()), false).unwrap();
    assert!(collected.rewritten_packs > 0, "{collected:?}");
    drop(store);
    let store = Arc::new(open(dir.path()).unwrap());
    assert_eq!(checksum(&store, &base), None);
    for (id, bytes) in [(next, &bytes), (pair[1], &weights(40_000, 9))] {
        let chunk = Identity::of(bytes).unwrap();
        assert_eq!(first_chunk(&store, &id), chunk.id);
        assert_eq!(checksum(&store, &id), Some(chunk.checksum));
        assert!(read_file(&store, id).unwrap() == *bytes);
    }
    assert!(read_file(&store, base).unwrap() == weights(40_000, 0));
    assert_eq!(errors(&store), [""; 0]);
}
