//! A slow network before any store: to see on one machine what a distant bucket does to a program.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Condition, Fetched, ObjectKey, ObjectMeta, ObjectStore, Page, Pending, Upload, Version};
use crate::range::ByteRange;

/// A store behind a line with a latency, and a bandwidth that all calls share. Its calls are for the threads of a tokio
/// runtime with time. What it adds comes on top of the store's own deadlines.
#[derive(Debug)]
pub struct Throttled {
    inner: Arc<dyn ObjectStore>,
    line: Line,
}

#[derive(Debug)]
struct Line {
    latency: Duration,
    bytes_per_second: Option<NonZeroU64>,
    /// When the last of those who have asked for it is through.
    free_at: Mutex<Instant>,
}

impl Throttled {
    /// Every call waits for `latency`. Bodies pass at `bytes_per_second` all together; `None` for no limit.
    pub fn new(inner: Arc<dyn ObjectStore>, latency: Duration, bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { inner, line: Line { latency, bytes_per_second, free_at: Mutex::new(Instant::now()) } }
    }
}

impl Line {
    /// Waits until `bytes` have passed, behind all that were there before.
    async fn pass(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = (*free_at).max(Instant::now());
            *free_at = begin + Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
            *free_at
        };
        tokio::time::sleep_until(until).await;
    }

    async fn travel(&self) {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
    }
}

impl ObjectStore for Throttled {
    fn get<'a>(&'a self, key: &'a ObjectKey, range: Option<ByteRange>) -> Pending<'a, Fetched> {
        Box::pin(async move {
            self.line.travel().await;
            let fetched = self.inner.get(key, range).await?;
            self.line.pass(fetched.bytes.len()).await;
            Ok(fetched)
        })
    }

    fn put<'a>(&'a self, key: &'a ObjectKey, body: Bytes, condition: &'a Condition) -> Pending<'a, Version> {
        Box::pin(async move {
            self.line.travel().await;
            self.line.pass(body.len()).await;
            self.inner.put(key, body, condition).await
        })
    }

    fn upload<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, Box<dyn Upload + 'a>> {
        Box::pin(async move {
            self.line.travel().await;
            let inner = self.inner.upload(key).await?;
            let upload: Box<dyn Upload + 'a> = Box::new(ThrottledUpload { inner, line: &self.line });
            Ok(upload)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a ObjectKey>) -> Pending<'a, Page> {
        Box::pin(async move {
            self.line.travel().await;
            self.inner.list(prefix, after).await
        })
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ()> {
        Box::pin(async move {
            self.line.travel().await;
            self.inner.delete(key).await
        })
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ObjectMeta> {
        Box::pin(async move {
            self.line.travel().await;
            self.inner.head(key).await
        })
    }
}

struct ThrottledUpload<'s> {
    inner: Box<dyn Upload + 's>,
    line: &'s Line,
}

impl Upload for ThrottledUpload<'_> {
    fn part(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        Box::pin(async move {
            self.line.travel().await;
            self.line.pass(bytes.len()).await;
            self.inner.part(bytes).await
        })
    }

    fn finish<'a>(self: Box<Self>, condition: &'a Condition) -> Pending<'a, Version>
    where
        Self: 'a,
    {
        Box::pin(async move {
            self.line.travel().await;
            self.inner.finish(condition).await
        })
    }

    fn abort<'a>(self: Box<Self>) -> Pending<'a, ()>
    where
        Self: 'a,
    {
        Box::pin(async move {
            self.line.travel().await;
            self.inner.abort().await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ObjectError;
    use super::super::memory::MemoryStore;
    use super::*;

    #[test]
    fn all_calls_share_the_line_and_each_has_the_latency() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let rate = NonZeroU64::new(100_000);
            let store = Throttled::new(Arc::new(MemoryStore::new()), Duration::from_millis(20), rate);
            let (a, b) = (ObjectKey::new("a").unwrap(), ObjectKey::new("b").unwrap());
            let begun = Instant::now();
            let body = || Bytes::from(vec![7; 5_000]);
            let first = store.put(&a, body(), &Condition::Always);
            let second = store.put(&b, body(), &Condition::Always);
            // Both wait at the same time for the latency, and one after the other for the line.
            let (first, second) = both(first, second).await;
            first.and(second).unwrap();
            assert!(begun.elapsed() >= Duration::from_millis(120), "{:?}", begun.elapsed());
            let begun = Instant::now();
            assert_eq!(store.get(&a, None).await.unwrap().len, 5_000);
            assert!(begun.elapsed() >= Duration::from_millis(70), "{:?}", begun.elapsed());
        });
    }

    async fn both<T>(mut a: Pending<'_, T>, mut b: Pending<'_, T>) -> (Done<T>, Done<T>) {
        let (mut first, mut second) = (None, None);
        std::future::poll_fn(move |context| {
            use std::task::Poll;
            if first.is_none()
                && let Poll::Ready(done) = a.as_mut().poll(context)
            {
                first = Some(done);
            }
            if second.is_none()
                && let Poll::Ready(done) = b.as_mut().poll(context)
            {
                second = Some(done);
            }
            if first.is_some() && second.is_some() {
                Poll::Ready((first.take().unwrap(), second.take().unwrap()))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    type Done<T> = Result<T, ObjectError>;
}
