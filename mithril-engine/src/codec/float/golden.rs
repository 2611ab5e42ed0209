//! Chunks that were encoded once must decode for ever: bodies under `tests/golden`, and by what integers their
//! plaintexts are made again.

use crate::codec::dispatch::Isa;
use crate::codec::tests::Random;

use super::{FloatScratch, decode_for};

/// The bits of a float of 32: an exponent, and a random sign and fraction.
fn float(exponent: u32, random: &mut Random) -> u32 {
    let [low, high] = [0, 32].map(|shift| u32::try_from(random.next() >> 32 << shift >> 32).unwrap_or(0));
    let fraction = (low ^ high) & 0x7f_ffff;
    exponent << 23 | fraction | u32::try_from(random.next() >> 63).unwrap_or(0) << 31
}

/// Weights: each octave down half as many.
fn weights(count: usize) -> Vec<u32> {
    let mut random = Random(1);
    (0..count)
        .map(|_| {
            let octave = random.next().leading_zeros();
            float(122 - octave, &mut random)
        })
        .collect()
}

/// Second moments of 48 rows and 96 columns, some of them zero; their signs are clear.
fn second_moments() -> Vec<u32> {
    let mut random = Random(2);
    (0..48 * 96)
        .map(|i| {
            let (row, column) = (i / 96, i % 96);
            let float = float(60 + row * 7 % 13 + column * 5 % 11, &mut random) & 0x7fff_ffff;
            if row % 9 == 4 || random.next().is_multiple_of(50) { 0 } else { float }
        })
        .collect()
}

/// First moments: of the size of the roots of the second.
fn first_moments(second: &[u32]) -> Vec<u32> {
    let mut random = Random(3);
    second
        .iter()
        .map(|&second| {
            if second == 0 {
                0
            } else {
                float((second >> 23).midpoint(127) - random.next().leading_zeros(), &mut random)
            }
        })
        .collect()
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Name, body, plaintext and moments.
type Chunk = (&'static str, &'static [u8], Vec<u8>, Option<Vec<u8>>);

fn chunks() -> [Chunk; 5] {
    let weights = weights(1000);
    let bf16: Vec<u8> = weights.iter().flat_map(|word| word.to_le_bytes()[2..].to_vec()).collect();
    let f64: Vec<u8> =
        weights.iter().flat_map(|&word| f64::from(f32::from_bits(word)).to_le_bytes()).collect();
    let pairs: Vec<u32> = weights.iter().flat_map(|&word| [word, word & 0x8000_0000 | 0x3f80_0000]).collect();
    let second = second_moments();
    let first = first_moments(&second);
    [
        ("bf16", include_bytes!("../../../tests/golden/float_bf16.bin"), [&bf16[..], &[7]].concat(), None),
        ("f64", include_bytes!("../../../tests/golden/float_f64.bin"), f64, None),
        ("complex64", include_bytes!("../../../tests/golden/float_complex64.bin"), bytes(&pairs), None),
        ("second", include_bytes!("../../../tests/golden/float_second.bin"), bytes(&second[5..]), None),
        (
            "first",
            include_bytes!("../../../tests/golden/float_first.bin"),
            bytes(&first),
            Some(bytes(&second)),
        ),
    ]
}

#[test]
fn golden_chunks_decode() {
    for (name, body, plaintext, moments) in chunks() {
        for isa in Isa::available() {
            let mut out = vec![0; plaintext.len()];
            decode_for(isa, body, moments.as_deref(), &mut FloatScratch::default(), &mut out).unwrap();
            assert!(out == plaintext, "{name} {isa:?}");
        }
    }
}
