//! A crash after each step that changes something on disk loses nothing that was promised. The points are those that
//! `mithril-fs` lists itself; each is reached by some work that is known to reach it, or the test fails.

#![cfg(debug_assertions)]

mod way;
mod world;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use mithril_tests::executable;
use mithril_tests::mount::text;
use way::Way;

/// Cases at a time: most of one is waiting for disks.
const AT_A_TIME: usize = 6;

/// The points that there are, by the program itself.
fn known_points() -> BTreeSet<String> {
    let mut asking = Command::new(executable());
    let said = asking.args(["status", "/"]).env("MITHRIL_FAULT", "Nothing=abort").output().unwrap();
    assert_eq!(said.status.code(), Some(2), "a point that there is not is refused: {}", text(&said));
    let said = text(&said);
    let points = said.trim().split_once(" but ").unwrap_or_else(|| panic!("no list: {said}")).1;
    points.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_crash_after_any_step_loses_nothing() {
    let cases: Vec<(Way, &str)> =
        Way::ALL.iter().flat_map(|way| way.points().iter().map(|point| (*way, *point))).collect();
    let covered: BTreeSet<String> = cases.iter().map(|(_, point)| (*point).to_owned()).collect();
    assert_eq!(covered, known_points(), "every point has a case");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..AT_A_TIME {
            let work = || {
                while let Some((way, point)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    way.crash_at(point);
                }
            };
            // A failure is told by the name of its case, and as that of this test.
            std::thread::Builder::new().name(format!("worker {worker}")).spawn_scoped(scope, work).unwrap();
        }
    });
}
