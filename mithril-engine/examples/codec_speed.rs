//! Ratio and speed of the codec on the tensors of safetensors files:
//! `cargo run --release --example codec_speed -- NEW.safetensors [BASE.safetensors]`.
//!
//! Each tensor is cut as the packer cuts it; one thread; the best of several rounds, as CPU time of the process.

use std::time::Instant;

use mithril_engine::codec::{self, Against, Input, Options, Scratch};
use mithril_engine::settings::CHUNK_TARGET_BYTES;
use mithril_engine::tensor::Element;
use safetensors::{Dtype, SafeTensors};

const ROUNDS: usize = 7;

fn element(dtype: Dtype) -> Element {
    match dtype {
        Dtype::BF16 => Element::Bf16,
        Dtype::F16 => Element::F16,
        Dtype::F32 => Element::F32,
        Dtype::F64 => Element::F64,
        Dtype::I64 => Element::I64,
        _ => Element::Bytes,
    }
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let read = |path: std::ffi::OsString| std::fs::read(path).expect("the file is readable");
    let new = read(arguments.next().expect("usage: codec_speed NEW [BASE]"));
    let base = arguments.next().map(read);
    let new = SafeTensors::deserialize(&new).expect("NEW is safetensors");
    let base = base.as_ref().map(|bytes| SafeTensors::deserialize(bytes).expect("BASE is safetensors"));
    let mut pieces = Vec::new();
    for (name, tensor) in new.iter() {
        let old = base.as_ref().and_then(|base| base.tensor(name).ok());
        for (i, piece) in tensor.data().chunks(CHUNK_TARGET_BYTES).enumerate() {
            let old = old.as_ref().and_then(|old| old.data().chunks(CHUNK_TARGET_BYTES).nth(i));
            pieces.push((piece, element(tensor.dtype()), old));
        }
    }
    let mut scratch = Scratch::default();
    let raw: usize = pieces.iter().map(|(piece, ..)| piece.len()).sum();
    let (mut stored, mut encode_best, mut decode_best) = (0, f64::MAX, f64::MAX);
    // Their pages are there from the second round on.
    let mut encoded: Vec<_> = pieces
        .iter()
        .map(|(piece, ..)| (Vec::with_capacity(piece.len() + codec::EXPANSION_MAX_BYTES), Against::Nothing))
        .collect();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for (&(piece, element, old), (out, against)) in pieces.iter().zip(&mut encoded) {
            out.clear();
            *against = codec::encode(
                &Input::new(piece, element).against(old),
                Options::default(),
                &mut scratch,
                out,
            );
        }
        encode_best = encode_best.min(started.elapsed().as_secs_f64());
        stored = encoded.iter().map(|(out, _)| out.len()).sum();
        let mut plain = vec![0; CHUNK_TARGET_BYTES];
        let mut seconds = 0.0;
        for (&(piece, _, old), (out, against)) in pieces.iter().zip(&encoded) {
            let started = Instant::now();
            let target = &mut plain[..piece.len()];
            codec::decode(out, old.filter(|_| *against == Against::Base), &mut scratch, target)
                .expect("it decodes");
            seconds += started.elapsed().as_secs_f64();
            assert!(target == piece, "decoded bytes differ");
        }
        decode_best = decode_best.min(seconds);
    }
    println!(
        "ratio {:.3}  encode {:.0} MB/s  decode {:.0} MB/s",
        raw as f64 / stored as f64,
        raw as f64 / encode_best / 1e6,
        raw as f64 / decode_best / 1e6
    );
}
