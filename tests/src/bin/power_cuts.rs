//! Cuts the power of a disk, over and over, while Mithril works on it.
//!
//! `cargo run --release -p mithril-tests --bin power_cuts [-- OPTION...]`
//!
//! * `--images N`: disks to look at, 200 if not given. A hundred are of one piece of work.
//! * `--seed S`: what is done and where it is cut, as far as threads allow: 1 if not given.
//! * `--file-system ext4|xfs|both`: what is on the disk: both if not given.
//! * `--plain`: the same without Mithril. What fails then is the fault of the file system, or of this program.
//! * `--lying`: the disk flushes less than it says. This must fail.
//!
//! Ends with 0 if every promise was kept, 1 if not, 77 where it cannot run. What it needs is kept then; it says where,
//! and how to look at it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use mithril_tests::data::Random;
use mithril_tests::mount::Mount;
use mithril_tests::power::check::{DIRECTORY, check};
use mithril_tests::power::cuts::{Cut, Disk, Replay, choose};
use mithril_tests::power::device;
use mithril_tests::power::disk::{FileSystem, LoggedDisk, Mounted};
use mithril_tests::power::promises::Promises;
use mithril_tests::power::workload::Workload;

/// Disks that are made from one log.
const IMAGES_A_LOG: usize = 100;

/// What is done before the power is cut.
const STEPS: usize = 150;

/// Set inside the namespaces.
const INSIDE: &str = "MITHRIL_POWER_CUTS_INSIDE";

const CANNOT_RUN: u8 = 77;

struct Options {
    images: usize,
    seed: u64,
    file_systems: Vec<FileSystem>,
    plain: bool,
    disk: Disk,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, mountpoint, image, log] = &arguments[..]
        && serve == "--serve"
    {
        device::serve(Path::new(mountpoint), Path::new(image), Path::new(log)).expect("a disk can be served");
        return ExitCode::SUCCESS;
    }
    let options = match parse(&arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if std::env::var_os(INSIDE).is_none() {
        return enter(&arguments);
    }
    if run(&options) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        images: 200,
        seed: 1,
        file_systems: vec![FileSystem::Ext4, FileSystem::Xfs],
        plain: false,
        disk: Disk::Honest,
    };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let mut number = || {
            let value = rest.next().ok_or_else(|| format!("{name} wants a number"))?;
            value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"))
        };
        match name.as_str() {
            "--images" => options.images = usize::try_from(number()?).map_err(|error| error.to_string())?,
            "--seed" => options.seed = number()?,
            "--plain" => options.plain = true,
            "--lying" => options.disk = Disk::Lying,
            "--file-system" => {
                options.file_systems = match rest.next().map(String::as_str) {
                    Some("ext4") => vec![FileSystem::Ext4],
                    Some("xfs") => vec![FileSystem::Xfs],
                    Some("both") => options.file_systems,
                    _ => return Err("--file-system wants ext4, xfs or both".to_owned()),
                }
            }
            other => return Err(format!("there is no {other}")),
        }
    }
    Ok(options)
}

/// Starts this program again where it alone sees its mounts: however it ends, the kernel takes them down, with all
/// daemons that are left. The shell takes note of those that end.
fn enter(arguments: &[String]) -> ExitCode {
    use std::os::unix::process::CommandExt;
    // Built now, if need be: it is the same for all.
    let daemon = mithril_tests::executable();
    let program = std::env::current_exe().expect("a program knows its executable");
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", r#""$0" "$@"; exit $?"#])
        .arg(program)
        .args(arguments)
        .envs([(INSIDE, "1".as_ref()), ("MITHRIL_FS_BIN", daemon.as_os_str())]);
    eprintln!("cannot run unshare: {}", inside.exec());
    ExitCode::from(CANNOT_RUN)
}

