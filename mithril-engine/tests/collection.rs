//! What a collection may delete, and in which order.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mithril_engine::format::manifest::{Extent, Manifest};
use mithril_engine::id::ManifestId;
use mithril_engine::store::{BrokenOff, Collected, Identity, Store};
use mithril_engine::tensor::{Container, Element};
use mithril_engine::{Error, Result};

use common::{open, pack_file, pack_files, packs, read_file, weights};

fn reopen(dir: &Path) -> Arc<Store> {
    Arc::new(open(dir).unwrap())
}

fn faults(store: &Store) -> Vec<String> {
    store.verify(&mut |_, _| ControlFlow::Continue(())).errors
}

fn remove_index(dir: &Path) {
    fs::remove_file(dir.join("index")).unwrap();
}

/// What a collection did to a pack of which only one file is needed.
struct Rewriting {
    dir: tempfile::TempDir,
    live: (ManifestId, Vec<u8>),
    /// The pack that is gone.
    old: (PathBuf, Vec<u8>),
    new: PathBuf,
}

fn rewriting() -> Rewriting {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (kept, dead) = (weights(100_000, 0), weights(90_000, 3));
    let live = pack_files(&store, &[(&kept, &[]), (&dead, &[])]).unwrap()[0];
    let old = packs(dir.path()).remove(0);
    let bytes = fs::read(&old).unwrap();
    let collected = store.collect(|| Ok(vec![live]), false).unwrap();
    assert_eq!((collected.rewritten_packs, collected.deleted_packs), (1, 0));
    let new = packs(dir.path()).remove(0);
    assert_ne!(old, new);
    Rewriting { dir, live: (live, kept), old: (old, bytes), new }
}

impl Rewriting {
    /// However it is opened and collected from here, the file stays.
    fn goes_on(&self) {
        let (dir, (live, bytes)) = (self.dir.path(), &self.live);
        for _ in 0..3 {
            let store = reopen(dir);
            assert!(read_file(&store, *live).unwrap() == *bytes);
            store.collect(|| Ok(vec![*live]), false).unwrap();
            assert!(read_file(&store, *live).unwrap() == *bytes);
            assert_eq!(faults(&store), [""; 0]);
            assert_eq!(packs(dir), std::slice::from_ref(&self.new));
        }
        remove_index(dir);
        assert!(read_file(&reopen(dir), *live).unwrap() == *bytes);
    }
}

#[test]
fn a_crash_before_the_old_pack_is_unlinked_loses_nothing() {
    let state = rewriting();
    fs::write(&state.old.0, &state.old.1).unwrap();
    state.goes_on();
}

#[test]
fn a_crash_before_the_old_pack_is_forgotten_loses_nothing() {
    let state = rewriting();
    fs::write(&state.old.0, &state.old.1).unwrap();
    // The last record, by which the old pack is removed: length, kind, pack id, checksum.
    let index = state.dir.path().join("index");
    let len = fs::metadata(&index).unwrap().len();
    File::options().write(true).open(&index).unwrap().set_len(len - (4 + 1 + 16 + 8)).unwrap();
    state.goes_on();
}

#[test]
fn old_and_new_pack_without_an_index_lose_nothing() {
    // Whichever of the two is taken for the later one.
    for old_is_later in [true, false] {
        let state = rewriting();
        fs::write(&state.old.0, &state.old.1).unwrap();
        let later = if old_is_later { &state.old.0 } else { &state.new };
        let time = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        File::options().write(true).open(later).unwrap().set_modified(time).unwrap();
        remove_index(state.dir.path());
        state.goes_on();
    }
}

/// A chunk of 8 KiB, encoded as it is.
fn raw_chunk(fill: u8) -> (Identity, Vec<u8>) {
    let plaintext = vec![fill; 8 << 10];
    (Identity::of(&plaintext).unwrap(), [&[0], &plaintext[..]].concat())
}

