//! Stores in scratch directories, and files to pack into them.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mithril_engine::Result;
use mithril_engine::codec::Level;
use mithril_engine::file::cache::ChunkCache;
use mithril_engine::file::pack::{self, Outcome, Packing};
use mithril_engine::file::read::{PackedFile, ReadAhead};
use mithril_engine::format::manifest::Manifest;
use mithril_engine::id::ManifestId;
use mithril_engine::store::Store;

pub(crate) fn open(dir: &Path) -> Result<Store> {
    Store::open(fs::File::open(dir).unwrap().as_fd())
}

pub(crate) fn pool() -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap())
}

/// Bytes that look like bf16 weights, moved by `step` small steps.
#[allow(dead_code, reason = "not every test packs them")]
pub(crate) fn weights(count: usize, step: u64) -> Vec<u8> {
    let mut state = 7u64;
    let mut bytes = Vec::with_capacity(2 * count);
    for index in 0..count as u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let sum: u64 = (0..4).map(|part| state >> (16 * part) & 0xffff).sum();
        let value = (sum as f32 / 65_536.0 - 2.0) * 0.05;
        let moved = step.wrapping_mul(index ^ state >> 60) % 37 == 1;
        let bits = u16::try_from(value.to_bits() >> 16).unwrap().wrapping_add(u16::from(moved));
        bytes.extend(bits.to_le_bytes());
    }
    bytes
}

/// A safetensors file of these tensors: name, type, bytes.
#[allow(dead_code, reason = "not every test has tensors with names")]
pub(crate) fn safetensors(tensors: &[(&str, &str, Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (String::new(), Vec::new());
    for (name, dtype, bytes) in tensors {
        let count = bytes.len() / if *dtype == "F32" { 4 } else { 2 };
        let (start, end) = (data.len(), data.len() + bytes.len());
        let comma = if header.is_empty() { '{' } else { ',' };
        header += &format!(
            "{comma}\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":[{count}],\"data_offsets\":[{start},{end}]}}"
        );
        data.extend_from_slice(bytes);
    }
    header.push('}');
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Packs files, each with its bases, through one writer: into one pack.
#[allow(dead_code, reason = "not every test uses the usual level")]
pub(crate) fn pack_files(store: &Store, files: &[(&[u8], &[Manifest])]) -> Result<Vec<ManifestId>> {
    pack_files_at(store, Level::Default, files)
}

/// The same at another level.
pub(crate) fn pack_files_at(
    store: &Store,
    level: Level,
    files: &[(&[u8], &[Manifest])],
) -> Result<Vec<ManifestId>> {
    let pin = store.pin();
    let mut writer = pin.writer()?;
    let cancel = AtomicBool::new(false);
    let mut manifests = Vec::new();
    for (bytes, candidates) in files {
        let packing =
            Packing { store, pool: &pool(), level, candidates, cancel: &cancel, progress: &|_, _| {} };
        let outcome = pack::pack(bytes, &packing, &mut writer)?;
        let Outcome::Packed(packed) = outcome else { panic!("not worthwhile") };
        manifests.push(packed.manifest);
    }
    writer.finish()?;
    Ok(manifests)
}

#[allow(dead_code, reason = "not every test uses the usual level")]
pub(crate) fn pack_file(store: &Store, bytes: &[u8], bases: &[Manifest]) -> ManifestId {
    pack_files(store, &[(bytes, bases)]).unwrap()[0]
}

pub(crate) fn read_file(store: &Arc<Store>, id: ManifestId) -> Result<Vec<u8>> {
    let cache = Arc::new(ChunkCache::new(Arc::clone(store), 1 << 20));
    let file = Arc::new(PackedFile::open(id, cache, Some(ReadAhead { pool: pool(), bytes: 4 << 20 }))?);
    let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The packs of a store, by name.
#[allow(dead_code, reason = "not every test looks at them")]
pub(crate) fn packs(dir: &Path) -> Vec<PathBuf> {
    let mut packs: Vec<PathBuf> =
        fs::read_dir(dir.join("packs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    packs.sort();
    packs
}
