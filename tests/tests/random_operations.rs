//! The same random operations on a mount, whose files change their state at random moments, and on a plain directory of
//! the same file system: every answer has to be the same, and every byte.

#[path = "random_operations/operation.rs"]
mod operation;
#[path = "random_operations/tree.rs"]
mod tree;
#[path = "random_operations/world.rs"]
mod world;

use mithril_tests::data::Random;
use mithril_tests::mount::Mount;
use mithril_tests::rounds;

use operation::Operation;
use tree::assert_same;
use world::World;

/// Operations between two comparisons of everything.
const BATCH: usize = 60;
const BATCHES: usize = 25;

#[test]
fn random_operations_give_the_same_results_in_passthrough() {
    run(&["--settle", "0"], 1);
}

#[test]
fn random_operations_give_the_same_results_through_the_daemon() {
    run(&["--settle", "0", "--no-passthrough"], 2);
}

fn run(flags: &[&str], salt: u64) {
    for round in 0..rounds(1) as u64 {
        let seed = 1000 * salt + round;
        let mut mount = Mount::new(flags);
        // Beside the mount: the directory below is on the same file system as its neighbour.
        let plain = tempfile::tempdir_in(mount.path().parent().expect("it lies in a directory")).unwrap();
        let mut random = Random::new(seed);
        let mut above = World::new(mount.path().to_owned());
        let mut beside = World::new(plain.path().to_owned());
        let (mut history, mut packed) = (Vec::new(), 0);
        for batch in 0..BATCHES {
            for _ in 0..BATCH {
                change_state(&mount, &mut random);
                let operation = Operation::random(&mut random);
                let (one, other) = (above.run(&operation), beside.run(&operation));
                let differs = one != other;
                history.push(format!("{operation:?} -> {other}"));
                assert!(
                    !differs,
                    "seed {seed}: {operation:?} gave {one} on the mount, {other} below; before it:\n{}",
                    history[history.len().saturating_sub(40)..].join("\n")
                );
            }
            let said = || format!("seed {seed}, after:\n{}", history[history.len() - BATCH..].join("\n"));
            assert_same(mount.path(), plain.path(), &said);
            if batch % 5 == 4 {
                above.close_all();
                beside.close_all();
                mount.sync();
                let status = mount.status();
                packed += status["packed_files"].as_u64().expect("a number");
                mount.remount();
                assert_same(mount.path(), plain.path(), &said);
                mount.run(&["verify", "."]);
            }
        }
        above.close_all();
        assert!(packed > 0, "seed {seed}: nothing was ever packed");
    }
}

/// Sometimes packs or unpacks something, or collects.
fn change_state(mount: &Mount, random: &mut Random) {
    let name = format!("./{}", operation::name(random));
    // What is not there, in use or too small is refused: that is not what is looked at here.
    match random.below(40) {
        0 | 1 => drop(mount.command(&["pack", &name])),
        2 => drop(mount.command(&["unpack", &name])),
        3 if random.below(4) == 0 => drop(mount.command(&["gc", "."])),
        _ => {}
    }
}
