//! Patterns of paths.
//!
//! `**` as a whole part is any number of directories, and at the end of a pattern everything below; `*` any number of
//! characters of a name, a leading dot too; `?` one character; `[a-z]` one of several and `[!a-z]` any but those;
//! `{a,b}` either, slashes included; `\` takes the meaning from what follows. `**` does not go through links,
//! everything else does.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// How many patterns one with braces may stand for.
const MAX_ALTERNATIVES: usize = 256;

/// How many parts a pattern may have, from its first that is no plain name on.
const MAX_PARTS: usize = 64;

/// A pattern without braces.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The plain names it starts with, from what it counts from or from `/`.
    pub(super) base: PathBuf,
    pub(super) parts: Vec<Part>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Part {
    /// `**`
    Directories,
    Name(OsString),
    Like(Vec<Token>),
}

/// What a part is made of.
#[derive(Debug, PartialEq)]
pub(super) enum Token {
    Many,
    One,
    Char(u32),
    Class { negated: bool, ranges: Vec<(u32, u32)> },
}

impl Pattern {
    /// The patterns that `text` stands for, more than one if there are braces in it.
    pub(super) fn parse(text: &str) -> Result<Vec<Self>, &'static str> {
        let mut patterns = Vec::new();
        let mut waiting = vec![text.to_owned()];
        let mut seen = 1;
        while let Some(text) = waiting.pop() {
            let Some(alternatives) = split_braces(&text)? else {
                patterns.push(Self::parse_one(&text)?);
                continue;
            };
            seen += alternatives.len();
            if seen > MAX_ALTERNATIVES {
                return Err("it has too many alternatives");
            }
            waiting.extend(alternatives);
        }
        Ok(patterns)
    }

    fn parse_one(text: &str) -> Result<Self, &'static str> {
        let mut pattern = Self {
            base: PathBuf::from(if text.starts_with('/') { "/" } else { "" }),
            parts: Vec::new(),
        };
        for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
            let part = match part {
                ".." => {
                    match pattern.parts.pop() {
                        None => pattern.base.push(".."),
                        Some(Part::Name(_)) => {}
                        Some(_) => return Err("`..` follows a wildcard"),
                    }
                    continue;
                }
                "**" => Part::Directories,
                _ => parse_part(part)?,
            };
            match part {
                Part::Name(name) if pattern.parts.is_empty() => pattern.base.push(name),
                Part::Directories if pattern.parts.last() == Some(&Part::Directories) => {}
                part => pattern.parts.push(part),
            }
        }
        match pattern.parts.len() > MAX_PARTS {
            true => Err("it has too many parts"),
            false => Ok(pattern),
        }
    }
}

/// What `text` stands for by its first pair of braces, if it has one.
fn split_braces(text: &str) -> Result<Option<Vec<String>>, &'static str> {
    let bytes = text.as_bytes();
    // Where the alternatives start, and one past the last.
    let mut starts = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'[' => at += class_length(&bytes[at + 1..]).ok_or("a `[` is not closed")?,
            b'{' => {
                depth += 1;
                if depth == 1 {
                    starts.push(at + 1);
                }
            }
            b',' if depth == 1 => starts.push(at + 1),
            b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    starts.push(at + 1);
                    let (before, after) = (&text[..starts[0] - 1], &text[at + 1..]);
                    let alternatives = starts.windows(2).map(|ends| &text[ends[0]..ends[1] - 1]);
                    return Ok(Some(alternatives.map(|one| [before, one, after].concat()).collect()));
                }
            }
            _ => {}
        }
        at += 1;
    }
    match depth {
        0 => Ok(None),
        _ => Err("a `{` is not closed"),
    }
}

/// How long a class is that starts with `bytes`, its `]` included.
fn class_length(bytes: &[u8]) -> Option<usize> {
    let mut at = usize::from(matches!(bytes.first(), Some(b'!' | b'^')));
    let first = at;
    loop {
        match bytes.get(at)? {
            b']' if at > first => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// A part of a pattern that is not `**`.
fn parse_part(text: &str) -> Result<Part, &'static str> {
    let mut tokens = Vec::new();
    let mut name = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let token = match char {
            '*' if tokens.last() == Some(&Token::Many) => continue,
            '*' => Token::Many,
            '?' => Token::One,
            '[' => {
                let rest = chars.as_str();
                // A slash may have cut it.
                let length = class_length(rest.as_bytes())
                    .filter(|length| *length <= rest.len())
                    .ok_or("a `[` is not closed")?;
                chars = rest[length..].chars();
                parse_class(&rest[..length - 1])?
            }
            '\\' => Token::Char(chars.next().ok_or("it ends in `\\`")?.into()),
            char => Token::Char(char.into()),
        };
        if let Token::Char(char) = token {
            name.extend(char::from_u32(char));
        }
        tokens.push(token);
    }
    Ok(match tokens.iter().all(|token| matches!(token, Token::Char(_))) {
        true => Part::Name(name.into()),
        false => Part::Like(tokens),
    })
}

/// What is between `[` and `]`.
fn parse_class(text: &str) -> Result<Token, &'static str> {
    let inner = text.strip_prefix(['!', '^']);
    let mut ranges = Vec::new();
    let mut chars = inner.unwrap_or(text).chars().peekable();
    while let Some(char) = chars.next() {
        let mut plain = |char| match char {
            '\\' => chars.next().ok_or("a `[` is not closed"),
            char => Ok(char),
        };
        let from = plain(char)?;
        let mut to = from;
        let mut ahead = chars.clone();
        if ahead.next() == Some('-')
            && let Some(last) = ahead.next()
        {
            to = match last {
                '\\' => ahead.next().ok_or("a `[` is not closed")?,
                last => last,
            };
            chars = ahead;
        }
        if from > to {
            return Err("a range is the wrong way round");
        }
        ranges.push((from.into(), to.into()));
    }
    Ok(Token::Class {
        negated: inner.is_some(),
        ranges,
    })
}

