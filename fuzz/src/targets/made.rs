//! Numbers and files that seeds are encoded from. All of it is made up: small enough to be executed a million times.

use std::io;

use mithril_engine::source::Source;
use mithril_engine::tensor::Element;

use crate::random::Random;

/// Bytes as a file that is handed over.
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Source for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (&self.0[..]).read_exact_at(buf, offset)
    }
}

/// One of the files that the engine's tests keep.
pub(super) fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../mithril-engine/tests").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `count` elements of a type, as tensors have them: floats around zero, small integers, text.
pub(super) fn elements(element: Element, count: usize, random: &mut Random) -> Vec<u8> {
    let float = |random: &mut Random| narrow(random.normal() * 0.05);
    let mut bytes = Vec::with_capacity(count * element.width());
    for index in 0..count {
        match element {
            Element::Bytes => {
                bytes.push(b"step 17: loss 2.518, lr 0.0003\n"[index % 31] ^ u8::from(random.one_in(20)));
            }
            Element::Bool => bytes.push(u8::from(random.one_in(5))),
            Element::F16 | Element::Bf16 | Element::I16 | Element::U16 => {
                let bits = float(random).to_bits();
                let half = match element {
                    Element::Bf16 => bits >> 16,
                    // The exponent has three bits less.
                    Element::F16 => bits >> 16 & 0x8000 | (bits >> 13 & 0x3fff) ^ 0x2000,
                    _ => 1000 + (bits & 0x7f),
                };
                bytes.extend_from_slice(&half.to_le_bytes()[..2]);
            }
            Element::F32 => bytes.extend(float(random).to_le_bytes()),
            Element::F64 => bytes.extend((random.normal() * 0.05).to_le_bytes()),
            Element::Complex64 => (0..2).for_each(|_| bytes.extend(float(random).to_le_bytes())),
            Element::Complex128 => (0..2).for_each(|_| bytes.extend((random.normal() * 3.0).to_le_bytes())),
            Element::I32 | Element::U32 => bytes.extend((index as u64 % 3000).to_le_bytes()[..4].iter()),
            Element::I64 | Element::U64 => bytes.extend((random.next() >> 50).to_le_bytes()),
            _ => bytes.push(random.byte() & random.byte()),
        }
    }
    bytes
}

#[expect(clippy::cast_possible_truncation, reason = "numbers that are made up may be rounded")]
pub(super) fn narrow(value: f64) -> f32 {
    value as f32
}

/// The same elements after a step in which a share of them moved a little.
pub(super) fn moved(bytes: &[u8], width: usize, share: f64, random: &mut Random) -> Vec<u8> {
    let mut moved = bytes.to_vec();
    for element in moved.chunks_exact_mut(width) {
        if random.share() < share {
            element[0] =
                if random.one_in(2) { element[0].wrapping_add(1) } else { element[0].wrapping_sub(1) };
        }
    }
    moved
}

/// A safetensors file of these tensors: name, type, shape, bytes.
pub(super) fn safetensors(tensors: &[(&str, &str, &[u64], &[u8])]) -> Vec<u8> {
    let mut offset = 0;
    let entries: Vec<String> = tensors
        .iter()
        .map(|(name, dtype, shape, data)| {
            let end = offset + data.len();
            let entry = format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{offset},{end}]}}"#
            );
            offset = end;
            entry
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let data: Vec<&[u8]> = tensors.iter().map(|tensor| tensor.3).collect();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data.concat()].concat()
}

/// A checkpoint of a few tensors, after so many steps.
pub(super) fn checkpoint(step: u64) -> Vec<u8> {
    let mut random = Random::new(0, "checkpoint");
    let weight = elements(Element::F32, 24 * 60, &mut random);
    let half = elements(Element::Bf16, 3000, &mut random);
    let mut random = Random::new(step, "step");
    let (weight, half) = (moved(&weight, 4, 0.3, &mut random), moved(&half, 2, 0.02, &mut random));
    safetensors(&[
        ("weight", "F32", &[24, 60], &weight),
        ("half", "BF16", &[3000], &half),
        ("step", "I64", &[], &step.to_le_bytes()),
    ])
}

/// A zip archive of members that are stored as they are. Checksums are left 0: nobody here reads them.
pub(super) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in members {
        let offset = out.len();
        let short = |value: usize| value.to_le_bytes()[..2].to_vec();
        let long = |value: usize| value.to_le_bytes()[..4].to_vec();
        // From the version that is needed to the checksum; then lengths.
        let fields = [
            &[10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &long(data.len()),
            &long(data.len()),
            &short(name.len()),
            &short(0),
        ]
        .concat();
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&fields);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(data);
        directory.extend_from_slice(b"PK\x01\x02\x0a\0");
        directory.extend_from_slice(&fields);
        // Comment, disk, attributes.
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&long(offset));
        directory.extend_from_slice(name.as_bytes());
    }
    let start = out.len();
    let count = &members.len().to_le_bytes()[..2];
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&[count, count].concat());
    out.extend_from_slice(&directory.len().to_le_bytes()[..4]);
    out.extend_from_slice(&start.to_le_bytes()[..4]);
    out.extend_from_slice(&[0, 0]);
    out
}
