//! Content stores: what is kept, what is given up, and what processes see of each other. Two stores on one directory stand
//! for two processes: they share nothing but the files.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use mithril_engine::content::blocking::ContentStore;
use mithril_engine::content::{Address, ContentError};
use mithril_engine::object::memory::MemoryStore;
use mithril_engine::object::{Condition, ObjectKey, ObjectStore};
use proptest::prelude::*;

/// Bytes that do not compress, others for each number.
fn blob(number: u64, len: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
    let mut bytes = vec![0; len];
    reader.fill(&mut bytes);
    bytes
}

fn allocated(directory: &Path) -> u64 {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

fn is_missing<T>(result: &Result<T, ContentError>) -> bool {
    matches!(result, Err(ContentError::NotFound(_)))
}

#[test]
fn what_is_put_is_got_also_after_another_opening() {
    let directory = tempfile::tempdir().unwrap();
    let blobs: Vec<Vec<u8>> = [0, 1, 63, 64, 4096, 16 << 10, (16 << 10) + 1, 1 << 20, 5_000_001]
        .into_iter()
        .enumerate()
        .map(|(number, len)| blob(number as u64, len))
        .collect();
    let addresses: Vec<Address> = {
        let store = ContentStore::new(directory.path()).unwrap();
        blobs.iter().map(|blob| store.put(blob).unwrap()).collect()
    };
    let store = ContentStore::new(directory.path()).unwrap();
    for (blob, address) in blobs.iter().zip(&addresses) {
        assert_eq!(*address, Address::of(blob));
        assert!(store.contains(address).unwrap());
        assert!(store.get(address).unwrap() == *blob);
    }
    let mut sorted = addresses.clone();
    sorted.sort_unstable();
    assert_eq!(store.list().unwrap(), sorted);
    // Twice is once.
    let bytes = store.stats().bytes;
    store.put(&blobs[4]).unwrap();
    assert_eq!(store.stats().bytes, bytes);
    store.delete(&addresses[4]).unwrap();
    assert!(is_missing(&store.get(&addresses[4])) && !store.contains(&addresses[4]).unwrap());
    store.put(&blobs[4]).unwrap();
    assert!(store.get(&addresses[4]).unwrap() == blobs[4]);
    store.sync().unwrap();
    let stats = store.stats();
    assert_eq!((stats.entries, stats.hits, stats.misses), (blobs.len() as u64, blobs.len() as u64 + 1, 1));
}

/// Written by the first release; never written anew.
#[test]
fn a_segment_of_an_earlier_release_stays_readable() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let directory = tempfile::tempdir().unwrap();
    let id = &std::fs::read(golden.join("content.segment")).unwrap()[8..24];
    let name = &id.iter().fold("segment-".to_owned(), |name, byte| name + &format!("{byte:02x}"));
    // Under another name it is the copy of a segment, and not used.
    std::fs::copy(
        golden.join("content.segment"),
        directory.path().join(format!("segment-{}", "0".repeat(32))),
    )
    .unwrap();
    assert_eq!(ContentStore::new(directory.path()).unwrap().stats().entries, 0);
    for (file, refused) in [("content.segment", false), ("content-damaged-version.segment", true)] {
        std::fs::copy(golden.join(file), directory.path().join(name)).unwrap();
        let store = ContentStore::new(directory.path()).unwrap();
        for (number, len) in [(0, 0), (1, 100), (2, 5000), (4, 20_000)] {
            let read = store.get(&Address::of(&blob(number, len)));
            if refused {
                assert!(is_missing(&read), "{file}");
            } else {
                assert!(read.unwrap() == blob(number, len), "{number}");
            }
        }
        // It was given up.
        assert!(is_missing(&store.get(&Address::of(&blob(3, 9000)))));
    }
    // A blob that rotted.
    std::fs::copy(golden.join("content-damaged-blob.segment"), directory.path().join(name)).unwrap();
    let store = ContentStore::new(directory.path()).unwrap();
    assert!(matches!(
        store.get(&Address::of(&blob(2, 5000))),
        Err(ContentError::Local(mithril_engine::Error::Corrupt { .. }))
    ));
    assert!(store.get(&Address::of(&blob(4, 20_000))).unwrap() == blob(4, 20_000));
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let store = ContentStore::with_budget(directory.path(), 3 * (100_000 + 64)).unwrap();
    let put = |number| store.put(&blob(number, 100_000)).unwrap();
    let [a, b, c] = [put(1), put(2), put(3)];
    store.get(&a).unwrap();
    let d = put(4);
    assert!(is_missing(&store.get(&b)));
    for address in [a, c, d] {
        store.get(&address).unwrap();
    }
    assert_eq!(store.stats().evictions, 1);
    let too_long = store.put(&blob(5, 400_000)).unwrap_err().to_string();
    assert!(too_long.contains("400000 bytes are more than the store may keep"), "{too_long}");
    assert_eq!(store.stats().entries, 3);
}

