//! How the elements of a block lie in the lanes.

use super::number::w4;

/// Elements of a group, one a lane.
pub(super) const LANES: usize = 64;

/// Bytes of a group.
pub(super) const GROUP_BYTES: usize = LANES * size_of::<w4::Word>();

/// The elements of a group.
pub(super) type Words = [w4::Word; LANES];

/// A small number for each element of a group.
pub(super) type Bytes = [u8; LANES];

/// Loads a group of a block; what is behind the end is 0.
#[inline(always)]
pub(super) fn load(block: &[u8], group: usize) -> Words {
    let rest = block.get(group * GROUP_BYTES..).unwrap_or_default();
    match rest.first_chunk() {
        Some(whole) => words_of(whole),
        None => words_of(&padded(rest)),
    }
}

#[inline(always)]
fn words_of(bytes: &[u8; GROUP_BYTES]) -> Words {
    let mut words = [0; LANES];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = w4::Word::from_le_bytes(*bytes);
    }
    words
}

#[cold]
#[inline(never)]
fn padded(rest: &[u8]) -> [u8; GROUP_BYTES] {
    let mut group = [0; GROUP_BYTES];
    group[..rest.len()].copy_from_slice(rest);
    group
}

/// Stores a group of a block, without what is behind the end.
#[inline(always)]
pub(super) fn store(words: &Words, block: &mut [u8], group: usize) {
    let rest = block.get_mut(group * GROUP_BYTES..).unwrap_or_default();
    match rest.first_chunk_mut() {
        Some(whole) => store_words(words, whole),
        None => store_part(words, rest),
    }
}

#[inline(always)]
fn store_words(words: &Words, bytes: &mut [u8; GROUP_BYTES]) {
    // One copy in the end, which is faster than what the compiler makes of a store for each word.
    let mut stored = [[0; size_of::<w4::Word>()]; LANES];
    for (stored, word) in stored.iter_mut().zip(words) {
        *stored = word.to_le_bytes();
    }
    bytes.copy_from_slice(stored.as_flattened());
}

#[cold]
#[inline(never)]
fn store_part(words: &Words, rest: &mut [u8]) {
    let mut whole = [0; GROUP_BYTES];
    store_words(words, &mut whole);
    rest.copy_from_slice(&whole[..rest.len()]);
}
