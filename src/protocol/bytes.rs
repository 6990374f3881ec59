//! Bytes in JSON: base64 with the standard alphabet, padded, strict.

use base64::engine::{Engine, GeneralPurposeConfig};
use std::io;
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

/// What is wrong with a text, in the words that clients of Codex's exec-server know: later releases of the base64 crate
/// say one of them at greater length.
pub fn describe(error: &DecodeError) -> String {
    match error {
        DecodeError::InvalidLastSymbol { offset, symbol, .. } => {
            format!("Invalid last symbol {symbol}, offset {offset}.")
        }
        error => error.to_string(),
    }
}

/// The same into `room`; returns how many bytes they are.
///
/// # Errors
/// As [`decode`], or that there is no room.
pub fn decode_into(text: &[u8], room: &mut [u8]) -> Result<usize, DecodeSliceError> {
    ENGINE.decode_slice(text, room)
}

/// Bytes that are decoded at a time: a multiple of 3, so that only the last piece is padded, and small enough to stay in
/// a core's fastest caches.
const PIECE: usize = 24 * 1024;
const PIECE_TEXT: usize = encoded_len(PIECE);

/// A text that was checked to be proper base64, so that it can be decoded piece by piece with nothing to go wrong halfway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base64<'a>(&'a [u8]);

impl<'a> Base64<'a> {
    /// The text, if it is proper. This decodes it, which is faster than looking for anything else in it.
    pub fn check(text: &'a [u8]) -> Option<Self> {
        let checked = Base64(text);
        checked.pieces(|_| Ok(())).ok().map(|()| checked)
    }

    /// A text that [`check`](Base64::check) has accepted before.
    pub fn checked(text: &'a [u8]) -> Self {
        Base64(text)
    }

    /// The text.
    pub fn text(self) -> &'a [u8] {
        self.0
    }

    /// How many bytes it stands for.
    pub fn decoded_len(self) -> usize {
        let padding = self.0.iter().rev().take(2).filter(|b| **b == b'=').count();
        (self.0.len() / 4 * 3).saturating_sub(padding)
    }

    /// Hands its bytes to `take`, one piece after another, through one small buffer.
    ///
    /// # Errors
    /// What `take` said; InvalidData for a text that is not proper after all, maybe after some pieces.
    pub fn pieces(self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut room = vec![0; PIECE.min(self.0.len())];
        let mut left = self.0.len().div_ceil(PIECE_TEXT);
        for piece in self.0.chunks(PIECE_TEXT) {
            left -= 1;
            let len = decode_into(piece, &mut room).map_err(|_| io::ErrorKind::InvalidData)?;
            // The engine takes padding at the end of any piece.
            if left > 0 && len < PIECE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            take(&room[..len])?;
        }
        Ok(())
    }

    /// All of its bytes.
    pub fn decode(self) -> Vec<u8> {
        decode(self.0).unwrap_or_default()
    }
}

/// Bytes, or what stands for them.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// In base64.
    Base64(Base64<'a>),
    /// As they are.
    Plain(&'a [u8]),
}

impl Content<'_> {
    /// How many bytes they are.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(self) -> usize {
        match self {
            Content::Base64(text) => text.decoded_len(),
            Content::Plain(bytes) => bytes.len(),
        }
    }

    /// The bytes, in one vector.
    pub fn to_vec(self) -> Vec<u8> {
        match self {
            Content::Base64(text) => text.decode(),
            Content::Plain(bytes) => bytes.to_vec(),
        }
    }

    /// Hands the bytes to `take`, one piece after another.
    ///
    /// # Errors
    /// As [`Base64::pieces`].
    pub fn pieces(self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Content::Base64(text) => text.pieces(take),
            Content::Plain(bytes) => take(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proper_texts_are_decoded_in_pieces() {
        for len in [0, 1, 2, 3, 4, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 2] {
            let data: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
            let mut text = Vec::new();
            append(&data, &mut text);
            let proper = Base64::check(&text).unwrap();
            let mut pieces = Vec::new();
            let keep = |piece: &[u8]| {
                pieces.extend_from_slice(piece);
                Ok(())
            };
            proper.pieces(keep).unwrap();
            assert_eq!((proper.decoded_len(), proper.decode()), (len, pieces.clone()));
            assert_eq!(pieces, data);
            let refused = proper.pieces(|_| Err(io::ErrorKind::StorageFull.into()));
            assert_eq!(refused.is_err(), len > 0);
        }
    }

    #[test]
    fn improper_texts_are_found_wherever_they_lie() {
        let table = [
            ("!!!", "Invalid symbol 33, offset 0."),
            ("!!", "Invalid symbol 33, offset 0."),
            ("aGk", "Invalid padding"),
            ("YQ", "Invalid padding"),
            ("_-8=", "Invalid symbol 95, offset 0."),
            ("aG\nk=", "Invalid symbol 10, offset 2."),
            ("aGl=", "Invalid last symbol 108, offset 2."),
            ("YQ==YQ==", "Invalid symbol 61, offset 2."),
        ];
        for (text, what) in table {
            assert_eq!(describe(&decode(text.as_bytes()).unwrap_err()), what, "{text}");
            for before in [0, PIECE_TEXT - 4, PIECE_TEXT, 2 * PIECE_TEXT + 400] {
                let long = "A".repeat(before) + text;
                assert_eq!(Base64::check(long.as_bytes()), None, "{text} after {before}");
            }
        }
        let padded_within = "A".repeat(PIECE_TEXT - 2) + "==" + "AAAA";
        assert_eq!(Base64::check(padded_within.as_bytes()), None);
        let text_after = "YQ==".to_owned() + &"A".repeat(PIECE_TEXT);
        assert_eq!(Base64::check(text_after.as_bytes()), None);
    }
}
