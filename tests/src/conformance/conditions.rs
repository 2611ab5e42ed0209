//! Who is first wins, and who is not has changed nothing.

use mithril_engine::object::{Condition, ObjectError, PART_MIN_BYTES, Version};

use super::{Suite, at_once, lost, noise};

const RACERS: usize = 32;

pub(super) async fn absent(suite: &Suite<'_>) {
    let version = suite.put_if("key", b"first", &Condition::Absent).await.expect("there is no such key yet");
    let again = suite.put_if("key", b"second", &Condition::Absent).await;
    assert!(lost(&again), "the key is there: {again:?}");
    // Also with the same bytes.
    let again = suite.put_if("key", b"first", &Condition::Absent).await;
    assert!(lost(&again), "the key is there: {again:?}");
    suite.has("key", b"first", Some(&version)).await;
    suite.store.delete(&suite.key("key")).await.expect("a deletion");
    suite.put_if("key", b"third", &Condition::Absent).await.expect("it was deleted");
}

pub(super) async fn matches(suite: &Suite<'_>) {
    let first = suite.put("key", b"first").await;
    let second = suite.put_if("key", b"second", &Condition::Matches(first.clone())).await;
    let second = second.expect("this is the version that is there");
    assert_ne!(first, second);
    let late = suite.put_if("key", b"late", &Condition::Matches(first)).await;
    assert!(lost(&late), "this version was replaced: {late:?}");
    suite.has("key", b"second", Some(&second)).await;
    // Versions are the same by whatever answer they come.
    let head = suite.store.head(&suite.key("key")).await.expect("head").version;
    let third = suite.put_if("key", b"third", &Condition::Matches(head)).await.expect("the version of head");
    let page = suite.store.list(suite.key("key").as_str(), None).await.expect("a listing");
    assert_eq!(page.objects[0].version, third);
    let listed = Condition::Matches(page.objects[0].version.clone());
    let fourth = suite.put_if("key", b"fourth", &listed).await.expect("the version of a listing");
    suite.store.delete(&suite.key("key")).await.expect("a deletion");
    let gone = suite.put_if("key", b"fifth", &Condition::Matches(fourth)).await;
    assert!(lost(&gone), "what is not there has no version: {gone:?}");
    suite.has_not("key").await;
}

pub(super) async fn races(suite: &Suite<'_>) {
    for round in 0..3 {
        let name = format!("race-{round}");
        race(suite, &name, round, &Condition::Absent).await;
    }
}

pub(super) async fn races_to_replace(suite: &Suite<'_>) {
    let mut version = suite.put("race", b"start").await;
    for round in 0..3 {
        version = race(suite, "race", round, &Condition::Matches(version)).await;
    }
}

/// Of many at once, one wins, and it is the one whose bytes are there.
async fn race(suite: &Suite<'_>, name: &str, round: u32, condition: &Condition) -> Version {
    // Never the same bytes again: where a version is a hash of them, a racer that writes what is there already wins
    // and leaves the version to the next.
    let body = |racer| format!("{name}, round {round}, racer {racer}").into_bytes();
    let bodies: Vec<Vec<u8>> = (0..RACERS).map(body).collect();
    let runs = bodies.iter().map(|body| suite.put_if(name, body, condition)).collect();
    let mut winner = None;
    for (racer, result) in at_once(runs).await.into_iter().enumerate() {
        match result {
            Ok(version) => {
                let other = winner.replace((racer, version));
                assert!(other.is_none(), "{racer} and {other:?} both won {name}");
            }
            // A server may have noticed that others write, and not who is first.
            Err(ObjectError::Lost { .. } | ObjectError::Conflict { .. }) => {}
            Err(error) => panic!("{racer} in the race for {name}: {error}"),
        }
    }
    let (racer, version) = winner.expect("somebody wins");
    suite.has(name, &bodies[racer], Some(&version)).await;
    version
}

pub(super) async fn short_uploads(suite: &Suite<'_>) {
    upload_conditions(suite, &[b"short"]).await;
    upload_conditions(suite, &[]).await;
}

pub(super) async fn uploads(suite: &Suite<'_>) {
    let body = noise(PART_MIN_BYTES + 999);
    let (first, second) = body.split_at(PART_MIN_BYTES);
    upload_conditions(suite, &[first, second]).await;
}

async fn upload_conditions(suite: &Suite<'_>, parts: &[&[u8]]) {
    let name = format!("upload of {}", parts.len());
    let body = parts.concat();
    let version = suite.upload(&name, parts, &Condition::Absent).await.expect("there is no such key yet");
    suite.has(&name, &body, Some(&version)).await;
    let again = suite.upload(&name, parts, &Condition::Absent).await;
    assert!(lost(&again), "the key is there: {again:?}");
    let other =
        suite.put_if(&name, b"other", &Condition::Matches(version.clone())).await.expect("the version");
    let late = suite.upload(&name, parts, &Condition::Matches(version)).await;
    assert!(lost(&late), "this version was replaced: {late:?}");
    suite.has(&name, b"other", Some(&other)).await;
    let version = suite.upload(&name, parts, &Condition::Matches(other.clone())).await.expect("the version");
    suite.has(&name, &body, Some(&version)).await;
    suite.store.delete(&suite.key(&name)).await.expect("a deletion");
    let gone = suite.upload(&name, parts, &Condition::Matches(other)).await;
    assert!(lost(&gone), "what is not there has no version: {gone:?}");
    suite.has_not(&name).await;
}
