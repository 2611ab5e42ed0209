mod moments;

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView, serialize};

use super::*;
use crate::codec::Format;
use crate::error::{Error, Result};
use crate::quantize::{Bound, Scheme};
use crate::source::Source;

/// Numbers that look like weights, moved a little by `step`.
fn weights(count: u32, step: u32) -> Vec<u8> {
    let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0 - 0.5;
    (0..count)
        .flat_map(|i| {
            let moved = if i % 7 == 0 { 1e-4 * step as f32 } else { 0.0 };
            (value(i) * 0.05 + moved).to_le_bytes()
        })
        .collect()
}

/// A safetensors file.
fn checkpoint(step: u32) -> Vec<u8> {
    let (large, small) = (weights(600_000, step), weights(3000, step));
    let step_bytes = step.to_le_bytes();
    let tensors = [
        ("embedding", TensorView::new(Dtype::F32, vec![600, 1000], &large).unwrap()),
        ("norm", TensorView::new(Dtype::F32, vec![3000], &small).unwrap()),
        ("step", TensorView::new(Dtype::I32, vec![], &step_bytes).unwrap()),
        ("tied", TensorView::new(Dtype::F32, vec![600, 1000], &large).unwrap()),
    ];
    serialize(tensors, Some(HashMap::from([("format".to_owned(), "pt".to_owned())]))).unwrap()
}

fn compressed(bytes: &[u8], reference: Option<&Reference<'_>>) -> (Vec<u8>, Summary) {
    let mut out = Vec::new();
    let mut last = Progress::default();
    let summary = compress(&bytes, reference, &Compression::default(), &mut out, &mut |now| {
        assert!(now.done_bytes >= last.done_bytes && now.stored_bytes >= last.stored_bytes);
        last = now;
    })
    .unwrap();
    assert_eq!(summary.compressed_bytes, out.len() as u64);
    (out, summary)
}

/// Bytes that are owned.
struct Owned(Vec<u8>);

impl Source for Owned {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.as_slice().read_exact_at(buf, offset)
    }
}

fn open(bytes: Vec<u8>) -> Result<McpFile> {
    McpFile::open(Box::new(Owned(bytes)))
}

fn all_of(file: &McpFile) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_all(&mut |piece| {
        match piece {
            Piece::Data(data) => bytes.extend_from_slice(data),
            Piece::Hole(len) => bytes.resize(bytes.len() + usize::try_from(len).unwrap(), 0),
        }
        Ok(())
    })?;
    Ok(bytes)
}

#[test]
fn a_checkpoint_comes_back_byte_for_byte_and_tied_tensors_are_stored_once() {
    let bytes = checkpoint(1);
    let (out, summary) = compressed(&bytes, None);
    assert!(out.len() < bytes.len() / 2, "{} of {}", out.len(), bytes.len());
    let file = open(out).unwrap();
    assert_eq!(all_of(&file).unwrap(), bytes);
    file.verify().unwrap();
    assert_eq!(file.digest(), blake3::hash(&bytes).as_bytes());
    let chunks = file.chunks().unwrap();
    assert_eq!(chunks.iter().filter(|chunk| chunk.stored_bytes > 0).count() as u64, summary.chunks);
    assert!(chunks.len() as u64 > summary.chunks);
    assert_eq!(file.layout().tensors.len(), 4);
}

