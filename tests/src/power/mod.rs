//! Cutting the power of a disk at any moment, after the fact.
//!
//! A file system on a disk that logs what is written to it ([`device`]) is worked on through a mount, and what was
//! promised is noted with the length that the log had then ([`workload`], [`promises`]). From the log, the disk is made
//! again as it may have been after a power cut at some moment ([`cuts`]), and looked at ([`check`]). What is wrong is
//! [`kept`].

pub mod check;
pub mod cuts;
pub mod device;
pub mod disk;
pub mod kept;
pub mod log;
pub mod mapping;
pub mod promises;
pub mod workload;