#[test]
fn the_disk_holds_no_more_than_the_budget() {
    let budget = 8 << 20;
    for len in [300, 5000, 100_000] {
        let directory = tempfile::tempdir().unwrap();
        let store = ContentStore::with_budget(directory.path(), budget).unwrap();
        let mut most = 0;
        for number in 0..(4 * budget / len as u64) {
            store.put(&blob(number, len)).unwrap();
            if number % 64 == 0 {
                most = most.max(allocated(directory.path()));
            }
        }
        assert!(store.stats().bytes <= budget);
        // Segments that are half empty, and blocks that are shared by two blobs.
        assert!(most < budget * 9 / 4, "{len}: {most}");
        assert!(store.stats().evictions > 0);
    }
}

#[test]
fn processes_see_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let budget = 1 << 20;
    let open = || ContentStore::with_budget(directory.path(), budget).unwrap();
    let (one, other) = (open(), open());
    let address = one.put(b"from one").unwrap();
    assert_eq!(other.get(&address).unwrap(), b"from one");
    let answer = other.put(b"from the other").unwrap();
    assert_eq!(one.get(&answer).unwrap(), b"from the other");
    one.delete(&answer).unwrap();
    assert!(is_missing(&other.get(&answer)));
    // The other one is used, by a process that does not evict: that is known too, as far as the clock tells.
    for number in 0..100 {
        one.put(&blob(number, 50_000)).unwrap();
    }
    assert!(is_missing(&other.get(&address)));
    assert!(other.get(&Address::of(&blob(99, 50_000))).is_ok());
    assert!(other.list().unwrap() == one.list().unwrap());
    // And many at once.
    let budget = 4 << 20;
    let directory = tempfile::tempdir().unwrap();
    let open = || ContentStore::with_budget(directory.path(), budget).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let store = open();
            scope.spawn(move || {
                for number in 0..400_usize {
                    let bytes = blob(1000 + (number as u64 * 7 + worker) % 60, 3000 + (number % 60) * 100);
                    let address = store.put(&bytes).unwrap();
                    // There is room for all of them: what was put is there.
                    assert!(store.get(&address).unwrap() == bytes);
                }
            });
        }
    });
    assert!(allocated(directory.path()) < 3 * budget);
}

#[test]
fn what_another_process_gave_up_is_stored_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || ContentStore::new(directory.path()).unwrap();
    let (one, other) = (open(), open());
    for len in [10, 100_000] {
        let bytes = blob(1, len);
        let address = one.put(&bytes).unwrap();
        other.delete(&address).unwrap();
        assert!(!one.contains(&address).unwrap());
        assert_eq!(one.put(&bytes).unwrap(), address);
        assert!(one.get(&address).unwrap() == bytes && other.get(&address).unwrap() == bytes);
        // Stored by both without knowing of each other, and deleted once: it is gone, also for those who come later.
        let twice = blob(2, len);
        let third = open();
        let address = third.put(&twice).unwrap();
        one.put(&twice).unwrap();
        other.put(&twice).unwrap();
        third.delete(&address).unwrap();
        for store in [&one, &other, &third, &open()] {
            assert!(is_missing(&store.get(&address)));
        }
    }
}

/// Blobs that live on move out of segments that are mostly given up; wherever they go, they stay, and keep their turn.
#[test]
fn what_is_left_of_a_segment_outlives_it() {
    let directory = tempfile::tempdir().unwrap();
    // A segment is 64 KiB here.
    let open = || ContentStore::with_budget(directory.path(), 1 << 20).unwrap();
    let store = open();
    let kept: Vec<Vec<u8>> = (0..8).map(|number| blob(1_000_000 + number, 9000)).collect();
    let mut addresses = Vec::new();
    let mut last = None;
    for number in 0..100 {
        last = Some(store.put(&blob(number, 9000)).unwrap());
        if number % 12 == 0 {
            addresses.push(store.put(&kept[addresses.len() % kept.len()]).unwrap());
        }
    }
    drop(store);
    for round in 0..12 {
        // Each process begins with no segment of its own, and finds old ones, full and short.
        let store = open();
        for address in &addresses {
            assert!(store.contains(address).unwrap(), "{round}");
            store.get(address).unwrap();
        }
        for number in 0..60 {
            store.put(&blob(1000 + round * 100 + number, 9000)).unwrap();
            if number % 20 == 0 {
                addresses.iter().for_each(|address| assert!(store.get(address).is_ok(), "{round} {number}"));
            }
        }
        for (number, address) in addresses.iter().enumerate() {
            assert!(store.get(address).unwrap() == kept[number % kept.len()], "{round}");
        }
    }
    assert!(is_missing(&open().get(&last.unwrap())));
    assert!(allocated(directory.path()) < 3 << 20);
}

