use super::*;
use crate::codec::entropy;
use crate::codec::tests::Random;

/// Symbols whose frequencies fall off geometrically, from few values or many.
fn symbols(groups: usize, spread: u64, seed: u64) -> Vec<Group> {
    let mut random = Random(seed);
    let mut symbol = || {
        let draw = random.next();
        let exponent = u64::from((draw >> 32).trailing_zeros());
        (exponent * spread + (draw & 0xffff) % spread).to_le_bytes()[0]
    };
    (0..groups).map(|_| std::array::from_fn(|_| symbol())).collect()
}

fn table_of(groups: &[Group], zeros: Zeros) -> Table {
    Table::build(&entropy::count(groups.as_flattened()), zeros).0
}

fn encoded(groups: &[Group], nonzero: Option<&[u64]>, table: &Table, isa: Isa) -> Vec<u8> {
    let mut out = Vec::new();
    encode(groups, nonzero, table, isa, &mut RansScratch::default(), &mut out);
    out
}

/// Decodes in two parts.
fn decoded(
    mut body: &[u8],
    count: usize,
    nonzero: Option<&[u64]>,
    table: &Table,
    isa: Isa,
) -> Decoded<(Vec<Group>, Vec<u64>)> {
    let mut scratch = RansScratch::default();
    let mut groups = vec![[0; LANES]; count];
    let mut masks = nonzero.map(|masks| masks.iter().map(|&mask| u64::from(mask != 0)).collect::<Vec<_>>());
    let mut decoder = Decoder::new(&mut body, count, table, isa, &mut scratch)?;
    let middle = count / 3;
    let (first, second) = groups.split_at_mut(middle);
    match masks.as_deref_mut() {
        Some(masks) => {
            let (first_masks, second_masks) = masks.split_at_mut(middle);
            decoder.groups(first, Some(first_masks))?;
            decoder.groups(second, Some(second_masks))?;
        }
        None => {
            decoder.groups(first, None)?;
            decoder.groups(second, None)?;
        }
    }
    decoder.finish()?;
    if !body.is_empty() {
        return Err(UNFIT);
    }
    Ok((groups, masks.unwrap_or_default()))
}

#[test]
fn every_instruction_set_gives_the_same_bytes_and_reads_the_others() {
    for (count, spread) in [(0, 1), (1, 1), (2, 3), (7, 2), (40, 1), (40, 17), (100, 60), (30, 255)] {
        let groups = symbols(count, spread, 77 + spread);
        let table = table_of(&groups, Zeros::Inline);
        let expected = encoded(&groups, None, &table, Isa::Portable);
        for isa in Isa::available() {
            assert!(encoded(&groups, None, &table, isa) == expected, "{count} {spread} {isa:?}");
            assert!(
                decoded(&expected, count, None, &table, isa).unwrap().0 == groups,
                "{count} {spread} {isa:?}"
            );
        }
    }
}

#[test]
fn zeros_apart_are_not_coded_as_symbols() {
    let mut random = Random(5);
    for count in [1, 3, 50] {
        let groups = symbols(count, 20, 3);
        let masks: Vec<u64> = (0..count)
            .map(|i| match i % 4 {
                0 => random.next() | 1,
                1 => 0,
                2 => u64::MAX,
                _ => 1 << (random.next() % 64),
            })
            .collect();
        // Many symbols and few: they are looked up in different ways.
        for groups in [groups, symbols(count, 1, 3)] {
            let table = table_of(&groups, Zeros::Apart(1000));
            let expected = encoded(&groups, Some(&masks), &table, Isa::Portable);
            for isa in Isa::available() {
                assert!(encoded(&groups, Some(&masks), &table, isa) == expected, "{isa:?}");
                let (symbols, found) = decoded(&expected, count, Some(&masks), &table, isa).unwrap();
                assert_eq!(found, masks, "{isa:?}");
                for ((group, original), mask) in symbols.iter().zip(&groups).zip(masks.iter()) {
                    for lane in (0..LANES).filter(|lane| mask >> lane & 1 == 1) {
                        assert_eq!(group[lane], original[lane]);
                    }
                }
            }
        }
    }
}

#[test]
fn the_code_is_close_to_the_entropy() {
    let groups = symbols(2048, 1, 9);
    let entropy = entropy::bits(&entropy::count(groups.as_flattened())) / 8.0;
    let table = table_of(&groups, Zeros::Inline);
    let coded = encoded(&groups, None, &table, Isa::Portable).len() as f64;
    assert!(coded < entropy * 1.01 + 200.0, "{coded} of {entropy}");
}

#[test]
fn truncations_are_errors_and_damage_means_the_same_everywhere() {
    // Many symbols and few: they are looked up in different ways.
    for spread in [40, 2] {
        let groups = symbols(5, spread, 9);
        let table = table_of(&groups, Zeros::Inline);
        assert_eq!(table.ranks() > 32, spread == 40);
        let body = encoded(&groups, None, &table, Isa::Portable);
        for isa in Isa::available() {
            for len in 0..body.len() {
                assert!(decoded(&body[..len], groups.len(), None, &table, isa).is_err(), "{len} {isa:?}");
            }
        }
        for bit in 0..body.len() * 8 {
            let mut damaged = body.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let decoded = |isa| decoded(&damaged, groups.len(), None, &table, isa).ok();
            let expected = decoded(Isa::Portable);
            for isa in Isa::available() {
                assert!(decoded(isa) == expected, "{bit} {isa:?}");
            }
        }
    }
}

#[test]
fn planes_come_back_at_every_small_length() {
    let all = symbols(20, 30, 21);
    let all = all.as_flattened();
    for isa in Isa::available() {
        for len in (0..70).chain(250..330).chain([1000, 1279, 1280]) {
            for plane in [&all[..len], &vec![7; len][..]] {
                let mut out = Vec::new();
                let mut scratch = RansScratch::default();
                encode_plane(plane, isa, &mut scratch, &mut out);
                let mut back = vec![0; len];
                let mut body = &out[..];
                decode_plane(&mut body, &mut back, isa, &mut scratch).unwrap();
                assert!(back == plane && body.is_empty(), "{len} {isa:?}");
                assert!(out.len() <= len + 2);
            }
        }
    }
}

#[test]
fn escapes_of_escapes_are_stored_as_they_are() {
    // Two levels of rare symbols: a usual one, some, and many more that are rarer still.
    let mut random = Random(4);
    let plane: Vec<u8> = (0..200_000)
        .map(|_| match random.next() % 1000 {
            0..20 => 128 + (random.next() % 12).to_le_bytes()[0],
            20..30 => random.next().to_le_bytes()[7],
            _ => 3,
        })
        .collect();
    let mut reference = Vec::new();
    encode_plane(&plane, Isa::Portable, &mut RansScratch::default(), &mut reference);
    for isa in Isa::available() {
        let mut out = Vec::new();
        let mut scratch = RansScratch::default();
        encode_plane(&plane, isa, &mut scratch, &mut out);
        assert!(out == reference);
        let mut back = vec![0; plane.len()];
        decode_plane(&mut &out[..], &mut back, isa, &mut scratch).unwrap();
        assert!(back == plane);
    }
}
