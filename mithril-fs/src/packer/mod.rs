//! Packing in the background: which file, when, against what, and what becomes of it.

mod candidates;
mod natural;
mod pause;
mod queue;
mod room;
mod scan;
mod verdicts;
mod worker;

pub(crate) use verdicts::Reason;
pub(crate) use worker::{Packer, PackerParts};
