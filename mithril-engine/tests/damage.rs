//! Stores that are not as they were left, and what is packed into them.

mod common;

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mithril_engine::Error;
use mithril_engine::format::manifest::Extent;
use mithril_engine::store::Store;

use common::{open, pack_file, pack_files, packs, read_file, weights};

/// Changes a byte of a file, which then looks as old as it was.
fn damage(path: &Path, at: usize) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
    set_modified(path, modified);
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn refusal(opened: Result<Store, Error>) -> String {
    match opened {
        Err(error @ Error::Corrupt { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_of_which_nothing_can_be_read_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let bytes = weights(50_000, 0);
    let manifest = pack_file(&store, &bytes, &[]);
    let id = store.id();
    drop(store);
    let pack = packs(dir.path()).remove(0);
    let good = fs::read(&pack).unwrap();
    damage(&pack, good.len() - 40);
    fs::remove_file(dir.path().join("index")).unwrap();
    let reason = refusal(open(dir.path()));
    assert!(reason.contains("restore"), "{reason}");
    assert!(!dir.path().join("index").exists(), "an index was made up");
    // One of a later version is for a later version to open.
    let mut later = good.clone();
    later[8] = 9;
    fs::write(&pack, later).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::Unsupported { .. })));
    fs::write(&pack, good).unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    assert_eq!(store.id(), id);
    assert!(read_file(&store, manifest).unwrap() == bytes);
}

#[test]
fn packs_of_another_store_do_not_take_over() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = weights(50_000, 0);
    let store = open(dir.path()).unwrap();
    let manifest = pack_file(&store, &bytes, &[]);
    let id = store.id();
    drop(store);
    for step in [3, 5, 7] {
        pack_file(&open(other.path()).unwrap(), &weights(50_000, step), &[]);
    }
    let strangers = packs(other.path()).into_iter().map(|pack| {
        let here = dir.path().join("packs").join(pack.file_name().unwrap());
        fs::copy(&pack, &here).unwrap();
        here
    });
    let strangers: Vec<_> = strangers.collect();
    // With an index it is known whose store this is; without one it is not.
    let store = open(dir.path()).unwrap();
    assert_eq!((store.id(), store.damaged_packs().len()), (id, 3));
    drop(store);
    fs::remove_file(dir.path().join("index")).unwrap();
    let reason = refusal(open(dir.path()));
    assert!(reason.contains(&id.to_string()) && reason.contains("move the packs"), "{reason}");
    assert!(!dir.path().join("index").exists(), "an index was made up");
    strangers.iter().for_each(|stranger| fs::remove_file(stranger).unwrap());
    let store = Arc::new(open(dir.path()).unwrap());
    assert_eq!(store.id(), id);
    assert!(read_file(&store, manifest).unwrap() == bytes);
}

#[test]
fn a_pack_that_was_cut_short_is_named_and_read_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (weights(50_000, 0), weights(50_000, 3));
    let manifests = pack_files(&open(dir.path()).unwrap(), &[(&first, &[]), (&second, &[])]).unwrap();
    let pack = packs(dir.path()).remove(0);
    let len = fs::metadata(&pack).unwrap().len();
    File::options().write(true).open(&pack).unwrap().set_len(len * 3 / 4).unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    assert_eq!(store.damaged_packs().len(), 1);
    assert!(!store.verify(&mut |_, _| ControlFlow::Continue(())).errors.is_empty());
    assert!(read_file(&store, manifests[0]).unwrap() == first);
    assert!(read_file(&store, manifests[1]).is_err());
    // What was lost is packed as new.
    let again = pack_file(&store, &second, &[]);
    assert_eq!(again, manifests[1]);
    assert!(read_file(&store, again).unwrap() == second);
}

