//! An encoding that must stay readable: whoever changes the format takes another tag.

use super::*;

/// The example of `docs/FORMAT.md`: bases of 1.0, and four elements that changed. Of so few, an encoder would rather make
/// planes.
#[test]
fn the_golden_encoding_decodes() {
    let element = |i| match i {
        5 => 0x3f80_0003,
        20 => 0x3f7f_ff38,
        33 => 0x3f80_0400,
        40 => 0xbf80_0001,
        _ => 0x3f80_0000,
    };
    let (raw, base) = (words((0..128).map(element)), words([0x3f80_0000; 128]));
    let body: Vec<u8> =
        (0..CODED.len()).step_by(2).map(|i| u8::from_str_radix(&CODED[i..i + 2], 16).unwrap()).collect();
    for isa in Isa::available() {
        assert!(decoded(isa, &body, &base).unwrap() == raw, "{isa:?}");
    }
}

const CODED: &str = concat!(
    "0003000141030fc0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0010101f00002040005",
    "0400300400020400000000000000000000000000000000000006010000000000",
    "000000f00108007f000000002004000000000000000000000000000000000000",
    "00001010101010f41010101010101010101010101010f8101010101010101010",
    "101010fc101010101010f0101010101010101010101010101010101010101010",
    "1010010101010140010101010101010101010101010140010101010101010101",
    "0101014001010101010140010101010101010101010101010101010101010101",
    "0101",
);
