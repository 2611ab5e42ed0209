//! What is written is read, by every way to read it.

use bytes::Bytes;
use mithril_engine::object::{Condition, ObjectError, ObjectKey, PART_MIN_BYTES, list_all};
use mithril_engine::range::ByteRange;

use super::{Suite, noise};

pub(super) async fn basics(suite: &Suite<'_>) {
    let body = noise(100_000);
    let first = suite.put("object", &body).await;
    suite.has("object", &body, Some(&first)).await;
    let second = suite.put("object", b"something else").await;
    assert_ne!(first, second, "another content is another version");
    suite.has("object", b"something else", Some(&second)).await;
    suite.store.delete(&suite.key("object")).await.expect("a deletion");
    suite.has_not("object").await;
    // Again under the same name: nobody remembers that it was not there.
    let third = suite.put("object", &body).await;
    suite.has("object", &body, Some(&third)).await;
}

pub(super) async fn empty(suite: &Suite<'_>) {
    let version = suite.put("empty", b"").await;
    suite.has("empty", b"", Some(&version)).await;
    let range = Some(ByteRange { offset: 0, len: 10 });
    let got = suite.store.get(&suite.key("empty"), range).await;
    assert!(matches!(got, Err(ObjectError::OutOfRange { offset: 0, .. })), "a range of nothing: {got:?}");
    let version = suite.upload("empty upload", &[], &Condition::Always).await.expect("an upload of nothing");
    suite.has("empty upload", b"", Some(&version)).await;
}

pub(super) async fn ranges(suite: &Suite<'_>) {
    let body = noise(1000);
    let version = suite.put("object", &body).await;
    let key = suite.key("object");
    for (offset, len) in
        [(0, 1), (0, 1000), (0, 1001), (0, u64::MAX), (1, 998), (999, 1), (999, 50), (500, 0), (0, 0)]
    {
        let got = suite.store.get(&key, Some(ByteRange { offset, len })).await;
        let got = got.unwrap_or_else(|error| panic!("{len} bytes at {offset}: {error}"));
        let start = usize::try_from(offset).expect("a place in the object");
        let end = usize::try_from(offset.saturating_add(len).min(1000)).expect("a place in the object");
        assert!(got.bytes == body[start..end], "{len} bytes at {offset}: {} came", got.bytes.len());
        assert_eq!((got.len, &got.version), (1000, &version), "{len} bytes at {offset}");
    }
    for (offset, len) in [(1000, 1), (1000, 0), (1001, 5), (1 << 40, 1), (u64::MAX - 1, 1)] {
        let got = suite.store.get(&key, Some(ByteRange { offset, len })).await;
        let Err(ObjectError::OutOfRange { offset: named, .. }) = got else {
            panic!("{len} bytes at {offset}, behind the end: {got:?}");
        };
        assert_eq!(named, offset);
    }
}

pub(super) async fn keys(suite: &Suite<'_>) {
    let long = ["long"; 100].join("/");
    let names = [
        "a",
        "a.b",
        "one/two/three",
        "with space",
        " leading and trailing ",
        "plus+plus",
        "percent%",
        "percent%41",
        "percent%2F",
        "umlauts äöüß",
        "日本語/🦀",
        // The same letter, composed and not: two keys.
        "\u{e9}",
        "e\u{301}",
        "'quotes\"",
        "a&b<c>d",
        "x=y;z:w,@!$*()~",
        "question?mark#hash",
        "back\\slash",
        "[brackets]{braces}|^`",
        ".hidden",
        "...",
        "-dash",
        "UPPER",
        "upper",
        long.as_str(),
    ];
    for name in names {
        suite.put(name, name.as_bytes()).await;
    }
    for name in names {
        suite.has(name, name.as_bytes(), None).await;
    }
    let mut expected: Vec<ObjectKey> = names.iter().map(|name| suite.key(name)).collect();
    expected.sort_unstable();
    let listed = list_all(suite.store, &format!("{}/", suite.prefix)).await.expect("a listing");
    let listed: Vec<ObjectKey> = listed.into_iter().map(|object| object.key).collect();
    assert_eq!(listed, expected, "the listing has all keys, in the order of their bytes");
    for name in names {
        suite
            .store
            .delete(&suite.key(name))
            .await
            .unwrap_or_else(|error| panic!("deleting {name:?}: {error}"));
        suite.has_not(name).await;
    }
}

