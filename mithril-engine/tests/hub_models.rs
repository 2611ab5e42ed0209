//! Real models of the Hugging Face hub. They are not part of the repository: `scripts/download_hf_fixtures.py --all`
//! fetches them, then `cargo test --release -p mithril-engine --test hub_models -- --ignored --nocapture` runs these
//! tests.

use std::fs::File;
use std::path::{Path, PathBuf};

use mithril_engine::checkpoint::Level;
use mithril_engine::checkpoint::mcp::{Compression, McpFile, compress};
use mithril_engine::source::{FileSource, Source};
use mithril_engine::tensor::{self, Container, Element};

/// Where the script puts what it downloads.
fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("MITHRIL_HF_FIXTURES") {
        return folder.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).join("hf-fixtures")
}

fn model(name: &str, file: &str) -> FileSource {
    let path = folder().join(name.replace('/', "--")).join(file);
    let file = File::open(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}\nThis test reads a model of the hub. Fetch it first, where there is a network:\n    \
             \"$(scripts/venv.sh)\" -m pip install huggingface_hub\n    \
             \"$(scripts/venv.sh)\" scripts/download_hf_fixtures.py --all\n\
             or name the folder that has it in MITHRIL_HF_FIXTURES.",
            path.display()
        )
    });
    FileSource::new(file).unwrap()
}

/// The file's tensors are found and nearly all of it, and it comes back from `least` times fewer bytes.
fn survives(name: &str, file: &str, element: Element, least: f64) {
    let source = model(name, file);
    let layout = tensor::inspect(&source).unwrap();
    assert_ne!(layout.container, Container::Unknown, "{:?}", layout.note);
    let of_element = layout.tensors.iter().filter(|tensor| tensor.element == element);
    let bytes: u64 = of_element.map(|tensor| tensor.range.len).sum();
    assert!(bytes * 100 > source.size() * 95, "{element:?} is {bytes} of {} bytes", source.size());
    for level in [Level::Fast, Level::Default] {
        let mut how = Compression::default();
        how.config.level = level;
        let scratch = tempfile::NamedTempFile::new().unwrap();
        let mut out = std::io::BufWriter::new(scratch.as_file());
        let summary = compress(&source, None, &how, &mut out, &mut |_| {}).unwrap();
        drop(out);
        let compressed = FileSource::new(scratch.reopen().unwrap()).unwrap();
        let compressed = McpFile::open(Box::new(compressed)).unwrap();
        compressed.verify().unwrap();
        assert_eq!(compressed.digest(), blake3_of(&source).as_bytes());
        let ratio = summary.original_bytes as f64 / summary.compressed_bytes as f64;
        println!("{name}/{file}, {} tensors, level {level}: {ratio:.3} times smaller", layout.tensors.len());
        assert!(ratio > least, "{ratio}");
    }
}

fn blake3_of(source: &dyn Source) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < source.size() {
        let len = usize::try_from(source.size() - offset).unwrap_or(usize::MAX).min(buffer.len());
        source.read_exact_at(&mut buffer[..len], offset).unwrap();
        hasher.update(&buffer[..len]);
        offset += len as u64;
    }
    hasher.finalize()
}

#[test]
#[ignore = "needs scripts/download_hf_fixtures.py"]
fn all_minilm_as_safetensors() {
    survives("sentence-transformers/all-MiniLM-L6-v2", "model.safetensors", Element::F32, 1.1);
}

#[test]
#[ignore = "needs scripts/download_hf_fixtures.py"]
fn all_minilm_as_torch_saved_it() {
    survives("sentence-transformers/all-MiniLM-L6-v2", "pytorch_model.bin", Element::F32, 1.1);
}

#[test]
#[ignore = "needs scripts/download_hf_fixtures.py"]
fn bert_tiny_as_torch_saved_it() {
    survives("prajjwal1/bert-tiny", "pytorch_model.bin", Element::F32, 1.05);
}

#[test]
#[ignore = "needs scripts/download_hf_fixtures.py"]
fn smollm2_in_bf16() {
    survives("HuggingFaceTB/SmolLM2-135M", "model.safetensors", Element::Bf16, 1.3);
}
