//! Base64 that is checked while its message is still coming in.

use super::bytes::decode_into;
use super::json::BULK_KEYS;
use crate::sys::memory;
use std::ops::Range;

/// Bytes that are decoded at a time, and the length of their text.
const PIECE: usize = 24 * 1024;
const PIECE_TEXT: usize = PIECE / 3 * 4;

/// How far into a message its long string begins at most.
const HEAD: usize = 8 * 1024;

/// A part of a message that looks like the value of `dataBase64` or `chunk`, of which some was found to be base64.
///
/// What it says is true of the bytes, whatever the message turns out to be: they are letters of the alphabet in whole
/// groups of four, without padding.
#[derive(Debug, Default)]
pub struct Base64Run {
    start: usize,
    end: usize,
    room: Vec<u8>,
}

impl Base64Run {
    /// The run that seems to begin in the message that `text` is the beginning of.
    pub fn find(text: &[u8]) -> Option<Base64Run> {
        let head = &text[..text.len().min(HEAD)];
        let mut at = 0;
        while let Some(quote) = memory::find(b'"', &head[at..]) {
            at += quote + 1;
            let value = BULK_KEYS.iter().find_map(|key| {
                let rest = head[at..].strip_prefix(key.as_bytes())?;
                rest.strip_prefix(b"\":\"").map(|rest| head.len() - rest.len())
            });
            if let Some(start) = value {
                return Some(Base64Run {
                    start,
                    end: start,
                    room: vec![0; PIECE],
                });
            }
        }
        None
    }

    /// Goes on with more of the same message. False once it goes no further.
    pub fn extend(&mut self, text: &[u8]) -> bool {
        while let Some(piece) = text.get(self.end..self.end + PIECE_TEXT) {
            // Padding, and any other byte, is found by what it decodes to.
            if decode_into(piece, &mut self.room) != Ok(PIECE) {
                return false;
            }
            self.end += PIECE_TEXT;
        }
        true
    }

    /// Where it lies in the message.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_before_the_first_piece_that_is_no_base64() {
        let head = r#"{"id":1,"params":{"path":"/dataBase64","chunk" :"","dataBase64":""#;
        for good in [0, 1, 3] {
            for bad in ["=", "\"", "\n", "\\", "é"] {
                let mut text = head.to_owned() + &"A".repeat(good * PIECE_TEXT + 8) + bad;
                text.push_str(&"A".repeat(2 * PIECE_TEXT));
                for step in [1000, PIECE_TEXT, text.len()] {
                    let mut run = Base64Run::find(&text.as_bytes()[..head.len() + 5]).unwrap();
                    assert_eq!(run.range(), head.len()..head.len());
                    let mut goes_on = true;
                    for end in (0..text.len()).step_by(step).chain([text.len()]) {
                        goes_on &= run.extend(&text.as_bytes()[..end]);
                    }
                    assert!(!goes_on);
                    assert_eq!(run.range(), head.len()..head.len() + good * PIECE_TEXT);
                }
            }
        }
        let padded = head.to_owned() + &"A".repeat(PIECE_TEXT - 1) + "=" + &"A".repeat(PIECE_TEXT);
        let mut run = Base64Run::find(padded.as_bytes()).unwrap();
        assert!(!run.extend(padded.as_bytes()) && run.range().is_empty());
    }

    #[test]
    fn nothing_is_found_where_no_known_key_has_a_string() {
        for text in [
            "",
            "\"",
            "\"chunk\":",
            "\"chunk\":5",
            "\"data\":\"x",
            "\"chunks\":\"x",
            r#"{"a":"chunk:"}"#,
        ] {
            assert!(Base64Run::find(text.as_bytes()).is_none(), "{text}");
        }
        let late = " ".repeat(HEAD) + "\"chunk\":\"";
        assert!(Base64Run::find(late.as_bytes()).is_none());
    }
}
