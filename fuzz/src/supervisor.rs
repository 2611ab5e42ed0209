//! Runs targets in processes of their own, and says what became of them.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::slot::Slot;

/// An execution that takes longer than this will not end.
const HUNG: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What executors are told.
pub(crate) struct Plan {
    pub(crate) executions: u64,
    pub(crate) seed: u64,
    /// Where cases that failed are written to.
    pub(crate) failures: PathBuf,
    /// Processes at a time.
    pub(crate) jobs: usize,
}

/// Runs the targets of these names. Returns how many failed.
pub(crate) fn run(names: &[&str], plan: &Plan) -> std::io::Result<usize> {
    // In memory where that is possible: what is mapped of a disk is written to it all the time.
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let scratch = parent.join(format!("mithril-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let worked: std::io::Result<()> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs.min(names.len()))
            .map(|_| {
                scope.spawn(|| -> std::io::Result<()> {
                    while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if !run_one(name, plan, &scratch)? {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a supervisor does not panic"))
    });
    std::fs::remove_dir_all(&scratch)?;
    worked.map(|()| failed.into_inner())
}

/// Runs a target, and prints a line or what failed. Whether all is well.
fn run_one(name: &str, plan: &Plan, scratch: &Path) -> std::io::Result<bool> {
    let path = scratch.join(name);
    let slot = Slot::open(&path)?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg(name)
        .arg("--slot")
        .arg(&path)
        .args(["--executions", &plan.executions.to_string(), "--seed", &plan.seed.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let hung = wait(&mut child, &slot)?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        println!("ok      {name:<14} {}", text.trim());
        return Ok(true);
    }
    let mut report = format!("FAILED  {name:<14} {}", reason(text.trim(), output.status, hung));
    let _ = write!(report, "\n        execution {} of seed {}", slot.begun().saturating_sub(1), plan.seed);
    match Case::from_file(&slot.get()) {
        Some((_, case)) => {
            let saved = case.save(name, &plan.failures)?;
            let _ = write!(report, "; again: scripts/fuzz.sh --replay {}", saved.display());
        }
        None => report.push_str("; it failed before the first execution"),
    }
    println!("{report}");
    Ok(false)
}

/// Waits for the end of an executor. Whether it was ended because it did not get on.
fn wait(child: &mut Child, slot: &Slot) -> std::io::Result<bool> {
    let (mut begun, mut since) = (slot.begun(), Instant::now());
    while child.try_wait()?.is_none() {
        std::thread::sleep(POLL);
        if slot.begun() != begun {
            (begun, since) = (slot.begun(), Instant::now());
        } else if since.elapsed() > HUNG {
            child.kill()?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Why an executor did not succeed.
fn reason(text: &str, status: ExitStatus, hung: bool) -> String {
    if hung {
        return format!("no end after {} s", HUNG.as_secs());
    }
    match status.signal() {
        Some(libc::SIGSEGV | libc::SIGBUS) => {
            "a byte outside of its buffers was touched, or the stack ran out".to_owned()
        }
        Some(libc::SIGABRT) => "it aborted: no memory, or a panic that cannot unwind".to_owned(),
        Some(signal) => format!("signal {signal}"),
        None => text.to_owned(),
    }
}
