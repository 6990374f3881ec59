//! A strict JSON scanner: checks a text from front to back and says where its parts lie,
//! without building a tree.
//!
//! It accepts exactly what `serde_json` accepts for a `Value` and uses its words for what is
//! wrong, so that a text which passes here never fails in a handler for its syntax. On top of
//! that it refuses a key used twice in one object, since two readers of such an object may see
//! two different requests, and it counts values, since a few bytes of text can become many
//! times their size in memory.

mod fault;
mod number;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::bytes::Base64;
use super::message::Limits;
use crate::sys::memory;
use fault::Fault;
pub use fault::JsonError;

/// Objects with up to this many keys are checked for duplicates pair by pair while they are
/// read; the keys of larger ones are sorted when the object ends.
const PAIRWISE: usize = 16;

/// What a value is, as far as its first byte tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A value that has been checked: what it is and the text it was read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'a> {
    pub(crate) kind: Kind,
    pub(crate) raw: &'a [u8],
}

impl<'a> Span<'a> {
    /// The value that is all of `text`, which was checked before.
    pub(crate) fn of_checked(text: &'a [u8]) -> Span<'a> {
        let text = text.trim_ascii();
        let kind = match text.first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        };
        Span { kind, raw: text }
    }
}

/// A string that has been checked.
enum Content<'a> {
    /// What is between the quotes.
    Plain(&'a str),
    /// The string with its quotes and escapes.
    Escaped(&'a [u8]),
}

/// A key of an object that is still being read.
struct Key<'a> {
    text: Cow<'a, str>,
    /// Where the text goes on after the key's closing quote.
    end: usize,
}

/// Reads one JSON text from front to back.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    values: usize,
    limits: Limits,
    /// The keys of all objects that are open, the innermost object's last.
    keys: Vec<Key<'a>>,
    /// A part of the text that is known to be base64, in whole groups without padding.
    base64: Range<usize>,
    bulk: Option<Bulk<'a>>,
}

/// A long string of proper base64 that is the value of one of a few known keys in an object within the outermost one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bulk<'a> {
    /// The key.
    pub key: &'static str,
    /// The string without its quotes.
    pub text: Base64<'a>,
}

/// The members whose values are bytes in base64.
pub(super) const BULK_KEYS: [&str; 2] = ["dataBase64", "chunk"];

