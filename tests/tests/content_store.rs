//! A content store with S3 behind it: other machines, and a server that is not well.

use std::time::{Duration, Instant};

use mithril_engine::content::{Address, ContentError, ContentStore, blocking};
use mithril_engine::object::s3::S3Config;
use mithril_tests::data::Random;
use mithril_tests::s3::{S3Faults, S3Server};

const BUDGET: u64 = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_one_machine_keeps_another_gets() {
    let server = S3Server::start();
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = ContentStore::with_s3(server.config(), here.path(), BUDGET).await.unwrap();
    let mut random = Random::new(1);
    // The last one is put in parts, and longer than the budget.
    let blobs: Vec<Vec<u8>> =
        [0, 1, 4096, 1 << 20, 70 << 20].into_iter().map(|len| random.bytes(len)).collect();
    let mut addresses = Vec::new();
    for blob in &blobs {
        addresses.push(one.put(blob).await.unwrap());
    }
    let other = ContentStore::with_s3(server.config(), there.path(), BUDGET).await.unwrap();
    for (blob, address) in blobs.iter().zip(&addresses) {
        assert!(other.contains(address).await.unwrap());
        assert!(other.get(address).await.unwrap() == *blob);
    }
    assert_eq!(other.list().await.unwrap().len(), blobs.len());
    assert_eq!(server.open_uploads(), 0);
    // What is here is read without asking the server.
    let before = server.counts();
    assert!(other.get(&addresses[3]).await.unwrap() == blobs[3]);
    assert_eq!(server.counts(), before);
    // Keeping it again costs one request at most, and changes nothing.
    assert_eq!(one.put(&blobs[2]).await.unwrap(), addresses[2]);
    other.delete(&addresses[2]).await.unwrap();
    assert!(matches!(other.get(&addresses[2]).await, Err(ContentError::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_well_gives_errors_in_time_and_never_wrong_bytes() {
    let server = S3Server::start();
    let config = S3Config {
        attempts: 1,
        head_deadline: Duration::from_secs(1),
        deadline: Duration::from_secs(1),
        ..server.config()
    };
    let directory = tempfile::tempdir().unwrap();
    let store = ContentStore::with_s3(config.clone(), directory.path(), BUDGET).await.unwrap();
    let blob = Random::new(2).bytes(300_000);
    let address = store.put(&blob).await.unwrap();
    for faults in [
        S3Faults { black_hole: true, ..S3Faults::default() },
        S3Faults { busy: 1.0, ..S3Faults::default() },
        S3Faults { flipped: 1.0, ..S3Faults::default() },
        S3Faults { truncated: 1.0, ..S3Faults::default() },
    ] {
        server.set_faults(faults);
        let elsewhere = tempfile::tempdir().unwrap();
        let fresh = ContentStore::with_s3(config.clone(), elsewhere.path(), BUDGET).await.unwrap();
        let started = Instant::now();
        assert!(matches!(fresh.get(&address).await, Err(ContentError::Remote(_))), "{faults:?}");
        assert!(started.elapsed() < Duration::from_secs(8), "{faults:?}");
        // Nothing of it was cached; and what is here needs no server.
        assert_eq!(fresh.stats().entries, 0);
        assert!(store.get(&address).await.unwrap() == blob);
    }
    server.set_faults(S3Faults::default());
    let elsewhere = tempfile::tempdir().unwrap();
    let fresh = ContentStore::with_s3(config, elsewhere.path(), BUDGET).await.unwrap();
    assert!(fresh.get(&address).await.unwrap() == blob);
}

#[test]
fn those_who_wait_have_the_same() {
    let server = S3Server::start();
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = blocking::ContentStore::with_s3(server.config(), here.path(), BUDGET).unwrap();
    let other = blocking::ContentStore::with_s3(server.config(), there.path(), BUDGET).unwrap();
    let address = one.put(b"some bytes").unwrap();
    assert_eq!((address, other.get(&address).unwrap()), (Address::of(b"some bytes"), b"some bytes".to_vec()));
}
