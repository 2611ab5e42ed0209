//! Byte shuffles that move 8 lanes together or apart, by which of them are marked: what AVX2 has no instruction for.

/// A shuffle writes 0 where its byte has the top bit set.
const ZERO: u8 = 0x80;

/// 256 shuffles, one for each set of marks.
#[repr(C, align(64))]
pub(super) struct Shuffles<const BYTES: usize>(pub(super) [[u8; BYTES]; 256]);

/// Puts the first words where the marks are, and 0 elsewhere.
pub(super) static EXPAND_WORDS: Shuffles<16> = {
    let mut shuffles = [[ZERO; 16]; 256];
    let mut marks = 0;
    while marks < 256 {
        let (mut lane, mut next) = (0, 0);
        while lane < 8 {
            if marks >> lane & 1 != 0 {
                shuffles[marks][2 * lane] = 2 * next;
                shuffles[marks][2 * lane + 1] = 2 * next + 1;
                next += 1;
            }
            lane += 1;
        }
        marks += 1;
    }
    Shuffles(shuffles)
};

/// Puts the marked words side by side.
pub(super) static COMPRESS_WORDS: Shuffles<16> = {
    let mut shuffles = [[ZERO; 16]; 256];
    let mut marks = 0;
    while marks < 256 {
        let (mut lane, mut next) = (0u8, 0);
        while lane < 8 {
            if marks >> lane & 1 != 0 {
                shuffles[marks][2 * next] = 2 * lane;
                shuffles[marks][2 * next + 1] = 2 * lane + 1;
                next += 1;
            }
            lane += 1;
        }
        marks += 1;
    }
    Shuffles(shuffles)
};

/// Puts the marked bytes side by side.
pub(super) static COMPRESS_BYTES: Shuffles<8> = {
    let mut shuffles = [[ZERO; 8]; 256];
    let mut marks = 0;
    while marks < 256 {
        let (mut lane, mut next) = (0u8, 0);
        while lane < 8 {
            if marks >> lane & 1 != 0 {
                shuffles[marks][next] = lane;
                next += 1;
            }
            lane += 1;
        }
        marks += 1;
    }
    Shuffles(shuffles)
};
