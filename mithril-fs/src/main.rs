//! The command line of `mithril-fs`.

fn main() {}
