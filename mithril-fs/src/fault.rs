//! Faults that tests ask for. In a build with debug assertions only: a release has none of this.
//!
//! `MITHRIL_FAULT=POINT=ACTION` in the environment makes a command or its daemon, whenever it comes to that point,
//! `panic`, `abort` as a crash would, or sleep for a number of milliseconds. The steps of the engine are points too. A
//! point that there is not is refused, with the list of those that there are: a test that asks for it tests nothing.

/// Defines the points, and the list of all of them.
macro_rules! points {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A place where something may be made to go wrong.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Point { $($(#[$doc])* $name,)* }

        #[cfg(debug_assertions)]
        const POINTS: &[Point] = &[$(Point::$name),*];
    };
}

points! {
    /// A name was asked for that begins with `fault-`.
    Lookup,
    /// The directory has a `.mithril`, and nothing is in it.
    StoreMade,
    /// A note is written and synced, beside the old one.
    NoteWritten,
    /// The new note took the place of the old one.
    NoteRenamed,
    /// The directory is about to be looked through after a mount.
    Scan,
    /// A file was taken from the queue, and is about to be looked for.
    Taken,
    /// A file is about to become a stub; it was found unchanged.
    Commit,
    /// A file has the attribute of a stub, which is not synced.
    AttributeSet,
    /// The attribute is synced: the file is packed.
    AttributeSynced,
    /// A packed file has no blocks any more.
    BlocksPunched,
    /// The notice of a stub is written.
    NoticeWritten,
    /// A stub has the time of its file.
    StubTimed,
    /// There is space for the bytes of a file that is unpacked.
    SpaceReserved,
    /// A step of a file's bytes is about to be written back.
    UnpackStep,
    /// All bytes of a file are written back.
    BytesRestored,
    /// A file that is unpacked has its time again.
    PlainTimed,
    /// Its bytes and its time are synced.
    PlainSynced,
    /// The attribute of an unpacked file is gone, and that is not durable yet.
    AttributeRemoved,
    /// That is synced: the file is plain.
    PlainDurable,
    /// A plain file has the note that it is to stay so.
    KeepPlainNoted,
    /// A packed file was truncated to nothing, and has the attribute still.
    Emptied,
    /// That is synced.
    EmptySynced,
    /// The attribute of the empty file is gone.
    EmptyPlain,
    /// A packed file has a new time, which its attribute does not say.
    TimeSet,
    /// All of a file that a crash left half done was read.
    HealProven,
}

#[cfg(debug_assertions)]
mod asked {
    use std::sync::OnceLock;

    use mithril_engine::step::{self, Step};

    use super::{POINTS, Point};

    /// What the environment asks for: a point and an action.
    fn asked() -> Option<&'static (String, String)> {
        static ASKED: OnceLock<Option<(String, String)>> = OnceLock::new();
        let asked = ASKED.get_or_init(|| {
            let value = std::env::var("MITHRIL_FAULT").ok()?;
            value.split_once('=').map(|(point, action)| (point.to_owned(), action.to_owned()))
        });
        asked.as_ref()
    }

    /// Looks at what is asked for, and from now on at the steps of the engine.
    ///
    /// # Errors
    /// That there is no such point.
    pub(crate) fn prepare() -> Result<(), String> {
        let Some((asked, _)) = asked() else { return Ok(()) };
        let points = POINTS.iter().map(|point| format!("{point:?}"));
        let points: Vec<String> = points.chain(Step::ALL.iter().map(|step| format!("{step:?}"))).collect();
        if !points.contains(asked) {
            return Err(format!("MITHRIL_FAULT: there is no point {asked}, but {}", points.join(" ")));
        }
        step::watch(|step| come_to(&format!("{step:?}")));
        Ok(())
    }

    pub(crate) fn reached(point: Point) {
        if asked().is_some() {
            come_to(&format!("{point:?}"));
        }
    }

    fn come_to(point: &str) {
        let Some((_, action)) = asked().filter(|(asked, _)| asked == point) else { return };
        match action.as_str() {
            "panic" => panic!("asked for by MITHRIL_FAULT"),
            "abort" => std::process::abort(),
            milliseconds => {
                let pause = milliseconds.parse().expect("MITHRIL_FAULT: panic, abort or milliseconds");
                std::thread::sleep(std::time::Duration::from_millis(pause));
            }
        }
    }
}

#[cfg(debug_assertions)]
pub(crate) use asked::{prepare, reached};

#[cfg(not(debug_assertions))]
pub(crate) fn prepare() -> Result<(), String> {
    Ok(())
}

#[cfg(not(debug_assertions))]
pub(crate) fn reached(_: Point) {}
