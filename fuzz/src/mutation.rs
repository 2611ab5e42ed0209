//! Changes to valid cases: those that files suffer, and those that somebody would try.

use crate::case::Case;
use crate::random::Random;

/// Longest input that changes make.
const INPUT_MAX_BYTES: usize = 512 << 10;
/// Longest plaintext that a decoder is asked for: that of a chunk.
const LEN_MAX_BYTES: usize = 4 << 20;

/// Numbers at which code is likely to be wrong.
const ODD_NUMBERS: [u64; 24] = [
    0,
    1,
    2,
    7,
    8,
    63,
    64,
    127,
    128,
    255,
    256,
    4095,
    4096,
    65_535,
    65_536,
    (1 << 17) - 1,
    1 << 17,
    (1 << 20) + 1,
    1 << 22,
    (1 << 24) - 1,
    (1 << 31) - 1,
    u32::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Changes a case in one to eight places, mostly few.
pub(crate) fn change(case: &mut Case, others: &[Case], tokens: &[&[u8]], random: &mut Random) {
    if random.one_in(24) {
        // Noise, behind as much of the beginning as it takes to be looked at.
        case.input.truncate(random.below(24));
        let len = random.small(12);
        case.input.extend(random.bytes(len));
    }
    let (one, other) = (random.below(4), random.below(4));
    for _ in 0..1 << one.min(other) {
        match random.below(16) {
            0 if case.len > 0 => change_len(case, others, random),
            1 if case.base.is_some() => change_base(case, random),
            _ => {
                let other = &others[random.below(others.len())].input;
                change_bytes(&mut case.input, other, tokens, random);
            }
        }
    }
    case.input.truncate(INPUT_MAX_BYTES);
}

fn change_len(case: &mut Case, others: &[Case], random: &mut Random) {
    case.len = match random.below(6) {
        0 => case.len.saturating_add(1),
        1 => case.len.saturating_sub(1),
        2 => case.len ^ 1 << random.below(12),
        3 => random.pick(others).len,
        4 => usize::try_from(*random.pick(&ODD_NUMBERS[..16])).unwrap_or(0),
        // Seldom: so much memory takes its time.
        _ if random.one_in(32) => random.below(LEN_MAX_BYTES + 1),
        _ => random.below(2 * case.len + 1),
    };
    case.len = case.len.min(LEN_MAX_BYTES);
    // A base of another length is refused at once: mostly, it goes along.
    if let Some(base) = &mut case.base
        && !random.one_in(4)
    {
        base.resize(case.len, random.byte());
    }
}

fn change_base(case: &mut Case, random: &mut Random) {
    match &mut case.base {
        Some(_) if random.one_in(8) => case.base = None,
        Some(base) if random.one_in(8) => base.truncate(random.below(base.len() + 1)),
        Some(base) => {
            for _ in 0..1 << random.below(6) {
                let at = random.below(base.len());
                if let Some(byte) = base.get_mut(at) {
                    *byte = random.byte();
                }
            }
        }
        None => {}
    }
}

/// A place: anywhere, or where headers are, or where trailers are.
fn place(len: usize, random: &mut Random) -> usize {
    let near = random.small(8).min(len);
    match random.below(4) {
        0 => near,
        1 => len - near,
        _ => random.below(len + 1),
    }
}

fn change_bytes(bytes: &mut Vec<u8>, other: &[u8], tokens: &[&[u8]], random: &mut Random) {
    let at = place(bytes.len(), random);
    let run = random.small(9).min(bytes.len() - at);
    match random.below(13) {
        // Bits and bytes.
        0 | 1 => with_byte(bytes, at, |byte| byte ^ 1 << random.below(8)),
        2 => with_byte(bytes, at, |_| random.byte()),
        3 => with_byte(bytes, at, |byte| byte.wrapping_add(1)),
        4 => with_byte(bytes, at, |byte| byte.wrapping_sub(1)),
        // Lengths and counts, of any width.
        5 | 6 => change_number(bytes, at, random),
        // Cut, left out, twice, moved.
        7 => bytes.truncate(at),
        8 => drop(bytes.drain(at..at + run)),
        9 => {
            let copy = bytes[at..at + run].to_vec();
            let to = place(bytes.len(), random);
            bytes.splice(to..to, copy);
        }
        // Noise and constants.
        10 => {
            let noise = if random.one_in(2) { vec![random.byte(); run] } else { random.bytes(run) };
            bytes.splice(at..at + run, noise);
        }
        // Two valid encodings in one.
        11 => {
            let from = place(other.len(), random);
            let rest = &other[from..];
            if random.one_in(2) {
                bytes.truncate(at);
                bytes.extend_from_slice(rest);
            } else {
                let part = &rest[..run.min(rest.len())];
                bytes.splice(at..at + run, part.iter().copied());
            }
        }
        _ if tokens.is_empty() => with_byte(bytes, at, |_| 0xff),
        _ => {
            let token = *random.pick(tokens);
            let replaced = if random.one_in(2) { token.len().min(bytes.len() - at) } else { 0 };
            bytes.splice(at..at + replaced, token.iter().copied());
        }
    }
}

fn with_byte(bytes: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = change(*byte);
    }
}

/// Takes what is at a place for a number, little-endian or a varint, and puts another one there.
fn change_number(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let width = *random.pick(&[1, 2, 3, 4, 4, 8, 0]);
    let mut field = [0; 8];
    if width > 0 {
        let Some(old) = bytes.get(at..at + width) else { return };
        field[..width].copy_from_slice(old);
    }
    let old = u64::from_le_bytes(field);
    let new = match random.below(6) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old.wrapping_add(random.next() >> 52),
        3 => old << 1,
        _ => *random.pick(&ODD_NUMBERS),
    };
    if width > 0 {
        bytes[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
        return;
    }
    let end = (at..bytes.len()).find(|&i| bytes[i] & 0x80 == 0).map_or(bytes.len(), |last| last + 1);
    bytes.splice(at..end, varint(new));
}

/// Seven bits a byte, the lowest first.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = value.to_le_bytes()[0];
        value >>= 7;
        if value == 0 {
            bytes.push(byte & 0x7f);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_repeatable_and_most_of_them_change_something() {
        let case = Case { input: (0..200).collect(), base: Some(vec![1; 50]), len: 50, choice: 0 };
        let others = [case.clone(), Case::of(b"other".to_vec())];
        let run = |seed| {
            let mut random = Random::new(seed, "test");
            let mut changed = case.clone();
            change(&mut changed, &others, &[b"token"], &mut random);
            changed
        };
        let different = (0..1000).filter(|&seed| run(seed) != case).count();
        assert!(different > 900, "{different}");
        assert!((0..100).all(|seed| run(seed) == run(seed)));
    }
}
