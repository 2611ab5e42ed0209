//! One chunk to fewer bytes and back: pure functions, no I/O.
//!
//! Owns the encodings and their tags; nobody outside knows what is inside an encoded chunk. An encoded chunk
//! begins with a format tag, so that new formats join without touching old ones. What the decoder cannot prove
//! to be well-formed is an error: it never guesses, and never reads or writes outside its buffers.

use crate::tensor::Element;

/// Buffers that are kept between calls; one a thread.
#[derive(Debug, Default)]
pub struct Scratch {
    _private: (),
}

/// What [`encode`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Against {
    /// The chunk stands alone.
    Nothing,
    /// The chunk is a delta: decoding needs the same base again.
    Base,
}

/// Why bytes cannot be decoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are no valid encoding of a chunk of this length.
    #[error("malformed chunk: {0}")]
    Malformed(&'static str),
    /// The format tag is of a later version.
    #[error("unknown chunk format {0}")]
    UnknownFormat(u8),
    /// A delta without its base, or with one of another length.
    #[error("the base of a delta is missing or has another length")]
    WrongBase,
}

/// Encodes `raw`, appending to `out`.
///
/// `element` says what the bytes are (a trailing part of an element is allowed); `base`, if there is one, is a
/// chunk that is expected to be similar. Deltas of numbers need a base of the same length; one of
/// another length is only of use to [`Element::Bytes`]. The base is used only where that is smaller, judged on
/// a sample. The result is never longer than `raw.len() + 16`.
pub fn encode(
    raw: &[u8],
    element: Element,
    base: Option<&[u8]>,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Against {
    let _ = (element, base, scratch);
    out.extend_from_slice(raw);
    Against::Nothing
}

/// Decodes a chunk of exactly `out.len()` bytes.
///
/// # Errors
/// [`DecodeError`]; `out` then holds garbage.
pub fn decode(
    encoded: &[u8],
    base: Option<&[u8]>,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Result<(), DecodeError> {
    let _ = (base, scratch);
    if encoded.len() != out.len() {
        return Err(DecodeError::Malformed("length"));
    }
    out.copy_from_slice(encoded);
    Ok(())
}
