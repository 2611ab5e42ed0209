//! Everything that goes wrong on the way to a server, on request and repeatable: for tests of what is built on objects.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{
    Condition, Fetched, ObjectError, ObjectKey, ObjectMeta, ObjectStore, Page, Pending, Upload, Version,
};
use crate::range::ByteRange;

/// How likely what is, from 0 to 1, for each call. Together they are at most 1. All zero by default.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Faults {
    /// The request does not arrive: [`ObjectError::Unreachable`], and nothing was done.
    pub unreachable_before: f64,
    /// The answer gets lost: [`ObjectError::Unreachable`], and all was done.
    pub unreachable_after: f64,
    /// [`ObjectError::Busy`], and nothing was done.
    pub busy: f64,
    /// [`ObjectError::Server`], and all was done or nothing, each as often as the other.
    pub server: f64,
    /// [`ObjectError::Conflict`] for what writes, and nothing was done.
    pub conflict: f64,
    /// What is read is shorter than it should be, and no error says so.
    pub truncated: f64,
    /// One bit of what is read is another, and no error says so.
    pub flipped: f64,
}

/// How often what was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounts {
    /// All calls, those of uploads too.
    pub calls: u64,
    /// Requests that did not arrive.
    pub unreachable_before: u64,
    /// Answers that got lost.
    pub unreachable_after: u64,
    /// Servers that were busy.
    pub busy: u64,
    /// Servers that failed.
    pub server: u64,
    /// Writers that met others.
    pub conflict: u64,
    /// Bodies that were cut.
    pub truncated: u64,
    /// Bodies with a wrong bit.
    pub flipped: u64,
}

/// A store with faults. The same seed and the same order of calls give the same faults. What cannot happen to a call,
/// such as a cut body to one that has none, does not, and is not counted.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    dice: Dice,
}

#[derive(Debug)]
struct Dice {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    random: u64,
    counts: FaultCounts,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Before,
    After,
    Busy,
    ServerBefore,
    ServerAfter,
    Conflict,
    Truncated(u64),
    Flipped(u64),
}

#[derive(Clone, Copy, PartialEq)]
enum Call {
    Reads,
    Writes,
    Other,
}

impl Faulty {
    /// Faults before `inner`, drawn by `seed`.
    pub fn new(inner: Arc<dyn ObjectStore>, faults: Faults, seed: u64) -> Self {
        let state = State { faults, random: seed, counts: FaultCounts::default() };
        Self { inner, dice: Dice { state: Mutex::new(state) } }
    }

    /// Other faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.dice.lock().faults = faults;
    }

    /// What it did so far.
    pub fn counts(&self) -> FaultCounts {
        self.dice.lock().counts
    }
}

impl Dice {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, call: Call) -> Fault {
        let mut state = self.lock();
        state.counts.calls += 1;
        // Always as many numbers for a call, so that one probability does not change what the others draw.
        let drawn = (state.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let detail = state.next();
        let faults = state.faults;
        let server = if detail & 1 == 0 { Fault::ServerBefore } else { Fault::ServerAfter };
        let mut below = 0.0;
        let fault = [
            (faults.unreachable_before, Fault::Before),
            (faults.unreachable_after, Fault::After),
            (faults.busy, Fault::Busy),
            (faults.server, server),
            (faults.conflict, Fault::Conflict),
            (faults.truncated, Fault::Truncated(detail)),
            (faults.flipped, Fault::Flipped(detail)),
        ]
        .into_iter()
        .find_map(|(probability, fault)| {
            below += probability;
            (drawn < below).then_some(fault)
        })
        .unwrap_or(Fault::None);
        let counts = &mut state.counts;
        match fault {
            Fault::Before => counts.unreachable_before += 1,
            Fault::After => counts.unreachable_after += 1,
            Fault::Busy => counts.busy += 1,
            Fault::ServerBefore | Fault::ServerAfter => counts.server += 1,
            Fault::Conflict if call == Call::Writes => counts.conflict += 1,
            // Counted when there is a body that it happens to.
            Fault::Truncated(_) | Fault::Flipped(_) if call == Call::Reads => {}
            _ => return Fault::None,
        }
        fault
    }

    /// Makes one call that reads no body.
    async fn call<T>(&self, call: Call, key: &str, inner: Pending<'_, T>) -> Result<T, ObjectError> {
        let fault = self.draw(call);
        Self::suffer(fault, key, inner).await
    }