#[test]
fn weights_beside_their_masters_take_no_space() {
    let masters = weights(1_000_000, 1);
    let values = masters.as_chunks::<4>().0.iter().map(|x| half::bf16::from_f32(f32::from_le_bytes(*x)));
    let rounded: Vec<u8> = values.flat_map(half::bf16::to_le_bytes).collect();
    let shape = vec![masters.len() / 4];
    // The rounding lies before its masters, and once more behind them.
    let view = |dtype, data| TensorView::new(dtype, shape.clone(), data).unwrap();
    let tensors = [
        ("a", view(Dtype::BF16, &rounded)),
        ("b", view(Dtype::F32, &masters)),
        ("c", view(Dtype::BF16, &rounded)),
    ];
    let with = serialize(tensors.clone(), None).unwrap();
    let without = serialize([tensors[1].clone()], None).unwrap();
    let (alone, _) = compressed(&without, None);
    let (out, summary) = compressed(&with, None);
    assert!(out.len() < alone.len() + 2000, "{} beside {}", out.len(), alone.len());
    assert_eq!(summary.deltas, 0);
    let file = open(out.clone()).unwrap();
    assert_eq!(all_of(&file).unwrap(), with);
    file.verify().unwrap();
    let rounded = |chunk: &&ChunkInfo| chunk.format == Format::Rounded;
    assert!(file.chunks().unwrap().iter().filter(rounded).count() >= 8);
    let mut some = vec![0; 100_000];
    file.read_exact_at(&mut some, 300_000).unwrap();
    assert_eq!(some, with[300_000..400_000]);
    // One rotten byte in the masters is in what is based on them, too.
    let mut damaged = out;
    damaged[5000] ^= 8;
    assert!(open(damaged).unwrap().verify().is_err());
}

#[test]
fn what_is_empty_or_no_checkpoint_comes_back_too() {
    for bytes in [&b""[..], b"x", b"{\"step\": 3}\n", &[7; 100_000], &weights(5000, 1)] {
        let file = open(compressed(bytes, None).0).unwrap();
        assert_eq!(all_of(&file).unwrap(), bytes);
        file.verify().unwrap();
    }
}

#[test]
fn any_range_can_be_read() {
    let bytes = checkpoint(1);
    let file = open(compressed(&bytes, None).0).unwrap();
    let len = bytes.len();
    for (start, end) in
        [(0, 1), (len - 1, len), (0, len), (1_048_500, 1_048_700), (len / 2, len / 2), (77, 2_400_123)]
    {
        let mut buffer = vec![1; end - start];
        file.read_exact_at(&mut buffer, start as u64).unwrap();
        assert!(buffer == bytes[start..end], "{start}..{end}");
    }
    assert!(file.read_exact_at(&mut [0; 2], len as u64 - 1).is_err());
    assert!(file.read_exact_at(&mut [0; 2], u64::MAX).is_err());
}

#[test]
fn a_delta_is_smaller_and_names_its_reference() {
    let (old, new) = (checkpoint(1), checkpoint(2));
    let reference = Reference::plain(b"step-1.safetensors".to_vec(), &&old[..]).map(|_| ());
    reference.unwrap();
    let source = &old[..];
    let reference = Reference::plain(b"step-1.safetensors".to_vec(), &source).unwrap();
    let (out, summary) = compressed(&new, Some(&reference));
    assert!(summary.deltas > 0 && out.len() * 2 < compressed(&new, None).0.len());

    let mut file = open(out.clone()).unwrap();
    let said = file.reference().unwrap();
    assert_eq!((said.name.as_slice(), said.len), (&b"step-1.safetensors"[..], old.len() as u64));
    assert_eq!(said.digest, *blake3::hash(&old).as_bytes());
    let error = all_of(&file).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("step-1"), "{error}");
    let error = file.set_reference(Box::new(Owned(old[1..].to_vec()))).unwrap_err();
    assert!(error.to_string().contains("bytes"), "{error}");
    file.set_reference(Box::new(Owned(checkpoint(3)))).unwrap();
    assert!(matches!(all_of(&file).unwrap_err(), Error::Corrupt { .. }));
    let mut file = open(out).unwrap();
    file.set_reference(Box::new(Owned(old))).unwrap();
    assert_eq!(all_of(&file).unwrap(), new);
}

#[test]
fn a_compressed_checkpoint_can_be_the_reference_of_the_next() {
    let (first, second) = (checkpoint(1), checkpoint(2));
    let base = open(compressed(&first, None).0).unwrap();
    let reference = Reference::compressed(b"one.mcp".to_vec(), &base);
    let (out, _) = compressed(&second, Some(&reference));
    let mut file = open(out).unwrap();
    file.set_reference(Box::new(base)).unwrap();
    assert_eq!(all_of(&file).unwrap(), second);
    file.verify().unwrap();
}

