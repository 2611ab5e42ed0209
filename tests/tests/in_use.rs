//! A file that somebody uses is never packed under them: also where no open handle shows it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mithril_tests::data::Weights;
use mithril_tests::mount::Mount;
use mithril_tests::{c_program, can_run, is_root};

/// A process that uses a file, and does something with it when told.
struct Holder {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Holder {
    fn start(program: &Path, arguments: &[&Path]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut holder = Self { child, input, output };
        assert_eq!(holder.line(), "ready");
        holder
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        line.trim().to_owned()
    }

    fn go(&mut self) -> String {
        self.input.write_all(b"go\n").expect("it listens");
        self.line()
    }

    fn end(mut self) {
        drop(self.input);
        self.child.wait().expect("it ends");
    }
}

fn hold(mount: &Mount, mode: &str) -> Holder {
    Holder::start(&c_program("hold"), &[&mount.join("w"), Path::new(mode)])
}

fn with_file(flags: &[&str]) -> (Mount, Vec<u8>) {
    let mount = Mount::new(flags);
    let bytes = Weights::new(200_000, 1).bf16_file();
    fs::write(mount.join("w"), &bytes).unwrap();
    (mount, bytes)
}

#[test]
fn a_mapping_that_outlives_its_descriptor_keeps_a_file_plain() {
    for mode in ["shared", "private", "open"] {
        let (mount, mut expected) = with_file(&[]);
        let mut holder = hold(&mount, mode);
        let said = mount.sync();
        assert!(!mount.is_packed("w"), "{mode}: packed under its user");
        assert!(said.contains("plain: w"), "{mode}: {said}");
        if mode == "private" {
            assert_eq!(holder.go(), expected[100_000].to_string());
        } else {
            assert_eq!(holder.go(), "done");
            expected[100_000..100_004].copy_from_slice(b"HELD");
        }
        holder.end();
        assert!(fs::read(mount.join("w")).unwrap() == expected, "{mode}");
        mount.run(&["pack", "./w"]);
        assert!(mount.is_packed("w"), "{mode}: packed once nobody uses it");
        assert!(fs::read(mount.join("w")).unwrap() == expected, "{mode}");
    }
}

#[test]
fn nobody_waits_for_a_packer_that_waits_for_a_mapping() {
    if !can_run(is_root(), "without passthrough a mapping is a handle, and the packer does not wait for it") {
        return;
    }
    let (mount, _) = with_file(&["--settle", "0"]);
    let holder = hold(&mount, "shared");
    let done = AtomicBool::new(false);
    let slow = std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..5).for_each(|_| drop(mount.command(&["pack", "./w"])));
            done.store(true, Ordering::SeqCst);
        });
        let mut slow = 0;
        while !done.load(Ordering::SeqCst) {
            let started = Instant::now();
            drop(fs::File::open(mount.join("w")).unwrap());
            slow += u32::from(started.elapsed() > Duration::from_millis(100));
            std::thread::sleep(Duration::from_millis(1));
        }
        slow
    });
    assert!(!mount.is_packed("w"));
    holder.end();
    assert!(slow <= 1, "{slow} opens took more than a tenth of a second");
}

#[test]
fn a_library_that_is_loaded_stays_plain() {
    let mount = Mount::new(&[]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/plugin.c");
    let library = mount.join("plugin.so");
    let status =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
    assert!(status.success());
    let mut holder = Holder::start(&c_program("load"), &[&library]);
    mount.sync();
    assert!(!mount.is_packed("plugin.so"));
    assert_eq!(holder.go(), "42");
    holder.end();
    mount.run(&["pack", "./plugin.so"]);
    assert!(mount.is_packed("plugin.so"));
    let mut again = Holder::start(&c_program("load"), &[&library]);
    assert_eq!(again.go(), "42", "a packed library can be loaded");
    again.end();
}

#[test]
fn a_writer_that_outlives_a_killed_daemon_keeps_its_file_plain() {
    if !can_run(is_root(), "only in passthrough do handles outlive a daemon, and only root has that") {
        return;
    }
    for mode in ["shared", "open"] {
        let (mut mount, mut expected) = with_file(&[]);
        let mut holder = hold(&mount, mode);
        let daemon = mount.daemon();
        mount.kill(daemon);
        mount.mount();
        mount.sync();
        assert!(!mount.is_packed("w"), "{mode}: packed under a writer from before");
        assert_eq!(holder.go(), "done");
        expected[100_000..100_004].copy_from_slice(b"HELD");
        holder.end();
        assert!(fs::read(mount.join("w")).unwrap() == expected, "{mode}");
    }
}

#[test]
fn packed_files_can_be_mapped() {
    for flags in [&[][..], &["--no-passthrough"]] {
        let (mount, mut expected) = with_file(flags);
        mount.sync();
        assert!(mount.is_packed("w"));
        let mut reader = hold(&mount, "private");
        assert_eq!(reader.go(), expected[100_000].to_string());
        reader.end();
        assert!(mount.is_packed("w"));
        let mut writer = hold(&mount, "shared");
        assert_eq!(writer.go(), "done");
        writer.end();
        expected[100_000..100_004].copy_from_slice(b"HELD");
        assert!(fs::read(mount.join("w")).unwrap() == expected, "{flags:?}");
    }
}
