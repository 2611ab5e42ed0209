//! Packing in the background: which file, when, against what, and what becomes of it.

mod candidates;
mod natural;
mod queue;
mod scan;
mod worker;

pub(crate) use worker::{INCOMPRESSIBLE, Packer, PackerParts};
