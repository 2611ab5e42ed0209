//! Ratio and speed of the formats context16 and context32 on the tensors of two safetensors files, by the elements of each,
//! with every instruction set of this processor, beside the codec's own choice:
//! `cargo run --release --example context_speed -- NEW.safetensors BASE.safetensors [tensors|whole]`.
//!
//! Tensors are cut as the packer cuts them, or taken as one (`whole`), and then cut. One thread; for each piece the best of
//! several rounds.

use std::time::Instant;

use mithril_engine::codec::{self, Against, Input, Isa, Options, Scratch};
use mithril_engine::settings::CHUNK_TARGET_BYTES;
use mithril_engine::tensor::Element;
use safetensors::{Dtype, SafeTensors};

const ROUNDS: usize = 25;

fn element(dtype: Dtype) -> Option<Element> {
    match dtype {
        Dtype::BF16 => Some(Element::Bf16),
        Dtype::F16 => Some(Element::F16),
        Dtype::I16 => Some(Element::I16),
        Dtype::U16 => Some(Element::U16),
        Dtype::F32 => Some(Element::F32),
        _ => None,
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: context_speed NEW BASE [tensors|whole]";
    let read = |path: String| std::fs::read(path).expect("the file is readable");
    let new = read(arguments.next().expect(usage));
    let base = read(arguments.next().expect(usage));
    let whole = arguments.next().is_some_and(|word| word == "whole");
    let new = SafeTensors::deserialize(&new).expect("NEW is safetensors");
    let base = SafeTensors::deserialize(&base).expect("BASE is safetensors");
    let mut tensors: Vec<(Vec<u8>, Vec<u8>, Element)> = Vec::new();
    // In the order of the file.
    let mut names: Vec<_> = new.iter().map(|(name, tensor)| (tensor.data().as_ptr(), name, tensor)).collect();
    names.sort_by_key(|(place, ..)| *place);
    for (_, name, tensor) in names {
        let (Some(element), Ok(old)) = (element(tensor.dtype()), base.tensor(name)) else { continue };
        match tensors.last_mut() {
            Some((all, olds, kind)) if whole && *kind == element => {
                all.extend_from_slice(tensor.data());
                olds.extend_from_slice(old.data());
            }
            _ => tensors.push((tensor.data().to_vec(), old.data().to_vec(), element)),
        }
    }
    let pieces: Vec<Piece<'_>> = tensors
        .iter()
        .flat_map(|(new, old, element)| {
            let pieces = new.chunks(CHUNK_TARGET_BYTES).zip(old.chunks(CHUNK_TARGET_BYTES));
            pieces.map(|(new, old)| (new, old, *element))
        })
        .collect();
    for (format, wide) in [("context16", false), ("context32", true)] {
        let pieces: Vec<_> =
            pieces.iter().copied().filter(|(.., element)| (*element == Element::F32) == wide).collect();
        let runs = Isa::available().map(|isa| (isa, Some(format))).chain([(codec::isa(), None)]);
        for (isa, format) in runs.filter(|_| !pieces.is_empty()) {
            codec::limit_isa(isa);
            measure(isa, format, &pieces);
        }
    }
}

/// What is new, its base, and what both are.
type Piece<'a> = (&'a [u8], &'a [u8], Element);

/// Measures a format, or what the codec chooses.
fn measure(isa: Isa, format: Option<&str>, pieces: &[Piece<'_>]) {
    let mut scratch = Scratch::default();
    let mut plain = vec![0; CHUNK_TARGET_BYTES];
    let mut out = Vec::with_capacity(CHUNK_TARGET_BYTES + 16);
    let (mut raw, mut stored, mut encode_seconds, mut decode_seconds) = (0, 0, 0.0, 0.0);
    for &(piece, old, element) in pieces {
        let (mut encode_best, mut decode_best) = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            out.clear();
            let started = Instant::now();
            let against = if format.is_some() {
                // One of them is for the element.
                let is_16 = codec::encode_context16(piece, element, old, &mut scratch, &mut out);
                assert!(is_16 || codec::encode_context32(piece, element, old, &mut scratch, &mut out));
                Against::Base
            } else {
                let input = Input::new(piece, element).against(Some(old));
                codec::encode(&input, Options::default(), &mut scratch, &mut out)
            };
            encode_best = started.elapsed().as_secs_f64().min(encode_best);
            let target = &mut plain[..piece.len()];
            let base = Some(old).filter(|_| against == Against::Base);
            let started = Instant::now();
            codec::decode(&out, base, &mut scratch, target).expect("it decodes");
            decode_best = started.elapsed().as_secs_f64().min(decode_best);
            assert!(target == piece, "decoded bytes differ");
        }
        raw += piece.len();
        stored += out.len();
        encode_seconds += encode_best;
        decode_seconds += decode_best;
    }
    println!(
        "{} {isa:?}: ratio {:.3}  encode {:.0} MB/s  decode {:.0} MB/s",
        format.unwrap_or("chosen   "),
        raw as f64 / stored as f64,
        raw as f64 / encode_seconds / 1e6,
        raw as f64 / decode_seconds / 1e6
    );
}
