//! Weights that were trained (`scripts/generate_fixtures.py`) gain what they should, and come back.

use std::fs;
use std::path::Path;

use mithril_engine::checkpoint::mcp::{Compression, McpFile, Piece, Reference, compress};
use mithril_engine::checkpoint::{CompressionConfig, Level};

fn trained(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trained").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compresses a file, reads it again, and says how many times smaller it became.
fn ratio(new: &[u8], old: Option<&[u8]>, level: Level) -> f64 {
    let source = &old.unwrap_or_default();
    let reference = old.map(|_| Reference::plain(b"old".to_vec(), source).unwrap());
    let how = Compression { config: CompressionConfig::default().with_level(level), lossy: None };
    let mut out = Vec::new();
    compress(&new, reference.as_ref(), &how, &mut out, &mut |_| {}).unwrap();
    let compressed_bytes = out.len();
    let folder = tempfile::tempdir().unwrap();
    let open = |bytes: &[u8], name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        Box::new(mithril_engine::source::FileSource::new(fs::File::open(path).unwrap()).unwrap())
    };
    let mut file = McpFile::open(open(&out, "new.mcp")).unwrap();
    if let Some(old) = old {
        file.set_reference(open(old, "old")).unwrap();
    }
    let mut back = Vec::new();
    file.read_all(&mut |piece| {
        match piece {
            Piece::Data(bytes) => back.extend_from_slice(bytes),
            Piece::Hole(len) => back.resize(back.len() + usize::try_from(len).unwrap(), 0),
        }
        Ok(())
    })
    .unwrap();
    assert!(back == new, "it comes back as another file");
    new.len() as f64 / compressed_bytes as f64
}

#[test]
fn weights_alone_and_as_deltas() {
    let (old, new) = (trained("bf16.step1200.safetensors"), trained("bf16.step1205.safetensors"));
    let mut last = 0.0;
    for (level, alone, delta) in [(Level::Fast, 1.4, 12.0), (Level::Max, 1.45, 17.0)] {
        let found = ratio(&new, None, level);
        assert!(found > alone, "{level}: {found} alone");
        let found = ratio(&new, Some(&old), level);
        assert!(found > delta && found >= last, "{level}: {found} as a delta");
        last = found;
    }
}

#[test]
fn moments_alone() {
    // First moments have a random sign and fraction; second ones have no sign, and less of a range.
    for (name, least) in [("exp_avg.step1200.safetensors", 1.12), ("exp_avg_sq.step1200.safetensors", 1.15)] {
        let found = ratio(&trained(name), None, Level::Max);
        assert!(found > least, "{name}: {found}");
    }
}
