//! `bench`.

use std::time::Instant;

use mithril_engine::checkpoint::mcp::{self, McpFile, Piece};
use mithril_engine::checkpoint::{CompressionConfig, Level};
use mithril_engine::source::Source;

use super::arguments::BenchFlags;
use super::failure::Failure;
use super::input;
use crate::cli::format::table;

/// Bytes that are owned.
struct Memory(std::sync::Arc<Vec<u8>>);

impl Source for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.as_slice().read_exact_at(buf, offset)
    }
}

pub(super) fn run(flags: &BenchFlags) -> Result<(), Failure> {
    let load = |path: &std::path::Path| -> Result<Memory, Failure> {
        let input = input::open(path, None)?;
        let source = input.source();
        let len = usize::try_from(source.size()).map_err(|error| Failure::at(path, error))?;
        let mut bytes = vec![0; len];
        source.read_exact_at(&mut bytes, 0).map_err(|error| Failure::at(path, error))?;
        Ok(Memory(bytes.into()))
    };
    let file = load(&flags.file)?;
    let base = flags.base.as_deref().map(load).transpose()?;
    let rows = input::on_threads(flags.threads, || {
        let mut rows = vec![["level", "ratio", "compress", "decompress"].map(str::to_owned).to_vec()];
        for level in Level::ALL {
            rows.push(measure(level, &file, base.as_ref(), flags.rounds.max(1))?);
        }
        Ok(rows)
    })?
    .map_err(|error: mithril_engine::Error| Failure::of(&flags.file, &error))?;
    print!("{}", table(&rows));
    println!(
        "{} bytes; best of {} rounds, in memory; every chunk is decoded and compared while it is compressed",
        file.size(),
        flags.rounds.max(1)
    );
    Ok(())
}

fn measure(
    level: Level,
    file: &Memory,
    base: Option<&Memory>,
    rounds: usize,
) -> mithril_engine::Result<Vec<String>> {
    let how = mcp::Compression { config: CompressionConfig::default().with_level(level), lossy: None };
    let reference = base.map(|base| mcp::Reference::plain(b"base".to_vec(), base)).transpose()?;
    let (mut compress, mut decompress, mut size) = (f64::MAX, f64::MAX, 0);
    for _ in 0..rounds {
        let mut out = Vec::with_capacity(file.0.len() / 2);
        let started = Instant::now();
        mcp::compress(file, reference.as_ref(), &how, &mut out, &mut |_| {})?;
        compress = compress.min(started.elapsed().as_secs_f64());
        size = out.len();
        let started = Instant::now();
        let mut back = McpFile::open(Box::new(Memory(out.into())))?;
        if let Some(base) = base {
            back.set_reference(Box::new(Memory(base.0.clone())))?;
        }
        let mut position = 0;
        back.read_all(&mut |piece| {
            match piece {
                Piece::Data(bytes) => {
                    if file.0.get(position..position + bytes.len()) != Some(bytes) {
                        return Err(mithril_engine::Error::corrupt("a chunk", "it came back as other bytes"));
                    }
                    position += bytes.len();
                }
                Piece::Hole(len) => position += usize::try_from(len).unwrap_or(0),
            }
            Ok(())
        })?;
        decompress = decompress.min(started.elapsed().as_secs_f64());
    }
    let speed = |seconds: f64| format!("{:.0} MB/s", file.0.len() as f64 / seconds / 1e6);
    Ok(vec![
        level.name().to_owned(),
        format!("{:.3}", file.0.len() as f64 / size as f64),
        speed(compress),
        speed(decompress),
    ])
}
