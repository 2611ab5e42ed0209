//! Decoding of a block.

use super::super::dispatch::Isa;
use super::super::rans::{self, Decoder, LANES, RansScratch, Table};
use super::super::{DecodeError, Decoded, sized, take, take_u8, take_u24};
use super::block::{BlockScratch, FLAG_EVEN, FLAG_PLANE, FLAG_ZEROS, HALVES, Tile, kind};
use super::halves::{self, Halves};
use super::predict::Predictor;
use super::{TILE, pack, split, zeros};

/// Low halves of a tile that are all zero.
static ZERO: [[u8; 2]; TILE] = [[0; 2]; TILE];

/// A tile of elements that are all kept.
static KEEP: [u8; TILE] = [0xff; TILE];

/// Decodes a block from the front of `body`.
pub(super) fn decode(
    isa: Isa,
    body: &mut &[u8],
    width: usize,
    predictor: &Predictor<'_>,
    at: usize,
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Decoded<()> {
    match take_u8(body)? {
        kind::RAW => out.copy_from_slice(take(body, out.len())?),
        kind::FILL => {
            let element = take(body, width)?;
            out.chunks_exact_mut(width).for_each(|target| target.copy_from_slice(element));
        }
        kind::CODED => decode_coded(isa, body, width, predictor, at, scratch, out)?,
        _ => return Err(DecodeError::Malformed("unknown kind of block")),
    }
    Ok(())
}

/// The fields in front of a coded block.
struct Header {
    apart: bool,
    even: bool,
    as_plane: bool,
    shift: u32,
    base: u16,
    /// Elements that are coded.
    coded: usize,
}

impl Header {
    fn take(body: &mut &[u8], count: usize) -> Decoded<Self> {
        let flags = take_u8(body)?;
        let shift = u32::from(take_u8(body)?);
        let base = take(body, 2)?;
        let has = |flag| flags & flag != 0;
        if flags > FLAG_ZEROS | FLAG_EVEN | FLAG_PLANE
            || !matches!(shift, 4 | 7 | 8)
            || has(FLAG_EVEN) && shift == 4
        {
            return Err(DecodeError::Malformed("unknown flags of a block"));
        }
        let coded = if has(FLAG_ZEROS) { take_u24(body)? } else { count };
        if coded > count {
            return Err(DecodeError::Malformed("a block counts more than its elements"));
        }
        Ok(Self {
            apart: has(FLAG_ZEROS),
            even: has(FLAG_EVEN),
            as_plane: has(FLAG_PLANE),
            shift,
            base: u16::from_le_bytes([base[0], base[1]]),
            coded,
        })
    }
}

fn decode_coded(
    isa: Isa,
    body: &mut &[u8],
    width: usize,
    predictor: &Predictor<'_>,
    at: usize,
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Decoded<()> {
    let count = out.len() / width;
    let groups = count.div_ceil(LANES);
    let header = Header::take(body, count)?;
    let BlockScratch { rests, masks, halves, planes, predictions, tile, rans, .. } = scratch;
    let mut lows = [const { Halves::Zero }; HALVES];
    for (low, buffer) in lows.iter_mut().zip(halves).take(width / 2 - 1) {
        *low = halves::decode(isa, body, header.coded, buffer, planes, rans)?;
    }
    let rests = decode_rests(isa, body, &header, rests, rans)?;
    let table = Table::read(body, header.apart)?;
    if masks.len() < groups {
        masks.resize(groups, 0);
    }
    if header.apart {
        let bitmap = take(body, groups.div_ceil(8))?;
        for (index, mask) in masks[..groups].iter_mut().enumerate() {
            *mask = u64::from(bitmap[index / 8] >> (index % 8) & 1);
        }
    }
    let decoder = Decoder::new(body, groups, &table, isa, rans)?;
    let mut coded = Coded { isa, width, shift: header.shift, rests, lows, taken: 0, decoder };
    predictions.resize(TILE, 0);
    for (index, out) in out.chunks_mut(TILE * width).enumerate() {
        let from = index * TILE;
        let len = out.len() / width;
        if index == 0 || predictor.predicts() {
            predictor.fill(isa, at + from, header.base, &mut predictions[..len]);
        }
        let masks = header.apart.then(|| &mut masks[from / LANES..][..len.div_ceil(LANES)]);
        coded.tile(masks, predictions, tile, out)?;
    }
    coded.finish()
}

/// The rests of a block, one a byte.
fn decode_rests<'a, 'b: 'a>(
    isa: Isa,
    body: &mut &'b [u8],
    header: &Header,
    buffer: &'a mut Vec<u8>,
    scratch: &mut RansScratch,
) -> Decoded<&'a [u8]> {
    let (count, up) = (header.coded, u32::from(header.even));
    let bits = header.shift - up;
    if header.as_plane {
        let rests = &mut sized(buffer, count)[..count];
        rans::decode_plane(body, rests, isa, scratch)?;
        let largest = rests.iter().fold(0, |all, rest| all | rest);
        if u32::from(largest) >> bits != 0 {
            return Err(DecodeError::Malformed("a rest is too large"));
        }
        rests.iter_mut().for_each(|rest| *rest <<= up);
        return Ok(rests);
    }
    let packed = take(body, pack::packed_bytes(count, bits))?;
    if bits == 8 {
        return Ok(packed);
    }
    let rests = sized(buffer, pack::padded_count(count, bits));
    pack::unpack(isa, packed, bits, up, rests);
    Ok(&rests[..count])
}

