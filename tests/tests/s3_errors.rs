//! What servers and networks do to a request arrives as the error that says what to do about it, within the deadline.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mithril_engine::object::s3::{S3Config, S3Credentials, S3Store};
use mithril_engine::object::{Condition, ObjectError, ObjectKey, ObjectStore};
use mithril_engine::range::ByteRange;
use mithril_tests::s3::{ACCESS_KEY, Kind, S3Faults, S3Server};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

/// A store on a server that has the object `there`.
async fn with_object(server: &S3Server, config: S3Config) -> S3Store {
    let store = S3Store::connect(config).await.unwrap();
    server.set_faults(S3Faults::default());
    store.put(&key("there"), Bytes::from(vec![7; 100_000]), &Condition::Always).await.unwrap();
    store
}

fn name(error: &ObjectError) -> String {
    format!("{error:?}").split([' ', '{']).next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_its_error() {
    let server = S3Server::start();
    let store = with_object(&server, server.config()).await;
    for (status, code, wanted, says) in [
        (403, "AccessDenied", "Denied", "AccessDenied"),
        (403, "InvalidAccessKeyId", "Denied", "credentials"),
        (400, "ExpiredToken", "Denied", "expired"),
        (403, "RequestTimeTooSkewed", "Denied", "clock"),
        (401, "", "Denied", "401"),
        (404, "NoSuchBucket", "Invalid", "there is no bucket models"),
        (409, "ConditionalRequestConflict", "Conflict", "there"),
        (409, "OperationAborted", "Conflict", "there"),
        (412, "PreconditionFailed", "Lost", "there"),
        (429, "TooManyRequests", "Busy", "429"),
        (503, "SlowDown", "Busy", "SlowDown"),
        (503, "", "Busy", "503"),
        (500, "InternalError", "Server", "InternalError"),
        (502, "", "Server", "502"),
        (507, "XMinioStorageFull", "Full", "XMinioStorageFull"),
        (507, "", "Full", "507"),
        (403, "QuotaExceeded", "Full", "QuotaExceeded"),
        (400, "RequestTimeout", "Unreachable", "RequestTimeout"),
        (400, "BadDigest", "Damaged", "BadDigest"),
        (501, "NotImplemented", "Invalid", "cannot do this"),
        (400, "InvalidArgument", "Invalid", "InvalidArgument"),
    ] {
        server.set_faults(S3Faults { answer: Some((status, code)), ..S3Faults::default() });
        for condition in [Condition::Always, Condition::Absent] {
            let error = store.put(&key("there"), Bytes::from_static(b"x"), &condition).await.unwrap_err();
            assert_eq!(name(&error), wanted, "{status} {code}: {error}");
            assert!(error.to_string().contains(says), "{status} {code}: {error}");
        }
        let error = store.get(&key("there"), None).await.unwrap_err();
        assert_eq!(name(&error), wanted, "get: {status} {code}: {error}");
        let error = store.list("", None).await.unwrap_err();
        assert_eq!(name(&error), wanted, "list: {status} {code}: {error}");
    }
    // Answers to HEAD have no body, so no code.
    for (status, wanted) in
        [(404, "NotFound"), (403, "Denied"), (503, "Busy"), (500, "Server"), (507, "Full"), (400, "Invalid")]
    {
        server.set_faults(S3Faults { answer: Some((status, "Whatever")), ..S3Faults::default() });
        let error = store.head(&key("there")).await.unwrap_err();
        assert_eq!(name(&error), wanted, "{status}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_names_and_wrong_keys_are_said() {
    let server = S3Server::start();
    let elsewhere = S3Config { bucket: "elsewhere".to_owned(), ..server.config() };
    let error = S3Store::connect(elsewhere).await.unwrap().get(&key("a"), None).await.unwrap_err();
    assert!(matches!(error, ObjectError::Invalid { .. }), "{error:?}");
    assert!(error.to_string().contains("no bucket elsewhere"), "{error}");
    for credentials in
        [S3Credentials::new(ACCESS_KEY, "another secret", None), S3Credentials::new("AKIDNOBODY", "x", None)]
    {
        let config = S3Config { credentials: Some(credentials), ..server.config() };
        let store = S3Store::connect(config).await.unwrap();
        for error in [
            store.list("", None).await.unwrap_err(),
            store.put(&key("a"), Bytes::new(), &Condition::Always).await.unwrap_err(),
        ] {
            assert!(matches!(error, ObjectError::Denied { .. }), "{error:?}");
        }
    }
    let anonymous = S3Config { credentials: None, anonymous: true, ..server.config() };
    let error = S3Store::connect(anonymous).await.unwrap().get(&key("a"), None).await.unwrap_err();
    assert!(matches!(error, ObjectError::Denied { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_whole_are_damaged() {
    let server = S3Server::start();
    let store = with_object(&server, server.config()).await;
    let range = Some(ByteRange { offset: 10, len: 50_000 });
    server.set_faults(S3Faults { truncated: 1.0, seed: 5, ..S3Faults::default() });
    for range in [None, range] {
        let error = store.get(&key("there"), range).await.unwrap_err();
        assert!(matches!(error, ObjectError::Damaged { .. }), "{error:?}");
        assert!(error.is_transient() && !error.is_uncertain());
    }
    server.set_faults(S3Faults { wrong_range: true, ..S3Faults::default() });
    let error = store.get(&key("there"), range).await.unwrap_err();
    assert!(matches!(error, ObjectError::Damaged { .. }), "{error:?}");
    // A wrong bit is for those to find who know what the bytes should be.
    server.set_faults(S3Faults { flipped: 1.0, ..S3Faults::default() });
    let got = store.get(&key("there"), None).await.unwrap().bytes;
    assert_eq!(got.iter().map(|byte| (byte ^ 7).count_ones()).sum::<u32>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_uncertain_and_not_asked_for_again() {
    let server = S3Server::start();
    // Even where retries are wanted.
    let store = with_object(&server, S3Config { attempts: 4, ..server.config() }).await;
    let puts = server.count(Kind::Put);
    server.set_faults(S3Faults { lost_answer: 1.0, ..S3Faults::default() });
    let error = store.put(&key("new"), Bytes::from_static(b"x"), &Condition::Absent).await.unwrap_err();
    assert!(matches!(error, ObjectError::Unreachable { .. }) && error.is_uncertain(), "{error:?}");
    assert_eq!(server.count(Kind::Put), puts + 1, "a conditional put is sent once");
    server.set_faults(S3Faults::default());
    assert_eq!(store.get(&key("new"), None).await.unwrap().bytes, "x", "it was applied");
    // And so is the end of an upload.
    let large = key("large");
    let mut upload = store.upload(&large).await.unwrap();
    upload.part(vec![1; 5 << 20].into()).await.unwrap();
    upload.part(vec![2; 10].into()).await.unwrap();
    server.set_faults(S3Faults { conflict: 1.0, ..S3Faults::default() });
    let error = upload.finish(&Condition::Absent).await.unwrap_err();
    assert!(matches!(error, ObjectError::Conflict { .. }), "{error:?}");
    assert_eq!((server.count(Kind::Complete), server.open_uploads()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_sent_twice_is_tried_again() {
    let server = S3Server::start();
    let store = with_object(&server, S3Config { attempts: 6, ..server.config() }).await;
    server.set_faults(S3Faults { busy: 0.3, lost_answer: 0.2, seed: 3, ..S3Faults::default() });
    for i in 0..10 {
        store.put(&key(&format!("{i}")), Bytes::from_static(b"x"), &Condition::Always).await.unwrap();
        store.get(&key("there"), None).await.unwrap();
    }
    assert!(server.count(Kind::Put) > 11 && server.count(Kind::Get) > 10, "{:?}", server.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_at_the_deadline() {
    let server = S3Server::start();
    let (small, large) = (Duration::from_millis(400), Duration::from_millis(900));
    let config = S3Config { head_deadline: small, deadline: large, attempts: 3, ..server.config() };
    let store = with_object(&server, config).await;
    server.set_faults(S3Faults { black_hole: true, ..S3Faults::default() });
    let (at, there) = (|| Bytes::from_static(b"x"), key("there"));
    let timed = async |limit: Duration, result: ObjectError, begun: Instant| {
        assert!(matches!(result, ObjectError::Unreachable { .. }), "{result:?}");
        assert!(begun.elapsed() < limit + Duration::from_millis(1500), "{:?}", begun.elapsed());
    };
    let begun = Instant::now();
    timed(small, store.head(&there).await.unwrap_err(), begun).await;
    let begun = Instant::now();
    timed(small, store.list("", None).await.unwrap_err(), begun).await;
    let begun = Instant::now();
    timed(small, store.delete(&there).await.unwrap_err(), begun).await;
    let begun = Instant::now();
    timed(large, store.get(&there, None).await.unwrap_err(), begun).await;
    let begun = Instant::now();
    timed(large, store.put(&there, at(), &Condition::Always).await.unwrap_err(), begun).await;
    let begun = Instant::now();
    timed(large, store.put(&there, at(), &Condition::Absent).await.unwrap_err(), begun).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_port_is_unreachable() {
    let server = S3Server::start();
    let config = S3Config { attempts: 2, ..server.config() };
    drop(server);
    let store = S3Store::connect(config.clone()).await.unwrap();
    let error = store.get(&key("a"), None).await.unwrap_err();
    assert!(matches!(error, ObjectError::Unreachable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&config.endpoint_url.unwrap()) && text.contains("--endpoint-url"), "{text}");
}
