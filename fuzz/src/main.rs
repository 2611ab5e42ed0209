//! Mutations of valid encodings, and noise, against every decoder, on any toolchain and without other tools.
//!
//! Each target is executed in a process of its own. Decoders get buffers between pages that nobody may touch, so that a
//! byte too far ends the process; what they allocate is counted, and so is their processor time; panics (and
//! overflows, in builds that check) are failures; what decodes must decode to the same on every instruction set. A case
//! that fails is written to a file, and can be executed again.
//!
//! Modules import only from those above them in this list: `random`, `case`, `allocations`, `guarded`, `slot`,
//! `coverage` | `mutation` | `target`, `targets` | `executor` | `supervisor`.

mod allocations;
mod case;
mod coverage;
mod executor;
mod guarded;
mod mutation;
mod random;
mod slot;
mod supervisor;
mod target;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::case::Case;
use crate::slot::Slot;
use crate::supervisor::Plan;
use crate::target::{Ground, Target};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

#[derive(Parser)]
#[command(about = "Feeds changed encodings and noise to every decoder")]
struct Arguments {
    /// Targets; all of them if none is given
    targets: Vec<String>,
    /// Executions of each target
    #[arg(long, default_value_t = 1_000_000)]
    executions: u64,
    /// What the changes are drawn from; one of its own for each run if none is given
    #[arg(long)]
    seed: Option<u64>,
    /// Where cases that fail are written to
    #[arg(long, default_value = "target/fuzz/failures")]
    failures: PathBuf,
    /// Targets that are executed at a time; as many as there are processors if not given
    #[arg(long)]
    jobs: Option<usize>,
    /// Executes a case that failed, and says what is wrong with it
    #[arg(long, value_name = "FILE", conflicts_with = "targets")]
    replay: Option<PathBuf>,
    /// Lists the targets
    #[arg(long)]
    list: bool,
    /// Executes one target in this process, for a supervisor that has this file mapped
    #[arg(long, hide = true)]
    slot: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = target::all();
    if arguments.list {
        all.iter().for_each(|target| println!("{:<14} {}", target.name, target.what));
        return ExitCode::SUCCESS;
    }
    let done = match (&arguments.replay, &arguments.slot) {
        (Some(file), _) => replay(file, &all),
        (None, Some(slot)) => execute(&arguments, slot, &all),
        (None, None) => supervise(&arguments, &all),
    };
    done.unwrap_or_else(|reason| {
        eprintln!("{reason}");
        ExitCode::from(2)
    })
}

fn find<'a>(name: &str, all: &'a [Target]) -> Result<&'a Target, String> {
    all.iter()
        .find(|target| target.name == name)
        .ok_or_else(|| format!("there is no target {name:?}; --list says which there are"))
}

fn supervise(arguments: &Arguments, all: &[Target]) -> Result<ExitCode, String> {
    let names: Vec<&str> = if arguments.targets.is_empty() {
        all.iter().map(|target| target.name).collect()
    } else {
        let found = arguments.targets.iter().map(|name| find(name, all).map(|target| target.name));
        found.collect::<Result<_, _>>()?
    };
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.as_nanos().to_le_bytes().first_chunk().map_or(0, |low| u64::from_le_bytes(*low))
    });
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    println!("{} targets, {} executions each, --seed {seed}", names.len(), arguments.executions);
    let plan = Plan {
        executions: arguments.executions,
        seed,
        failures: arguments.failures.clone(),
        jobs: jobs.max(1),
    };
    let failed = supervisor::run(&names, &plan).map_err(|error| format!("cannot supervise: {error}"))?;
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn execute(arguments: &Arguments, slot: &std::path::Path, all: &[Target]) -> Result<ExitCode, String> {
    let target = find(arguments.targets.first().map_or("", String::as_str), all)?;
    let seed = arguments.seed.unwrap_or(0);
    let run = || {
        let slot = Slot::open(slot).map_err(|error| format!("{}: {error}", slot.display()))?;
        executor::run(target, arguments.executions, seed, &slot)
    };
    match executor::prepared(run) {
        Ok(done) => {
            let branches = done.branches.map_or(String::new(), |count| format!(", {count} branches"));
            println!(
                "{:>8} executions, {:>2} % accepted{branches}, at most {:>8} bytes and {:>6.2} ms, {:.1} s",
                done.executions,
                done.accepted * 100 / done.executions.max(1),
                done.heap_peak,
                done.slowest.as_secs_f64() * 1e3,
                done.elapsed.as_secs_f64(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            // The case is in the slot.
            println!("{reason}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn replay(file: &std::path::Path, all: &[Target]) -> Result<ExitCode, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let (name, case) = Case::from_file(&bytes).ok_or_else(|| format!("{}: no case", file.display()))?;
    let target = find(&name, all)?;
    let (checked, heap, time) = executor::prepared(|| executor::execute(target, &case, &mut Ground::new()));
    let (input, base) = (case.input.len(), case.base.as_ref().map(Vec::len));
    println!("{name}: input of {input} bytes, base {base:?}, length {}, choice {:#x}", case.len, case.choice);
    println!("{checked:?}, at most {heap} bytes and {time:?}");
    Ok(ExitCode::from(u8::from(checked.is_err())))
}