/// A block whose elements are decoded tile by tile.
struct Coded<'a> {
    isa: Isa,
    width: usize,
    shift: u32,
    /// One a coded element, as the low halves.
    rests: &'a [u8],
    lows: [Halves<'a>; HALVES],
    /// Coded elements before this tile.
    taken: usize,
    decoder: Decoder<'a>,
}

impl Coded<'_> {
    /// Decodes the next tile. With `masks`, zeros are apart, and they say which groups are coded.
    fn tile(
        &mut self,
        mut masks: Option<&mut [u64]>,
        predictions: &[u16],
        tile: &mut Tile,
        out: &mut [u8],
    ) -> Decoded<()> {
        let isa = self.isa;
        let count = out.len() / self.width;
        let groups = count.div_ceil(LANES);
        resize(&mut tile.symbols);
        self.decoder.groups(&mut tile.symbols[..groups], masks.as_deref_mut())?;
        let coded = masks.as_deref().map_or(count, zeros::count);
        let behind = count % LANES;
        let clean =
            behind == 0 || masks.as_deref().and_then(<[_]>::last).is_none_or(|mask| mask >> behind == 0);
        if !clean || coded > self.rests.len() - self.taken {
            return Err(DecodeError::Malformed("a block has more coded elements than it says"));
        }
        let range = self.taken..self.taken + coded;
        self.taken += coded;
        let symbols = &tile.symbols.as_flattened()[..count];
        let packed = &self.rests[range.clone()];
        let lows = self.lows.each_ref().map(|low| match low {
            Halves::Zero => None,
            Halves::Some(halves) => Some(&halves[range.clone()]),
        });
        let masks = match masks {
            Some(masks) if coded < count => masks,
            _ => {
                let lows = lows.map(|low| low.unwrap_or(&ZERO));
                merge(isa, self.width, symbols, packed, predictions, self.shift, lows, out);
                return Ok(());
            }
        };
        if coded == 0 {
            out.fill(0);
            return Ok(());
        }
        resize(&mut tile.rests);
        resize(&mut tile.keep);
        zeros::expand(isa, masks, packed, &mut tile.rests);
        zeros::expand(isa, masks, &KEEP[..coded], &mut tile.keep);
        let mut expanded = [&ZERO[..]; HALVES];
        for ((target, low), buffer) in expanded.iter_mut().zip(lows).zip(&mut tile.halves) {
            if let Some(packed) = low {
                buffer.resize(TILE / LANES, [[0; 2]; LANES]);
                zeros::expand(isa, masks, packed, buffer);
                *target = buffer.as_flattened();
            }
        }
        let rests = tile.rests.as_flattened();
        merge(isa, self.width, symbols, rests, predictions, self.shift, expanded, out);
        let clear = match self.width {
            2 => split::w2::clear,
            4 => split::w4::clear,
            _ => split::w8::clear,
        };
        clear(isa, tile.keep.as_flattened(), out);
        Ok(())
    }

    /// Checks that everything was used up.
    fn finish(self) -> Decoded<()> {
        self.decoder.finish()?;
        if self.taken == self.rests.len() {
            Ok(())
        } else {
            Err(DecodeError::Malformed("a block has fewer coded elements than it says"))
        }
    }
}

/// Makes room for a tile.
fn resize(groups: &mut Vec<[u8; LANES]>) {
    groups.resize(TILE / LANES, [0; LANES]);
}

#[allow(clippy::too_many_arguments, reason = "all parts of an element")]
fn merge(
    isa: Isa,
    width: usize,
    symbols: &[u8],
    rests: &[u8],
    predictions: &[u16],
    shift: u32,
    [low0, low1, low2]: [&[[u8; 2]]; HALVES],
    out: &mut [u8],
) {
    match width {
        2 => split::w2::merge(isa, symbols, rests, predictions, shift, out),
        4 => split::w4::merge(isa, symbols, rests, predictions, shift, low0, out),
        _ => split::w8::merge(isa, symbols, rests, predictions, shift, low0, low1, low2, out),
    }
}
