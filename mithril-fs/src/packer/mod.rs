//! Packing in the background: which file, when, against what, and what becomes of it.

mod candidates;
mod natural;
mod pause;
mod politeness;
mod queue;
mod room;
mod scan;
mod verdicts;
mod worker;

pub(crate) use politeness::ENCODER_NICENESS;
pub(crate) use verdicts::Reason;
pub(crate) use worker::{Packer, PackerParts};
