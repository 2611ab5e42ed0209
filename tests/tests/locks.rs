//! File locks hold among the users of the mount, whatever state the file is in.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mithril_tests::c_program;
use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;

/// A process that holds a lock, if it got it.
struct Locker(Child);

impl Locker {
    /// Starts one, and says whether it got the lock.
    fn start(program: &Path, file: &Path, lock: &[&str]) -> (Self, bool) {
        let mut command = Command::new(program);
        command.arg(file).args(lock).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).expect("it answers");
        assert!(["held\n", "refused\n"].contains(&line.as_str()), "{lock:?}: {line:?}");
        (Self(child), line == "held\n")
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn locks_exclude_other_processes_on_the_mount() {
    let program = c_program("lock");
    for flags in [&[][..], &["--no-passthrough"]] {
        let mount = Mount::new(flags);
        fs::write(mount.join("packed"), Weights::new(200_000, 1).bf16_file()).unwrap();
        mount.sync();
        assert!(mount.is_packed("packed"));
        fs::write(mount.join("plain"), Weights::new(200_000, 2).bf16_file()).unwrap();
        for name in ["packed", "plain"] {
            let path = mount.join(name);
            let get = |lock: &[&str]| Locker::start(&program, &path, lock);
            for kind in ["flock", "posix"] {
                let (first, held) = get(&[kind]);
                assert!(held, "{name}: {kind}: nobody has it");
                let (second, both) = get(&[kind]);
                assert!(!both, "{name}: {kind}: two processes have it");
                second.end();
                first.end();
                let (third, held) = get(&[kind]);
                assert!(held, "{name}: {kind}: it was given back");
                third.end();
            }
            // Bytes are locked, not files.
            let (head, _) = get(&["posix", "0", "1000"]);
            let (tail, held) = get(&["posix", "1000", "1000"]);
            assert!(held, "{name}: other bytes are free");
            let (middle, held) = get(&["posix", "999", "2"]);
            assert!(!held, "{name}: these are not");
            [head, tail, middle].into_iter().for_each(Locker::end);
        }
        assert!(mount.is_packed("packed"), "locking is no change");
    }
}
