//! What is fuzzed: one target for each thing that can be decoded.

use std::time::Duration;

use mithril_engine::codec::Scratch;

use crate::case::Case;
use crate::guarded::Guarded;
use crate::random::Random;
use crate::targets;

/// What a decoder made of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It decoded, and what is checked of the result holds.
    Accepted,
    /// It is an error.
    Refused,
}

/// An outcome, or what is wrong.
pub(crate) type Checked = Result<Outcome, String>;

/// Something that can be decoded.
pub(crate) struct Target {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What is given to what.
    pub(crate) what: &'static str,
    /// Valid cases: all of them must be accepted.
    pub(crate) seeds: fn() -> Vec<Case>,
    /// Byte strings that mean something to the decoder.
    pub(crate) tokens: &'static [&'static [u8]],
    /// What is done to a case after it was changed: checksums are made right again, say, so that more than their
    /// comparison is reached.
    pub(crate) repair: fn(&mut Case, &mut Random),
    /// The most that decoding may have on the heap.
    pub(crate) heap_limit: fn(&Case) -> usize,
    /// The most processor time that decoding may take, in a build with debug assertions on a slow machine.
    pub(crate) time_limit: Duration,
    /// Decodes, and checks what can be checked.
    pub(crate) check: fn(&Case, &mut Ground) -> Checked,
}

/// Most bytes of an input or a base.
const BUFFER_MAX_BYTES: usize = 5 << 20;

/// Where cases are executed: buffers that are kept, so that only what decoders allocate is counted.
pub(crate) struct Ground {
    pub(crate) input: Guarded,
    pub(crate) base: Guarded,
    pub(crate) out: Guarded,
    /// What the first of several decoders gave.
    pub(crate) expected: Vec<u8>,
    /// One for each decoder.
    pub(crate) scratch: Vec<Scratch>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        Self {
            input: Guarded::new(BUFFER_MAX_BYTES),
            base: Guarded::new(BUFFER_MAX_BYTES),
            out: Guarded::new(BUFFER_MAX_BYTES),
            expected: Vec::with_capacity(BUFFER_MAX_BYTES),
            scratch: (0..4).map(|_| Scratch::default()).collect(),
        }
    }
}

/// Nothing is repaired.
pub(crate) fn as_it_is(_: &mut Case, _: &mut Random) {}

/// All targets.
pub(crate) fn all() -> Vec<Target> {
    [
        targets::chunk::targets(),
        targets::layout::targets(),
        targets::checkpoint::targets(),
        targets::container::targets(),
        targets::quantize::targets(),
        targets::stub::targets(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
