//! What goes wrong between a request and its answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_RANGE, ETAG, HeaderValue};
use hyper::{Method, Request, Response};
use s3s::Body;
use s3s::service::S3Service;

use super::{Kind, Shared};
use crate::data::Random;

/// Which faults a server has. None by default. Probabilities are from 0 to 1 and drawn for each request.
#[derive(Clone, Copy, Debug, Default)]
pub struct S3Faults {
    /// What the dice begin with.
    pub seed: u64,
    /// Time before a request is looked at.
    pub latency: Duration,
    /// 503 `SlowDown`, and nothing is done.
    pub busy: f64,
    /// 409 `ConditionalRequestConflict` to what writes an object, and nothing is done.
    pub conflict: f64,
    /// All is done, and the connection closed instead of an answer.
    pub lost_answer: f64,
    /// The connection is closed within the body of an object.
    pub truncated: f64,
    /// A bit of the body of an object is another.
    pub flipped: f64,
    /// Every request is answered so, and nothing is done.
    pub answer: Option<(u16, &'static str)>,
    /// `Content-Range` names bytes that were not asked for.
    pub wrong_range: bool,
    /// ETags come without quotes in headers.
    pub plain_etags: bool,
    /// Conditions are read and forgotten.
    pub ignore_conditions: bool,
    /// 501 `NotImplemented` to requests with conditions.
    pub refuse_conditions: bool,
    /// Nothing is ever answered.
    pub black_hole: bool,
}

#[derive(Debug)]
pub(super) struct Dice {
    pub(super) faults: S3Faults,
    random: Random,
}

impl Default for Dice {
    fn default() -> Self {
        Self::new(S3Faults::default())
    }
}

impl Dice {
    pub(super) fn new(faults: S3Faults) -> Self {
        Self { faults, random: Random::new(faults.seed) }
    }

    fn falls(&mut self, probability: f64) -> bool {
        let drawn = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < probability
    }
}

fn kind(request: &Request<Incoming>) -> Kind {
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let has_key = request.uri().path().trim_matches('/').contains('/');
    match *request.method() {
        Method::GET if has_key => Kind::Get,
        Method::GET => Kind::List,
        Method::HEAD => Kind::Head,
        Method::DELETE if has("uploadId") => Kind::Abort,
        Method::DELETE => Kind::Delete,
        Method::POST if has("uploadId") => Kind::Complete,
        Method::POST => Kind::Begin,
        _ if has("partNumber") => Kind::Part,
        _ => Kind::Put,
    }
}

/// Answers one request. An error closes the connection.
pub(super) async fn answer(
    service: S3Service,
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let kind = kind(&request);
    *shared.counts().entry(kind).or_default() += 1;
    let (faults, busy, conflict, lost, truncated, flipped, at) = {
        let mut dice = shared.dice();
        let faults = dice.faults;
        let busy = dice.falls(faults.busy);
        let conflict = dice.falls(faults.conflict) && matches!(kind, Kind::Put | Kind::Complete);
        let lost = dice.falls(faults.lost_answer);
        let truncated = dice.falls(faults.truncated) && kind == Kind::Get;
        let flipped = dice.falls(faults.flipped) && kind == Kind::Get;
        (faults, busy, conflict, lost, truncated, flipped, dice.random.next_u64())
    };
    if faults.black_hole {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(faults.latency).await;
    let canned = faults.answer.or_else(|| busy.then_some((503, "SlowDown")));
    if let Some((status, code)) = canned.or_else(|| conflict.then_some((409, "ConditionalRequestConflict"))) {
        return refusal(request, kind, status, code).await;
    }
    let mut response = service.call(request.map(Body::from)).await.map_err(io::Error::other)?;
    if lost {
        return Err(io::Error::other("the answer is lost"));
    }
    let headers = response.headers_mut();
    if faults.plain_etags
        && let Some(etag) = headers.get(ETAG).and_then(|etag| etag.to_str().ok())
        && let Ok(plain) = HeaderValue::from_str(etag.trim_matches('"'))
    {
        headers.insert(ETAG, plain);
    }
    if faults.wrong_range && headers.contains_key(CONTENT_RANGE) {
        headers.insert(CONTENT_RANGE, HeaderValue::from_static("bytes 1000000-1000001/2000000"));
    }
    if truncated || flipped {
        let (head, mut body) = response.into_parts();
        let bytes = body.store_all_limited(usize::MAX).await.map_err(io::Error::other)?;
        return Ok(Response::from_parts(head, spoiled(&bytes, truncated, at)));
    }
    Ok(response)
}

/// An answer without having done anything. The request is read first: who is cut off while sending sees something else.
async fn refusal(
    request: Request<Incoming>,
    kind: Kind,
    status: u16,
    code: &str,
) -> io::Result<Response<Body>> {
    let mut body = Body::from(request.into_body());
    let _ = body.store_all_limited(usize::MAX).await;
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>as asked for</Message></Error>"
    );
    let body = if kind == Kind::Head || code.is_empty() { Body::empty() } else { Body::from(text) };
    Response::builder().status(status).body(body).map_err(io::Error::other)
}

fn spoiled(bytes: &Bytes, truncated: bool, at: u64) -> Body {
    if bytes.is_empty() {
        return Body::empty();
    }
    let index = usize::try_from(at % bytes.len() as u64).unwrap_or(0);
    if truncated {
        return Body::http_body_unsync(Cut {
            due: bytes.len() as u64,
            first: Some(bytes.slice(..index)),
            pause: None,
        });
    }
    let mut bytes = bytes.to_vec();
    bytes[index] ^= 1 << (at >> 61);
    Body::from(bytes)
}

/// A body that ends before its time. It waits before that, so that what there is arrives.
struct Cut {
    due: u64,
    first: Option<Bytes>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl HttpBody for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(30))));
        match pause.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Some(Err(io::Error::other("the body is cut")))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.due)
    }
}