    /// Makes one call, with what was drawn.
    async fn suffer<T>(fault: Fault, key: &str, inner: Pending<'_, T>) -> Result<T, ObjectError> {
        let unreachable = |detail: &str| {
            Err(ObjectError::Unreachable {
                server: "a server with faults".to_owned(),
                detail: detail.to_owned(),
            })
        };
        let failed = || Err(ObjectError::Server { detail: "a fault that was asked for".to_owned() });
        match fault {
            Fault::Before => unreachable("the request did not arrive"),
            Fault::Busy => Err(ObjectError::Busy { detail: "a fault that was asked for".to_owned() }),
            Fault::Conflict => Err(ObjectError::Conflict { key: key.to_owned() }),
            Fault::ServerBefore => failed(),
            // Also an error has no answer.
            Fault::After => {
                let _ = inner.await;
                unreachable("the answer got lost")
            }
            Fault::ServerAfter => {
                let _ = inner.await;
                failed()
            }
            Fault::None | Fault::Truncated(_) | Fault::Flipped(_) => inner.await,
        }
    }

    fn spoil(&self, bytes: Bytes, fault: Fault) -> Bytes {
        let at = |random: u64, limit: usize| usize::try_from(random % limit.max(1) as u64).unwrap_or(0);
        match fault {
            Fault::Truncated(random) if !bytes.is_empty() => {
                self.lock().counts.truncated += 1;
                bytes.slice(..at(random, bytes.len()))
            }
            Fault::Flipped(random) if !bytes.is_empty() => {
                self.lock().counts.flipped += 1;
                let mut spoiled = bytes.to_vec();
                let index = at(random >> 3, spoiled.len());
                spoiled[index] ^= 1 << (random & 7);
                spoiled.into()
            }
            _ => bytes,
        }
    }
}

impl State {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl ObjectStore for Faulty {
    fn get<'a>(&'a self, key: &'a ObjectKey, range: Option<ByteRange>) -> Pending<'a, Fetched> {
        Box::pin(async move {
            let fault = self.dice.draw(Call::Reads);
            let mut fetched = Dice::suffer(fault, key.as_str(), self.inner.get(key, range)).await?;
            fetched.bytes = self.dice.spoil(fetched.bytes, fault);
            Ok(fetched)
        })
    }

    fn put<'a>(&'a self, key: &'a ObjectKey, body: Bytes, condition: &'a Condition) -> Pending<'a, Version> {
        Box::pin(async move {
            let inner = self.inner.put(key, body, condition);
            self.dice.call(Call::Writes, key.as_str(), inner).await
        })
    }

    fn upload<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, Box<dyn Upload + 'a>> {
        Box::pin(async move {
            let inner = self.dice.call(Call::Other, key.as_str(), self.inner.upload(key)).await?;
            let upload: Box<dyn Upload + 'a> =
                Box::new(FaultyUpload { inner, dice: &self.dice, key: key.clone() });
            Ok(upload)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a ObjectKey>) -> Pending<'a, Page> {
        Box::pin(async move { self.dice.call(Call::Other, prefix, self.inner.list(prefix, after)).await })
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ()> {
        Box::pin(async move { self.dice.call(Call::Other, key.as_str(), self.inner.delete(key)).await })
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> Pending<'a, ObjectMeta> {
        Box::pin(async move { self.dice.call(Call::Other, key.as_str(), self.inner.head(key)).await })
    }
}

struct FaultyUpload<'s> {
    inner: Box<dyn Upload + 's>,
    dice: &'s Dice,
    key: ObjectKey,
}

impl Upload for FaultyUpload<'_> {
    fn part(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        Box::pin(async move { self.dice.call(Call::Other, self.key.as_str(), self.inner.part(bytes)).await })
    }

    fn finish<'a>(self: Box<Self>, condition: &'a Condition) -> Pending<'a, Version>
    where
        Self: 'a,
    {
        Box::pin(async move {
            let Self { inner, dice, key } = *self;
            dice.call(Call::Writes, key.as_str(), inner.finish(condition)).await
        })
    }

    fn abort<'a>(self: Box<Self>) -> Pending<'a, ()>
    where
        Self: 'a,
    {
        Box::pin(async move {
            let Self { inner, dice, key } = *self;
            dice.call(Call::Other, key.as_str(), inner.abort()).await
        })
    }
}
