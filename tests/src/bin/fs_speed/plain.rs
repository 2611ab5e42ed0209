//! Reading a plain file through the mount and below, from the page cache and from the disk.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use mithril_tests::data::Random;
use mithril_tests::mount::{Mount, drop_caches};

use super::assert_passed_through;
use super::paired::Paired;

/// Reads a file as most programs do; returns the seconds.
pub(crate) fn read(path: &Path) -> f64 {
    let mut buffer = vec![0; 1 << 20];
    let started = Instant::now();
    let mut file = File::open(path).expect("the file can be opened");
    while file.read(&mut buffer).expect("it can be read") > 0 {}
    started.elapsed().as_secs_f64()
}

pub(crate) fn measure(len: usize, pairs: usize) {
    let mount = Mount::new(&["--no-packing"]);
    std::fs::write(mount.join("plain"), Random::new(2).bytes(len)).expect("it can be written");
    let (above, below) = (mount.join("plain"), mount.lower("plain"));
    let path = |mounted: bool| if mounted { &above } else { &below };
    rustix::fs::sync();
    read(&above);
    for (what, cold) in [("hot", false), ("cold", true)] {
        let measured = Paired::measure(pairs, |mounted| {
            if cold {
                drop_caches();
            }
            read(path(mounted))
        });
        let gigabytes = len as f64 / 1e9;
        let (mounted, lower) = measured.medians();
        println!(
            "reading plain, {what}: mount {:.2} GB/s, below {:.2} GB/s; ratio of times {}",
            gigabytes / mounted,
            gigabytes / lower,
            measured.ratio()
        );
    }
    assert_passed_through(&mount);
}