pub(super) async fn listings(suite: &Suite<'_>) {
    let mut names: Vec<String> = (0..25).map(|i| format!("run/{i:02}")).collect();
    names.extend(["ruins", "run-b/1", "run0", "runs/1"].map(str::to_owned));
    for name in &names {
        suite.put(name, name.as_bytes()).await;
    }
    names.sort_unstable();
    let at = |name: &str| format!("{}/{name}", suite.prefix);
    // Prefixes are of bytes, not of directories.
    for prefix in ["run", "run/", "run/1", "run/07", "r", "run-", "nothing", "run/07/"] {
        let listed = list_all(suite.store, &at(prefix)).await.expect("a listing");
        let listed: Vec<_> =
            listed.iter().map(|object| (object.key.as_str().to_owned(), object.len)).collect();
        let expected: Vec<_> = names
            .iter()
            .filter(|name| name.starts_with(prefix))
            .map(|name| (at(name), name.len() as u64))
            .collect();
        assert_eq!(listed, expected, "below {prefix:?}");
    }
    // Behind a key that is there, one that is not, one before all, one behind all, one outside the prefix.
    for after in ["run/07", "run/07a", "run.", "run/~", "run/24", "a", "z"] {
        let page = suite.store.list(&at("run/"), Some(&suite.key(after))).await.expect("a listing");
        let first = page.objects.first().map(|object| object.key.as_str().to_owned());
        let expected = names.iter().find(|name| name.starts_with("run/") && name.as_str() > after);
        assert_eq!(first, expected.map(|name| at(name)), "behind {after:?}");
        assert!(!(page.objects.is_empty() && page.more), "a page of nothing is the last");
    }
}

pub(super) async fn nested(suite: &Suite<'_>) {
    let names = ["a", "a.b", "a/b", "a/b/c", "a0", "b/c", "b"];
    for name in names {
        suite
            .put_if(name, name.as_bytes(), &Condition::Always)
            .await
            .expect("a key below a key is another key");
    }
    for name in names {
        suite.has(name, name.as_bytes(), None).await;
    }
    let mut expected = names.map(|name| suite.key(name));
    expected.sort_unstable();
    let listed = list_all(suite.store, &format!("{}/", suite.prefix)).await.expect("a listing");
    let listed: Vec<ObjectKey> = listed.into_iter().map(|object| object.key).collect();
    assert_eq!(listed, expected);
    suite.store.delete(&suite.key("a")).await.expect("a deletion");
    suite.has_not("a").await;
    suite.has("a/b", b"a/b", None).await;
    suite.store.delete(&suite.key("b/c")).await.expect("a deletion");
    suite.has("b", b"b", None).await;
}

pub(super) async fn absent(suite: &Suite<'_>) {
    suite.has_not("nothing").await;
    let range = Some(ByteRange { offset: 0, len: 1 });
    let got = suite.store.get(&suite.key("nothing"), range).await;
    assert!(matches!(got, Err(ObjectError::NotFound { .. })), "a range of what is not there: {got:?}");
    suite.store.delete(&suite.key("nothing")).await.expect("deleting what is not there is no error");
    suite.put("directory/file", b"1").await;
    suite.has_not("directory").await;
    suite.store.delete(&suite.key("directory")).await.expect("deleting what is not there is no error");
    suite.has("directory/file", b"1", None).await;
}

pub(super) async fn uploads(suite: &Suite<'_>) {
    let body = noise(2 * PART_MIN_BYTES + 12_345);
    let (first, rest) = body.split_at(PART_MIN_BYTES);
    let (second, third) = rest.split_at(PART_MIN_BYTES);
    suite.put("large", b"old").await;
    let version =
        suite.upload("large", &[first, second, third], &Condition::Always).await.expect("an upload");
    suite.has("large", &body, Some(&version)).await;
    // Across two parts.
    let range = ByteRange { offset: PART_MIN_BYTES as u64 - 10, len: 20 };
    let got = suite.store.get(&suite.key("large"), Some(range)).await.expect("a range");
    assert_eq!(got.bytes, body[PART_MIN_BYTES - 10..PART_MIN_BYTES + 10]);

    let version = suite.upload("short", &[b"one part"], &Condition::Always).await.expect("a short upload");
    suite.has("short", b"one part", Some(&version)).await;

    // It is there when it is finished, and not before; and an aborted one never was.
    let key = suite.key("unfinished");
    let mut upload = suite.store.upload(&key).await.expect("an upload");
    upload.part(Bytes::copy_from_slice(first)).await.expect("a part");
    upload.part(Bytes::from_static(b"more")).await.expect("a part");
    suite.has_not("unfinished").await;
    upload.abort().await.expect("an end");
    suite.has_not("unfinished").await;
}
