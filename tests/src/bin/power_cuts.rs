//! Cuts the power of a disk, over and over, while Mithril works on it.
//!
//! `cargo run --release -p mithril-tests --bin power_cuts [-- OPTION...]`
//!
//! * `--images N`: disks to look at, 200 if not given. A hundred are of one piece of work.
//! * `--seed S`: what is done and where it is cut, as far as threads allow: 1 if not given.
//! * `--file-system ext4|xfs|both`: what is on the disk: both if not given.
//! * `--plain`: the same without Mithril. What fails then is the fault of the file system, or of this program.
//! * `--lying`: the disk flushes less than it says. This must fail.
//! * `--again FOLDER`: only looks at the disk that was kept there.
//!
//! Ends with 0 if every promise was kept, and 77 where it cannot run. With 1 if not: the disk is kept then, and it says
//! where.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mithril_tests::data::Random;
use mithril_tests::mount::Mount;
use mithril_tests::power::check::{DIRECTORY, Seen, check};
use mithril_tests::power::cuts::{Cut, Disk, Replay, choose};
use mithril_tests::power::device;
use mithril_tests::power::disk::{FileSystem, LoggedDisk, Mounted, copy_sparse};
use mithril_tests::power::kept::{self, Kept};
use mithril_tests::power::promises::Promises;
use mithril_tests::power::workload::Workload;

/// Disks that are made from one log.
const IMAGES_A_LOG: usize = 100;

/// What is done before the power is cut.
const STEPS: usize = 150;

/// Where the disks are: all that is slow here would be the disk below.
const MEMORY: &str = "/dev/shm";

/// Set inside the namespaces.
const INSIDE: &str = "MITHRIL_POWER_CUTS_INSIDE";

const CANNOT_RUN: u8 = 77;

struct Options {
    images: usize,
    seed: u64,
    file_systems: Vec<FileSystem>,
    plain: bool,
    disk: Disk,
    again: Option<PathBuf>,
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
        if let Some(missing) = missing(&options) {
            eprintln!("{missing}");
            return ExitCode::from(CANNOT_RUN);
        }
        return enter(&arguments);
    }
    let kept = options.again.as_deref().map_or_else(|| run(&options), look_again);
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        images: 200,
        seed: 1,
        file_systems: vec![FileSystem::Ext4, FileSystem::Xfs],
        plain: false,
        disk: Disk::Honest,
        again: None,
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
            "--again" => options.again = Some(rest.next().ok_or("--again wants a folder")?.into()),
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

/// What it takes, and is not there.
fn missing(options: &Options) -> Option<String> {
    if !mithril_tests::is_root() {
        return Some("only root may mount disks".to_owned());
    }
    let devices = ["/dev/fuse", "/dev/loop-control"].into_iter().find(|device| !Path::new(device).exists());
    let makers = options.file_systems.iter().map(|file_system| format!("mkfs.{}", file_system.name()));
    let has = |program: &String| Command::new(program).arg("-V").output().is_ok();
    let program =
        ["unshare", "mount"].map(str::to_owned).into_iter().chain(makers).find(|program| !has(program));
    Some(format!("there is no {}", devices.map(str::to_owned).or(program)?))
}

/// The mounts of others that a namespace begins with would keep their daemons from ending.
const INSIDE_SCRIPT: &str = r#"umount -a -l -t fuse.mithril-fs
mount -t tmpfs power-cuts "$TMPDIR" && "$0" "$@"; exit $?"#;

