//! Files that claim, repeat or refer to much more than they hold: what looks at them takes memory and time in
//! proportion to their length.

mod allocations;
mod pickler;
mod pickles;
mod zip;
