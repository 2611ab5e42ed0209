//! What a file may be after a power cut, by the moment of the cut.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The content of a file.
pub type Bytes = Arc<Vec<u8>>;

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// What a file system writes to a file at once: truncating clears the rest of one that it cuts.
const BLOCK_BYTES: usize = 4096;

/// What a file may be.
#[derive(Clone, Debug)]
pub enum State {
    /// Not there.
    Absent,
    /// These bytes.
    Exactly(Bytes),
    /// On the way to these bytes from nothing, never synced: it may end anywhere, and each sector was written or is
    /// still zero.
    Begun(Bytes),
    /// On the way from the one to the other, not synced: its length is one of the two or lies between them, and each
    /// piece of `grain` bytes is that of the one or of the other, with zeros beyond its end. What is cut off and is still
    /// there is as it was, but for the block that was cut.
    Between {
        /// Before.
        old: Bytes,
        /// After.
        new: Bytes,
        /// A sector; a byte where somebody stored through a mapping while the kernel wrote.
        grain: usize,
    },
}

impl State {
    /// Whether this is such a file.
    pub fn allows(&self, found: Option<&[u8]>) -> bool {
        match (self, found) {
            (State::Absent, found) => found.is_none(),
            (_, None) => false,
            (State::Exactly(bytes), Some(found)) => found == &bytes[..],
            (State::Begun(bytes), Some(found)) => {
                let is_possible = |at: usize, piece: &[u8]| is_zero(piece) || agrees(bytes, at, piece);
                found.len() <= bytes.len()
                    && pieces(found, SECTOR_BYTES).all(|(at, piece)| is_possible(at, piece))
            }
            (State::Between { old, new, grain }, Some(found)) => {
                let (least, most) = (old.len().min(new.len()), old.len().max(new.len()));
                let grown = new.len() > old.len();
                let is_length = found.len() == old.len()
                    || found.len() == new.len()
                    || (grown && (least..most).contains(&found.len()));
                let cut = new.len().next_multiple_of(BLOCK_BYTES);
                let is_possible =
                    |at: usize, piece: &[u8]| agrees(old, at, piece) || (at < cut && agrees(new, at, piece));
                is_length && pieces(found, *grain).all(|(at, piece)| is_possible(at, piece))
            }
        }
    }

    /// What to call it where it is told.
    pub fn name(&self) -> String {
        match self {
            State::Absent => "absent".to_owned(),
            State::Exactly(bytes) => format!("{} bytes exactly", bytes.len()),
            State::Begun(bytes) => format!("part of {} bytes", bytes.len()),
            State::Between { old, new, .. } => format!("between {} bytes and {}", old.len(), new.len()),
        }
    }
}

fn pieces(bytes: &[u8], grain: usize) -> impl Iterator<Item = (usize, &[u8])> {
    bytes.chunks(grain).enumerate().map(move |(index, piece)| (index * grain, piece))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Whether a piece is that of `bytes`, with zeros after its end.
fn agrees(bytes: &[u8], at: usize, piece: &[u8]) -> bool {
    let there = bytes.get(at..).unwrap_or(&[]);
    let len = there.len().min(piece.len());
    piece[..len] == there[..len] && is_zero(&piece[len..])
}

/// A file from some position of the log on.
#[derive(Clone, Debug)]
pub struct Stage {
    from: u64,
    /// What it may be.
    pub states: Vec<State>,
    /// The modification time that it must have, in seconds and nanoseconds, if that is known.
    pub time: Option<(i64, i64)>,
}

impl Stage {
    /// What a file is from the beginning on.
    pub fn always(states: Vec<State>, time: Option<(i64, i64)>) -> Self {
        Self { from: 0, states, time }
    }
}

/// All files that there ever were, each with its stages.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    files: BTreeMap<String, Vec<Stage>>,
}

impl Promises {
    /// Notes what a file may be if the power is cut at the position `from` or later.
    pub fn note(&mut self, name: &str, from: u64, states: Vec<State>, time: Option<(i64, i64)>) {
        let absent = || vec![Stage::always(vec![State::Absent], None)];
        self.files.entry(name.to_owned()).or_insert_with(absent).push(Stage { from, states, time });
    }

    /// What each file may be if the power is cut when the log has come to `position`.
    pub fn at(&self, position: u64) -> BTreeMap<&str, &Stage> {
        let last = |stages: &'_ [Stage]| stages.iter().rposition(|stage| stage.from <= position);
        self.files.iter().filter_map(|(name, stages)| Some((name.as_str(), &stages[last(stages)?]))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(byte: u8, len: usize) -> Bytes {
        Arc::new(vec![byte; len])
    }

    #[test]
    fn what_was_begun_is_written_or_zero() {
        let begun = State::Begun(bytes(1, 3000));
        assert!(begun.allows(Some(&[])) && begun.allows(Some(&[1; 3000])) && begun.allows(Some(&[0; 700])));
        assert!(!begun.allows(None) && !begun.allows(Some(&[1; 3001])) && !begun.allows(Some(&[2; 10])));
        let mut torn = vec![1; 1024];
        torn[512..].fill(0);
        assert!(begun.allows(Some(&torn)));
        torn[100] = 0;
        assert!(!begun.allows(Some(&torn)));
    }

    #[test]
    fn what_is_being_changed_is_old_or_new() {
        let old = bytes(1, 20_000);
        let new = Arc::new([vec![1; 10_000], vec![2; 5000], vec![1; 5000]].concat());
        let sectors = State::Between { old: Arc::clone(&old), new: Arc::clone(&new), grain: SECTOR_BYTES };
        assert!(sectors.allows(Some(&old)) && sectors.allows(Some(&new)));
        let mut half = old.to_vec();
        half[10_240..10_752].fill(2);
        assert!(sectors.allows(Some(&half)));
        half[11_000] = 2;
        assert!(!sectors.allows(Some(&half)));
        assert!(State::Between { old, new, grain: 1 }.allows(Some(&half)));
    }

    #[test]
    fn what_is_being_cut_is_cleared_in_one_block() {
        let state = State::Between { old: bytes(1, 20_000), new: bytes(1, 5000), grain: SECTOR_BYTES };
        let mut found = vec![1; 20_000];
        found[5120..8192].fill(0);
        assert!(state.allows(Some(&found)) && state.allows(Some(&found[..5000])));
        assert!(!state.allows(Some(&found[..9000])));
        found[8192..8704].fill(0);
        assert!(!state.allows(Some(&found)));
    }

    #[test]
    fn a_promise_holds_from_its_position_on() {
        let mut promises = Promises::default();
        promises.note("f", 10, vec![State::Absent, State::Begun(bytes(1, 5))], None);
        promises.note("f", 20, vec![State::Exactly(bytes(1, 5))], None);
        let allows = |position, found: Option<&[u8]>| {
            promises.at(position)["f"].states.iter().any(|state| state.allows(found))
        };
        assert!(allows(9, None) && !allows(9, Some(&[])));
        assert!(allows(19, None) && allows(19, Some(&[])));
        assert!(!allows(20, None) && allows(20, Some(&[1; 5])));
    }
}
