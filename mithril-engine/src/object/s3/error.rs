//! What servers answer, in the words of [`ObjectError`]. The code in the body goes before the status: servers agree on
//! codes more than on statuses. Answers to `HEAD` have no body, so there the status is all that there is.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use super::super::ObjectError;

/// What was asked for, as far as messages need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) server: &'a str,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    /// Where the range begins that was asked for.
    pub(super) offset: u64,
    /// Whether the object had to have a version: if it is not there, then it has not.
    pub(super) matches: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn new(server: &'a str, bucket: &'a str, key: &'a str) -> Self {
        Self { server, bucket, key, offset: 0, matches: false }
    }

    pub(super) fn unreachable(&self, detail: impl Into<String>) -> ObjectError {
        ObjectError::Unreachable { server: self.server.to_owned(), detail: detail.into() }
    }

    pub(super) fn damaged(&self, detail: impl Into<String>) -> ObjectError {
        ObjectError::Damaged { key: self.key.to_owned(), detail: detail.into() }
    }

    /// What the SDK says.
    pub(super) fn failed<E>(&self, error: &SdkError<E, HttpResponse>) -> ObjectError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(response) = error.raw_response() {
            let status = response.status().as_u16();
            let region = response.headers().get("x-amz-bucket-region");
            return match error {
                SdkError::ServiceError(answer) => {
                    self.answered(status, answer.err().code(), answer.err().message(), region)
                }
                // An answer that cannot be read: what there is of it says that it was done, but not what came of it.
                _ if status < 300 => self.unreachable(first_line(error)),
                _ => self.answered(status, None, Some(&first_line(error)), region),
            };
        }
        if let Some(detail) = without_credentials(error) {
            return ObjectError::Denied { detail };
        }
        match error {
            SdkError::ConstructionFailure(_) => ObjectError::Invalid { detail: first_line(error) },
            SdkError::DispatchFailure(failure) if failure.is_user() => {
                ObjectError::Invalid { detail: first_line(error) }
            }
            _ => self.unreachable(first_line(error)),
        }
    }

    fn answered(
        &self,
        status: u16,
        code: Option<&str>,
        message: Option<&str>,
        region: Option<&str>,
    ) -> ObjectError {
        let said = match (code, message) {
            (Some(code), Some(message)) => format!("{status} {code}: {message}"),
            (Some(one), None) | (None, Some(one)) => format!("{status} {one}"),
            (None, None) => status.to_string(),
        };
        let key = self.key.to_owned();
        let (server, bucket) = (self.server, self.bucket);
        let detail = said;
        match code.unwrap_or_default() {
            "NoSuchKey" if self.matches => ObjectError::Lost { key },
            "NoSuchKey" => ObjectError::NotFound { key },
            "NoSuchBucket" => ObjectError::Invalid {
                detail: format!("there is no bucket {bucket} on {server}: create it, or correct its name"),
            },
            "NoSuchUpload" => ObjectError::Invalid {
                detail: format!(
                    "the upload of {key} is gone: a rule of the bucket or somebody else ended it; write it again"
                ),
            },
            "PreconditionFailed" => ObjectError::Lost { key },
            "ConditionalRequestConflict" | "OperationAborted" => ObjectError::Conflict { key },
            "InvalidRange" => ObjectError::OutOfRange { key, offset: self.offset },
            "SlowDown"
            | "TooManyRequests"
            | "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded" => ObjectError::Busy { detail },
            // The server waited for the rest of the request.
            "RequestTimeout" => self.unreachable(detail),
            "RequestTimeTooSkewed" => ObjectError::Denied {
                detail: format!("{detail}; this machine's clock and the server's disagree: set the clock"),
            },
            "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => {
                ObjectError::Denied { detail: format!("{detail}; the credentials have expired: renew them") }
            }
            "AccessDenied" | "InvalidAccessKeyId" | "InvalidToken" | "SignatureDoesNotMatch" => {
                ObjectError::Denied { detail }
            }
            "QuotaExceeded"
            | "InsufficientStorage"
            | "StorageFull"
            | "XMinioStorageFull"
            | "XMinioAdminBucketQuotaExceeded" => ObjectError::Full { detail },
            // What came is not what was sent: nothing was stored.
            "BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch" => self.damaged(detail),
            "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" => {
                ObjectError::Invalid {
                    detail: match region {
                        Some(region) => {
                            format!("{bucket} is in the region {region}: set AWS_REGION={region}")
                        }
                        None => format!("{detail}; name the bucket's region: set AWS_REGION"),
                    },
                }
            }
            _ => self.by_status(status, detail, region),
        }
    }

    fn by_status(&self, status: u16, detail: String, region: Option<&str>) -> ObjectError {
        let key = self.key.to_owned();
        match status {
            404 if self.matches => ObjectError::Lost { key },
            404 => ObjectError::NotFound { key },
            // 304 is for reading, but some servers say so to writers.
            304 | 412 => ObjectError::Lost { key },
            409 => ObjectError::Conflict { key },
            416 => ObjectError::OutOfRange { key, offset: self.offset },
            429 | 503 => ObjectError::Busy { detail },
            401 | 403 => ObjectError::Denied { detail },
            408 => self.unreachable(detail),
            507 => ObjectError::Full { detail },
            // Trying again cannot help.
            501 => ObjectError::Invalid { detail: format!("{} cannot do this: {detail}", self.server) },
            // Some servers find out that they fail when they have said 200 already.
            ..=299 | 500.. => ObjectError::Server { detail },
            301 | 307 | 308 => ObjectError::Invalid {
                detail: match region {
                    Some(region) => {
                        format!("{} is in the region {region}: set AWS_REGION={region}", self.bucket)
                    }
                    None => format!("{detail}; the bucket is elsewhere: check the endpoint and AWS_REGION"),
                },
            },
            _ => ObjectError::Invalid { detail: format!("{} refuses {key}: {detail}", self.server) },
        }
    }
}

