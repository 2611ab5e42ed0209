//! A file as a manifest of chunks: packing it and reading it back by range.
