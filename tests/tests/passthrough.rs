//! Where the kernel can, it does the I/O of plain files itself.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;
use mithril_tests::{can_run, is_root};

/// Overlay file systems are stacked as deep as the kernel allows already.
const OVERLAYFS: u64 = 0x794c_7630;

fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[test]
fn plain_files_are_written_and_read_without_the_daemon() {
    if !can_run(is_root() && kernel() >= (6, 9), "passthrough needs root and a kernel from 6.9 on") {
        return;
    }
    let mount = Mount::new(&[]);
    let below = rustix::fs::statfs(mount.lower("")).unwrap().f_type;
    if !can_run(below.cast_unsigned() != OVERLAYFS, "there is no passthrough to an overlay file system") {
        return;
    }
    assert!(mount.status()["passthrough"].is_null(), "{}", mount.status());
    // Of a size from which on readers get passthrough too.
    let bytes = Weights::new(1_000_000, 1).bf16_file();
    let mut file = File::create(mount.join("w")).unwrap();
    bytes.chunks(1 << 20).for_each(|part| file.write_all(part).unwrap());
    drop(file);
    let mut file = OpenOptions::new().append(true).open(mount.join("w")).unwrap();
    file.write_all(b"tail").unwrap();
    drop(file);
    assert!(fs::read(mount.join("w")).unwrap() == [&bytes[..], b"tail"].concat());
    let status = mount.status();
    assert_eq!(status["passthrough_opens"], 3, "{status}");
    assert_eq!((&status["write_requests"], &status["read_requests"]), (&0.into(), &0.into()), "{status}");
}
