//! `diff`.

use std::collections::HashMap;

use mithril_engine::checkpoint::CheckpointCompressor;
use mithril_engine::checkpoint::DType;
use mithril_engine::source::Source;
use mithril_engine::tensor::{self, Element, Tensor};
use serde::Serialize;

use super::arguments::DiffFlags;
use super::failure::Failure;
use super::input;
use crate::cli::format::{bytes, ratio, table};

/// Bytes of a tensor that are compared at a time: memory does not grow with the tensor.
const PART_BYTES: u64 = 16 << 20;

/// How a tensor changed.
#[derive(Serialize)]
struct Change {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    bytes: u64,
    /// Share of the elements that are other ones, from 0 to 1; `None` if there is no such tensor in both.
    changed: Option<f64>,
    /// Bytes of the difference.
    delta_bytes: Option<u64>,
    /// `same`, `changed`, `new`, `gone`, or `reshaped`.
    state: &'static str,
}

pub(super) fn run(flags: &DiffFlags) -> Result<(), Failure> {
    let (old, new) = (input::open(&flags.old, None)?, input::open(&flags.new, None)?);
    let inspect = |source: &dyn Source, path: &std::path::Path| {
        tensor::inspect(source).map_err(|error| Failure::at(path, error))
    };
    let old_layout = inspect(old.source(), &flags.old)?;
    let new_layout = inspect(new.source(), &flags.new)?;
    let mut before: HashMap<&str, &Tensor> =
        old_layout.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let compressor = CheckpointCompressor::new(flags.codec.config());
    let mut changes = Vec::new();
    for tensor in &new_layout.tensors {
        let change = match before.remove(tensor.name.as_str()) {
            None => described(tensor, "new"),
            Some(old) if old.element != tensor.element || old.range.len != tensor.range.len => {
                described(tensor, "reshaped")
            }
            Some(earlier) => compare(&compressor, (old.source(), earlier), (new.source(), tensor))
                .map_err(|error| Failure::of(&flags.new, &error))?,
        };
        changes.push(change);
    }
    let mut gone: Vec<&Tensor> = before.into_values().collect();
    gone.sort_by_key(|tensor| tensor.range.offset);
    changes.extend(gone.into_iter().map(|tensor| described(tensor, "gone")));
    if flags.json {
        let text = serde_json::to_string_pretty(&changes).map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
    } else {
        print(&changes);
    }
    Ok(())
}

fn described(tensor: &Tensor, state: &'static str) -> Change {
    Change {
        name: tensor.name.clone(),
        dtype: format!("{:?}", tensor.element).to_lowercase(),
        shape: tensor.shape.clone(),
        bytes: tensor.range.len,
        changed: None,
        delta_bytes: None,
        state,
    }
}

fn dtype_of(element: Element) -> DType {
    DType::ALL.iter().copied().find(|dtype| dtype.element() == element).unwrap_or(DType::Bytes)
}

fn compare(
    compressor: &CheckpointCompressor,
    (old_source, old): (&dyn Source, &Tensor),
    (new_source, new): (&dyn Source, &Tensor),
) -> mithril_engine::Result<Change> {
    let width = new.element.width();
    let (mut other, mut delta_bytes) = (0u64, 0u64);
    let mut done = 0;
    while done < new.range.len {
        let len = PART_BYTES.min(new.range.len - done);
        let read = |source: &dyn Source, offset: u64| {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            source
                .read_exact_at(&mut bytes, offset + done)
                .map(|()| bytes)
                .map_err(|error| mithril_engine::Error::io("read", "a tensor", error))
        };
        let (before, after) = (read(old_source, old.range.offset)?, read(new_source, new.range.offset)?);
        other += before.chunks(width).zip(after.chunks(width)).filter(|(a, b)| a != b).count() as u64;
        delta_bytes +=
            compressor.compress_against(&after, dtype_of(new.element), Some(&before))?.len() as u64;
        done += len;
    }
    let count = new.range.len.div_ceil(width as u64).max(1);
    Ok(Change {
        changed: Some(other as f64 / count as f64),
        delta_bytes: Some(delta_bytes),
        ..described(new, if other == 0 { "same" } else { "changed" })
    })
}

fn print(changes: &[Change]) {
    let mut rows = vec![
        ["tensor", "type", "shape", "size", "changed", "delta", "ratio", ""].map(str::to_owned).to_vec(),
    ];
    for change in changes {
        rows.push(vec![
            change.name.clone(),
            change.dtype.clone(),
            format!("{:?}", change.shape),
            bytes(change.bytes),
            change.changed.map_or("-".to_owned(), |share| format!("{:.2} %", share * 100.0)),
            change.delta_bytes.map_or("-".to_owned(), bytes),
            change.delta_bytes.map_or("-".to_owned(), |delta| ratio(change.bytes, delta)),
            change.state.to_owned(),
        ]);
    }
    print!("{}", table(&rows));
    let compared = changes.iter().filter(|change| change.delta_bytes.is_some());
    let (size, delta) = compared
        .fold((0, 0), |(size, delta), change| (size + change.bytes, delta + change.delta_bytes.unwrap_or(0)));
    println!("{} compared, {} of difference ({})", bytes(size), bytes(delta), ratio(size, delta));
}
