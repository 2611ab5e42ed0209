//! Writing a file, `write`, `fsync` and `close`, through the mount and below.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use mithril_tests::data::Random;
use mithril_tests::mount::Mount;

use super::assert_passed_through;
use super::paired::Paired;

/// Touches as much memory as the page cache will need. A virtual machine may have given free memory back to its host,
/// and getting it again costs several times what the write does, for whoever comes first.
fn touch_memory(len: usize) {
    let touched = vec![1u8; len + len / 4];
    std::hint::black_box(&touched);
}

/// Writes a file as `torch.save` does, makes it durable, and removes it; returns the seconds, without those of removing.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> f64 {
    touch_memory(bytes.len());
    let started = Instant::now();
    let mut file = File::create(path).expect("the file can be created");
    // As torch.save writes: a storage at a time.
    bytes.chunks(64 << 20).for_each(|part| file.write_all(part).expect("it can be written"));
    file.sync_all().expect("it can be synced");
    drop(file);
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(path).expect("it can be removed");
    // What removing it costs is not the next one's.
    rustix::fs::sync();
    seconds
}

pub(crate) fn measure(len: usize, pairs: usize) {
    let bytes = Random::new(1).bytes(len);
    let mount = Mount::new(&["--no-packing"]);
    let (above, below) = (mount.join("above"), mount.lower("below"));
    write(&above, &bytes);
    write(&below, &bytes);
    let measured = Paired::measure(pairs, |mounted| write(if mounted { &above } else { &below }, &bytes));
    assert_passed_through(&mount);
    let (mounted, lower) = measured.medians();
    println!(
        "write + fsync + close of {} MiB: mount {mounted:.3} s, below {lower:.3} s; ratio {}",
        len >> 20,
        measured.ratio()
    );
}