#[test]
fn a_new_pack_that_lists_what_an_old_one_lists_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let [x, y, z] = [1, 2, 3].map(raw_chunk);
    let root = {
        let pin = store.pin();
        let (mut first, mut second) = (pin.writer().unwrap(), pin.writer().unwrap());
        for (writer, chunks) in [(&mut first, [&x, &y]), (&mut second, [&y, &z])] {
            for (id, encoded) in chunks {
                writer.put_chunk(id, encoded, None).unwrap();
            }
        }
        first.finish().unwrap();
        second.finish().unwrap();
        let extent = |Identity { id, .. }| Extent::Chunk { id, len: 8 << 10, element: Element::Bytes };
        let extents = vec![extent(x.0), extent(y.0)];
        let mut third = pin.writer().unwrap();
        let manifest = Manifest { container: Container::Unknown, tensors: Vec::new(), extents };
        let (root, _) = third.put_manifest(&manifest).unwrap();
        third.finish().unwrap();
        root
    };
    // The first pack has x, the second y: together they are what the first one lists, and has the name of.
    let collected = store.collect(|| Ok(vec![root]), false).unwrap();
    assert_eq!(collected.rewritten_packs, 2);
    let expected = [vec![1; 8 << 10], vec![2; 8 << 10]].concat();
    for store in [Arc::new(store), reopen(dir.path())] {
        assert!(read_file(&store, root).unwrap() == expected);
        assert_eq!(faults(&store), [""; 0]);
        assert_eq!(store.usage().packs, 2);
    }
}

/// A file whose first chunk is a delta in a pack of its own, against a base in another.
struct Layers {
    dir: tempfile::TempDir,
    delta_pack: PathBuf,
    root: ManifestId,
    bytes: Vec<u8>,
}

fn layers() -> Layers {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let mebibyte = 1 << 19;
    let base = pack_file(&store, &weights(mebibyte, 0), &[]);
    let before = packs(dir.path());
    let delta_bytes = weights(mebibyte, 3);
    pack_file(&store, &delta_bytes, &[store.read_manifest(&base).unwrap()]);
    let delta_pack = packs(dir.path()).into_iter().find(|pack| !before.contains(pack)).unwrap();
    let bytes = [delta_bytes, weights(mebibyte, 11)].concat();
    let root = pack_file(&store, &bytes, &[]);
    assert_eq!(packs(dir.path()).len(), 3);
    Layers { dir, delta_pack, root, bytes }
}

fn refuses(store: &Store, root: ManifestId) -> String {
    let before = store.usage();
    for dry_run in [true, false] {
        let refused = store.collect(|| Ok(vec![root]), dry_run);
        let Err(BrokenOff { done, error: Error::Corrupt { .. } }) = refused else { panic!("{refused:?}") };
        assert_eq!(done, Collected { kept_bytes: before.pack_bytes, ..Collected::default() });
    }
    assert_eq!(store.usage(), before);
    store.collect(|| Ok(vec![root]), false).unwrap_err().to_string()
}

#[test]
fn nothing_is_collected_while_a_pack_is_damaged() {
    let layers = layers();
    let dir = layers.dir.path();
    let good = fs::read(&layers.delta_pack).unwrap();
    let mut damaged = good.clone();
    let at = damaged.len() - 40;
    damaged[at] ^= 1;
    fs::write(&layers.delta_pack, damaged).unwrap();
    // While the index still has the pack, and when it does not.
    let reason = refuses(&reopen(dir), layers.root);
    assert!(reason.contains("restore it from a copy"), "{reason}");
    remove_index(dir);
    let store = reopen(dir);
    let reason = refuses(&store, layers.root);
    assert!(reason.contains("restore it from a copy"), "{reason}");
    // Then it is done as it was said.
    fs::write(&layers.delta_pack, good).unwrap();
    store.rebuild_index().unwrap();
    store.collect(|| Ok(vec![layers.root]), false).unwrap();
    assert!(read_file(&store, layers.root).unwrap() == layers.bytes);
}

