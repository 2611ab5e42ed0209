//! The steps by which a store changes on disk, for tests that end the process after any of them. A release has none
//! of this: nobody is told.

/// Defines the steps, and the list of all of them.
macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Something on disk was just changed or made durable.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Step { $($(#[$doc])* $name,)* }

        impl Step {
            /// All of them.
            pub const ALL: &[Step] = &[$(Step::$name),*];
        }
    };
}

steps! {
    /// A new store has a directory for packs.
    PacksMade,
    /// What an unfinished writer had left is removed.
    LeftoverRemoved,
    /// A pack is begun, under a name that says that it is not finished.
    PackBegun,
    /// A pack is written to its end, and not synced.
    PackWritten,
    /// All packs of a writer are synced.
    PacksSynced,
    /// A pack has its name.
    PackNamed,
    /// The names of new packs are synced: the chunks and manifests in them are durable.
    PackNamesSynced,
    /// Something is added to the index.
    IndexAppended,
    /// A new index is written and synced, beside the old one.
    IndexWritten,
    /// The new index took the place of the old one.
    IndexRenamed,
    /// So it does after a power cut.
    IndexSynced,
    /// The index has no more of packs that are about to be removed.
    PacksForgotten,
    /// A pack is removed.
    PackRemoved,
    /// Packs that were removed stay so after a power cut.
    RemovalsSynced,
}

#[cfg(debug_assertions)]
static WATCHER: std::sync::OnceLock<fn(Step)> = std::sync::OnceLock::new();

/// From now on `watcher` is told of each step, in a build with debug assertions. The first one stays.
#[cfg(debug_assertions)]
pub fn watch(watcher: fn(Step)) {
    let _ = WATCHER.set(watcher);
}

/// From now on `watcher` is told of each step, in a build with debug assertions. This is none.
#[cfg(not(debug_assertions))]
pub fn watch(_: fn(Step)) {}

#[cfg(debug_assertions)]
pub(crate) fn reached(step: Step) {
    if let Some(watcher) = WATCHER.get() {
        watcher(step);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn reached(_: Step) {}
