//! Bytes in JSON: base64 with the standard alphabet, padded, strict.

use base64::engine::{Engine, GeneralPurposeConfig};
use std::sync::LazyLock;

pub use base64::{DecodeError, DecodeSliceError};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
type Fastest = base64::engine::Simd;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Fastest = base64::engine::GeneralPurpose;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn fastest() -> Fastest {
    Fastest::standard(GeneralPurposeConfig::new())
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn fastest() -> Fastest {
    Fastest::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new())
}

static ENGINE: LazyLock<Fastest> = LazyLock::new(fastest);

/// Bytes as a client has sent them.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// In base64, which may be wrong.
    Base64(&'a [u8]),
    /// As they are.
    Plain(&'a [u8]),
}

impl Content<'_> {
    /// The bytes.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn to_vec(self) -> Result<Vec<u8>, DecodeError> {
        match self {
            Content::Base64(text) => decode(text),
            Content::Plain(bytes) => Ok(bytes.to_vec()),
        }
    }
}

/// The length of the text for `len` bytes.
pub const fn encoded_len(len: usize) -> usize {
    len.div_ceil(3).saturating_mul(4)
}

/// Writes the text for `bytes` into `room`, which must have [`encoded_len`] bytes.
///
/// # Panics
/// If `room` is too small.
pub fn encode_into(bytes: &[u8], room: &mut [u8]) {
    let written = ENGINE.encode_slice(bytes, room);
    assert!(written.is_ok(), "no room for base64");
}

/// Appends the text for `bytes` to `out`.
pub fn append(bytes: &[u8], out: &mut Vec<u8>) {
    // Through a small buffer in the fastest cache: to make room in `out` it would have to be filled with something first.
    const PIECE: usize = 6 * 1024;
    let mut text = [0; encoded_len(PIECE)];
    for piece in bytes.chunks(PIECE) {
        let text = &mut text[..encoded_len(piece.len())];
        encode_into(piece, text);
        out.extend_from_slice(text);
    }
}

/// The bytes that `text` stands for.
///
/// # Errors
/// What is wrong and where: an alien character, missing padding, bits that no encoder would have set.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    ENGINE.decode(text)
}

/// The same into `room`; returns how many bytes they are.
///
/// # Errors
/// As [`decode`], or that there is no room.
pub fn decode_into(text: &[u8], room: &mut [u8]) -> Result<usize, DecodeSliceError> {
    ENGINE.decode_slice(text, room)
}