/// Starts this program again where it alone sees its mounts, and has a memory for its files: however it ends, the kernel
/// takes them down, with all daemons that are left. The shell takes note of those that end.
fn enter(arguments: &[String]) -> ExitCode {
    use std::os::unix::process::CommandExt;
    // Built now, if need be: it is the same for all.
    let daemon = mithril_tests::executable();
    let program = std::env::current_exe().expect("a program knows its executable");
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", INSIDE_SCRIPT])
        .arg(program)
        .args(arguments)
        .envs([(INSIDE, "1".as_ref()), ("MITHRIL_FS_BIN", daemon.as_os_str()), ("TMPDIR", MEMORY.as_ref())]);
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
    let folder = tempfile::tempdir().expect("there is memory for a disk");
    let file = |name: &str| folder.path().join(name);
    let (fresh, image, log) = (file("fresh"), file("image"), file("log"));
    file_system.make(&fresh);
    std::fs::copy(&fresh, &image).expect("there is memory for a disk");
    let (promises, from) = work(options, file_system, seed, &image, &log);
    let worked = started.elapsed().as_secs_f64();

    let mut replay = Replay::new(&fresh, &log).expect("the log can be read");
    let from = replay.records().partition_point(|record| record.end <= from);
    let cuts = choose(replay.records(), from, count, options.disk, &mut Random::new(seed ^ 0x5eed));
    let disk = File::options().read(true).write(true).open(&image).expect("the disk is there");
    let mut seen = Seen::default();
    for cut in &cuts {
        replay.make(cut, &disk).expect("a disk can be made");
        let promised = promises.at(cut.position);
        match check(file_system, &image, &promised, options.plain) {
            Ok(more) => seen += more,
            Err(error) => {
                println!("{}, seed {seed}: {}: {error}", file_system.name(), cut.name());
                if options.disk == Disk::Honest {
                    let promised = promised.into_iter().map(|(name, stage)| (name.to_owned(), stage.clone()));
                    let kept = Kept { file_system, plain: options.plain, promised: promised.collect() };
                    keep(&mut replay, cut, &kept, &log).expect("there is room to keep it");
                }
                return false;
            }
        }
    }
    println!(
        "{}, seed {seed}: {} records in {worked:.1} s; {count} disks, {:.2} s each, with {} packed files, {} of them \
         half-way",
        file_system.name(),
        replay.records().len(),
        (started.elapsed().as_secs_f64() - worked) / count.max(1) as f64,
        seen.packed,
        seen.unfinished
    );
    true
}

/// Keeps a disk as it was after the cut.
fn keep(replay: &mut Replay, cut: &Cut, kept: &Kept, log: &Path) -> io::Result<()> {
    let folder = kept::folder()?;
    replay.make(cut, &File::create(folder.join(kept::IMAGE))?)?;
    kept.write(&folder)?;
    std::fs::copy(log, folder.join("log"))?;
    println!("the disk after the cut, the log, and what was promised are in {}", folder.display());
    println!("to look at the disk again: power_cuts --again {}", folder.display());
    Ok(())
}

/// Looks at a disk that was kept, and leaves it as it is.
fn look_again(folder: &Path) -> bool {
    let kept = Kept::read(folder).expect("it was kept there");
    let copy = tempfile::NamedTempFile::new().expect("there is memory for a disk");
    let image = File::open(folder.join(kept::IMAGE)).expect("it was kept there");
    copy_sparse(&image, copy.as_file()).expect("there is memory for a disk");
    let promised = kept.promised.iter().map(|(name, stage)| (name.as_str(), stage)).collect();
    let result = check(kept.file_system, copy.path(), &promised, kept.plain);
    println!("{}", result.as_ref().err().map_or("it is what was promised", String::as_str));
    result.is_ok()
}

/// Works on a fresh disk. Returns what was promised, and the position in the log at which it began.
fn work(options: &Options, file_system: FileSystem, seed: u64, image: &Path, log: &Path) -> (Promises, u64) {
    let disk = LoggedDisk::new(image, log.to_owned());
    let mounted = Mounted::new(file_system, &disk.image()).expect("a fresh disk can be mounted");
    let directory: PathBuf = mounted.join(DIRECTORY);
    std::fs::create_dir(&directory).expect("a directory can be made");
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    sync(&mounted.join("")).expect("a directory can be synced");
    let from = disk.position();
    let position = || disk.position();
    // Every other time the packer is at work all the while, and every third time the daemon does all the I/O.
    let packing: &[&str] = if seed.is_multiple_of(2) { &["--settle", "0"] } else { &[] };
    let io: &[&str] = if seed.is_multiple_of(3) { &["--no-passthrough"] } else { &[] };
    let flags = [packing, io].concat();
    let mount = (!options.plain).then(|| {
        let mut mount = Mount::of(directory.clone(), &flags);
        mount.mount();
        mount
    });
    let bystander = mounted.join("bystander");
    let ended = AtomicBool::new(false);
    let promises = std::thread::scope(|threads| {
        threads.spawn(|| commit_all_the_while(&bystander, seed, &ended));
        // Also if it panics, or nobody would hear of it.
        let _ending = Ending(&ended);
        Workload::new(&directory, mount.as_ref(), &position, seed).run(STEPS)
    });
    (promises, from)
}

/// Says in the end that it is over.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Syncs something else on the same disk, so that the journal is committed at any moment, and not only where somebody
/// waits for it: what has happened until then is durable, and what should have been before it may not be.
fn commit_all_the_while(path: &Path, seed: u64, ended: &AtomicBool) {
    let file = File::create(path).expect("a file can be made");
    let mut random = Random::new(seed);
    while !ended.load(Ordering::Relaxed) {
        let len = random.below(100_000);
        file.set_len(len).and_then(|()| file.sync_all()).expect("it can be synced");
        std::thread::sleep(Duration::from_micros(random.below(8000)));
    }
}
