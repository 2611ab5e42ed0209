//! Which bucket, which server, and how long to wait. Pure data; what is not said here comes from the environment.

use std::fmt;
use std::time::Duration;

use super::super::{ObjectError, ObjectKey};

/// Time in which a connection is there, or never.
const CONNECT: Duration = Duration::from_secs(5);

/// Time for a request without a body worth the name. A server that is well answers in milliseconds.
const HEAD: Duration = Duration::from_secs(15);

/// Time for a body: 64 MiB at 10 Mbit/s.
const BODY: Duration = Duration::from_secs(60);

/// A bucket, or what is below a prefix in it.
///
/// What is `None` here is looked for where the tools of AWS look: `AWS_REGION`, `AWS_ENDPOINT_URL_S3`,
/// `AWS_ENDPOINT_URL`, `AWS_PROFILE`, `AWS_CA_BUNDLE`, `HTTPS_PROXY`, the files in `~/.aws`, and for credentials
/// `AWS_ACCESS_KEY_ID`, the profile, its `credential_process`, web identity, containers and the instance.
/// Logins by SSO are not read: `aws configure export-credentials` turns them into what is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with, without the slash behind it; empty for the whole bucket.
    pub prefix: String,
    /// The server, if it is not AWS: `http://host:9000`.
    pub endpoint_url: Option<String>,
    /// The region; `us-east-1` if nothing says it.
    pub region: Option<String>,
    /// Whether the bucket is named in the path and not in the host; by default if there is an endpoint of one's own.
    pub path_style: Option<bool>,
    /// The profile in `~/.aws`.
    pub profile: Option<String>,
    /// No credentials: public buckets.
    pub anonymous: bool,
    /// These credentials, and no others.
    pub credentials: Option<S3Credentials>,
    /// Encryption on the server: `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub sse: Option<String>,
    /// The key of KMS for it.
    pub sse_kms_key_id: Option<String>,
    /// The storage class of what is written, if not the bucket's own.
    pub storage_class: Option<String>,
    /// Within which a connection is made.
    pub connect_timeout: Duration,
    /// Within which a request without a body ends, with all that it is tried again.
    pub head_deadline: Duration,
    /// Within which a request with a body ends, with all that it is tried again.
    pub deadline: Duration,
    /// How often a request is sent at most, if sending it twice cannot do harm.
    pub attempts: u32,
}

impl S3Config {
    /// A bucket, and everything else from the environment.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            endpoint_url: None,
            region: None,
            path_style: None,
            profile: None,
            anonymous: false,
            credentials: None,
            sse: None,
            sse_kms_key_id: None,
            storage_class: None,
            connect_timeout: CONNECT,
            head_deadline: HEAD,
            deadline: BODY,
            attempts: 3,
        }
    }

    /// Reads `s3://bucket` or `s3://bucket/prefix`. A slash at the end makes no difference.
    ///
    /// # Errors
    /// [`ObjectError::Invalid`], which says what is wrong.
    pub fn parse(url: &str) -> Result<Self, ObjectError> {
        let Some(rest) = url.strip_prefix("s3://") else {
            return Err(invalid(format!("{url:?} does not begin with s3://; write s3://bucket/prefix")));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let mut config = Self::new(bucket);
        config.prefix = prefix.strip_suffix('/').unwrap_or(prefix).to_owned();
        config.check().map(|()| config)
    }

    /// Finds what cannot be, before a server is asked.
    ///
    /// # Errors
    /// [`ObjectError::Invalid`], which says what is wrong.
    pub fn check(&self) -> Result<(), ObjectError> {
        let bucket = &self.bucket;
        if bucket.is_empty() {
            return Err(invalid("there is no bucket: write s3://bucket/prefix".to_owned()));
        }
        // Servers of one's own take capitals and underlines; what none takes would end in another place of the URL.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if !bucket.chars().all(plain) || !(3..=255).contains(&bucket.len()) {
            let allowed = "buckets have at least 3 letters, digits, '-' and '.'";
            return Err(invalid(format!("{bucket:?} is no bucket: {allowed}, and no port or user")));
        }
        if !self.prefix.is_empty() {
            ObjectKey::new(self.prefix.as_str())?;
        }
        if let Some(url) = &self.endpoint_url
            && url.strip_prefix("http://").or(url.strip_prefix("https://")).is_none_or(str::is_empty)
        {
            return Err(invalid(format!("the endpoint {url:?} does not begin with http:// or https://")));
        }
        if let Some(sse) = self.sse.as_deref()
            && !matches!(sse, "AES256" | "aws:kms" | "aws:kms:dsse")
        {
            return Err(invalid(format!("the encryption {sse:?} is none of AES256, aws:kms, aws:kms:dsse")));
        }
        if self.sse_kms_key_id.is_some() && !self.sse.as_deref().is_some_and(|sse| sse.starts_with("aws:kms"))
        {
            return Err(invalid("a key of KMS goes with the encryption aws:kms or aws:kms:dsse".to_owned()));
        }
        if self.anonymous && self.credentials.is_some() {
            return Err(invalid("anonymous and credentials exclude each other".to_owned()));
        }
        if self.attempts == 0 || self.deadline.is_zero() || self.head_deadline.is_zero() {
            return Err(invalid("there must be at least one attempt, and time for it".to_owned()));
        }
        Ok(())
    }
}

