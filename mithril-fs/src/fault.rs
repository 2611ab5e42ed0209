//! Faults that tests ask for. In a build with debug assertions only: a release has none of this.
//!
//! `MITHRIL_FAULT=POINT=ACTION` in the environment of `mount` makes the daemon, whenever it comes to that point,
//! `panic`, `abort` as a crash would, or sleep for a number of milliseconds.

/// A place where something may be made to go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Point {
    /// A name was asked for that begins with `fault-`.
    Lookup,
    /// A step of a file's bytes is about to be written back.
    UnpackStep,
    /// The attribute of an unpacked file is gone, and that is not durable yet.
    AttributeRemoved,
    /// The directory is about to be looked through after a mount.
    Scan,
    /// A file was taken from the queue, and is about to be looked for.
    Taken,
    /// A file is about to become a stub; it was found unchanged.
    Commit,
}

#[cfg(debug_assertions)]
pub(crate) fn reached(point: Point) {
    use std::sync::OnceLock;
    static ASKED: OnceLock<Option<(String, String)>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| {
        let value = std::env::var("MITHRIL_FAULT").ok()?;
        value.split_once('=').map(|(point, action)| (point.to_owned(), action.to_owned()))
    });
    let Some((_, action)) = asked.as_ref().filter(|(name, _)| *name == format!("{point:?}")) else { return };
    match action.as_str() {
        "panic" => panic!("asked for by MITHRIL_FAULT"),
        "abort" => std::process::abort(),
        milliseconds => {
            let pause = milliseconds.parse().expect("MITHRIL_FAULT: panic, abort or milliseconds");
            std::thread::sleep(std::time::Duration::from_millis(pause));
        }
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn reached(_: Point) {}
