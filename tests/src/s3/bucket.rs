//! The bucket: objects in a map under one lock, so that what conditions compare and what they permit is one step.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use s3s::dto::*;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

use super::{BUCKET, Shared};

/// What a part must have at least, unless it is the last.
const PART_MIN_BYTES: usize = 5 << 20;

/// More than any test puts in one request.
const BODY_MAX_BYTES: usize = 256 << 20;

#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    etag: String,
}

/// All that the server keeps.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    objects: BTreeMap<String, Stored>,
    uploads: BTreeMap<String, BTreeMap<i32, Stored>>,
    begun: u64,
}

impl Bucket {
    pub(super) fn uploads(&self) -> usize {
        self.uploads.len()
    }

    /// As S3: what should have a version and is not there is no such key.
    fn admit(
        &self,
        key: &str,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<()> {
        let there = self.objects.get(key);
        if let Some(condition) = if_match {
            let there = there.ok_or_else(|| s3_error!(NoSuchKey))?;
            if !condition.is_any() && condition.as_etag().map(ETag::value) != Some(there.etag.as_str()) {
                return Err(s3_error!(PreconditionFailed));
            }
        }
        match if_none_match {
            Some(ETagCondition::Any) if there.is_some() => Err(s3_error!(PreconditionFailed)),
            Some(ETagCondition::ETag(_)) => Err(s3_error!(NotImplemented)),
            _ => Ok(()),
        }
    }
}

/// Equal bytes have equal ETags, as on S3.
fn stored(bytes: Bytes) -> Stored {
    let etag = blake3::hash(&bytes).to_hex()[..32].to_owned();
    Stored { bytes, etag }
}

async fn read(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(body) = body else { return Ok(Bytes::new()) };
    let bytes = Body::from(body).store_all_limited(BODY_MAX_BYTES).await;
    bytes.map_err(|_| s3_error!(IncompleteBody))
}

fn in_bucket(bucket: &str) -> S3Result<()> {
    if bucket == BUCKET { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
}

/// As forms encode it, which is what S3 does with `encoding-type=url`.
fn encoded(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn length(bytes: &Bytes) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

/// The operations, on what connections share.
pub(super) struct Service(pub(super) Arc<Shared>);

impl Service {
    /// The conditions, as far as this server heeds them at the moment.
    fn conditions(
        &self,
        if_match: Option<IfMatch>,
        if_none_match: Option<IfNoneMatch>,
    ) -> S3Result<(Option<IfMatch>, Option<IfNoneMatch>)> {
        let faults = self.0.dice().faults;
        if faults.refuse_conditions && (if_match.is_some() || if_none_match.is_some()) {
            return Err(s3_error!(NotImplemented));
        }
        if faults.ignore_conditions {
            return Ok((None, None));
        }
        Ok((if_match, if_none_match))
    }
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        in_bucket(&input.bucket)?;
        let object = self.0.bucket().objects.get(&input.key).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        let len = object.bytes.len();
        let mut bytes = object.bytes;
        let mut content_range = None;
        if let Some(range) = input.range {
            let part = range.check(len as u64).map_err(|_| s3_error!(InvalidRange))?;
            let at = |offset: u64| usize::try_from(offset).unwrap_or(len).min(len);
            bytes = bytes.slice(at(part.start)..at(part.end));
            content_range = Some(format!("bytes {}-{}/{len}", part.start, part.end - 1));
        }
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(length(&bytes)),
            content_range,
            e_tag: Some(ETag::Strong(object.etag)),
            body: Some(StreamingBlob::from(Body::from(bytes))),
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        in_bucket(&req.input.bucket)?;
        let bucket = self.0.bucket();
        let object = bucket.objects.get(&req.input.key).ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(length(&object.bytes)),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            ..Default::default()
        }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        in_bucket(&input.bucket)?;
        let (if_match, if_none_match) = self.conditions(input.if_match, input.if_none_match)?;
        let object = stored(read(input.body).await?);
        let e_tag = Some(ETag::Strong(object.etag.clone()));
        let mut bucket = self.0.bucket();
        bucket.admit(&input.key, if_match.as_ref(), if_none_match.as_ref())?;
        bucket.objects.insert(input.key, object);
        Ok(S3Response::new(PutObjectOutput { e_tag, ..Default::default() }))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        in_bucket(&req.input.bucket)?;
        self.0.bucket().objects.remove(&req.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        in_bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.or_else(|| input.start_after.clone());
        let limit = self.0.page.load(Ordering::Relaxed);
        let limit =
            input.max_keys.and_then(|max| usize::try_from(max).ok()).map_or(limit, |max| max.min(limit));
        let url = input.encoding_type.as_ref().is_some_and(|how| how.as_str() == EncodingType::URL);
        let name = |key: &str| if url { encoded(key) } else { key.to_owned() };
        let bucket = self.0.bucket();
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = bucket
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .filter(|(key, _)| key.starts_with(&prefix));
        let page: Vec<_> = found.by_ref().take(limit).collect();
        let more = found.next().is_some();
        let last = page.last().map(|(key, _)| (*key).clone());
        let contents = page
            .into_iter()
            .map(|(key, object)| Object {
                key: Some(name(key)),
                size: Some(length(&object.bytes)),
                e_tag: Some(ETag::Strong(object.etag.clone())),
                last_modified: Some(SystemTime::now().into()),
                ..Default::default()
            })
            .collect::<Vec<_>>();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            key_count: i32::try_from(contents.len()).ok(),
            max_keys: i32::try_from(limit).ok(),
            prefix: Some(name(&prefix)),
            start_after: input.start_after.map(|key| name(&key)),
            encoding_type: input.encoding_type,
            is_truncated: Some(more),
            next_continuation_token: last.filter(|_| more),
            contents: Some(contents),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        in_bucket(&req.input.bucket)?;
        let mut bucket = self.0.bucket();
        bucket.begun += 1;
        let id = format!("upload-{}", bucket.begun);
        bucket.uploads.insert(id.clone(), BTreeMap::new());
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(req.input.bucket),
            key: Some(req.input.key),
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let part = stored(read(input.body).await?);
        let e_tag = Some(ETag::Strong(part.etag.clone()));
        let mut bucket = self.0.bucket();
        let upload = bucket.uploads.get_mut(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        upload.insert(input.part_number, part);
        Ok(S3Response::new(UploadPartOutput { e_tag, ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let (if_match, if_none_match) = self.conditions(input.if_match, input.if_none_match)?;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let mut bucket = self.0.bucket();
        let upload = bucket.uploads.get(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        let mut whole = Vec::new();
        for (index, part) in named.iter().enumerate() {
            let there = part.part_number.and_then(|number| upload.get(&number));
            let there = there.ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.as_ref().map(ETag::value) != Some(there.etag.as_str()) {
                return Err(s3_error!(InvalidPart));
            }
            if index + 1 < named.len() && there.bytes.len() < PART_MIN_BYTES {
                return Err(s3_error!(EntityTooSmall));
            }
            whole.extend_from_slice(&there.bytes);
        }
        if named.is_empty() {
            return Err(s3_error!(MalformedXML));
        }
        bucket.admit(&input.key, if_match.as_ref(), if_none_match.as_ref())?;
        let mut object = stored(whole.into());
        object.etag = format!("{}-{}", object.etag, named.len());
        let e_tag = Some(ETag::Strong(object.etag.clone()));
        bucket.uploads.remove(&input.upload_id);
        bucket.objects.insert(input.key.clone(), object);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag,
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let removed = self.0.bucket().uploads.remove(&req.input.upload_id);
        removed.ok_or_else(|| s3_error!(NoSuchUpload))?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