#[test]
fn a_file_that_shares_nothing_with_its_reference_does_not_need_it() {
    let (old, new) = (vec![1; 100_000], weights(200_000, 1));
    let source = &old[..];
    let reference = Reference::plain(b"old".to_vec(), &source).unwrap();
    let file = open(compressed(&new, Some(&reference)).0).unwrap();
    assert_eq!(file.reference(), None);
    assert_eq!(all_of(&file).unwrap(), new);
}

#[test]
fn no_damage_gives_wrong_bytes() {
    let bytes = weights(3000, 1);
    let (out, _) = compressed(&bytes, None);
    for at in 0..out.len() {
        let mut damaged = out.clone();
        damaged[at] ^= 0x10;
        // A bit that no decoder looks at may be what it likes.
        if let Ok(read) = open(damaged).and_then(|file| all_of(&file)) {
            assert!(read == bytes, "byte {at}");
        }
        assert!(open(out[..at].to_vec()).is_err(), "cut at {at}");
    }
    let mut longer = out;
    longer.push(0);
    assert!(open(longer).is_err());
}

#[test]
fn holes_stay_holes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &weights(40_000, 1), 8 << 20).unwrap();
    file.set_len(64 << 20).unwrap();
    let source = crate::source::FileSource::new(std::fs::File::open(&path).unwrap()).unwrap();
    let mut out = Vec::new();
    compress(&source, None, &Compression::default(), &mut out, &mut |_| {}).unwrap();
    let back = open(out).unwrap();
    let (mut holes, mut data) = (0, 0);
    back.read_all(&mut |piece| {
        match piece {
            Piece::Data(bytes) => data += bytes.len(),
            Piece::Hole(len) => holes += len,
        }
        Ok(())
    })
    .unwrap();
    assert!(holes >= 60 << 20 && data < 1 << 20, "{holes} {data}");
    assert_eq!(back.next_data(0).unwrap().unwrap().offset, 8 << 20);
    back.verify().unwrap();
}

#[test]
fn floats_are_rounded_only_if_that_is_asked_for_and_within_their_bound() {
    let bytes = checkpoint(1);
    let plain = compressed(&bytes, None).0.len();
    for (scales, scheme) in [
        (Scales::Block(128), Scheme::Int8),
        (Scales::Channel, Scheme::Int8),
        (Scales::Block(64), Scheme::Fp8E4M3),
    ] {
        let bound = Bound::Absolute(1e-3);
        let how = Compression { lossy: Some(Lossy { scheme, bound, scales }), ..Compression::default() };
        let mut out = Vec::new();
        compress(&&bytes[..], None, &how, &mut out, &mut |_| {}).unwrap();
        assert!(out.len() * 2 < plain, "{} of {plain}", out.len());
        let file = open(out).unwrap();
        file.verify().unwrap();
        let read = all_of(&file).unwrap();
        assert_eq!(read.len(), bytes.len());
        let layout = file.layout();
        let (mut largest, mut touched) = (0.0f64, 0);
        for (index, tensor) in layout.tensors.iter().enumerate() {
            let range =
                usize::try_from(tensor.range.offset).unwrap()..usize::try_from(tensor.range.end()).unwrap();
            let loss = file.losses().iter().find(|loss| loss.tensor == index);
            let floats = |bytes: &[u8]| -> Vec<f32> {
                bytes[range.clone()].as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
            };
            assert_eq!(loss.is_some(), tensor.name != "step", "{}", tensor.name);
            let Some(loss) = loss else {
                assert_eq!(read[range.clone()], bytes[range]);
                continue;
            };
            assert_eq!((loss.scheme, loss.bound), (scheme, bound));
            let errors = floats(&bytes).into_iter().zip(floats(&read)).map(|(a, b)| f64::from((a - b).abs()));
            largest = errors.fold(0.0, f64::max);
            assert!(largest <= 1e-3 && (largest - loss.report.max_error).abs() < 1e-9);
            touched += 1;
        }
        assert!(largest > 0.0 && touched == 3);
        // Outside of the tensors nothing is touched.
        let first = usize::try_from(layout.tensors[0].range.offset).unwrap();
        assert_eq!(read[..first], bytes[..first]);
    }
}
