//! Files in both states, with plain files in passthrough where the kernel and the user's privileges allow it.

const FLAGS: &[&str] = &[];

#[path = "states/body.rs"]
mod body;
