//! Programs for the pickle machine: what chance alone does not find, since each opcode needs what others left.

use crate::case::Case;
use crate::random::Random;

/// Opcodes and arguments that mean something to who looks for tensors.
pub(super) const TOKENS: &[&[u8]] = &[
    b"\x80\x02",
    b"(",
    b")",
    b".",
    b"}",
    b"]",
    b"N",
    b"t",
    b"d",
    b"u",
    b"s",
    b"e",
    b"a",
    b"b",
    b"R",
    b"Q",
    b"0",
    b"1",
    b"2",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x81",
    b"\x92",
    b"\x93",
    b"\x94",
    b"q\0",
    b"q\x01",
    b"h\0",
    b"h\x01",
    b"K\x01",
    b"J\xff\xff\xff\xff",
    b"M\x05\0",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"I12\n",
    b"S'x'\n",
    b"X\x01\0\0\0w",
    b"X\x07\0\0\0storage",
    b"X\x03\0\0\0cpu",
    b"X\x01\0\0\x000",
    b"X\xff\xff\xff\xff",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x8c\x01w",
    b"B\x04\0\0\0abcd",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nbfloat16\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch._utils\n_rebuild_tensor_v3\n",
    b"ccollections\nOrderedDict\n",
];

/// A storage, and a tensor that sees all of it: `{'w': tensor(12 floats)}`.
const STATE: &[u8] = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n\
((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x0ctQK\0K\x0c\x85K\x01\x85tRs.";

/// Small pickles that are archives' objects.
pub(super) const EXAMPLES: &[&[u8]] = &[STATE, b"N.", b"}.", b"(K\x01K\x02l."];

/// Makes some cases into programs of opcodes that find on the stack what they take; parts of them run many times.
pub(super) fn programs(case: &mut Case, random: &mut Random) {
    if !random.one_in(6) {
        return;
    }
    let mut program = b"\x80\x02".to_vec();
    // What the parts below take: a value, a list, a dictionary, a text, something to call and its arguments.
    let text = vec![b'n'; 1 << random.below(12)];
    let begin: [&[u8]; 7] = [
        b"Nq\0",
        b"]q\x01",
        b"}q\x02",
        &[b"X", &u32::try_from(text.len()).unwrap_or(0).to_le_bytes()[..], &text, b"q\x03"].concat(),
        b"ctorch._utils\n_rebuild_parameter\nq\x04",
        b"h\x01\x85q\x05",
        b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x0ctQK\0",
    ];
    begin.iter().for_each(|part| program.extend_from_slice(part));
    // The shape of a tensor, maybe of many dimensions.
    program.push(b'(');
    let dimensions = if random.one_in(2) { 1 } else { random.below(3000) };
    program.extend(std::iter::repeat_n(*b"K\x0c", dimensions).flatten());
    program.extend_from_slice(b"tK\x01\x85tq\x06");
    program.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\nq\x07h\x06Rq\x08");
    for _ in 0..1 + random.below(4) {
        let part: Vec<u8> = (0..1 + random.below(4)).flat_map(|_| random.pick(PARTS).to_vec()).collect();
        let times = 1 << random.below(13);
        (0..times).for_each(|_| program.extend_from_slice(&part));
        if random.one_in(3) {
            program.extend_from_slice(b"tq\x01");
        }
    }
    // Everything that is left is the object.
    program.splice(2..2, *b"(");
    program.extend_from_slice(b"t.");
    case.input = program;
}

/// Pieces that leave the stack no shorter than they found it. 0: None, 1: list, 2: dictionary, 3: text, 4: callable, 5:
/// arguments, 6: arguments of a tensor, 7: what rebuilds it, 8: tensor.
const PARTS: &[&[u8]] = &[
    b"N",
    b"h\x01",
    b"h\x02",
    b"h\x03",
    b"h\x08",
    b"(",
    b"h\x01h\0a",
    b"h\x01h\x08a",
    b"h\x02h\x03h\x08s",
    b"h\x02h\x03h\0s",
    b"h\x04h\x05R",
    b"h\x01h\x05R",
    b"h\x07h\x06R",
    b"h\x03h\x01R",
    b"h\0h\x02b",
    b"]h\x02b",
    b"}h\x02b",
    b"}h\x03h\x01s",
    b"]h\x01a",
    b"h\x01\x85q\x01",
    b"h\x02q\x02",
    b"}q\x02",
    b"]q\x01",
    b"h\x01h\x01\x86",
    b"(h\x01h\x02h\x03t",
    b"(h\x03h\x01d",
    b"h\x01h\x05\x81",
    b"h\x01h\x05h\x02\x92",
    b"2",
    b"K\x01",
    b"h\x03q\x03",
    b"h\x04h\x05Rq\x05",
    b"h\x05\x85q\x05",
];