#[test]
fn nothing_is_collected_while_a_chunk_is_missing() {
    let layers = layers();
    let dir = layers.dir.path();
    let aside = dir.join("aside");
    fs::rename(&layers.delta_pack, &aside).unwrap();
    let store = reopen(dir);
    let reason = refuses(&store, layers.root);
    assert!(reason.contains("is missing"), "{reason}");
    fs::rename(&aside, &layers.delta_pack).unwrap();
    store.rebuild_index().unwrap();
    store.collect(|| Ok(vec![layers.root]), false).unwrap();
    assert!(read_file(&store, layers.root).unwrap() == layers.bytes);
}

#[test]
fn a_dead_delta_without_its_base_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = reopen(dir.path());
    let (first, second, live) = (weights(40_000, 0), weights(40_000, 3), weights(500_000, 11));
    let base = pack_file(&store, &first, &[]);
    let base = store.read_manifest(&base).unwrap();
    let manifests = pack_files(&store, &[(&live, &[]), (&second, &[base])]).unwrap();
    let (live_id, delta_id) = (manifests[0], manifests[1]);
    let Extent::Chunk { id: delta, .. } = store.read_manifest(&delta_id).unwrap().extents[0] else {
        panic!("a hole")
    };
    assert_eq!(store.chunk(&delta).map(|stat| stat.depth), Some(1));
    // So little of the second pack is dead that it stays, delta and all; the base goes.
    let collected = store.collect(|| Ok(vec![live_id]), false).unwrap();
    assert_eq!((collected.deleted_packs, collected.rewritten_packs), (1, 0));
    for store in [Arc::clone(&store), reopen(dir.path())] {
        assert_eq!(faults(&store), [""; 0]);
        assert_eq!(store.chunk(&delta), None);
    }
    // A file with that content is packed as if it had never been there.
    let again = pack_file(&store, &second, &[]);
    drop(store);
    for index in ["kept", "removed"] {
        if index == "removed" {
            remove_index(dir.path());
        }
        let store = reopen(dir.path());
        assert!(read_file(&store, again).unwrap() == second, "{index}");
        store.collect(|| Ok(vec![live_id, again]), false).unwrap();
        assert!(read_file(&store, again).unwrap() == second, "{index}");
        assert!(read_file(&store, live_id).unwrap() == live, "{index}");
    }
}

#[test]
fn a_pack_is_rewritten_once_a_tenth_of_it_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (large, little, more) = (weights(500_000, 0), weights(35_000, 3), weights(60_000, 5));
    let manifests = pack_files(&store, &[(&large, &[]), (&little, &[]), (&more, &[])]).unwrap();
    let collected = store.collect(|| Ok(vec![manifests[0], manifests[2]]), false).unwrap();
    assert!(collected.dead_blobs > 0);
    assert_eq!((collected.freed_bytes, collected.rewritten_packs), (0, 0));
    let before = store.usage().pack_bytes;
    let collected = store.collect(|| Ok(vec![manifests[0]]), false).unwrap();
    assert_eq!(collected.rewritten_packs, 1);
    assert!(store.usage().pack_bytes < before * 9 / 10);
}

#[test]
fn dead_packs_go_although_the_index_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = reopen(dir.path());
    let (kept, dead) = (weights(50_000, 0), weights(50_000, 3));
    let live = pack_file(&store, &kept, &[]);
    pack_file(&store, &dead, &[]);
    remove_index(dir.path());
    fs::create_dir(dir.path().join("index")).unwrap();
    let collected = store.collect(|| Ok(vec![live]), false).unwrap();
    assert_eq!(collected.deleted_packs, 1);
    assert_eq!(packs(dir.path()).len(), 1);
    let other = pack_file(&store, &dead, &[]);
    drop(store);
    fs::remove_dir(dir.path().join("index")).unwrap();
    let store = reopen(dir.path());
    assert!(read_file(&store, live).unwrap() == kept);
    assert!(read_file(&store, other).unwrap() == dead);
}

