//! The values that elements have, found by a hash.

/// Values of a table at most.
pub(super) const MOST: usize = 256;

/// Eight for each value: few have to look at a second one.
const SLOTS_LOG: u32 = 11;
const SLOTS: usize = 1 << SLOTS_LOG;

/// Where a search for a value begins. Floats differ in their upper bits and integers in their lower ones: the
/// multiplication by the fraction of the golden ratio carries either up.
#[inline(always)]
fn slot_of(value: u64) -> usize {
    (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOTS_LOG)) as usize
}

/// Values in order of their appearance.
pub(super) struct Values {
    /// The value of each slot. Free ones have the first value of all: so there is nothing else to compare where a value
    /// is known, and the first one is right in any of them.
    slots: [u64; SLOTS],
    /// The place of each slot's value.
    places: [u8; SLOTS],
    found: [u64; MOST],
    count: usize,
    most: usize,
}

impl Values {
    /// The first value, and room for `most` in all.
    pub(super) fn new(first: u64, most: usize) -> Self {
        let mut found = [0; MOST];
        found[0] = first;
        Self { slots: [first; SLOTS], places: [0; SLOTS], found, count: 1, most: most.min(MOST) }
    }

    /// The values that were found.
    pub(super) fn found(&self) -> &[u64] {
        &self.found[..self.count]
    }

    /// The place of a value among those found, of which it is the last if it is new; `None` if there is no room.
    #[inline(always)]
    pub(super) fn place(&mut self, value: u64) -> Option<u8> {
        let slot = slot_of(value);
        if self.slots[slot] == value { Some(self.places[slot]) } else { self.search(slot, value) }
    }

    #[inline(never)]
    fn search(&mut self, mut slot: usize, value: u64) -> Option<u8> {
        while self.slots[slot] != value {
            if self.slots[slot] == self.found[0] {
                if self.count == self.most {
                    return None;
                }
                self.slots[slot] = value;
                self.places[slot] = self.count.to_le_bytes()[0];
                self.found[self.count] = value;
                self.count += 1;
            } else {
                slot = (slot + 1) % SLOTS;
            }
        }
        Some(self.places[slot])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_places_in_order_of_appearance() {
        // Among them values that begin in the same slot, and the first one once more.
        let crowd = (0..u64::MAX).filter(|&value| slot_of(value) == slot_of(0)).take(100);
        let all: Vec<u64> = [u64::MAX].into_iter().chain(crowd).chain([1, 1 << 63, 1 << 52]).collect();
        let mut values = Values::new(all[0], MOST);
        for _ in 0..2 {
            for (place, value) in all.iter().enumerate() {
                assert_eq!(values.place(*value).map(usize::from), Some(place));
            }
        }
        assert_eq!(values.found(), all);
    }

    #[test]
    fn there_is_room_for_so_many() {
        for most in [1, 16, 256] {
            let mut values = Values::new(7, most);
            for value in 7..7 + most as u64 {
                assert!(values.place(value).is_some());
            }
            assert_eq!(values.place(7 + most as u64), None);
            assert_eq!(values.place(7), Some(0));
            assert_eq!(values.found().len(), most);
        }
    }
}
