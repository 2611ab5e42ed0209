//! The work that comes to the points.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, SystemTime};

use mithril_tests::data::Weights;
use mithril_tests::mount::text;
use rustix::process::Signal;

use super::world::World;

/// What is done while the daemon is to die.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// A directory is mounted for the first time.
    FirstMount,
    /// A mount whose index is gone.
    LostIndex,
    /// A mount after a crash that left an unfinished pack.
    Leftovers,
    /// A name is looked up.
    LookUp,
    /// The first checkpoint is packed.
    First,
    /// A checkpoint is packed as a delta of another.
    Delta,
    /// A packed file is written to.
    Write,
    /// A packed file is unpacked by command.
    Unpack,
    /// So it is without a mount.
    UnpackUnmounted,
    /// A packed file that cannot be unpacked, since its pack is damaged, is left as it was.
    GiveUp,
    /// A packed file is truncated to nothing.
    Empty,
    /// A packed file gets another time.
    SetTime,
    /// A pack is given back whole.
    Collect,
    /// What must stay of a pack is copied.
    Rewrite,
    /// A mount after a crash that left the blocks of a packed file.
    Heal,
    /// So it is, and the store has lost what the blocks hold.
    HealFromBlocks,
}

const INDEX: [&str; 3] = ["IndexWritten", "IndexRenamed", "IndexSynced"];
const STUB: [&str; 3] = ["BlocksPunched", "NoticeWritten", "StubTimed"];
const PACKING: &[&str] = &[
    "Taken",
    "PackBegun",
    "PackWritten",
    "PacksSynced",
    "PackNamed",
    "PackNamesSynced",
    "IndexAppended",
    "Commit",
    "AttributeSet",
    "AttributeSynced",
    STUB[0],
    STUB[1],
    STUB[2],
];
const UNPACKING: &[&str] = &[
    "KeepPlainNoted",
    "SpaceReserved",
    "UnpackStep",
    "BytesRestored",
    "PlainTimed",
    "PlainSynced",
    "AttributeRemoved",
    "PlainDurable",
];

impl Way {
    pub(crate) const ALL: &[Way] = &[
        Way::FirstMount,
        Way::LostIndex,
        Way::Leftovers,
        Way::LookUp,
        Way::First,
        Way::Delta,
        Way::Write,
        Way::Unpack,
        Way::UnpackUnmounted,
        Way::GiveUp,
        Way::Empty,
        Way::SetTime,
        Way::Collect,
        Way::Rewrite,
        Way::Heal,
        Way::HealFromBlocks,
    ];

