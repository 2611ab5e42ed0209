//! Places in a table: packed into bytes, and looked up.

/// Packs the ranks of places, of `bits` bits each; `packed` has as many bytes as they take.
pub(super) fn pack(places: &[u8], ranks: &[u8; 256], bits: usize, packed: &mut [u8]) {
    fn of<const EACH: usize>(places: &[u8], ranks: &[u8; 256], packed: &mut [u8]) {
        let byte = |group: &[u8]| {
            let ranks = group.iter().map(|&place| ranks[usize::from(place)]);
            ranks.enumerate().fold(0, |byte, (i, rank)| byte | rank << (i * 8 / EACH))
        };
        let (groups, rest) = places.as_chunks::<EACH>();
        for (packed, group) in packed.iter_mut().zip(groups) {
            *packed = byte(group);
        }
        if !rest.is_empty() {
            packed[groups.len()] = byte(rest);
        }
    }
    match bits {
        1 => of::<8>(places, ranks, packed),
        2 => of::<4>(places, ranks, packed),
        4 => of::<2>(places, ranks, packed),
        _ => of::<1>(places, ranks, packed),
    }
}

/// Writes the values at packed places of `bits` bits; `packed` has as many bytes as they take. `false`, and `out` holds
/// garbage, if a place has no value, or if bits after the last one are set.
pub(super) fn expand<const WIDTH: usize>(
    packed: &[u8],
    values: &[[u8; WIDTH]],
    bits: usize,
    out: &mut [[u8; WIDTH]],
) -> bool {
    match bits {
        1 => Table::<WIDTH, 8>::of(values).expand(packed, out),
        2 => Table::<WIDTH, 4>::of(values).expand(packed, out),
        4 => Table::<WIDTH, 2>::of(values).expand(packed, out),
        _ => Table::<WIDTH, 1>::of(values).expand(packed, out),
    }
}

/// What each byte stands for: 16 KiB at most.
struct Table<const WIDTH: usize, const EACH: usize> {
    elements: [[[u8; WIDTH]; EACH]; 256],
    /// 1 for bytes that have a place without a value.
    wrong: [u8; 256],
}

impl<const WIDTH: usize, const EACH: usize> Table<WIDTH, EACH> {
    const BITS: usize = 8 / EACH;

    fn of(values: &[[u8; WIDTH]]) -> Self {
        let mut table = Self { elements: [[[0; WIDTH]; EACH]; 256], wrong: [0; 256] };
        for (byte, (elements, wrong)) in table.elements.iter_mut().zip(&mut table.wrong).enumerate() {
            for (i, element) in elements.iter_mut().enumerate() {
                match values.get(byte >> (i * Self::BITS) & ((1 << Self::BITS) - 1)) {
                    Some(value) => *element = *value,
                    None => *wrong = 1,
                }
            }
        }
        table
    }

    fn expand(&self, packed: &[u8], out: &mut [[u8; WIDTH]]) -> bool {
        let (groups, rest) = out.as_chunks_mut::<EACH>();
        // Told at the end, since a branch for each would take as long as all else.
        let mut wrong = 0;
        for (group, &byte) in groups.iter_mut().zip(packed) {
            *group = self.elements[usize::from(byte)];
            wrong |= self.wrong[usize::from(byte)];
        }
        if let Some(&byte) = packed.get(groups.len()) {
            let used = rest.len();
            rest.copy_from_slice(&self.elements[usize::from(byte)][..used]);
            wrong |= self.wrong[usize::from(byte)] | u8::from(usize::from(byte) >> (used * Self::BITS) != 0);
        }
        wrong == 0
    }
}
