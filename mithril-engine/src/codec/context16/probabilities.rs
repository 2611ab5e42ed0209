//! The probabilities of a change that a block sends.

use super::super::{Decoded, take_u8};
use super::lanes::{Lanes, Row};
use super::model::{DENSITY, DENSITY_CLASSES, EXPONENT_CLASSES, LANES, PROBABILITY, probability_code};

/// The probability code of contexts before the first that has its own: 2^-9.
const DEFAULT_PROBABILITY: u8 = 63;

/// A context of the changed bits with fewer elements than this, none of them changed, has no probability of its own.
const LEAST_FOR_PROBABILITY: u32 = 64;

/// Elements and changed elements, by density class and exponent class.
pub(super) type ChangeCounts = [[[u32; 2]; EXPONENT_CLASSES]; DENSITY_CLASSES];

/// Appends the probabilities of a change, and returns them by density class and exponent class.
pub(super) fn put_probabilities(
    counts: &ChangeCounts,
    out: &mut Vec<u8>,
) -> [[u16; EXPONENT_CLASSES]; DENSITY_CLASSES] {
    counts.map(|row| {
        let place = out.len();
        out.extend_from_slice(&[0, 0]);
        let (mut present, mut code) = (0u16, DEFAULT_PROBABILITY);
        let probabilities = std::array::from_fn(|exponent| {
            let [all, changed] = row[exponent];
            if changed > 0 || all >= LEAST_FOR_PROBABILITY {
                present |= 1 << exponent;
                code = probability_code(changed, all);
                out.push(code);
            }
            PROBABILITY[usize::from(code)]
        });
        out[place..place + 2].copy_from_slice(&present.to_le_bytes());
        probabilities
    })
}

/// The probabilities of a change, by the number of changes in the group before.
#[inline(always)]
pub(super) fn take_probabilities<L: Lanes>(lanes: L, body: &mut &[u8]) -> Decoded<[Row; LANES + 1]> {
    let mut classes = [Row([0; 32]); DENSITY_CLASSES];
    for row in &mut classes {
        let present = u16::from_le_bytes([take_u8(body)?, take_u8(body)?]);
        let mut code = DEFAULT_PROBABILITY;
        let mut words = [0; EXPONENT_CLASSES];
        for (class, word) in words.iter_mut().enumerate() {
            if present >> class & 1 != 0 {
                code = take_u8(body)?;
            }
            *word = PROBABILITY[usize::from(code)];
        }
        *row = lanes.row(&words);
    }
    Ok(DENSITY.map(|class| classes[usize::from(class)]))
}