/// Of segments that are removed one after the other, none takes up what is left of another.
#[test]
fn nothing_moves_to_where_it_is_removed_next() {
    for _ in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        let open = || ContentStore::with_budget(directory.path(), 1 << 20).unwrap();
        let store = open();
        // Most of the budget, a segment each; a segment of which two blobs will be left; a short one of which none will.
        for number in 0..12 {
            store.put(&blob(number, 80_000)).unwrap();
        }
        let small: Vec<Address> = (100..109).map(|number| store.put(&blob(number, 9000)).unwrap()).collect();
        drop(store);
        let store = open();
        for address in [&small[..3], &small[5..]].concat() {
            store.delete(&address).unwrap();
        }
        let left = &small[3..5];
        left.iter().for_each(|address| drop(store.get(address).unwrap()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 14);
        store.put(&blob(12, 80_000)).unwrap();
        assert!(std::fs::read_dir(directory.path()).unwrap().count() < 15, "nothing was removed");
        for store in [store, open()] {
            left.iter().for_each(|address| drop(store.get(address).unwrap()));
        }
    }
}

/// What a writer that died left behind, half a record or bytes of none, is written over.
#[test]
fn a_writer_that_died_leaves_nothing_in_the_way() {
    let whole = {
        let directory = tempfile::tempdir().unwrap();
        ContentStore::new(directory.path()).unwrap().put(&blob(1, 5000)).unwrap();
        let path = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap())
    };
    for cut in [0, 8, 31, 32, 33, 95, 96, 97, 3000, whole.1.len() - 1, whole.1.len()] {
        for noise in [0, 1, 40, 5000] {
            let directory = tempfile::tempdir().unwrap();
            let bytes = [&whole.1[..cut], &blob(9, noise)].concat();
            std::fs::write(directory.path().join(&whole.0), bytes).unwrap();
            let (one, other) =
                (ContentStore::new(directory.path()).unwrap(), ContentStore::new(directory.path()).unwrap());
            for number in 2..6 {
                let address = one.put(&blob(number, 3000)).unwrap();
                assert!(other.get(&address).unwrap() == blob(number, 3000), "{cut} {noise}");
            }
            let left = other.get(&Address::of(&blob(1, 5000)));
            assert!(left.is_err() || left.unwrap() == blob(1, 5000));
            drop((one, other));
            let again = ContentStore::new(directory.path()).unwrap();
            for number in 2..6 {
                assert!(
                    again.get(&Address::of(&blob(number, 3000))).unwrap() == blob(number, 3000),
                    "{cut} {noise}"
                );
            }
        }
    }
}

/// A child that was forked shares its parent's descriptors, and with them the lock of its segment.
#[test]
fn a_forked_child_appends_to_a_segment_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let store = ContentStore::new(directory.path()).unwrap();
    store.put(&blob(1, 1000)).unwrap();
    // SAFETY: the child only uses the store, whose locks nobody holds, and ends without running anything else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let stored = (100..150).all(|number| store.put(&blob(number, 1000)).is_ok());
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!stored)) };
    }
    for number in 200..250 {
        store.put(&blob(number, 1000)).unwrap();
    }
    let mut status = 0;
    // SAFETY: the child is ours, and status is a place for an integer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child stored everything");
    let fresh = ContentStore::new(directory.path()).unwrap();
    for number in [1].into_iter().chain(100..150).chain(200..250) {
        let address = Address::of(&blob(number, 1000));
        assert!(store.get(&address).unwrap() == blob(number, 1000), "{number}");
        assert!(fresh.get(&address).unwrap() == blob(number, 1000), "{number}");
    }
}