    /// The points that it comes to.
    pub(crate) fn points(self) -> &'static [&'static str] {
        match self {
            Way::FirstMount => &[
                "StoreMade",
                "NoteWritten",
                "NoteRenamed",
                "PacksMade",
                INDEX[0],
                INDEX[1],
                INDEX[2],
                "Scan",
            ],
            Way::LostIndex => &INDEX,
            Way::Leftovers => &["LeftoverRemoved"],
            Way::LookUp => &["Lookup"],
            Way::First | Way::Delta => PACKING,
            // Whoever writes leaves no note that it is to stay plain.
            Way::Write => &UNPACKING[1..],
            Way::Unpack | Way::UnpackUnmounted => UNPACKING,
            Way::GiveUp => &STUB,
            Way::Empty => &["Emptied", "EmptySynced", "EmptyPlain"],
            Way::SetTime => &["TimeSet"],
            Way::Collect => &["IndexAppended", "PacksForgotten", "PackRemoved", "RemovalsSynced"],
            Way::Rewrite => &[
                "PackBegun",
                "PackWritten",
                "PacksSynced",
                "PackNamed",
                "PackNamesSynced",
                "IndexAppended",
                "PacksForgotten",
                "PackRemoved",
                "RemovalsSynced",
            ],
            Way::Heal => &["Scan", "HealProven", STUB[0], STUB[1], STUB[2]],
            Way::HealFromBlocks => {
                &["HealProven", "PlainTimed", "PlainSynced", "AttributeRemoved", "PlainDurable"]
            }
        }
    }

    /// Does it in a fresh directory, lets the daemon die at that point, and looks whether every promise is kept.
    pub(crate) fn crash_at(self, point: &str) {
        // What fails may not know its case.
        let case = Case(self, point);
        let mut world = World::new();
        self.prepare(&mut world);
        let damaged = self.damage(&world);
        world.mount.give_fault(&format!("{point}=abort"));
        self.provoke(&mut world);
        world.mount.without_fault();
        if let Some((pack, good)) = damaged {
            if matches!(self, Way::HealFromBlocks) {
                world.mount.mount();
                world.wait_for("step_1");
                world.mount.unmount();
            }
            fs::write(pack, good).unwrap();
        }
        world.check();
        std::mem::forget(case);
    }

    /// Makes what is needed for it. The directory is not mounted then.
    fn prepare(self, world: &mut World) {
        let mut weights = Weights::new(60_000, 1);
        match self {
            Way::FirstMount => world.write("step_1", weights.bf16_file()),
            Way::First | Way::LookUp => {}
            Way::Leftovers | Way::Heal => {
                let point = if matches!(self, Way::Heal) { "AttributeSynced" } else { "PackWritten" };
                world.mount.give_fault(&format!("{point}=abort"));
                Way::First.provoke(world);
                world.mount.without_fault();
            }
            Way::Rewrite => {
                // Of the first file, the second one has a chunk.
                let first = Weights::new(600_000, 1).fp32_file();
                let mut second = Weights::new(600_000, 2).fp32_file();
                second[..3 << 19].copy_from_slice(&first[..3 << 19]);
                world.mount.mount();
                world.write("first", first);
                world.pack_all();
                world.write("second", second);
                world.pack_all();
                assert!(world.mount.is_packed("first") && world.mount.is_packed("second"));
                world.remove("first");
                world.mount.unmount();
            }
            _ => {
                world.mount.mount();
                world.write("step_1", weights.bf16_file());
                world.pack_all();
                if matches!(self, Way::Collect) {
                    world.write("other", Weights::new(60_000, 9).fp32_file());
                    world.pack_all();
                    assert!(world.mount.is_packed("other"));
                    world.remove("other");
                }
                if matches!(self, Way::Delta | Way::Collect | Way::Write) {
                    weights.step(1e-4);
                    world.write("step_2", weights.bf16_file());
                    world.write("small", b"never packed".to_vec());
                }
                assert!(world.mount.is_packed("step_1"));
                world.mount.unmount();
                if matches!(self, Way::LostIndex) {
                    fs::remove_file(world.mount.lower(".mithril/index")).unwrap();
                }
            }
        }
    }

    /// Damages the pack, if that is part of it; returns what was there.
    fn damage(self, world: &World) -> Option<(std::path::PathBuf, Vec<u8>)> {
        if !matches!(self, Way::GiveUp | Way::HealFromBlocks) {
            return None;
        }
        let (pack, good) = world.pack();
        if matches!(self, Way::HealFromBlocks) {
            // As a crash leaves it between the attribute and the punching.
            let stub = OpenOptions::new().write(true).open(world.mount.lower("step_1")).unwrap();
            stub.write_all_at(&Weights::new(60_000, 1).bf16_file(), 0).unwrap();
            stub.sync_all().unwrap();
        }
        let mut bytes = good.clone();
        bytes[100] ^= 0x10;
        fs::write(&pack, bytes).unwrap();
        Some((pack, good))
    }

    /// Does it; something must die of it.
    fn provoke(self, world: &mut World) {
        match self {
            Way::FirstMount | Way::LostIndex | Way::Leftovers | Way::Heal | Way::HealFromBlocks => {
                world.dies_of_mounting();
            }
            Way::LookUp => world.dies_of(|mount| drop(fs::metadata(mount.join("fault-name")).unwrap_err())),
            Way::First => {
                world.mount.mount();
                let daemon = world.mount.daemon();
                world.write("step_1", Weights::new(60_000, 1).bf16_file());
                world.write("other", Weights::new(60_000, 5).fp32_file());
                world.pack_to_death();
                world.mount.wait_for_death(daemon);
            }
            Way::Delta => {
                world.mount.mount();
                let daemon = world.mount.daemon();
                world.pack_to_death();
                world.mount.wait_for_death(daemon);
            }
            Way::Write => world.dies_of(|mount| {
                let file = OpenOptions::new().write(true).open(mount.join("step_1")).unwrap();
                file.write_all_at(b"changed", 5000).unwrap_err();
            }),
            Way::Unpack | Way::GiveUp => world.dies_of(|mount| drop(mount.command(&["unpack", "./step_1"]))),
            Way::UnpackUnmounted => {
                let unpacked = world.mount.command(&["unpack", "."]);
                assert_eq!(unpacked.status.signal(), Some(Signal::ABORT.as_raw()), "{}", text(&unpacked));
            }
            Way::Empty => {
                world.promise_empty("step_1");
                world.dies_of(|mount| drop(fs::File::create(mount.join("step_1")).unwrap_err()));
            }
            Way::SetTime => {
                world.forget_time("step_1");
                world.dies_of(|mount| {
                    let file = fs::File::open(mount.join("step_1")).unwrap();
                    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
                    file.set_modified(time).unwrap_err();
                });
            }
            Way::Collect | Way::Rewrite => world.dies_of(|mount| drop(mount.command(&["gc", "."]))),
        }
    }
}

/// Says which case it was, unless it went well.
struct Case<'a>(Way, &'a str);

impl Drop for Case<'_> {
    fn drop(&mut self) {
        eprintln!("the case: {:?}, {}", self.0, self.1);
    }
}