/// Looks at all disks; whether they are right.
fn run(options: &Options) -> bool {
    let started = Instant::now();
    let kinds = options.file_systems.len();
    let rounds = options.images.div_ceil(IMAGES_A_LOG).next_multiple_of(kinds);
    let mut done = 0;
    for round in 0..rounds {
        let count = (options.images - done).div_ceil(rounds - round);
        // The same work on each file system.
        let seed = options.seed.wrapping_add((round / kinds) as u64);
        if !run_one(options, options.file_systems[round % kinds], seed, count) {
            return false;
        }
        done += count;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{done} disks kept what was promised, in {seconds:.0} s, from seed {}", options.seed);
    true
}

/// Works on one disk, and looks at it after `count` power cuts.
fn run_one(options: &Options, file_system: FileSystem, seed: u64, count: usize) -> bool {
    let started = Instant::now();
    // In memory: all that is slow here would be the disk below.
    let folder = tempfile::Builder::new().prefix("mithril-power-cuts-").tempdir_in("/dev/shm");
    let folder = folder.expect("there is memory for a disk");
    let file = |name: &str| folder.path().join(name);
    let (fresh, image, log) = (file("fresh"), file("image"), file("log"));
    file_system.make(&fresh);
    std::fs::copy(&fresh, &image).expect("there is memory for a disk");
    let (promises, from) = work(options, file_system, seed, &image, &log);
    let worked = started.elapsed().as_secs_f64();

    let mut replay = Replay::new(&fresh, &log).expect("the log can be read");
    let from = replay.records().partition_point(|record| record.end <= from);
    let cuts = choose(replay.records(), from, count, options.disk, &mut Random::new(seed ^ 0x5eed));
    let disk = std::fs::File::options().read(true).write(true).open(&image).expect("the disk is there");
    for cut in &cuts {
        replay.make(cut, &disk).expect("a disk can be made");
        if let Err(error) = check(file_system, &image, &promises.at(cut.position), options.plain) {
            replay.make(cut, &disk).expect("a disk can be made");
            let kept = folder.keep();
            tell(options, file_system, seed, cut, &error, &kept);
            return false;
        }
    }
    let checked = started.elapsed().as_secs_f64() - worked;
    println!(
        "{}, seed {seed}: {worked:.1} s of work, {} records, {count} disks, {:.2} s each",
        file_system.name(),
        replay.records().len(),
        checked / count.max(1) as f64
    );
    true
}

/// Works on a fresh disk. Returns what was promised, and the position in the log at which it began.
fn work(options: &Options, file_system: FileSystem, seed: u64, image: &Path, log: &Path) -> (Promises, u64) {
    let disk = LoggedDisk::new(image, log.to_owned());
    let mounted = Mounted::new(file_system, &disk.image()).expect("a fresh disk can be mounted");
    let directory: PathBuf = mounted.join(DIRECTORY);
    std::fs::create_dir(&directory).expect("a directory can be made");
    let sync = |path: &Path| std::fs::File::open(path).and_then(|file| file.sync_all());
    sync(&mounted.join("")).expect("a directory can be synced");
    let from = disk.position();
    let position = || disk.position();
    // Every other time the packer is at work all the while.
    let flags: &[&str] = if seed.is_multiple_of(2) { &["--settle", "0"] } else { &[] };
    let mount = (!options.plain).then(|| {
        let mut mount = Mount::of(directory.clone(), flags);
        mount.mount();
        mount
    });
    (Workload::new(&directory, mount.as_ref(), &position, seed).run(STEPS), from)
}

fn tell(options: &Options, file_system: FileSystem, seed: u64, cut: &Cut, error: &str, kept: &Path) {
    let name = file_system.name();
    println!("{name}, seed {seed}: {}: {error}", cut.name());
    println!("the disk after the cut is {0}/image, the log {0}/log", kept.display());
    let mithril = if options.plain { "" } else { ", then mithril-fs mount DIRECTORY/checkpoints" };
    println!("to look at it: mount -t {name} -o loop {}/image DIRECTORY{mithril}", kept.display());
}
