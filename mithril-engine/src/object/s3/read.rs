//! Reading: bytes are given on only if they are as many as the headers say, and those that were asked for.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::{Bytes, BytesMut};

use super::error::Asked;
use super::{S3Store, version};
use crate::object::{Fetched, ObjectError, ObjectKey};
use crate::range::ByteRange;

/// Room that is made before the first byte has come; what claims to be longer has to send it.
const TRUSTED_BYTES: u64 = 64 << 20;

impl S3Store {
    pub(super) async fn get_now(
        &self,
        key: &ObjectKey,
        range: Option<ByteRange>,
    ) -> Result<Fetched, ObjectError> {
        let mut asked = self.asked(key.as_str());
        let Some(range) = range else { return self.fetch(key, &asked, None).await };
        asked.offset = range.offset;
        if !range.is_empty() {
            return self.fetch(key, &asked, Some(range)).await;
        }
        // HTTP has no ranges without bytes.
        let meta = self.head_now(key).await?;
        if range.offset >= meta.len {
            return Err(ObjectError::OutOfRange { key: key.to_string(), offset: range.offset });
        }
        Ok(Fetched { bytes: Bytes::new(), len: meta.len, version: meta.version })
    }

    async fn fetch(
        &self,
        key: &ObjectKey,
        asked: &Asked<'_>,
        range: Option<ByteRange>,
    ) -> Result<Fetched, ObjectError> {
        let sent = self
            .client
            .get_object()
            .bucket(&self.config().bucket)
            .key(self.full_key(key.as_str()))
            .set_range(range.map(header))
            .send()
            .await;
        let mut answer = sent.map_err(|error| asked.failed(&error))?;
        let version = version(answer.e_tag(), asked)?;
        let length = answer.content_length().and_then(|len| u64::try_from(len).ok());
        let (expected, len) = match range {
            None => (length, length),
            Some(range) => {
                let (expected, len) = announced(&answer, range, length, asked)?;
                (Some(expected), Some(len))
            }
        };
        if let (Some(expected), Some(length)) = (expected, length)
            && expected != length
        {
            return Err(asked.damaged(format!("{expected} bytes were due and {length} announced")));
        }
        let mut bytes = BytesMut::new();
        bytes.reserve(usize::try_from(expected.unwrap_or(0).min(TRUSTED_BYTES)).unwrap_or(0));
        while let Some(some) = answer.body.next().await {
            // The connection ended before its time. Silence ends at the deadline, and is another error.
            let some = some.map_err(|error| {
                asked.damaged(format!("it ended after {} bytes of {expected:?}: {error}", bytes.len()))
            })?;
            bytes.extend_from_slice(&some);
        }
        let got = bytes.len() as u64;
        if expected.is_some_and(|expected| expected != got) {
            return Err(asked.damaged(format!("{got} bytes came of {expected:?}")));
        }
        Ok(Fetched { bytes: bytes.freeze(), len: len.unwrap_or(got), version })
    }
}

/// `Range`. Servers count in 63 bits.
fn header(range: ByteRange) -> String {
    let last = i64::MAX as u64;
    format!("bytes={}-{}", range.offset.min(last), (range.end() - 1).min(last))
}

/// How many bytes must come, and the object's length, by `Content-Range`.
fn announced(
    answer: &GetObjectOutput,
    range: ByteRange,
    length: Option<u64>,
    asked: &Asked<'_>,
) -> Result<(u64, u64), ObjectError> {
    let Some(header) = answer.content_range() else {
        // Some servers give the whole of an empty object where others say 416.
        if length == Some(0) {
            return Err(ObjectError::OutOfRange { key: asked.key.to_owned(), offset: range.offset });
        }
        return Err(asked.damaged("the server does not say which range it gives"));
    };
    let Some((first, last, len)) = content_range(header) else {
        return Err(asked.damaged(format!("the range {header:?} cannot be read")));
    };
    if first != range.offset || last + 1 != range.end().min(len) {
        return Err(asked.damaged(format!("{header} came instead of the {} bytes asked for", range.len)));
    }
    Ok((last + 1 - first, len))
}

/// `bytes FIRST-LAST/LENGTH`.
fn content_range(header: &str) -> Option<(u64, u64, u64)> {
    let (range, len) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, len) = (first.parse().ok()?, last.parse().ok()?, len.parse().ok()?);
    (first <= last && last < len).then_some((first, last, len))
}

/// A name as listings have it with `encoding-type=url`: like forms, where a plus is a space.
pub(super) fn decoded(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = match rest {
            [b'%', high, low, ..] => std::str::from_utf8(&[*high, *low])
                .ok()
                .filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|hex| u8::from_str_radix(hex, 16).ok()),
            _ => None,
        };
        match hex {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        assert_eq!(content_range("bytes 0-0/1"), Some((0, 0, 1)));
        assert_eq!(content_range("bytes 5-9/100"), Some((5, 9, 100)));
        for bad in
            ["", "bytes */100", "bytes 5-4/100", "bytes 0-100/100", "0-1/2", "bytes 0-1", "bytes 0-1/*"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
        assert_eq!(header(ByteRange { offset: 3, len: 4 }), "bytes=3-6");
        let end = i64::MAX;
        assert_eq!(header(ByteRange { offset: u64::MAX - 1, len: 1 }), format!("bytes={end}-{end}"));
    }

    #[test]
    fn names_in_listings_are_decoded() {
        for (listed, name) in [
            ("a%20b", "a b"),
            ("a+b", "a b"),
            ("a%2Bb", "a+b"),
            ("100%25", "100%"),
            ("100%", "100%"),
            ("%C3%A4/%2e%zz", "ä/.%zz"),
            ("%+1", "% 1"),
        ] {
            assert_eq!(decoded(listed), name);
        }
    }
}
