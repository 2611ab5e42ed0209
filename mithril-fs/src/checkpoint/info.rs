//! `info`.

use std::collections::BTreeMap;

use mithril_engine::checkpoint::mcp::{ChunkInfo, Loss, McpFile};
use mithril_engine::quantize::Bound;
use mithril_engine::source::Source;
use mithril_engine::tensor::{self, Layout, Tensor};
use serde::Serialize;

use super::arguments::InfoFlags;
use super::failure::Failure;
use super::input;
use crate::cli::format::{bytes, ratio, table};

/// Columns of a bar of the histogram.
const BAR_WIDTH: usize = 40;

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    file: String,
    container: &'static str,
    bytes: u64,
    /// Bytes of the compressed file, if it is one.
    compressed_bytes: Option<u64>,
    /// BLAKE3 of what it holds, if it is known without reading it.
    digest: Option<String>,
    reference: Option<ReferenceReport>,
    tensors: Vec<TensorReport>,
    /// Bytes that belong to no tensor.
    other_bytes: u64,
    /// What was lost; empty if it is what it was.
    losses: Vec<LossReport>,
}

#[derive(Serialize)]
struct LossReport {
    tensor: String,
    scheme: &'static str,
    /// `absolute` or `relative`.
    bound_kind: &'static str,
    bound: f64,
    max_error: f64,
    mean_error: f64,
    elements: u64,
    exact_elements: u64,
}

#[derive(Serialize)]
struct ReferenceReport {
    name: String,
    bytes: u64,
    digest: String,
}

#[derive(Serialize)]
struct TensorReport {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    bytes: u64,
    stored_bytes: Option<u64>,
    /// How its chunks are encoded, and how many in each way.
    encodings: BTreeMap<String, u64>,
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn run(flags: &InfoFlags) -> Result<(), Failure> {
    let report = look(flags)?;
    if flags.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
    } else {
        print(&report);
    }
    Ok(())
}

/// A compressed file is looked at without what it is a delta against.
fn look(flags: &InfoFlags) -> Result<Report, Failure> {
    let path = &flags.file;
    let of = |error| Failure::of(path, &error);
    let source = input::open_file(path)?;
    let file = path.display().to_string();
    if McpFile::is_one(&source).map_err(of)? {
        let mcp = McpFile::open(Box::new(source)).map_err(of)?;
        let chunks = mcp.chunks().map_err(of)?;
        let reference = mcp.reference().map(|reference| ReferenceReport {
            name: String::from_utf8_lossy(&reference.name).into_owned(),
            bytes: reference.len,
            digest: hex(&reference.digest),
        });
        let mut report = describe(file, mcp.size(), &mcp.layout(), Some(&chunks));
        report.compressed_bytes = Some(mcp.compressed_bytes());
        report.digest = Some(hex(mcp.digest()));
        report.reference = reference;
        report.losses = mcp.losses().iter().map(|loss| describe_loss(loss, &report.tensors)).collect();
        return Ok(report);
    }
    let layout = tensor::inspect(&source).map_err(|error| Failure::at(path, error))?;
    Ok(describe(file, source.size(), &layout, None))
}

fn describe(file: String, size: u64, layout: &Layout, chunks: Option<&[ChunkInfo]>) -> Report {
    let tensors: Vec<TensorReport> =
        layout.tensors.iter().map(|tensor| describe_tensor(tensor, chunks)).collect();
    let inside: u64 = tensors.iter().map(|tensor| tensor.bytes).sum();
    Report {
        file,
        container: layout.container.name(),
        bytes: size,
        compressed_bytes: None,
        digest: None,
        reference: None,
        tensors,
        other_bytes: size.saturating_sub(inside),
        losses: Vec::new(),
    }
}

fn describe_tensor(tensor: &Tensor, chunks: Option<&[ChunkInfo]>) -> TensorReport {
    let mut encodings = BTreeMap::new();
    let mut stored_bytes = None;
    if let Some(chunks) = chunks {
        let first = chunks.partition_point(|chunk| chunk.range.offset < tensor.range.offset);
        let mine: Vec<&ChunkInfo> =
            chunks[first..].iter().take_while(|chunk| chunk.range.end() <= tensor.range.end()).collect();
        for chunk in &mine {
            let name = if chunk.stored_bytes == 0 {
                "shared".to_owned()
            } else if chunk.is_delta {
                format!("{} delta", chunk.format.name())
            } else if chunk.is_by_moments {
                format!("{} by moments", chunk.format.name())
            } else {
                chunk.format.name().to_owned()
            };
            *encodings.entry(name).or_default() += 1;
        }
        // A small tensor shares its chunk with what lies around it.
        let covered: u64 = mine.iter().map(|chunk| chunk.range.len).sum();
        stored_bytes =
            (covered == tensor.range.len).then(|| mine.iter().map(|chunk| chunk.stored_bytes).sum());
    }
    TensorReport {
        name: tensor.name.clone(),
        dtype: format!("{:?}", tensor.element).to_lowercase(),
        shape: tensor.shape.clone(),
        bytes: tensor.range.len,
        stored_bytes,
        encodings,
    }
}