#[test]
fn what_cannot_be_read_is_stored_anew() {
    let bytes = weights(50_000, 0);
    // A byte of the chunk, which is first in the pack; then one of the manifest, which is before the footer of two
    // entries, one of them with a checksum, and the trailer.
    for from_the_end in [None, Some(32 + 4 + 2 * 41 + 8 + 4)] {
        let dir = tempfile::tempdir().unwrap();
        let id = pack_file(&open(dir.path()).unwrap(), &bytes, &[]);
        let old = packs(dir.path()).remove(0);
        let len = usize::try_from(fs::metadata(&old).unwrap().len()).unwrap();
        damage(&old, from_the_end.map_or(5000, |back| len - back));
        set_modified(&old, SystemTime::now() - Duration::from_secs(60));
        let store = Arc::new(open(dir.path()).unwrap());
        assert!(read_file(&store, id).is_err());
        assert_eq!(pack_file(&store, &bytes, &[]), id);
        assert!(read_file(&store, id).unwrap() == bytes);
        drop(store);
        // Also where the new pack comes before the old one by name, and without an index.
        assert!(read_file(&Arc::new(open(dir.path()).unwrap()), id).unwrap() == bytes);
        fs::remove_file(dir.path().join("index")).unwrap();
        let store = Arc::new(open(dir.path()).unwrap());
        assert!(read_file(&store, id).unwrap() == bytes);
        store.rebuild_index().unwrap();
        assert!(read_file(&store, id).unwrap() == bytes);
        // Nothing reads the old copy any more: a collection takes it.
        store.collect(|| Ok(vec![id]), false).unwrap();
        assert!(store.verify(&mut |_, _| ControlFlow::Continue(())).errors.is_empty());
        assert!(read_file(&store, id).unwrap() == bytes);
    }
}

#[test]
fn nothing_is_coded_against_a_base_that_rotted() {
    let (first, second) = (weights(50_000, 0), weights(50_000, 3));
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let depth = |store: &Store, file| {
        let Extent::Chunk { id, .. } = store.read_manifest(&file).unwrap().extents[0] else {
            panic!("a hole")
        };
        store.chunk(&id).unwrap().depth
    };
    let base = pack_file(&store, &first, &[]);
    let sound = pack_file(&store, &second, &[store.read_manifest(&base).unwrap()]);
    assert_eq!(depth(&store, sound), 1, "what follows would show nothing");
    for at in (32..60_000).step_by(4999) {
        let dir = tempfile::tempdir().unwrap();
        let base = pack_file(&open(dir.path()).unwrap(), &first, &[]);
        let pack = packs(dir.path()).remove(0);
        let good = fs::read(&pack).unwrap();
        damage(&pack, at);
        let store = Arc::new(open(dir.path()).unwrap());
        let damaged_one_is_read = read_file(&store, base).is_ok();
        let id = pack_file(&store, &second, &[store.read_manifest(&base).unwrap()]);
        // As it is, and with the base as it was.
        assert!(read_file(&store, id).unwrap() == second, "byte {at}");
        fs::write(&pack, good).unwrap();
        assert!(read_file(&store, id).unwrap() == second, "byte {at}");
        assert!(read_file(&store, base).unwrap() == first, "byte {at}");
        assert!(!damaged_one_is_read, "byte {at}");
        assert_eq!(depth(&store, id), 0, "byte {at}");
    }
}

#[test]
fn a_tensor_of_too_many_dimensions_is_packed_and_read() {
    let data = weights(50_000, 0);
    let shape = [vec![1; 99], vec![50_000]].concat();
    let header = format!(r#"{{"w":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[0,{}]}}}}"#, data.len());
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let id = pack_file(&store, &bytes, &[]);
    assert!(read_file(&store, id).unwrap() == bytes);
    let manifest = store.read_manifest(&id).unwrap();
    assert_eq!(manifest.tensors.len(), 1);
    assert_eq!(manifest.tensors[0].shape, [50_000]);
    // It is a base like any other.
    let next = [&bytes[..bytes.len() - data.len()], &weights(50_000, 3)].concat();
    let next_id = pack_file(&store, &next, &[manifest]);
    assert!(read_file(&store, next_id).unwrap() == next);
}