/// Credentials that were not found, or could not be fetched, are not a matter of the network.
fn without_credentials(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<aws_credential_types::provider::error::CredentialsError>() {
            return Some(first_line(error));
        }
        next = error.source();
    }
    None
}

/// All that a chain of errors says, without the dump that the SDK has behind it.
fn first_line(error: &(dyn Error + 'static)) -> String {
    let all = DisplayErrorContext(error).to_string();
    let end = all.find(" (").unwrap_or(all.len());
    all[..end].lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_before_statuses() {
        let mut asked = Asked::new("http://server", "models", "a/b");
        let kind = |asked: &Asked<'_>, status, code: &str| {
            let code = (!code.is_empty()).then_some(code);
            let said = format!("{:?}", asked.answered(status, code, Some("why"), None));
            said.split([' ', '{']).next().unwrap().to_owned()
        };
        for (status, code, wanted) in [
            (404, "NoSuchKey", "NotFound"),
            (404, "", "NotFound"),
            (404, "NoSuchBucket", "Invalid"),
            (404, "NoSuchUpload", "Invalid"),
            (412, "PreconditionFailed", "Lost"),
            (412, "", "Lost"),
            (409, "ConditionalRequestConflict", "Conflict"),
            (409, "", "Conflict"),
            (503, "SlowDown", "Busy"),
            (503, "ServiceUnavailable", "Busy"),
            (429, "", "Busy"),
            (500, "InternalError", "Server"),
            (200, "InternalError", "Server"),
            (502, "", "Server"),
            (401, "", "Denied"),
            (403, "AccessDenied", "Denied"),
            (400, "ExpiredToken", "Denied"),
            (403, "RequestTimeTooSkewed", "Denied"),
            (403, "QuotaExceeded", "Full"),
            (507, "XMinioStorageFull", "Full"),
            (507, "", "Full"),
            (416, "InvalidRange", "OutOfRange"),
            (400, "RequestTimeout", "Unreachable"),
            (400, "BadDigest", "Damaged"),
            (501, "NotImplemented", "Invalid"),
            (301, "PermanentRedirect", "Invalid"),
            (400, "EntityTooSmall", "Invalid"),
        ] {
            assert_eq!(kind(&asked, status, code), wanted, "{status} {code}");
        }
        asked.matches = true;
        assert_eq!(kind(&asked, 404, "NoSuchKey"), "Lost");
        assert_eq!(kind(&asked, 404, "NoSuchBucket"), "Invalid");
        let moved = asked.answered(301, Some("PermanentRedirect"), None, Some("eu-central-1"));
        assert!(moved.to_string().contains("AWS_REGION=eu-central-1"), "{moved}");
        let skewed = asked.answered(403, Some("RequestTimeTooSkewed"), None, None);
        assert!(skewed.to_string().contains("clock"), "{skewed}");
    }
}
