//! Objects on S3, and on servers that speak its protocol: buckets for general use, whose listings are in order.
//!
//! Its calls are for the threads of one tokio runtime with I/O and time. Whatever happens, a request ends within its
//! deadline, with all that it is tried again: [`S3Config::deadline`] where bodies are sent, [`S3Config::head_deadline`]
//! else. A call is one request, but in uploads, where it may be up to three.
//!
//! What may be sent twice is tried again as [`S3Config::attempts`] says. A conditional `put` is sent once: were it sent
//! again after an answer that got lost, it would lose against itself. Who gets [`ObjectError::is_uncertain`] reads back.
//!
//! ETags are opaque. Some servers quote them in one answer and not in the next, so a [`Version`] always has them in
//! quotes, as `If-Match` wants them: one pair of quotes is taken off, if there is one, and put back. Weak ones (`W/`) are
//! kept as they come. An ETag may be a hash of the content: the same bytes written again have the same version, and then two
//! writers that both named it have both won. What is replaced under [`Condition::Matches`] must never have the same bytes
//! twice: it has a number that grows, or a random one.

mod client;
mod config;
mod error;
mod read;
mod upload;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{EncodingType, ServerSideEncryption, StorageClass};
use bytes::Bytes;

pub use config::{S3Config, S3Credentials};

use self::error::Asked;
use super::{
    Condition, Fetched, ObjectError, ObjectKey, ObjectMeta, ObjectStore, Page, Pending, Upload, Version,
};
use crate::range::ByteRange;

/// A bucket, or what is below a prefix in it. Copies share their connections.
#[derive(Clone)]
pub struct S3Store {
    client: Client,
    config: S3Config,
    /// For messages.
    server: String,
}

impl S3Store {
    /// Reads the environment. Asks the bucket nothing yet: what is wrong with it or with the credentials is said by the
    /// first call.
    ///
    /// # Errors
    /// [`ObjectError::Invalid`] if the configuration cannot be.
    pub async fn connect(config: S3Config) -> Result<Self, ObjectError> {
        let (client, server) = client::connect(&config).await?;
        Ok(Self { client, config, server })
    }

    /// What it was made from.
    pub fn config(&self) -> &S3Config {
        &self.config
    }

    fn asked<'a>(&'a self, key: &'a str) -> Asked<'a> {
        Asked::new(&self.server, &self.config.bucket, key)
    }

    fn full_key(&self, key: &str) -> String {
        match self.config.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// Ends what takes longer.
    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, ObjectError>>,
    ) -> Result<T, ObjectError> {
        let late = |_| Err(self.asked("").unreachable(format!("nothing within {limit:?}")));
        tokio::time::timeout(limit, work).await.unwrap_or_else(late)
    }

    /// Of a request without a body, one attempt does not take the time of all.
    fn small(&self) -> Builder {
        let attempt = self.config.head_deadline / 2;
        Builder::new().timeout_config(TimeoutConfig::builder().operation_attempt_timeout(attempt).build())
    }

    /// For requests that must not be sent twice.
    fn once() -> Builder {
        Builder::new().retry_config(RetryConfig::disabled())
    }

    fn sse(&self) -> Option<ServerSideEncryption> {
        self.config.sse.as_deref().map(ServerSideEncryption::from)
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.config.storage_class.as_deref().map(StorageClass::from)
    }

    async fn put_now(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &Condition,
    ) -> Result<Version, ObjectError> {
        let (if_match, if_none_match) = headers(condition);
        let mut asked = self.asked(key.as_str());
        asked.matches = if_match.is_some();
        let request = self
            .client
            .put_object()
            .bucket(&self.config.bucket)
            .key(self.full_key(key.as_str()))
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(self.config.sse_kms_key_id.clone())
            .set_storage_class(self.storage_class())
            .body(ByteStream::from(body));
        let sent = match condition {
            Condition::Always => request.send().await,
            _ => request.customize().config_override(Self::once()).send().await,
        };
        let answer = sent.map_err(|error| asked.failed(&error))?;
        version(answer.e_tag(), &asked)
    }

    async fn head_now(&self, key: &ObjectKey) -> Result<ObjectMeta, ObjectError> {
        let asked = self.asked(key.as_str());
        let request = self.client.head_object().bucket(&self.config.bucket).key(self.full_key(key.as_str()));
        let sent = request.customize().config_override(self.small()).send().await;
        let answer = sent.map_err(|error| asked.failed(&error))?;
        let len = answer.content_length().and_then(|len| u64::try_from(len).ok());
        Ok(ObjectMeta {
            key: key.clone(),
            len: len.ok_or_else(|| asked.damaged("its length did not come"))?,
            version: version(answer.e_tag(), &asked)?,
        })
    }

