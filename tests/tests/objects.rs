//! Every store of objects keeps the same contract, and the decorators do what they say.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mithril_engine::object::directory::DirectoryStore;
use mithril_engine::object::faults::{Faults, Faulty};
use mithril_engine::object::memory::MemoryStore;
use mithril_engine::object::probe::{probe, probe_uploads};
use mithril_engine::object::s3::{S3Config, S3Store};
use mithril_engine::object::throttle::Throttled;
use mithril_engine::object::{Condition, ObjectError, ObjectKey, ObjectStore, list_all};
use mithril_tests::conformance::{Expect, conforms, conforms_as};
use mithril_tests::s3::{Kind, S3Faults, S3Server};

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new())
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conforms(&DirectoryStore::open(directory.path()).unwrap()).await;
    // What a writer left that died is removed, what one that lives writes is not.
    let left = directory.path().join("new/left");
    std::fs::write(&left, b"half").unwrap();
    let store = DirectoryStore::open(directory.path()).unwrap();
    assert!(!left.exists());
    let key = ObjectKey::new("long").unwrap();
    let mut upload = store.upload(&key).await.unwrap();
    upload.part(Bytes::from_static(b"one")).await.unwrap();
    let other = DirectoryStore::open(directory.path()).unwrap();
    upload.part(Bytes::from_static(b", two")).await.unwrap();
    upload.finish(&Condition::Absent).await.unwrap();
    assert_eq!(other.get(&key, None).await.unwrap().bytes, "one, two");
}

#[tokio::test]
async fn a_throttled_store_conforms() {
    conforms(&Throttled::new(memory(), Duration::from_micros(200), NonZeroU64::new(1 << 30))).await;
}

