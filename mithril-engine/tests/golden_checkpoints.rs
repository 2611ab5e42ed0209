//! Compressed checkpoints of earlier releases stay readable, and damaged ones stay refused.
//!
//! `tests/golden/*.mcp` are never written anew: whoever changes the format adds files beside them.

use std::fs;
use std::path::{Path, PathBuf};

use mithril_engine::Error;
use mithril_engine::checkpoint::mcp::McpFile;
use mithril_engine::source::{FileSource, Source};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn source(path: &Path) -> Box<FileSource> {
    Box::new(FileSource::new(fs::File::open(path).unwrap()).unwrap())
}

fn plaintext(file: &McpFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.size()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_checkpoint_that_stands_alone() {
    let file = McpFile::open(source(&golden("step1.mcp"))).unwrap();
    assert_eq!(plaintext(&file), fs::read(golden("step1.safetensors")).unwrap());
    file.verify().unwrap();
}

#[test]
fn a_delta_against_it() {
    let mut file = McpFile::open(source(&golden("step2.mcp"))).unwrap();
    assert_eq!(file.reference().unwrap().name, b"step1.safetensors");
    file.set_reference(source(&golden("step1.safetensors"))).unwrap();
    let bytes = plaintext(&file);
    assert_eq!(file.digest(), blake3::hash(&bytes).as_bytes());
    file.verify().unwrap();
    // Against the compressed one it reads the same.
    let mut file = McpFile::open(source(&golden("step2.mcp"))).unwrap();
    file.set_reference(Box::new(McpFile::open(source(&golden("step1.mcp"))).unwrap())).unwrap();
    assert_eq!(plaintext(&file), bytes);
}

#[test]
fn first_moments_by_the_second_ones() {
    let file = McpFile::open(source(&golden("moments.mcp"))).unwrap();
    assert_eq!(file.chunks().unwrap().iter().filter(|chunk| chunk.is_by_moments).count(), 1);
    let bytes = plaintext(&file);
    assert_eq!(file.digest(), blake3::hash(&bytes).as_bytes());
    file.verify().unwrap();
}

#[test]
fn damaged_ones_are_refused_and_say_why() {
    for (name, reason) in [
        ("damaged-header.mcp", "does not begin"),
        ("damaged-version.mcp", "later version"),
        ("damaged-footer.mcp", "footer"),
        ("damaged-cut.mcp", "cut short"),
    ] {
        let error = McpFile::open(source(&golden(name))).unwrap_err().to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
    let file = McpFile::open(source(&golden("damaged-chunk.mcp"))).unwrap();
    assert!(matches!(file.verify(), Err(Error::Io { .. } | Error::Corrupt { .. })));
}