    async fn list_now(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Page, ObjectError> {
        let asked = self.asked(prefix);
        let ours = self.full_key("");
        let mut start_after = after.map(|key| self.full_key(key.as_str()));
        loop {
            let request = self
                .client
                .list_objects_v2()
                .bucket(&self.config.bucket)
                .prefix(self.full_key(prefix))
                // Not every character that keys may have can be in XML.
                .encoding_type(EncodingType::Url)
                .set_start_after(start_after.take());
            let sent = request.customize().config_override(self.small()).send().await;
            let answer = sent.map_err(|error| asked.failed(&error))?;
            let encoded = answer.encoding_type() == Some(&EncodingType::Url);
            let mut page = Page { objects: Vec::new(), more: answer.is_truncated().unwrap_or(false) };
            for object in answer.contents() {
                let name = object.key().unwrap_or_default();
                let name = if encoded { read::decoded(name) } else { name.to_owned() };
                // What others put there under a name that cannot be ours, such as `directory/`.
                let key = name.strip_prefix(&ours).and_then(|rest| ObjectKey::new(rest).ok());
                start_after = Some(name);
                let Some(key) = key else { continue };
                let len = object.size().and_then(|len| u64::try_from(len).ok());
                let len = len.ok_or_else(|| asked.damaged("a length is missing in the listing"))?;
                page.objects.push(ObjectMeta { key, len, version: version(object.e_tag(), &asked)? });
            }
            // A page of nothing but such names is no end.
            if !page.objects.is_empty() || !page.more || start_after.is_none() {
                page.more &= start_after.is_some();
                return Ok(page);
            }
        }
    }

    async fn delete_now(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        let asked = self.asked(key.as_str());
        let request =
            self.client.delete_object().bucket(&self.config.bucket).key(self.full_key(key.as_str()));
        let sent = request.customize().config_override(self.small()).send().await;
        match sent.map_err(|error| asked.failed(&error)) {
            Ok(_) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({} on {})", self.config, self.server)
    }
}

/// `If-Match` and `If-None-Match`.
fn headers(condition: &Condition) -> (Option<String>, Option<String>) {
    match condition {
        Condition::Always => (None, None),
        Condition::Absent => (None, Some("*".to_owned())),
        Condition::Matches(version) => (Some(quoted(version.as_str())), None),
    }
}

/// An ETag in quotes, whether it came in some or not.
fn quoted(etag: &str) -> String {
    if etag.starts_with("W/") {
        return etag.to_owned();
    }
    let bare = etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(etag);
    format!("\"{bare}\"")
}

fn version(etag: Option<&str>, asked: &Asked<'_>) -> Result<Version, ObjectError> {
    match etag.map(str::trim) {
        None | Some("" | "\"\"") => Err(ObjectError::Invalid {
            detail: format!("{} gives {} no ETag: use a server that does", asked.server, asked.key),
        }),
        Some(etag) => Ok(Version::new(quoted(etag))),
    }
}

impl ObjectStore for S3Store {
    fn get<'a>(&'a self, key: &'a ObjectKey, range: Option<ByteRange>) -> Pending<'a, Fetched> {
        Box::pin(self.within(self.config.deadline, self.get_now(key, range)))
    }

    fn put<'a>(&'a self, key: &'a ObjectKey, body: Bytes, condition: &'a Condition) -> Pending<'a, Version> {
        Box::pin(self.within(self.config.deadline, self.put_now(key, body, condition)))
    }

    fn upload<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, Box<dyn Upload + 'a>> {
        let upload: Box<dyn Upload + 'a> = Box::new(upload::S3Upload::new(self, key.clone()));
        Box::pin(async { Ok(upload) })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a ObjectKey>) -> Pending<'a, Page> {
        Box::pin(self.within(self.config.head_deadline, self.list_now(prefix, after)))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ()> {
        Box::pin(self.within(self.config.head_deadline, self.delete_now(key)))
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ObjectMeta> {
        Box::pin(self.within(self.config.head_deadline, self.head_now(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_quoted_once() {
        for etag in ["abc-2", "\"abc-2\""] {
            assert_eq!(quoted(etag), "\"abc-2\"");
        }
        assert_eq!(quoted("W/\"x\""), "W/\"x\"");
        assert_eq!(quoted("\""), "\"\"\"");
        let asked = Asked::new("server", "bucket", "key");
        assert!(version(None, &asked).is_err() && version(Some("\"\""), &asked).is_err());
        assert_eq!(headers(&Condition::Matches(Version::new("x"))), (Some("\"x\"".to_owned()), None));
        assert_eq!(headers(&Condition::Absent), (None, Some("*".to_owned())));
    }
}