#[test]
fn segments_of_processes_that_stored_little_are_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let mut addresses = Vec::new();
    for number in 0..50 {
        let store = ContentStore::new(directory.path()).unwrap();
        addresses.push(store.put(&blob(number, 1000)).unwrap());
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let store = ContentStore::new(directory.path()).unwrap();
    for (number, address) in addresses.iter().enumerate() {
        assert!(store.get(address).unwrap() == blob(number as u64, 1000));
    }
}

#[test]
fn no_damage_gives_wrong_bytes() {
    let blobs: Vec<Vec<u8>> = (0..8).map(|number| blob(number as u64, 700 + number * 900)).collect();
    let made = tempfile::tempdir().unwrap();
    {
        let store = ContentStore::new(made.path()).unwrap();
        for blob in &blobs {
            store.put(blob).unwrap();
        }
    }
    let name = std::fs::read_dir(made.path()).unwrap().next().unwrap().unwrap().file_name();
    let whole = std::fs::read(made.path().join(&name)).unwrap();
    let mut damaged = 0;
    for at in (0..whole.len()).step_by(37).chain(0..96) {
        for cut in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(&name);
            std::fs::write(&path, if cut { &whole[..at] } else { &whole[..] }).unwrap();
            if !cut {
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                file.write_all_at(&[whole[at] ^ (1 << (at % 8))], at as u64).unwrap();
            }
            let store = ContentStore::new(directory.path()).unwrap();
            for blob in &blobs {
                let address = Address::of(blob);
                match store.get(&address) {
                    Ok(read) => assert!(read == *blob, "{at}"),
                    Err(error) => {
                        damaged += 1;
                        assert!(
                            matches!(error, ContentError::NotFound(_)) || is_missing(&store.get(&address)),
                            "{at}: an error is said once, and then it is gone"
                        );
                    }
                }
                store.put(blob).unwrap();
                assert!(store.get(&address).unwrap() == *blob, "{at}");
            }
        }
    }
    assert!(damaged > 100, "{damaged}");
}

#[test]
fn a_store_behind_serves_other_machines_and_what_was_evicted() {
    let remote = Arc::new(MemoryStore::new());
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |path: &Path| ContentStore::with_remote(remote.clone(), path, 200_000).unwrap();
    let (one, other) = (open(here.path()), open(there.path()));
    let blobs: Vec<Vec<u8>> = (0..5).map(|number| blob(number, 90_000)).chain([blob(9, 300_000)]).collect();
    let addresses: Vec<Address> = blobs.iter().map(|blob| one.put(blob).unwrap()).collect();
    for store in [&one, &other] {
        for (blob, address) in blobs.iter().zip(&addresses) {
            assert!(store.contains(address).unwrap());
            assert!(store.get(address).unwrap() == *blob);
        }
        assert_eq!(store.list().unwrap().len(), blobs.len());
        assert!(store.stats().bytes <= 200_000);
    }
    // What the object store has is checked as well.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let digits = addresses[0].to_string();
    let key = ObjectKey::new(format!("blobs/{}/{digits}", &digits[..2])).unwrap();
    runtime.block_on(remote.put(&key, blob(77, 90_000).into(), &Condition::Always)).unwrap();
    let third = tempfile::tempdir().unwrap();
    let error = open(third.path()).get(&addresses[0]).unwrap_err().to_string();
    assert!(error.contains("another address"), "{error}");
    one.delete(&addresses[1]).unwrap();
    assert!(is_missing(&open(third.path()).get(&addresses[1])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A map of bytes, as long as there is room.
    #[test]
    fn a_store_is_a_map(operations in prop::collection::vec((0..5_u8, 0..12_u64, 0..20_000_usize), 1..80)) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = ContentStore::new(directory.path()).unwrap();
        let mut model = BTreeMap::new();
        for (action, number, len) in operations {
            let bytes = blob(number, len % (1 << (number + 3)));
            let address = Address::of(&bytes);
            match action {
                0 | 1 => {
                    prop_assert_eq!(store.put(&bytes).unwrap(), address);
                    model.insert(address, bytes);
                }
                2 => match model.get(&address) {
                    Some(kept) => prop_assert!(store.get(&address).unwrap() == *kept),
                    None => prop_assert!(is_missing(&store.get(&address))),
                },
                3 => {
                    store.delete(&address).unwrap();
                    model.remove(&address);
                }
                _ => {
                    drop(store);
                    store = ContentStore::new(directory.path()).unwrap();
                }
            }
            prop_assert_eq!(store.stats().entries, model.len() as u64);
        }
        prop_assert_eq!(store.list().unwrap(), model.keys().copied().collect::<Vec<_>>());
    }
}
