//! A coder of byte symbols: 64 interleaved rANS states of 16 bits that share one stream of bytes.
//!
//! Lane `i` codes symbol `i` of each group of 64. Frequencies have 8 bits, so a symbol's slot is the low byte of its
//! state, and a state that falls below 256 takes one byte more: a whole group is decoded by byte permutations and
//! 16-bit multiplications, and refilled by expanding a run of bytes into the lanes that want one.
//! The coder is that of Duda (arXiv:1311.2540), interleaved as by Giesen (arXiv:1402.3392).
//!
//! ```text
//! coded     escapes u24, the escapes as a plane, stream length u24, stream, states (64 low bytes, 64 high bytes)
//! states    each is in 256..=65535 before the first group, and 256 after the last
//! ```
//!
//! If zeros are apart, they have a rank of their own, and groups of nothing but zeros are not coded; the caller
//! keeps which groups those are. There is one implementation for each instruction set; all give the same bytes.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod contexts;
mod plane;
mod portable;
mod table;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::{COMPRESS, EXPAND, look_up_short};
pub(super) use contexts::{ContextScratch, Contexts, SYMBOLS};
pub(super) use plane::{decode as decode_plane, encode as encode_plane};
pub(super) use table::{Table, Zeros};

use super::dispatch::Isa;
use super::{DecodeError, Decoded, put_u24, sized, take, take_u24};

/// Symbols of a group, and states.
pub(super) const LANES: usize = 64;

/// A group of symbols.
pub(super) type Group = [u8; LANES];

/// The low bytes of all states, then the high bytes.
type States = [u8; 2 * LANES];

/// Joins the two bytes of each state.
fn join_states(states: &States) -> [u16; LANES] {
    std::array::from_fn(|lane| u16::from_le_bytes([states[lane], states[LANES + lane]]))
}

/// Parts each state in its two bytes.
fn part_states(joined: &[u16; LANES]) -> States {
    let mut states = [0; 2 * LANES];
    for (lane, state) in joined.iter().enumerate() {
        [states[lane], states[LANES + lane]] = state.to_le_bytes();
    }
    states
}

/// Every state is this at the end of the stream, and none is ever less.
const LEAST_STATE: u16 = 256;

/// What decoding says of streams whose end does not fit.
const UNFIT: DecodeError = DecodeError::Malformed("an entropy-coded stream does not end as it began");

/// Buffers of one level of nesting: the escapes of a stream are a plane, which may be a stream in turn.
#[derive(Debug, Default)]
pub(super) struct Level {
    stream: Vec<u8>,
    escapes: Vec<u8>,
}

/// Levels of streams: escapes of escapes are stored as they are.
const NESTING: usize = 2;

/// Buffers that are kept between calls.
pub(super) type RansScratch = [Level; NESTING];

/// Encodes from the last group to the first: a decoder reads what was written last.
struct Encoder<'a> {
    isa: Isa,
    table: &'a Table,
    #[cfg(target_arch = "x86_64")]
    window: Option<avx2::SymbolWindow>,
    states: States,
    /// Filled downwards, as the escapes.
    stream: &'a mut [u8],
    stream_start: usize,
    escapes: &'a mut [u8],
    escapes_start: usize,
}

impl<'a> Encoder<'a> {
    /// An encoder of at most `groups` groups. `isa` is one of this processor.
    fn new(groups: usize, table: &'a Table, isa: Isa, level: &'a mut Level) -> Self {
        // A group adds at most a byte a lane to each; vectors are written below what is filled.
        let room = (groups + 2) * LANES;
        let isa = isa.supported();
        Self {
            isa,
            table,
            #[cfg(target_arch = "x86_64")]
            window: if isa == Isa::Avx2 { avx2::SymbolWindow::of(table) } else { None },
            states: part_states(&[LEAST_STATE; LANES]),
            stream: sized(&mut level.stream, room),
            stream_start: room,
            escapes: sized(&mut level.escapes, room),
            escapes_start: room,
        }
    }

    /// Encodes the groups before those that were encoded already. With `nonzero`, a mask for each group, the other
    /// lanes are zeros whatever their symbols.
    fn groups(&mut self, groups: &[Group], nonzero: Option<&[u64]>) {
        debug_assert_eq!(nonzero.is_some(), self.table.zeros_apart);
        match self.isa {
            // SAFETY: `isa` is supported by this processor.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::encode(self, groups, nonzero) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::encode(self, groups, nonzero) },
            _ => portable::encode(self, groups, nonzero),
        }
    }

    /// Puts the symbols of a group in the lanes of `mask` before the escapes.
    fn put_escapes(&mut self, group: &Group, mut mask: u64) {
        while mask != 0 {
            let lane = 63 - mask.leading_zeros() as usize;
            self.escapes_start -= 1;
            self.escapes[self.escapes_start] = group[lane];
            mask &= !(1 << lane);
        }
    }

