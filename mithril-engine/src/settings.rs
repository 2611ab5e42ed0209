//! The numbers that shape the engine, each with its reason. Plain data; no environment, no flags.

/// Bytes that a chunk aims at. One FUSE read is at most 1 MiB, so a sequential reader decodes each chunk once;
/// and an index entry (some 80 bytes) is noise beside the 20 KiB that the best deltas leave of it.
pub const CHUNK_TARGET_BYTES: usize = 1 << 20;

/// Longest plaintext of a chunk. Decoders refuse anything that claims more before they allocate.
pub const CHUNK_MAX_BYTES: usize = 4 << 20;

/// Tensors shorter than this do not get chunks of their own: they are grouped with the bytes around them.
/// A chunk costs some 120 bytes in index and manifest, and the codec's tables cost as much again.
pub const TENSOR_MIN_BYTES: u64 = 4096;

/// Files shorter than this stay plain.
pub const PACK_MIN_BYTES: u64 = 64 << 10;

/// Longest chain of bases under a chunk: the price of reading is one decoding a link.
pub const MAX_DELTA_DEPTH: u8 = 8;

/// Bytes at which a pack is closed and the next one begun.
pub const PACK_TARGET_BYTES: u64 = 64 << 20;

/// Blobs at which a pack is closed, however few bytes they take: its footer is read as a whole, and is then at most
/// some 20 MiB.
pub const PACK_MAX_BLOBS: usize = 1 << 18;

/// Packs that are made durable at a time while the next one is written: enough to keep a disk busy, and few enough
/// for a checkpoint of terabytes to take no more descriptors than a small one.
pub const PACK_SYNCS: usize = 4;

/// Decoded chunks that are kept for readers, in bytes, if nothing else is said.
pub const DECODED_CACHE_BYTES: usize = 96 << 20;
