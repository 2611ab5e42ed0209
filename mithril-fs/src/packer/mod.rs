//! Packing in the background: which file, when, against what, and what becomes of it.

mod candidates;
mod estimate;
mod natural;
mod pause;
mod policy;
mod politeness;
mod queue;
mod room;
mod scan;
mod verdicts;
mod worker;

pub(crate) use policy::{Asked, glob};
pub(crate) use politeness::ENCODER_NICENESS;
pub(crate) use verdicts::Reason;
pub(crate) use worker::{Packer, PackerParts};