    /// Appends what was encoded. `deeper` has the buffers for the escapes.
    fn finish(self, deeper: &mut [Level], out: &mut Vec<u8>) {
        let escapes = &self.escapes[self.escapes_start..];
        let stream = &self.stream[self.stream_start..];
        put_u24(out, escapes.len());
        plane::encode_level(escapes, self.isa, deeper, out);
        put_u24(out, stream.len());
        out.extend_from_slice(stream);
        out.extend_from_slice(&self.states);
    }
}

/// Appends the code of all of `groups`.
pub(super) fn encode(
    groups: &[Group],
    nonzero: Option<&[u64]>,
    table: &Table,
    isa: Isa,
    scratch: &mut RansScratch,
    out: &mut Vec<u8>,
) {
    let [level, deeper @ ..] = scratch;
    let mut encoder = Encoder::new(groups.len(), table, isa, level);
    encoder.groups(groups, nonzero);
    encoder.finish(deeper, out);
}

/// What a symbol is encoded by: reciprocal (2 bytes), frequency and start, from the lowest byte.
type Codes = [u32; 256];

/// What a slot decodes to: frequency, slot less the start of its rank, symbol, flags; a byte each from the lowest.
type Slots = [u32; 256];

/// Flags of a slot: its symbol is the next escape, or a zero.
const ESCAPE: u32 = 1 << 24;
const ZERO: u32 = 2 << 24;

/// Decodes some groups at a time, in order.
pub(super) struct Decoder<'a> {
    isa: Isa,
    table: &'a Table,
    slots: Slots,
    #[cfg(target_arch = "x86_64")]
    ranks: Option<avx2::SlotRanks>,
    states: States,
    /// The stream and, behind it, the states: a whole vector may be read anywhere before them.
    stream: &'a [u8],
    next: usize,
    /// The escapes, and a vector of other bytes behind them.
    escapes: &'a [u8],
    escape_count: usize,
    next_escape: usize,
}

impl<'a> Decoder<'a> {
    /// Begins to decode from the front of `body` at most `groups` groups. `isa` is one of this processor.
    pub(super) fn new<'b: 'a>(
        body: &mut &'b [u8],
        groups: usize,
        table: &'a Table,
        isa: Isa,
        scratch: &'a mut RansScratch,
    ) -> Decoded<Self> {
        Self::new_level(body, groups, table, isa, scratch)
    }

    fn new_level<'b: 'a>(
        body: &mut &'b [u8],
        groups: usize,
        table: &'a Table,
        isa: Isa,
        levels: &'a mut [Level],
    ) -> Decoded<Self> {
        let (level, deeper) =
            levels.split_first_mut().ok_or(DecodeError::Malformed("streams are nested too deep"))?;
        let escape_count = take_u24(body)?;
        if escape_count > groups * LANES {
            return Err(DecodeError::Malformed("a stream has more escapes than symbols"));
        }
        let escapes = sized(&mut level.escapes, escape_count + LANES);
        plane::decode_level(body, &mut escapes[..escape_count], isa, deeper)?;
        let stream_len = take_u24(body)?;
        let stream = take(body, stream_len + 2 * LANES)?;
        let mut states = [0; 2 * LANES];
        states.copy_from_slice(&stream[stream_len..]);
        if states[LANES..].contains(&0) {
            return Err(DecodeError::Malformed("a state is too small"));
        }
        let slots = table.slots();
        let isa = isa.supported();
        Ok(Self {
            isa,
            table,
            slots,
            #[cfg(target_arch = "x86_64")]
            ranks: if isa == Isa::Avx2 { avx2::SlotRanks::of(table) } else { None },
            states,
            stream,
            next: 0,
            escapes,
            escape_count,
            next_escape: 0,
        })
    }

    /// Decodes the next groups. With `nonzero`, whose masks say which groups are coded (0: none of it), they say
    /// afterwards which lanes are no zeros. The symbols of zeros are unspecified.
    pub(super) fn groups(&mut self, groups: &mut [Group], nonzero: Option<&mut [u64]>) -> Decoded<()> {
        debug_assert_eq!(nonzero.is_some(), self.table.zeros_apart);
        match self.isa {
            // SAFETY: `isa` is supported by this processor.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::decode(self, groups, nonzero) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::decode(self, groups, nonzero) },
            _ => portable::decode(self, groups, nonzero),
        }
    }

    /// Puts escapes into a group whose lanes `mask` want them.
    fn put_escapes(&mut self, group: &mut Group, mut mask: u64) -> Decoded<()> {
        while mask != 0 {
            let lane = mask.trailing_zeros() as usize;
            if self.next_escape == self.escape_count {
                return Err(DecodeError::Malformed("a stream has more escapes than it says"));
            }
            group[lane] = self.escapes[self.next_escape];
            self.next_escape += 1;
            mask &= mask - 1;
        }
        Ok(())
    }

    /// Checks that everything was used up.
    pub(super) fn finish(self) -> Decoded<()> {
        let ended = self.states == part_states(&[LEAST_STATE; LANES])
            && self.next + 2 * LANES == self.stream.len()
            && self.next_escape == self.escape_count;
        if ended { Ok(()) } else { Err(UNFIT) }
    }
}

#[cfg(test)]
mod tests;
