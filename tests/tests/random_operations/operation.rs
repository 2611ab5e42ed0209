//! What may be done.

use mithril_tests::data::Random;

/// One operation, with all that it needs: the same for both worlds. `slot` is one of a few open files.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Save { name: String, seed: u64, len: usize },
    Open { slot: usize, name: String, flags: i32, mode: u32 },
    Close { slot: usize },
    Read { slot: usize, at: u64, len: usize },
    Write { slot: usize, at: u64, len: usize, seed: u64 },
    Append { name: String, len: usize, seed: u64 },
    SetLen { slot: usize, len: u64 },
    Truncate { name: String, len: u64 },
    Allocate { slot: usize, mode: i32, at: u64, len: u64 },
    Sync { slot: usize, data: bool },
    MapWrite { slot: usize, at: u64, len: usize, seed: u64 },
    MapRead { slot: usize, at: u64, len: usize },
    Copy { from: usize, to: usize, at: u64, target: u64, len: usize },
    SendFile { from: usize, to: usize, at: u64, len: usize },
    ReadAll { name: String },
    Stat { name: String },
    Rename { from: String, to: String, flags: u32 },
    Link { from: String, to: String },
    Symlink { target: String, name: String },
    ReadLink { name: String },
    Unlink { name: String },
    MakeDir { name: String },
    RemoveDir { name: String },
    Mode { name: String, mode: u32 },
    Times { name: String, seconds: i64, nanoseconds: i64 },
    SetAttribute { name: String, key: String, len: usize },
    RemoveAttribute { name: String, key: String },
    List { name: String },
}

/// Open files at a time.
pub(crate) const SLOTS: usize = 5;

/// Files are up to this long, most of them long enough to be packed.
const LONGEST: u64 = 400_000;

/// One of a few names, so that operations meet.
pub(crate) fn name(random: &mut Random) -> String {
    const DIRECTORIES: [&str; 5] = ["", "", "d/", "d/e/", "f/"];
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let directory = DIRECTORIES[pick(random, DIRECTORIES.len())];
    format!("{directory}{}", NAMES[pick(random, NAMES.len())])
}

fn pick(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).expect("it is below a count")
}

impl Operation {
    /// Any of them.
    pub(crate) fn random(random: &mut Random) -> Self {
        let slot = pick(random, SLOTS);
        let name = name(random);
        let seed = random.next_u64();
        let at = random.below(LONGEST);
        let len = usize::try_from(random.below(if seed.is_multiple_of(5) { LONGEST } else { 10_000 }))
            .expect("short");
        let key = ["user.one", "user.two", "user.three"][pick(random, 3)].to_owned();
        match random.below(40) {
            0..=4 => {
                let len = usize::try_from(random.below(LONGEST)).expect("short");
                Self::Save { name, seed, len }
            }
            5..=9 => {
                let access = [libc::O_RDONLY, libc::O_RDWR, libc::O_RDWR, libc::O_WRONLY][pick(random, 4)];
                let more = [0, libc::O_CREAT, libc::O_CREAT | libc::O_EXCL, libc::O_TRUNC, libc::O_APPEND];
                Self::Open { slot, name, flags: access | more[pick(random, more.len())], mode: 0o644 }
            }
            10 => Self::Close { slot },
            11 | 12 => Self::Read { slot, at, len },
            13..=15 => Self::Write { slot, at, len, seed },
            16 => Self::Append { name, len, seed },
            17 => Self::SetLen { slot, len: at },
            18 => Self::Truncate { name, len: at },
            19 => {
                const MODES: [i32; 4] = [
                    0,
                    libc::FALLOC_FL_KEEP_SIZE,
                    libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                    libc::FALLOC_FL_ZERO_RANGE,
                ];
                Self::Allocate { slot, mode: MODES[pick(random, MODES.len())], at, len: len as u64 + 1 }
            }
            20 => Self::Sync { slot, data: seed.is_multiple_of(2) },
            21 | 22 => Self::MapWrite { slot, at, len, seed },
            23 => Self::MapRead { slot, at, len },
            24 => Self::Copy { from: slot, to: pick(random, SLOTS), at, target: random.below(LONGEST), len },
            25 => Self::SendFile { from: slot, to: pick(random, SLOTS), at, len },
            26 | 27 => Self::ReadAll { name },
            28 => Self::Stat { name },
            29 | 30 => {
                let flags = [0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE][pick(random, 4)];
                Self::Rename { from: name, to: self::name(random), flags }
            }
            31 => Self::Link { from: name, to: self::name(random) },
            32 => Self::Symlink { target: name, name: self::name(random) },
            33 => match seed % 2 {
                0 => Self::ReadLink { name },
                _ => Self::List { name },
            },
            34 => Self::Unlink { name },
            35 => Self::MakeDir { name: ["d", "d/e", "f", "d/f"][pick(random, 4)].to_owned() },
            36 => Self::RemoveDir { name },
            37 => Self::Mode { name, mode: [0o600, 0o644, 0o755, 0o4755, 0o2755][pick(random, 5)] },
            38 => Self::Times {
                name,
                seconds: i64::try_from(at).expect("short") * 3000,
                nanoseconds: 123_456_789,
            },
            _ if seed.is_multiple_of(3) => Self::RemoveAttribute { name, key },
            _ => Self::SetAttribute { name, key, len: len % 200 },
        }
    }
}
