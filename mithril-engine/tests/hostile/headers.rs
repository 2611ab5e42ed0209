//! Headers that hold many small things.

use mithril_engine::tensor::{Container, inspect};

use super::allocations::most_held;
use super::reading::Counted;

/// A GGUF file with these values of metadata and these tensors.
fn gguf(values: u64, metadata: &[u8], tensors: u64, infos: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend_from_slice(&tensors.to_le_bytes());
    file.extend_from_slice(&values.to_le_bytes());
    file.extend_from_slice(metadata);
    file.extend_from_slice(infos);
    file.resize(file.len() + 4096, 0);
    file
}

#[test]
fn as_many_tensors_as_a_gguf_file_may_have_take_a_multiple_of_its_length() {
    const TENSORS: u64 = 1 << 18;
    let mut infos = Vec::new();
    for index in 0..TENSORS {
        let name = format!("{index:x}");
        infos.extend_from_slice(&(name.len() as u64).to_le_bytes());
        infos.extend_from_slice(name.as_bytes());
        // No dimensions, an unknown type, the first byte of the data.
        infos.extend_from_slice(&[0; 4]);
        infos.extend_from_slice(&[0xff; 4]);
        infos.extend_from_slice(&[0; 8]);
    }
    let file = gguf(0, &[], TENSORS, &infos);
    let (held, layout) = most_held(|| inspect(&&file[..]).unwrap());
    assert_eq!(layout.container, Container::Unknown, "they overlap");
    assert!(held < 16 * file.len(), "{held} bytes held for {}", file.len());
    let file = gguf(0, &[], TENSORS + 1, &infos);
    let (held, _) = most_held(|| inspect(&&file[..]).unwrap());
    assert!(held < 2 << 20, "{held} bytes held for a claim");
}

#[test]
fn metadata_takes_no_memory() {
    // Ten million numbers, and a million texts.
    let mut metadata = Vec::new();
    for (kind, len, width) in [(6u32, 10_000_000u64, 4), (8, 1_000_000, 8)] {
        metadata.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, b'k']);
        metadata.extend_from_slice(&9u32.to_le_bytes());
        metadata.extend_from_slice(&kind.to_le_bytes());
        metadata.extend_from_slice(&len.to_le_bytes());
        metadata.resize(metadata.len() + usize::try_from(len * width).unwrap(), 0);
    }
    let file = gguf(2, &metadata, 0, &[]);
    let source = Counted::new(&file);
    let (held, layout) = most_held(|| inspect(&source).unwrap());
    assert_eq!(layout.container, Container::Gguf, "{:?}", layout.note);
    assert!(held < 1 << 20, "{held} bytes held");
    assert!(source.read() < 9 << 20, "{} bytes read", source.read());
}
