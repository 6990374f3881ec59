//! Base64 in pieces: padded, canonical, standard alphabet.

use crate::protocol::bytes::{DecodeError, DecodeSliceError, decode_into, encoded_len};

/// Bytes handled at a time. A multiple of 3, so that only the last piece is padded; small enough to stay
/// in a core's own cache between being read and being encoded.
pub(super) const PIECE: usize = 48 * 1024;
const PIECE_TEXT: usize = PIECE / 3 * 4;

/// Length of the bytes of a proper text; an upper bound for an improper one.
pub(super) fn decoded_len(text: &[u8]) -> usize {
    let padding = text.iter().rev().take(2).filter(|b| **b == b'=').count();
    text.len().div_ceil(4).saturating_mul(3) - padding.min(text.len())
}

/// Why a failing [`decode`] failed: the text is improper, in Codex's exec-server's words, or the taker
/// of the bytes refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecodeFailure<E> {
    Improper(String),
    Taker(E),
}

/// Hands the bytes of a text to `take`, piece by piece, through one buffer of [`PIECE`] bytes.
pub(super) fn decode<E>(text: &[u8], mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), DecodeFailure<E>> {
    let mut buffer = vec![0; PIECE.min(encoded_len(text.len()))];
    for (index, piece) in text.chunks(PIECE_TEXT).enumerate() {
        let offset = index * PIECE_TEXT;
        let is_last = offset + piece.len() == text.len();
        // The engine would take padding at the end of any piece; elsewhere it finds it itself.
        if !is_last
            && piece.ends_with(b"=")
            && let Some(early) = piece.iter().position(|b| *b == b'=')
        {
            let wrong = match decode_into(&piece[..early / 4 * 4], &mut buffer) {
                Err(DecodeSliceError::DecodeError(error)) => error,
                _ => DecodeError::InvalidByte(early, b'='),
            };
            return Err(DecodeFailure::Improper(describe(&wrong, offset)));
        }
        match decode_into(piece, &mut buffer) {
            Ok(length) => take(&buffer[..length]).map_err(DecodeFailure::Taker)?,
            Err(DecodeSliceError::DecodeError(error)) => {
                return Err(DecodeFailure::Improper(describe(&error, offset)));
            }
            Err(DecodeSliceError::OutputSliceTooSmall) => {
                return Err(DecodeFailure::Improper("Output slice too small".into()));
            }
        }
    }
    Ok(())
}

/// Whether a text is proper; what is wrong with it if not.
pub(super) fn check(text: &[u8]) -> Result<(), String> {
    match decode(text, |_| Ok::<(), std::convert::Infallible>(())) {
        Ok(()) => Ok(()),
        Err(DecodeFailure::Improper(what)) => Err(what),
        Err(DecodeFailure::Taker(never)) => match never {},
    }
}

fn describe(error: &DecodeError, piece_offset: usize) -> String {
    match *error {
        DecodeError::InvalidByte(offset, byte) => {
            format!("Invalid symbol {byte}, offset {}.", piece_offset + offset)
        }
        // Later releases of the base64 crate say this at greater length than the one clients know.
        DecodeError::InvalidLastSymbol { offset, symbol, .. } => {
            format!("Invalid last symbol {symbol}, offset {}.", piece_offset + offset)
        }
        DecodeError::InvalidLength(length) => {
            format!("Invalid input length: {}", piece_offset + length)
        }
        DecodeError::InvalidPadding => "Invalid padding".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        let result = decode(text.as_bytes(), |piece| {
            all.extend_from_slice(piece);
            Ok::<(), ()>(())
        });
        match result {
            Ok(()) => Ok(all),
            Err(DecodeFailure::Improper(what)) => Err(what),
            Err(DecodeFailure::Taker(())) => unreachable!(),
        }
    }

    #[test]
    fn round_trips_around_the_piece_size() {
        for length in [0, 1, 2, 3, 4, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 2] {
            let data: Vec<u8> = (0..length).map(|i| (i * 7 + i / 251) as u8).collect();
            let mut text = b"prefix".to_vec();
            crate::protocol::bytes::append(&data, &mut text);
            let text = String::from_utf8(text.split_off(6)).unwrap();
            assert_eq!(text.len(), encoded_len(length));
            assert_eq!(decoded_len(text.as_bytes()), length);
            assert_eq!(bytes(&text), Ok(data));
        }
    }

    #[test]
    fn improper_texts() {
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
            assert_eq!(bytes(text), Err(what.into()), "{text}");
            assert_eq!(check(text.as_bytes()), Err(what.into()), "{text}");
            // The same at the end of a long text, in a piece of its own or not.
            for before in [PIECE_TEXT, PIECE_TEXT - 4, 2 * PIECE_TEXT + 400] {
                let long = "A".repeat(before) + text;
                let what = match what.split_once("offset ") {
                    Some((head, offset)) => {
                        let offset: usize = offset.trim_end_matches('.').parse().unwrap();
                        format!("{head}offset {}.", offset + before)
                    }
                    None => what.to_owned(),
                };
                assert_eq!(check(long.as_bytes()), Err(what), "{text} after {before}");
            }
        }
    }

    #[test]
    fn padding_within_a_long_text() {
        let text = "A".repeat(PIECE_TEXT - 2) + "==" + "AAAA";
        let wrong = format!("Invalid symbol 61, offset {}.", PIECE_TEXT - 2);
        assert_eq!(check(text.as_bytes()), Err(wrong));
        assert!(check(("YQ==".to_owned() + &"A".repeat(PIECE_TEXT)).as_bytes()).is_err());
    }
}
