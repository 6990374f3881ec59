//! What can be wrong with a JSON text.

/// How much of a key an error message quotes, in bytes.
const QUOTED_KEY: usize = 200;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at line {line} column {column}")]
pub struct JsonError {
    fault: Fault,
    line: usize,
    column: usize,
}

/// What is wrong with a text; the words are those of `serde_json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("EOF while parsing a list")]
    EofInList,
    #[error("EOF while parsing an object")]
    EofInObject,
    #[error("EOF while parsing a string")]
    EofInString,
    #[error("EOF while parsing a value")]
    EofInValue,
    #[error("expected `:`")]
    ExpectedColon,
    #[error("expected `,` or `]`")]
    ExpectedListCommaOrEnd,
    #[error("expected `,` or `}}`")]
    ExpectedObjectCommaOrEnd,
    #[error("expected ident")]
    ExpectedIdent,
    #[error("expected value")]
    ExpectedValue,
    #[error("invalid escape")]
    InvalidEscape,
    #[error("invalid number")]
    InvalidNumber,
    #[error("number out of range")]
    NumberOutOfRange,
    #[error("invalid unicode code point")]
    InvalidUnicode,
    #[error("control character (\\u0000-\\u001F) found while parsing a string")]
    ControlCharacter,
    #[error("key must be a string")]
    KeyMustBeAString,
    #[error("lone leading surrogate in hex escape")]
    LoneSurrogate,
    #[error("unexpected end of hex escape")]
    EndOfHexEscape,
    #[error("trailing comma")]
    TrailingComma,
    #[error("trailing characters")]
    TrailingCharacters,
    #[error("recursion limit exceeded")]
    TooDeep,
    #[error("duplicate JSON object key `{0}`")]
    DuplicateKey(String),
    #[error("JSON-RPC message exceeds the limit of {0} JSON values")]
    TooManyValues(usize),
}

impl JsonError {
    /// An error about the bytes of `text` before `end`.
    #[cold]
    pub(super) fn new(text: &[u8], end: usize, fault: Fault) -> Self {
        let before = &text[..end.min(text.len())];
        let newlines = before.iter().filter(|&&byte| byte == b'\n').count();
        let start_of_line = before
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |newline| newline + 1);
        Self {
            fault,
            line: newlines + 1,
            column: before.len() - start_of_line,
        }
    }
}

impl Fault {
    /// That `key` was repeated; a long one is not quoted whole.
    pub(super) fn duplicate(key: &str) -> Self {
        if key.len() <= QUOTED_KEY {
            return Self::DuplicateKey(key.to_owned());
        }
        let mut end = QUOTED_KEY;
        while !key.is_char_boundary(end) {
            end -= 1;
        }
        Self::DuplicateKey(format!("{}…", &key[..end]))
    }
}