/// Shorter strings are not worth the trouble.
const BULK_BYTES: usize = 16 * 1024;

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text`, of which the part `base64` is known to be that, without padding.
    pub(crate) fn new(text: &'a [u8], base64: Range<usize>, limits: Limits) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            values: 0,
            limits,
            keys: Vec::new(),
            base64,
            bulk: None,
        }
    }

    /// The first bulk string that was read.
    pub(crate) fn bulk(&self) -> Option<Bulk<'a>> {
        self.bulk
    }

    /// The first byte that is not white space, which is not consumed.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                _ => return Some(byte),
            }
        }
        None
    }

    /// Reads one value of any kind.
    pub(crate) fn value(&mut self) -> Result<Span<'a>, JsonError> {
        let first = self.peek();
        let start = self.at;
        let kind = match first {
            None => return Err(self.error_ahead(Fault::EofInValue)),
            Some(b'{') => {
                self.object(&mut |_, _| ())?;
                Kind::Object
            }
            Some(b'[') => {
                self.array(&mut |_| ())?;
                Kind::Array
            }
            Some(b'"') => {
                self.string()?;
                self.count()?;
                Kind::String
            }
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                self.count()?;
                Kind::Number
            }
            Some(b't') => self.ident(b"true", Kind::Bool)?,
            Some(b'f') => self.ident(b"false", Kind::Bool)?,
            Some(b'n') => self.ident(b"null", Kind::Null)?,
            Some(_) => return Err(self.error_ahead(Fault::ExpectedValue)),
        };
        Ok(Span {
            kind,
            raw: &self.text[start..self.at],
        })
    }

    /// Reads an object, of which the opening brace is next, and reports its members in order.
    pub(crate) fn object(&mut self, member: &mut dyn FnMut(&Cow<'a, str>, Span<'a>)) -> Result<(), JsonError> {
        self.open()?;
        let first_key = self.keys.len();
        loop {
            match self.peek() {
                None => return Err(self.error_ahead(Fault::EofInObject)),
                Some(b'}') => break,
                Some(b',') if self.keys.len() > first_key => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"') => {}
                        Some(b'}') => return Err(self.error_ahead(Fault::TrailingComma)),
                        Some(_) => return Err(self.error_ahead(Fault::KeyMustBeAString)),
                        None => return Err(self.error_ahead(Fault::EofInValue)),
                    }
                }
                Some(_) if self.keys.len() > first_key => {
                    return Err(self.error_ahead(Fault::ExpectedObjectCommaOrEnd));
                }
                Some(b'"') => {}
                Some(_) => return Err(self.error_ahead(Fault::KeyMustBeAString)),
            }
            let key = self.key(first_key)?;
            match self.peek() {
                None => return Err(self.error_ahead(Fault::EofInObject)),
                Some(b':') => self.at += 1,
                Some(_) => return Err(self.error_ahead(Fault::ExpectedColon)),
            }
            let value = match self.bulk_value(key) {
                Some(bulk) => bulk,
                None => self.value()?,
            };
            member(&self.keys[key].text, value);
        }
        self.at += 1;
        self.depth -= 1;
        if self.keys.len() - first_key > PAIRWISE {
            self.check_many_keys(first_key)?;
        }
        self.keys.truncate(first_key);
        Ok(())
    }

    /// Reads the value of that key if it is the first bulk string. To check that it is base64 takes less time than to look
    /// for escapes and control characters, of which there are none then.
    fn bulk_value(&mut self, key: usize) -> Option<Span<'a>> {
        if self.depth != 2 || self.bulk.is_some() || self.text.len() - self.at < BULK_BYTES {
            return None;
        }
        let key = BULK_KEYS.into_iter().find(|name| *name == self.keys[key].text)?;
        if self.peek() != Some(b'"') || self.values >= self.limits.max_values {
            return None;
        }
        let start = self.at + 1;
        let known = if self.base64.start == start {
            self.base64.end
        } else {
            start
        };
        let rest = self.text.get(known..)?;
        let end = known + memory::find(b'"', rest)?;
        if end - start < BULK_BYTES {
            return None;
        }
        Base64::check(&self.text[known..end])?;
        let text = Base64::checked(&self.text[start..end]);
        self.bulk = Some(Bulk { key, text });
        self.values += 1;
        self.at = end + 1;
        Some(Span {
            kind: Kind::String,
            raw: &self.text[start - 1..self.at],
        })
    }

    /// Checks that nothing but white space is left.
    pub(crate) fn finish(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error_ahead(Fault::TrailingCharacters)),
        }
    }

    /// Reads an array, of which the opening bracket is next, and reports its items in order.
    pub(crate) fn array(&mut self, item: &mut dyn FnMut(Span<'a>)) -> Result<(), JsonError> {
        self.open()?;
        let mut first = true;
        loop {
            match self.peek() {
                None => return Err(self.error_ahead(Fault::EofInList)),
                Some(b']') => break,
                Some(_) if first => first = false,
                Some(b',') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b']') => return Err(self.error_ahead(Fault::TrailingComma)),
                        Some(_) => {}
                        None => return Err(self.error_ahead(Fault::EofInValue)),
                    }
                }
                Some(_) => return Err(self.error_ahead(Fault::ExpectedListCommaOrEnd)),
            }
            item(self.value()?);
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Goes past the opening bracket of an array or an object.
    fn open(&mut self) -> Result<(), JsonError> {
        if self.depth >= usize::from(self.limits.max_depth) {
            return Err(self.error_ahead(Fault::TooDeep));
        }
        self.depth += 1;
        self.at += 1;
        self.count()
    }

    /// Counts the value that has just been read or opened.
    fn count(&mut self) -> Result<(), JsonError> {
        self.values += 1;
        if self.values > self.limits.max_values {
            return Err(self.error_here(Fault::TooManyValues(self.limits.max_values)));
        }
        Ok(())
    }

    /// Reads a key and returns its place in `keys`.
    fn key(&mut self, first_key: usize) -> Result<usize, JsonError> {
        let text = match self.string()? {
            Content::Plain(text) => Cow::Borrowed(text),
            Content::Escaped(raw) => Cow::Owned(self.unescape(raw)?),
        };
        let siblings = &self.keys[first_key..];
        if siblings.len() < PAIRWISE && siblings.iter().any(|key| key.text == text) {
            return Err(self.error_here(Fault::duplicate(&text)));
        }
        if self.keys.capacity() == 0 {
            self.keys.reserve(PAIRWISE);
        }
        self.keys.push(Key { text, end: self.at });
        Ok(self.keys.len() - 1)
    }

    /// Looks for a duplicate among the keys from `first_key` on. They come out sorted, which
    /// does not matter at the end of their object.
    fn check_many_keys(&mut self, first_key: usize) -> Result<(), JsonError> {
        let keys = &mut self.keys[first_key..];
        keys.sort_unstable_by(|a, b| {
            let a_key = (a.text.len(), a.text.as_bytes());
            a_key.cmp(&(b.text.len(), b.text.as_bytes())).then(a.end.cmp(&b.end))
        });
        let repeated = keys
            .windows(2)
            .filter(|pair| pair[0].text == pair[1].text)
            .map(|pair| &pair[1])
            .min_by_key(|key| key.end);
        match repeated {
            None => Ok(()),
            Some(key) => Err(JsonError::new(self.text, key.end, Fault::duplicate(&key.text))),
        }
    }

    /// Reads `word`, whose first byte has been seen.
    fn ident(&mut self, word: &[u8], kind: Kind) -> Result<Kind, JsonError> {
        for &expected in word {
            match self.text.get(self.at) {
                None => return Err(self.error_here(Fault::EofInValue)),
                Some(&byte) => {
                    self.at += 1;
                    if byte != expected {
                        return Err(self.error_here(Fault::ExpectedIdent));
                    }
                }
            }
        }
        self.count()?;
        Ok(kind)
    }

    /// Reads a string, of which the opening quote is next.
    fn string(&mut self) -> Result<Content<'a>, JsonError> {
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = &self.text[self.at..];
            self.at += plain_run(rest);
            match self.text.get(self.at) {
                None => return Err(self.error_here(Fault::EofInString)),
                Some(b'"') => {
                    self.at += 1;
                    let raw = &self.text[start..self.at];
                    let text = std::str::from_utf8(raw).map_err(|error| {
                        JsonError::new(self.text, start + error.valid_up_to() + 1, Fault::InvalidUnicode)
                    })?;
                    return Ok(match escaped {
                        true => Content::Escaped(raw),
                        false => Content::Plain(&text[1..text.len() - 1]),
                    });
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                    escaped = true;
                }
                Some(_) => {
                    self.at += 1;
                    return Err(self.error_here(Fault::ControlCharacter));
                }
            }
        }
    }

    /// Reads an escape after its backslash.
    fn escape(&mut self) -> Result<(), JsonError> {
        match self.byte_of_string()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => return Ok(()),
            b'u' => {}
            _ => return Err(self.error_here(Fault::InvalidEscape)),
        }
        match self.hex4()? {
            0xDC00..=0xDFFF => return Err(self.error_here(Fault::LoneSurrogate)),
            0xD800..=0xDBFF => {}
            _ => return Ok(()),
        }
        for expected in [b'\\', b'u'] {
            if self.byte_of_string()? != expected {
                return Err(self.error_here(Fault::EndOfHexEscape));
            }
        }
        match self.hex4()? {
            0xDC00..=0xDFFF => Ok(()),
            _ => Err(self.error_here(Fault::LoneSurrogate)),
        }
    }

    fn byte_of_string(&mut self) -> Result<u8, JsonError> {
        match self.text.get(self.at) {
            None => Err(self.error_here(Fault::EofInString)),
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
        }
    }

    fn hex4(&mut self) -> Result<u16, JsonError> {
        let bytes = self.text;
        let Some(digits) = bytes.get(self.at..self.at + 4) else {
            self.at = bytes.len();
            return Err(self.error_here(Fault::EofInString));
        };
        self.at += 4;
        digits
            .iter()
            .try_fold(0, |number, &digit| {
                Some(number << 4 | char::from(digit).to_digit(16)? as u16)
            })
            .ok_or_else(|| self.error_here(Fault::InvalidEscape))
    }

    fn unescape(&self, raw: &[u8]) -> Result<String, JsonError> {
        // The scanner has accepted the string, and accepts no more than serde_json does.
        serde_json::from_slice(raw).map_err(|_| self.error_here(Fault::InvalidEscape))
    }

    /// An error about the bytes before this place.
    #[cold]
    fn error_here(&self, fault: Fault) -> JsonError {
        JsonError::new(self.text, self.at, fault)
    }

    /// An error about the next byte.
    #[cold]
    fn error_ahead(&self, fault: Fault) -> JsonError {
        let end = self.text.len().min(self.at + 1);
        JsonError::new(self.text, end, fault)
    }
}

impl fmt::Debug for Scanner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanner").field("at", &self.at).finish()
    }
}

/// How many bytes of a string's content come before the next quote, backslash or control
/// character. Looks at eight bytes at a time.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (i, chunk) in chunks.iter().enumerate() {
        let eight = u64::from_le_bytes(*chunk);
        // The high bit of a byte of `x - ONES & !x` is set for the lowest byte that is zero
        // (above it there may be false ones), and likewise for bytes less than 0x20.
        let quote = eight ^ (ONES * b'"' as u64);
        let backslash = eight ^ (ONES * b'\\' as u64);
        let found = (eight.wrapping_sub(ONES * 0x20) & !eight)
            | (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash);
        if found & HIGH != 0 {
            return i * 8 + (found & HIGH).trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    chunks.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}