impl fmt::Display for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// An access key with its secret, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// The public half.
    pub access_key_id: String,
    pub(super) secret: String,
    pub(super) session_token: Option<String>,
}

impl S3Credentials {
    /// A pair of keys, with the token of a session if they are temporary.
    pub fn new(
        access_key_id: impl Into<String>,
        secret: impl Into<String>,
        session_token: Option<String>,
    ) -> Self {
        Self { access_key_id: access_key_id.into(), secret: secret.into(), session_token }
    }
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

fn invalid(detail: String) -> ObjectError {
    ObjectError::Invalid { detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_bucket_and_a_prefix() {
        for (url, bucket, prefix) in [
            ("s3://models", "models", ""),
            ("s3://models/", "models", ""),
            ("s3://my.models-1/runs/ä b", "my.models-1", "runs/ä b"),
            ("s3://models/runs/7/", "models", "runs/7"),
        ] {
            let config = S3Config::parse(url).unwrap();
            assert_eq!((config.bucket.as_str(), config.prefix.as_str()), (bucket, prefix), "{url}");
            assert_eq!(S3Config::parse(&config.to_string()).unwrap(), config);
        }
    }

    #[test]
    fn what_cannot_be_is_said_before_a_server_is_asked() {
        for (url, says) in [
            ("https://models", "s3://"),
            ("s3://", "no bucket"),
            ("s3:///runs", "no bucket"),
            ("s3://me@models/x", "is no bucket"),
            ("s3://host:9000/x", "port"),
            ("s3://ab", "at least 3"),
            ("s3://models/a//b", "part between slashes"),
            ("s3://models/../b", "part between slashes"),
        ] {
            let error = S3Config::parse(url).unwrap_err();
            assert!(matches!(error, ObjectError::Invalid { .. }), "{url}");
            assert!(error.to_string().contains(says), "{url}: {error}");
        }
        let good = || S3Config::new("models");
        for bad in [
            S3Config { endpoint_url: Some("localhost:9000".into()), ..good() },
            S3Config { endpoint_url: Some("http://".into()), ..good() },
            S3Config { sse: Some("rot13".into()), ..good() },
            S3Config { sse: Some("AES256".into()), sse_kms_key_id: Some("k".into()), ..good() },
            S3Config { anonymous: true, credentials: Some(S3Credentials::new("a", "b", None)), ..good() },
            S3Config { attempts: 0, ..good() },
        ] {
            assert!(matches!(bad.check(), Err(ObjectError::Invalid { .. })), "{bad:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = S3Credentials::new("AKID", "hush", Some("token".into()));
        let shown = format!("{:?}", S3Config { credentials: Some(credentials), ..S3Config::new("models") });
        assert!(shown.contains("AKID") && !shown.contains("hush") && !shown.contains("token\""), "{shown}");
    }
}
