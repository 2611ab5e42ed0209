use proptest::prelude::*;

use super::super::tests::Random;
use super::*;

const WIDTHS: [usize; 4] = [1, 2, 4, 8];

/// So many values of a width, in no order: integers in their lower bytes, or floats in their upper ones.
fn some_values(count: usize, width: usize, upper: bool, random: &mut Random) -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = (0..count as u64)
        .map(|i| {
            let mut value = i.to_le_bytes()[..width].to_vec();
            if upper {
                value.reverse();
            }
            value
        })
        .collect();
    for i in (1..count).rev() {
        values.swap(i, usize::try_from(random.next()).unwrap() % (i + 1));
    }
    values
}

/// Elements that have all of the values, if there are enough of them, and a tail.
fn elements(values: &[Vec<u8>], count: usize, tail: usize, random: &mut Random) -> Vec<u8> {
    let mut raw: Vec<u8> = values.iter().take(count).flatten().copied().collect();
    for _ in values.len()..count {
        raw.extend_from_slice(&values[usize::try_from(random.next()).unwrap() % values.len()]);
    }
    raw.extend(vec![0xee; tail]);
    raw
}

fn decoded(body: &[u8], width: usize, len: usize) -> Decoded<Vec<u8>> {
    let mut out = vec![0xaa; len];
    decode(&body[2..], width, &mut Scratch::default(), &mut out)?;
    Ok(out)
}

