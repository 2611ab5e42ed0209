//! The kernel's read-ahead of a mount. FUSE begins with 128 KiB; 1 MiB lets each read ask for a whole chunk.

/// What a read request can hold at most; more gains nothing.
const READ_AHEAD_KIB: u32 = 1024;

/// Raises the read-ahead of a device (`MAJOR:MINOR`). Needs to be root; without, 128 KiB stay.
///
/// # Errors
/// Why it stays as it was.
pub fn raise(device: &str) -> Result<(), String> {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    std::fs::write(&path, READ_AHEAD_KIB.to_string()).map_err(|error| format!("{path}: {error}"))
}