#[tokio::test]
async fn a_store_without_faults_conforms() {
    let store = Faulty::new(memory(), Faults::default(), 1);
    conforms(&store).await;
    let counts = store.counts();
    assert!(counts.calls > 500, "{counts:?}");
    assert_eq!(counts.unreachable_before + counts.busy + counts.server + counts.flipped, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let server = S3Server::start();
    conforms(&S3Store::connect(server.config()).await.unwrap()).await;
    assert_eq!(server.open_uploads(), 0, "what ends has no parts left");
    // In a part of the bucket, with pages that end everywhere, and a server that does not quote its ETags.
    server.set_page(7);
    server.set_faults(S3Faults { plain_etags: true, ..S3Faults::default() });
    let config = S3Config { prefix: "team ä/runs+1".to_owned(), ..server.config() };
    conforms(&S3Store::connect(config).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_a_bucket_of_its_own() {
    let server = S3Server::start();
    let whole = S3Store::connect(server.config()).await.unwrap();
    let part = S3Store::connect(S3Config { prefix: "p".to_owned(), ..server.config() }).await.unwrap();
    let key = |name: &str| ObjectKey::new(name).unwrap();
    for name in ["p/a", "p-b", "q/a"] {
        whole.put(&key(name), Bytes::from_static(b"1"), &Condition::Always).await.unwrap();
    }
    let listed = list_all(&part, "").await.unwrap();
    assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(part.get(&key("a"), None).await.unwrap().len, 1);
    assert_eq!(whole.list("p", None).await.unwrap().objects.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_have_all_pages() {
    let server = S3Server::start();
    server.set_page(10);
    let store = S3Store::connect(server.config()).await.unwrap();
    for i in 0..45 {
        let key = ObjectKey::new(format!("o/{i:03}")).unwrap();
        store.put(&key, Bytes::new(), &Condition::Always).await.unwrap();
    }
    assert_eq!(list_all(&store, "o/").await.unwrap().len(), 45);
    assert_eq!(server.count(Kind::List), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_one_part_are_one_request() {
    let server = S3Server::start();
    let store = S3Store::connect(server.config()).await.unwrap();
    let key = ObjectKey::new("short").unwrap();
    let mut upload = store.upload(&key).await.unwrap();
    upload.part(vec![1; 6 << 20].into()).await.unwrap();
    upload.finish(&Condition::Absent).await.unwrap();
    assert_eq!((server.count(Kind::Put), server.count(Kind::Begin)), (1, 0));
    // An upload that loses leaves nothing behind that costs space.
    let mut upload = store.upload(&key).await.unwrap();
    upload.part(vec![1; 6 << 20].into()).await.unwrap();
    upload.part(vec![2; 10].into()).await.unwrap();
    let lost = upload.finish(&Condition::Absent).await;
    assert!(matches!(lost, Err(ObjectError::Lost { .. })), "{lost:?}");
    assert_eq!((server.count(Kind::Complete), server.count(Kind::Abort), server.open_uploads()), (1, 1, 0));
    // Parts that S3 would refuse at the end are refused at once.
    let mut upload = store.upload(&key).await.unwrap();
    upload.part(vec![1; 1000].into()).await.unwrap();
    let short = upload.part(vec![1; 1000].into()).await;
    assert!(matches!(short, Err(ObjectError::Invalid { .. })), "{short:?}");
    let broken = upload.finish(&Condition::Always).await;
    assert!(matches!(broken, Err(ObjectError::Invalid { .. })), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_without_conditions_are_found_out() {
    let memory = MemoryStore::new();
    let found = probe(&memory, "some/where/").await.unwrap();
    assert!(found.conditions() && found.lists_at_once && found.lists_below, "{found:?}");
    assert!(list_all(&memory, "").await.unwrap().is_empty(), "the probe leaves nothing behind");

    let server = S3Server::start();
    let store = S3Store::connect(server.config()).await.unwrap();
    let found = probe(&store, "").await.unwrap();
    assert!(found.put_absent && found.put_matches && found.lists_at_once, "{found:?}");
    assert!(probe_uploads(&store, "").await.unwrap().conditions());
    for faults in [
        S3Faults { ignore_conditions: true, ..S3Faults::default() },
        S3Faults { refuse_conditions: true, ..S3Faults::default() },
    ] {
        server.set_faults(faults);
        let found = probe(&store, "").await.unwrap();
        assert!(!found.put_absent && !found.put_matches && found.lists_at_once, "{faults:?}: {found:?}");
        let found = probe_uploads(&store, "").await.unwrap();
        assert!(!found.absent && !found.matches, "{faults:?}: {found:?}");
        // All else works there.
        let expect = Expect::probed(&store).await.unwrap();
        assert_eq!(expect, Expect { conditions: false, uploads: false, nested: true });
        conforms_as(&store, expect).await;
    }
    assert!(list_all(&store, "").await.unwrap().is_empty(), "probes leave nothing behind");
    // A bucket that is not there is not a server without conditions.
    let config = S3Config { bucket: "elsewhere".to_owned(), ..server.config() };
    let elsewhere = probe(&S3Store::connect(config).await.unwrap(), "").await;
    assert!(matches!(elsewhere, Err(ObjectError::Invalid { .. })), "{elsewhere:?}");
}

#[tokio::test]
async fn faults_are_repeatable_and_do_what_they_say() {
    let everything = Faults {
        unreachable_before: 0.1,
        unreachable_after: 0.1,
        busy: 0.1,
        server: 0.1,
        conflict: 0.1,
        truncated: 0.1,
        flipped: 0.1,
    };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let store = Faulty::new(memory(), everything, 7);
        let mut seen = Vec::new();
        for i in 0..300 {
            let key = ObjectKey::new(format!("{}", i % 10)).unwrap();
            seen.push(format!("{:?}", store.put(&key, vec![7; 100].into(), &Condition::Always).await));
            seen.push(format!("{:?}", store.get(&key, None).await));
        }
        let counts = store.counts();
        assert_eq!(counts.calls, 600);
        for count in [counts.unreachable_before, counts.unreachable_after, counts.busy, counts.server] {
            assert!((30..90).contains(&count), "{counts:?}");
        }
        for count in [counts.conflict, counts.truncated, counts.flipped] {
            assert!((12..50).contains(&count), "{counts:?}");
        }
        runs.push((seen, counts));
    }
    assert_eq!(runs[0], runs[1]);

    let inner = memory();
    let only = |faults| Faulty::new(Arc::clone(&inner), faults, 3);
    let key = ObjectKey::new("key").unwrap();
    let put = async |store: Faulty, body: &'static [u8]| {
        store.put(&key, Bytes::from_static(body), &Condition::Always).await
    };
    let lost = put(only(Faults { unreachable_after: 1.0, ..Faults::default() }), b"applied").await;
    assert!(lost.unwrap_err().is_uncertain());
    let never = put(only(Faults { unreachable_before: 1.0, ..Faults::default() }), b"not applied").await;
    assert!(never.unwrap_err().is_uncertain());
    assert_eq!(inner.get(&key, None).await.unwrap().bytes, "applied");
    let cut = only(Faults { truncated: 1.0, ..Faults::default() }).get(&key, None).await.unwrap();
    assert!(cut.bytes.len() < 7 && cut.len == 7);
    let flipped = only(Faults { flipped: 1.0, ..Faults::default() }).get(&key, None).await.unwrap().bytes;
    let bits: u32 = flipped.iter().zip(b"applied").map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!((flipped.len(), bits), (7, 1));
}
