//! The speed of a mount beside that of the directory below: `scripts/bench_fs.sh`, or
//! `cargo run --release -p mithril-tests --bin fs_speed -- [write|busy|plain|small|packed ...] [--gib N] [--pairs N]`.
//!
//! What is compared takes turns in one run, and what is printed are medians of the ratios of pairs, with an interval
//! that holds the median with 96 % where there are nine: a machine's speed changes from hour to hour, and half of it is
//! the page cache's and the disk's.

mod busy;
mod packed;
mod paired;
mod plain;
mod small;
mod write;

use mithril_tests::mount::Mount;

/// What to measure, and how long.
struct Plan {
    parts: Vec<String>,
    gib: usize,
    pairs: usize,
}

impl Plan {
    fn from_arguments() -> Self {
        let mut plan = Self { parts: Vec::new(), gib: 2, pairs: 9 };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number =
                || arguments.next().and_then(|text| text.parse().ok()).expect("a number behind the option");
            match argument.as_str() {
                "--gib" => plan.gib = number(),
                "--pairs" => plan.pairs = number(),
                "write" | "busy" | "plain" | "small" | "packed" => plan.parts.push(argument),
                _ => panic!("usage: fs_speed [write|busy|plain|small|packed ...] [--gib N] [--pairs N]"),
            }
        }
        if plan.parts.is_empty() {
            plan.parts = ["write", "busy", "plain", "small", "packed"].map(str::to_owned).to_vec();
        }
        plan
    }

    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|wanted| wanted == part)
    }
}

fn main() {
    let plan = Plan::from_arguments();
    if plan.has("write") {
        write::measure(plan.gib << 30, plan.pairs);
    }
    if plan.has("busy") {
        busy::measure(plan.gib << 30, plan.pairs);
    }
    if plan.has("plain") {
        plain::measure(plan.gib << 29, plan.pairs);
    }
    if plan.has("small") {
        small::measure(4000, plan.pairs);
    }
    if plan.has("packed") {
        packed::measure(plan.pairs);
    }
}

/// Fails unless plain files went past the daemon.
fn assert_passed_through(mount: &Mount) {
    let status = mount.status();
    assert!(status["passthrough"].is_null(), "passthrough was not active: {status}");
    assert_eq!(status["write_requests"].as_u64(), Some(0), "the daemon served writes: {status}");
    assert_eq!(status["read_requests"].as_u64(), Some(0), "the daemon served reads: {status}");
}
