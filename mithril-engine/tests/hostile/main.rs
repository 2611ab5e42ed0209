//! Files that claim, repeat or refer to much more than they hold: what looks at them takes memory and time in
//! proportion to their length.

mod allocations;
mod archives;
mod headers;
mod pickler;
mod pickles;
mod reading;
mod zip;
