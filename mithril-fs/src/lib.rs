//! A FUSE overlay that packs machine-learning checkpoints in the background.
//!
//! The mount covers a directory; names, modes, owners and times stay those of the file system below. A regular
//! file is plain (its bytes are in the lower file) or packed (its bytes are chunks of the store in `.mithril`,
//! and an extended attribute says so: [`stub`]).
//!
//! Modules import only from those above them in this list: [`exit`], [`stub`], [`settings`], `events`, `fault` |
//! `overlay` | [`mounting`] | [`control`] | [`ops`] | `packer` | `adapter`, `session` | `daemon` | [`cli`] |
//! [`checkpoint`]. fuser's types are in `adapter` and `session` only.

mod adapter;
pub mod checkpoint;
pub mod cli;
pub mod control;
mod daemon;
mod events;
pub mod exit;
mod fault;
pub mod mounting;
pub mod ops;
mod overlay;
mod packer;
mod printable;
mod session;
pub mod settings;
pub mod stub;
