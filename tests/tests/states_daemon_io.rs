//! Files in both states, with all I/O done by the daemon.

const FLAGS: &[&str] = &["--no-passthrough"];

#[path = "states/body.rs"]
mod body;
