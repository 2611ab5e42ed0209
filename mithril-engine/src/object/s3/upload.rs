//! Objects in parts. What fits one request is one: it begins as a multipart upload when the second part comes.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use super::{S3Store, headers, version};
use crate::object::{Condition, ObjectError, ObjectKey, PART_MIN_BYTES, Pending, Upload, Version};

/// What S3 allows.
const PARTS_MAX: usize = 10_000;

/// An upload. One that is dropped without [`Upload::abort`] leaves its parts on the server, which cost space until a
/// rule of the bucket removes them (`AbortIncompleteMultipartUpload`): dropping cannot wait for a request.
pub(super) struct S3Upload<'s> {
    store: &'s S3Store,
    key: ObjectKey,
    /// The last part that was given, until it is known whether there are others.
    held: Option<Bytes>,
    /// What the server calls the upload.
    id: Option<String>,
    parts: Vec<CompletedPart>,
    /// A part did not arrive: only aborting is left.
    broken: bool,
}

impl<'s> S3Upload<'s> {
    pub(super) fn new(store: &'s S3Store, key: ObjectKey) -> Self {
        Self { store, key, held: None, id: None, parts: Vec::new(), broken: false }
    }

    async fn begin(&self) -> Result<String, ObjectError> {
        let store = self.store;
        let asked = store.asked(self.key.as_str());
        let request = store
            .client
            .create_multipart_upload()
            .bucket(&store.config.bucket)
            .key(store.full_key(self.key.as_str()))
            .set_server_side_encryption(store.sse())
            .set_ssekms_key_id(store.config.sse_kms_key_id.clone())
            .set_storage_class(store.storage_class());
        let sent = request.customize().config_override(store.small()).send().await;
        let answer = sent.map_err(|error| asked.failed(&error))?;
        answer.upload_id.ok_or_else(|| asked.damaged("the server gives its upload no name"))
    }

    /// Sends the part that is held. Sent twice, it replaces itself.
    async fn send_held(&mut self) -> Result<(), ObjectError> {
        let Some(bytes) = self.held.take() else { return Ok(()) };
        let store = self.store;
        let asked = store.asked(self.key.as_str());
        if self.parts.len() == PARTS_MAX {
            let detail = format!("{} has more than {PARTS_MAX} parts: make them longer", self.key);
            return Err(ObjectError::Invalid { detail });
        }
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let id = store.within(store.config.head_deadline, self.begin()).await?;
                self.id.insert(id).clone()
            }
        };
        let number = i32::try_from(self.parts.len() + 1).unwrap_or(i32::MAX);
        let request = store
            .client
            .upload_part()
            .bucket(&store.config.bucket)
            .key(store.full_key(self.key.as_str()))
            .upload_id(id)
            .part_number(number)
            .body(ByteStream::from(bytes));
        let sent = async { request.send().await.map_err(|error| asked.failed(&error)) };
        let answer = store.within(store.config.deadline, sent).await?;
        let etag = version(answer.e_tag(), &asked)?;
        self.parts.push(CompletedPart::builder().part_number(number).e_tag(etag.as_str()).build());
        Ok(())
    }

    /// Sent once: after an answer that got lost, a second request would be told that there is no such upload.
    async fn complete(&self, id: &str, condition: &Condition) -> Result<Version, ObjectError> {
        let store = self.store;
        let (if_match, if_none_match) = headers(condition);
        let mut asked = store.asked(self.key.as_str());
        asked.matches = if_match.is_some();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let request = store
            .client
            .complete_multipart_upload()
            .bucket(&store.config.bucket)
            .key(store.full_key(self.key.as_str()))
            .upload_id(id)
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .multipart_upload(parts);
        let sent = async {
            let once = request.customize().config_override(S3Store::once());
            once.send().await.map_err(|error| asked.failed(&error))
        };
        let answer = store.within(store.config.deadline, sent).await?;
        version(answer.e_tag(), &asked)
    }

    async fn abort_now(&self) -> Result<(), ObjectError> {
        let Some(id) = &self.id else { return Ok(()) };
        let store = self.store;
        let asked = store.asked(self.key.as_str());
        let request = store
            .client
            .abort_multipart_upload()
            .bucket(&store.config.bucket)
            .key(store.full_key(self.key.as_str()))
            .upload_id(id);
        let sent = async {
            match request.customize().config_override(store.small()).send().await {
                Err(error) if is_gone(error.as_service_error()) => Ok(()),
                Err(error) => Err(asked.failed(&error)),
                Ok(_) => Ok(()),
            }
        };
        store.within(store.config.head_deadline, sent).await
    }
}

/// Whether an upload had ended already.
fn is_gone<E: aws_sdk_s3::error::ProvideErrorMetadata>(error: Option<&E>) -> bool {
    error.and_then(|error| error.code()) == Some("NoSuchUpload")
}

impl Upload for S3Upload<'_> {
    fn part(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        Box::pin(async move {
            if self.broken {
                let detail = format!("a part of {} did not arrive: begin the upload again", self.key);
                return Err(ObjectError::Invalid { detail });
            }
            if self.held.as_ref().is_some_and(|held| held.len() < PART_MIN_BYTES) {
                self.broken = true;
                let detail = format!("a part of {} that is not the last is under 5 MiB", self.key);
                return Err(ObjectError::Invalid { detail });
            }
            // Unless it is known to have arrived: a caller that stops waiting must not be able to finish.
            self.broken = true;
            self.send_held().await?;
            self.broken = false;
            self.held = Some(bytes);
            Ok(())
        })
    }

    fn finish<'a>(mut self: Box<Self>, condition: &'a Condition) -> Pending<'a, Version>
    where
        Self: 'a,
    {
        Box::pin(async move {
            if self.broken {
                let _ = self.abort_now().await;
                let detail = format!("a part of {} did not arrive: begin the upload again", self.key);
                return Err(ObjectError::Invalid { detail });
            }
            if self.id.is_none() {
                let body = self.held.take().unwrap_or_default();
                let put = self.store.put_now(&self.key, body, condition);
                return self.store.within(self.store.config.deadline, put).await;
            }
            let finished = match self.send_held().await {
                Ok(()) => {
                    let id = self.id.clone().unwrap_or_default();
                    self.complete(&id, condition).await
                }
                Err(error) => Err(error),
            };
            // The parts are of no use any more. A server that does not answer is not asked for the next deadline too.
            if finished.as_ref().is_err_and(|error| !matches!(error, ObjectError::Unreachable { .. })) {
                let _ = self.abort_now().await;
            }
            finished
        })
    }

    fn abort<'a>(self: Box<Self>) -> Pending<'a, ()>
    where
        Self: 'a,
    {
        Box::pin(async move { self.abort_now().await })
    }
}