impl Token {
    /// Whether it is this one character.
    fn takes(&self, char: u32) -> bool {
        match self {
            Self::Many => false,
            Self::One => true,
            Self::Char(own) => *own == char,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&char)) != *negated
            }
        }
    }
}

/// Whether all of `name` is like `tokens`. Takes at most the length of one times that of the other.
pub(super) fn matches(tokens: &[Token], name: &[u32]) -> bool {
    let (mut token, mut char) = (0, 0);
    // Where to go on when it does not match: after the last `*`, one character later.
    let mut retry = None;
    loop {
        if tokens.get(token) == Some(&Token::Many) {
            token += 1;
            retry = Some((token, char));
            continue;
        }
        match (tokens.get(token), name.get(char)) {
            (None, None) => return true,
            (Some(one), Some(next)) if one.takes(*next) => {
                token += 1;
                char += 1;
                continue;
            }
            (_, None) => return false,
            _ => {}
        }
        let Some((after, from)) = &mut retry else {
            return false;
        };
        *from += 1;
        (token, char) = (*after, *from);
    }
}

/// The characters of a name. A byte that belongs to none is one of its own.
pub(super) fn characters(name: &OsStr, out: &mut Vec<u32>) {
    out.clear();
    for chunk in name.as_bytes().utf8_chunks() {
        out.extend(chunk.valid().chars().map(u32::from));
        out.extend(chunk.invalid().iter().map(|byte| 0x11_0000 + u32::from(*byte)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(pattern: &str, name: &str) -> bool {
        let mut name_characters = Vec::new();
        characters(OsStr::new(name), &mut name_characters);
        match parse_part(pattern).unwrap() {
            Part::Like(tokens) => matches(&tokens, &name_characters),
            Part::Name(own) => own == name,
            Part::Directories => unreachable!(),
        }
    }

    #[test]
    fn a_part_matches_a_whole_name() {
        let table: [(&str, &[&str], &[&str]); 14] = [
            ("a", &["a"], &["A", "aa", ""]),
            ("*", &["a", ".env", "ä"], &[]),
            ("*.env", &[".env", "a.env", ".env.env"], &["env", ".envx"]),
            ("a*b*c", &["abc", "aXbXc", "abbcc"], &["abcX", "acb"]),
            ("?", &["a", "ä"], &["", "ab"]),
            ("?*", &["a", "ab"], &[""]),
            ("a**b", &["ab", "axb"], &["a"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x", "[a-c]x"]),
            ("[!a-c]", &["d", "-"], &["a", ""]),
            ("[^a]", &["b"], &["a"]),
            ("[]-]", &["]", "-"], &["a"]),
            ("[a\\]b]", &["]", "a"], &["\\"]),
            ("\\*\\[", &["*["], &["a["]),
            ("[ä-ü]", &["ö"], &["a"]),
        ];
        for (pattern, yes, no) in table {
            for name in yes {
                assert!(like(pattern, name), "{pattern} {name}");
            }
            for name in no {
                assert!(!like(pattern, name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn many_stars_do_not_blow_up() {
        assert!(!like(&format!("{}b", "*a".repeat(300)), &"a".repeat(3000)));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let refusal = |text: &str| Pattern::parse(text).map(|_| ()).unwrap_err();
        for (text, why) in [
            ("a[b", "a `[` is not closed"),
            ("[]", "a `[` is not closed"),
            ("[a/b]", "a `[` is not closed"),
            ("[a\\", "a `[` is not closed"),
            ("{a,b", "a `{` is not closed"),
            ("{a,{b}", "a `{` is not closed"),
            ("[z-a]", "a range is the wrong way round"),
            ("a\\", "it ends in `\\`"),
            ("*/..", "`..` follows a wildcard"),
        ] {
            assert_eq!(refusal(text), why, "{text}");
        }
        assert_eq!(refusal(&"{a,b}".repeat(9)), "it has too many alternatives");
        assert_eq!(refusal(&"*/".repeat(65)), "it has too many parts");
    }
}