fn describe_loss(loss: &Loss, tensors: &[TensorReport]) -> LossReport {
    let (bound_kind, bound) = match loss.bound {
        Bound::Absolute(error) => ("absolute", error),
        Bound::Relative(share) => ("relative", share),
    };
    LossReport {
        tensor: tensors.get(loss.tensor).map_or_else(String::new, |tensor| tensor.name.clone()),
        scheme: loss.scheme.name(),
        bound_kind,
        bound,
        max_error: loss.report.max_error,
        mean_error: loss.report.mean_error(),
        elements: loss.report.elements,
        exact_elements: loss.report.exact,
    }
}

fn print(report: &Report) {
    let mut rows =
        vec![["tensor", "type", "shape", "size", "stored", "ratio", "encoding"].map(str::to_owned).to_vec()];
    for tensor in &report.tensors {
        let encodings: Vec<String> = tensor
            .encodings
            .iter()
            .map(|(name, count)| if *count == 1 { name.clone() } else { format!("{name} x{count}") })
            .collect();
        rows.push(vec![
            tensor.name.clone(),
            tensor.dtype.clone(),
            format!("{:?}", tensor.shape),
            bytes(tensor.bytes),
            tensor.stored_bytes.map_or("-".to_owned(), bytes),
            tensor.stored_bytes.map_or("-".to_owned(), |stored| ratio(tensor.bytes, stored)),
            encodings.join(", "),
        ]);
    }
    print!("{}", table(&rows));
    println!(
        "{}: {}, {} tensors, {}",
        report.file,
        report.container,
        report.tensors.len(),
        bytes(report.bytes)
    );
    if let Some(compressed) = report.compressed_bytes {
        println!("compressed to {} ({})", bytes(compressed), ratio(report.bytes, compressed));
    }
    if let Some(reference) = &report.reference {
        println!(
            "a delta against {} ({}, blake3 {})",
            reference.name,
            bytes(reference.bytes),
            reference.digest
        );
    }
    for loss in &report.losses {
        println!(
            "{} was rounded to {} ({} bound {:e}): largest error {:.3e}, mean {:.3e}, {} of {} numbers exact",
            loss.tensor,
            loss.scheme,
            loss.bound_kind,
            loss.bound,
            loss.max_error,
            loss.mean_error,
            loss.exact_elements,
            loss.elements
        );
    }
    if report.compressed_bytes.is_some() {
        print_histogram(&report.tensors);
    }
}

/// How many bytes of tensors lie at which ratio.
fn print_histogram(tensors: &[TensorReport]) {
    const BOUNDS: [f64; 7] = [1.05, 1.25, 1.6, 2.5, 5.0, 20.0, f64::INFINITY];
    let mut sums = [0u64; BOUNDS.len()];
    for tensor in tensors {
        let Some(stored) = tensor.stored_bytes else { continue };
        let gained = if stored == 0 { f64::MAX } else { tensor.bytes as f64 / stored as f64 };
        if let Some(bin) = BOUNDS.iter().position(|&bound| gained < bound) {
            sums[bin] += tensor.bytes;
        }
    }
    let most = sums.iter().copied().max().filter(|&most| most > 0).unwrap_or(1);
    println!("bytes by ratio:");
    let mut lower = 1.0;
    for (&bound, &sum) in BOUNDS.iter().zip(&sums) {
        let label =
            if bound.is_finite() { format!("{lower:>5} - {bound:<5}") } else { format!("{lower:>5} and up") };
        let filled = usize::try_from(u128::from(sum) * BAR_WIDTH as u128 / u128::from(most)).unwrap_or(0);
        println!("{label:<14} {:<BAR_WIDTH$} {}", "#".repeat(filled), bytes(sum));
        lower = bound;
    }
}