#[test]
fn palettes_of_every_size_come_back_at_every_width() {
    let (mut random, mut scratch) = (Random(3), Scratch::default());
    for width in WIDTHS {
        for value_count in [1, 2, 3, 4, 5, 16, 17, 255, 256, 257] {
            if width == 1 && value_count > 256 {
                continue;
            }
            for count in [0, 1, 2, 3, 7, 8, 9, 63, 1000, 1001, BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS + 300] {
                for upper in [false, true] {
                    let values = some_values(value_count, width, upper, &mut random);
                    let raw = elements(&values, count, count % width, &mut random);
                    let mut body = Vec::new();
                    let fits = encode(&raw, width, &mut scratch, &mut body);
                    let what = format!("{width} {value_count} {count}");
                    assert_eq!(fits, value_count.min(count) <= most(width), "{what}");
                    if fits {
                        assert_eq!(body[..2], [width.to_le_bytes()[0], CODE]);
                        assert!(decoded(&body, width, raw.len()).unwrap() == raw, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn few_values_are_likely() {
    let mut random = Random(4);
    for width in WIDTHS {
        for value_count in [1, 2, 16, 100] {
            let values = some_values(value_count, width, false, &mut random);
            for count in [LEAST_ELEMENTS, 1000, 100_000] {
                let raw = elements(&values, count, 0, &mut random);
                let few = (2..=most(width)).contains(&value_count.min(count));
                assert_eq!(is_likely(&raw, width), few, "{width} {value_count} {count}");
            }
            assert!(!is_likely(&elements(&values, LEAST_ELEMENTS - 1, 0, &mut random), width));
        }
        let many: Vec<u8> = (0..8000).map(|_| random.next().to_le_bytes()[7]).collect();
        assert!(!is_likely(&many, width));
        assert!(!is_likely(&[], width));
    }
}

#[test]
fn places_take_as_few_bits_as_they_must() {
    let (mut random, mut scratch) = (Random(5), Scratch::default());
    for (value_count, bits) in
        [(2, 1.0), (3, 1.585), (4, 2.0), (10, 3.322), (16, 4.0), (17, 4.088), (256, 8.0)]
    {
        let values = some_values(value_count, 4, true, &mut random);
        let raw = elements(&values, 100_000, 0, &mut random);
        let mut body = Vec::new();
        assert!(encode(&raw, 4, &mut scratch, &mut body));
        let taken = (body.len() - 4 * value_count) as f64 * 8.0 / 100_000.0;
        assert!(taken < bits * 1.025, "{value_count} {taken}");
    }
    // What is almost always one value is a small part of a bit.
    let raw: Vec<u8> =
        (0..100_000).flat_map(|_| if random.next().is_multiple_of(50) { [1, 0] } else { [0, 0] }).collect();
    let mut body = Vec::new();
    assert!(encode(&raw, 2, &mut scratch, &mut body));
    assert!((body.len() as f64) < 100_000.0 * 0.1415 / 8.0 * 1.15, "{}", body.len());
}

/// Three values, five elements, and a byte after them.
const GOOD: &str = "0405 02 07000000 2c010000 00000100 008401 2a";

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|digit| *digit != b' ').collect();
    let pairs = digits.as_chunks::<2>().0;
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn damaged_palettes_are_refused() {
    let plain = unhex("07000000 2c010000 07000000 00000100 2c010000 2a");
    assert_eq!(decoded(&unhex(GOOD), 4, plain.len()).unwrap(), plain);
    for (what, hex) in [
        ("values not in order", "0405 02 2c010000 07000000 00000100 008401 2a"),
        ("a value twice", "0405 02 07000000 07000000 00000100 008401 2a"),
        ("the highest byte not in order", "0405 02 07000000 00000100 2c010000 008401 2a"),
        ("a place without a value", "0405 02 07000000 2c010000 00000100 00c401 2a"),
        ("a last place without a value", "0405 02 07000000 2c010000 00000100 008403 2a"),
        ("a place after the last", "0405 02 07000000 2c010000 00000100 008405 2a"),
        ("a bit after the last place", "0405 01 07000000 2c010000 0024 2a"),
        ("a value more than its places", "0405 03 07000000 2c010000 00000100 008401 2a"),
        ("only one value", "0405 00 07000000 0001 2a"),
        ("an unknown plane block", "0405 02 07000000 2c010000 00000100 048401 2a"),
        ("too few places", "0405 02 07000000 2c010000 00000100 0084 2a"),
        ("no tail", "0405 02 07000000 2c010000 00000100 008401"),
        ("more than there is", "0405 02 07000000 2c010000 00000100 008401 2a00"),
    ] {
        let result = decoded(&unhex(hex), 4, plain.len());
        assert!(matches!(result, Err(DecodeError::Malformed(_))), "{what}: {result:?}");
    }
    for len in [0, 3, 4, 16, 17, 19, 20, 22, 24, 26, 36, 40, 41] {
        assert!(decoded(&unhex(GOOD), 4, len).is_err(), "{len}");
    }
    // 17 values in bytes of their own, of which the last place is none.
    let values: String = (0..17).map(|i| format!("{i:02x}00")).collect();
    let mut body = unhex(&format!("0205 10 {values} 00 00 10 11"));
    assert!(decoded(&body, 2, 6).is_err());
    *body.last_mut().unwrap() = 0x10;
    assert_eq!(decoded(&body, 2, 6).unwrap(), [0, 0, 16, 0, 16, 0]);
}

#[test]
fn every_truncation_is_an_error_and_damage_never_panics() {
    let (mut random, mut scratch) = (Random(7), Scratch::default());
    for (width, value_count) in [(1, 3), (2, 2), (4, 11), (8, 100)] {
        let values = some_values(value_count, width, true, &mut random);
        let raw = elements(&values, 700, width - 1, &mut random);
        let mut body = Vec::new();
        assert!(encode(&raw, width, &mut scratch, &mut body));
        for at in 2..body.len() {
            assert!(decoded(&body[..at], width, raw.len()).is_err());
            for bit in 0..8 {
                let mut damaged = body.clone();
                damaged[at] ^= 1 << bit;
                let _ = decoded(&damaged, width, raw.len());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_elements_come_back(
        places in proptest::collection::vec(any::<u8>(), 0..600),
        values in proptest::collection::vec(any::<u64>(), 256),
        mask in any::<u8>(),
        width in 0usize..4,
        tail in 0usize..8,
    ) {
        let width = WIDTHS[width];
        let value = |place: &u8| values[usize::from(place & mask)].to_le_bytes();
        let mut raw: Vec<u8> = places.iter().flat_map(|place| value(place)[..width].to_vec()).collect();
        raw.extend(vec![1; tail % width]);
        let mut body = Vec::new();
        if encode(&raw, width, &mut Scratch::default(), &mut body) {
            prop_assert_eq!(decoded(&body, width, raw.len()).unwrap(), raw);
        } else {
            prop_assert_eq!(width, 1);
        }
    }

    #[test]
    fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 2..400), width in 0usize..4, len in 0usize..600) {
        let _ = decoded(&body, WIDTHS[width], len);
    }
}