#[test]
fn a_collection_that_breaks_off_tells_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let store = reopen(dir.path());
    let (kept, dead) = (weights(100_000, 0), weights(90_000, 3));
    pack_file(&store, &weights(80_000, 5), &[]);
    let live = pack_files(&store, &[(&kept, &[]), (&dead, &[])]).unwrap()[0];
    // The names that unfinished packs of this process would have next: none can be begun.
    let taken = |serial: u32| dir.path().join(format!("packs/tmp-{}-{serial}", std::process::id()));
    (0..1000).for_each(|serial| fs::write(taken(serial), []).unwrap());
    let before = store.usage();
    let BrokenOff { done, error } = store.collect(|| Ok(vec![live]), false).unwrap_err();
    assert!(matches!(error, Error::Io { action: "create", .. }), "{error}");
    assert_eq!((done.deleted_packs, done.rewritten_packs), (1, 0));
    assert!(done.dead_blobs > 0);
    let after = store.usage().pack_bytes;
    assert_eq!((done.freed_bytes, done.kept_bytes), (before.pack_bytes - after, after));
    // The next one does the rest.
    (0..1000).for_each(|serial| fs::remove_file(taken(serial)).unwrap());
    let collected = store.collect(|| Ok(vec![live]), false).unwrap();
    assert_eq!((collected.deleted_packs, collected.rewritten_packs), (0, 1));
    assert!(read_file(&store, live).unwrap() == kept);
}

/// A file system of a few MiB, which can be full.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, and a word about it on the terminal, where mounting is not allowed.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOSUID;
        match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, c"size=24m") {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                // Not by a macro, whose output the harness would keep to itself.
                let _ = writeln!(
                    std::io::stderr(),
                    "NOT RUN, for want of a disk that can be full: mounting a tmpfs: {error}"
                );
                None
            }
        }
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        let mut filler = File::create(self.0.path().join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while filler.write(&vec![0xff; size]).is_ok_and(|written| written > 0) {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_made_room_on() {
    let Some(disk) = SmallDisk::new() else { return };
    let dir = disk.0.path();
    let store = reopen(dir);
    let mut live: Vec<(ManifestId, Vec<u8>)> = Vec::new();
    for step in 0..4 {
        let (kept, dead) = (weights(400_000 + step, 0), weights(900_000 + step, 3));
        let manifests = pack_files(&store, &[(&kept, &[]), (&dead, &[])]).unwrap();
        live.push((manifests[0], kept));
    }
    // More than what must stay of one pack, less than what must stay of all.
    pack_file(&store, &weights(600_000, 5), &[]);
    let roots = || -> Result<Vec<ManifestId>> { Ok(live.iter().map(|(id, _)| *id).collect()) };
    disk.fill();
    let before = store.usage().pack_bytes;
    assert!(fs::write(dir.join("more"), [0; 4096]).is_err(), "the disk is not full");
    drop(store);
    let store = reopen(dir);
    let collected = store.collect(roots, false).unwrap();
    assert_eq!((collected.deleted_packs, collected.rewritten_packs), (1, 4));
    assert!(store.usage().pack_bytes < before / 2);
    for store in [Arc::clone(&store), reopen(dir)] {
        assert_eq!(faults(&store), [""; 0]);
        for (id, bytes) in &live {
            assert!(read_file(&store, *id).unwrap() == *bytes);
        }
    }
    // It is opened without an index too, which there is no room to write.
    disk.fill();
    drop(store);
    File::create(dir.join("index")).unwrap();
    disk.fill();
    let store = reopen(dir);
    assert!(read_file(&store, live[0].0).unwrap() == live[0].1);
    store.collect(|| Ok(vec![live[0].0]), false).unwrap();
    assert!(read_file(&reopen(dir), live[0].0).unwrap() == live[0].1);
}
