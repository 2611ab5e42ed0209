//! The targets, by what they decode.

pub(crate) mod checkpoint;
pub(crate) mod chunk;
pub(crate) mod container;
pub(crate) mod layout;
mod made;
mod pickle;
pub(crate) mod quantize;
pub(crate) mod stub;
