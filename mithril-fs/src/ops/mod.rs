//! Operations on a directory and its store that need no mount: list, verify, collect, cat.
