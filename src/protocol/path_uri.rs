//! Paths on the wire: `file:` URIs, percent-encoded.
//!
//! [`parse`] takes what Codex's exec-server takes, which reads a URI as browsers do (the WHATWG URL
//! standard): `.` and `..` go away before any link is looked at, an escape may name any byte, a broken
//! escape stands for itself. It also takes a plain absolute path, which that server refuses. Whatever
//! comes out is absolute and has neither `.` nor `..` in it, nor a slash at its end.

use super::decode::{Decode, DecodeError};
use super::json::Span;
use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The class of answer a refused path gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathUriErrorKind {
    /// The text is no path URI at all: JSON-RPC -32602.
    InvalidParams,
    /// A proper path URI, but of another host or operating system: JSON-RPC -32600.
    InvalidRequest,
}

/// Why a text is not a path of this system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PathUriError {
    /// Which class of answer it gets.
    pub kind: PathUriErrorKind,
    /// The text of the answer, as Codex's exec-server words it.
    pub message: String,
}

impl PathUriError {
    fn params(message: impl Into<String>) -> Self {
        Self {
            kind: PathUriErrorKind::InvalidParams,
            message: message.into(),
        }
    }

    fn not_here(kind: PathUriErrorKind, uri: &str) -> Self {
        Self {
            kind,
            message: format!("'{uri}' is invalid on 'linux'"),
        }
    }
}

/// An absolute path that is a `file:` URI on the wire.
///
/// Reading it goes through [`parse`] (the error's text is the [`PathUriError`]'s), writing it through
/// [`format`](fn@format).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathUri(pub PathBuf);

impl Serialize for PathUri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(&self.0))
    }
}

impl<'de> Deserialize<'de> for PathUri {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).map_err(de::Error::custom)
    }
}

impl Decode<'_> for PathUri {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        Ok(Self(parse(&Cow::decode(value)?)?))
    }
}

impl From<PathUriError> for DecodeError {
    fn from(error: PathUriError) -> DecodeError {
        DecodeError::new(error.message)
    }
}

/// A path in the params of a request.
///
/// A text that is no path URI cannot be decoded. One that names a path of another host or system is
/// kept until [`native`](Self::native) is asked for, because it gets another class of answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath(Result<PathBuf, PathUriError>);

impl RequestPath {
    /// The path on this system.
    ///
    /// # Errors
    /// [`PathUriErrorKind::InvalidRequest`] when it belongs to another host or operating system.
    pub fn native(&self) -> Result<&Path, PathUriError> {
        self.0.as_deref().map_err(Clone::clone)
    }
}

impl From<PathBuf> for RequestPath {
    fn from(path: PathBuf) -> Self {
        Self(Ok(path))
    }
}

impl Serialize for RequestPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(path) => serializer.serialize_str(&format(path)),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

impl Decode<'_> for RequestPath {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        match parse(&Cow::decode(value)?) {
            Err(error) if error.kind == PathUriErrorKind::InvalidParams => Err(error.into()),
            other => Ok(Self(other)),
        }
    }
}

/// Reads a path URI, or a plain absolute path, which is taken as it is but for its `.` and `..`.
///
/// # Errors
/// See [`PathUriErrorKind`]; a NUL byte is refused in either form.
pub fn parse(text: &str) -> Result<PathBuf, PathUriError> {
    if text.starts_with('/') {
        if text.contains('\0') {
            return Err(PathUriError::not_here(PathUriErrorKind::InvalidParams, text));
        }
        return Ok(without_dots(text.as_bytes()));
    }
    // Nearly all are like that: nothing in them means anything to a URL parser.
    if let Some(path) = text.strip_prefix("file://")
        && is_tidy(path.as_bytes())
        && path.bytes().all(is_plain)
    {
        return Ok(path.into());
    }
    // What a URL parser ignores: controls and spaces around it, tabs and line ends anywhere.
    let text = text.trim_matches(|c| c <= ' ');
    let ignored = ['\t', '\n', '\r'];
    let uri = match text.contains(ignored) {
        false => Cow::Borrowed(text),
        true => text.replace(ignored, "").into(),
    };
    let Some(rest) = after_scheme(&uri)? else {
        return Err(PathUriError::params("invalid URI: relative URL without a base"));
    };
    let hierarchy = rest.find(['?', '#']).map_or(rest, |end| &rest[..end]);
    let is_slash = |c: char| matches!(c, '/' | '\\');
    let (host, path) = match hierarchy
        .strip_prefix(is_slash)
        .and_then(|rest| rest.strip_prefix(is_slash))
    {
        Some(rest) => rest.split_at(rest.find(is_slash).unwrap_or(rest.len())),
        None => ("", hierarchy),
    };
    // A drive where the host should be is the start of the path.
    let foreign_host = is_drive(host.as_bytes()) || is_foreign(host)?;
    match rest[hierarchy.len()..].chars().next() {
        Some('?') => {
            return Err(PathUriError::params("query parameters are not allowed in path URIs"));
        }
        Some('#') => {
            return Err(PathUriError::params("fragments are not allowed in path URIs"));
        }
        _ => {}
    }
    if foreign_host {
        return Err(PathUriError::not_here(PathUriErrorKind::InvalidRequest, text));
    }
    let segments = segments(path.strip_prefix(is_slash).unwrap_or(path));
    if segments.first().is_some_and(|s| is_drive(s.as_bytes())) {
        return Err(PathUriError::not_here(PathUriErrorKind::InvalidRequest, text));
    }
    let mut native = Vec::with_capacity(path.len() + 1);
    for segment in &segments {
        native.push(b'/');
        decode_into(segment, &mut native);
    }
    if native.contains(&0) {
        // `/%00/bad/path/<base64>` is how Codex spells a path that has no URI form.
        let kind = if segments.starts_with(&["%00", "bad", "path"]) {
            PathUriErrorKind::InvalidRequest
        } else {
            PathUriErrorKind::InvalidParams
        };
        return Err(PathUriError::not_here(kind, text));
    }
    Ok(without_dots(&native))
}

/// Writes an absolute path as a path URI.
///
/// Escaped, with upper-case digits, are controls, space, ``"#%<>?\`{}`` and every byte that is not
/// ASCII, as Codex's exec-server does it; moreover the second character of a first component like `C:`,
/// which would otherwise be read back as a drive of another system.
pub fn format(path: &Path) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = path.as_os_str().as_bytes();
    let mut uri = String::with_capacity("file://".len() + bytes.len() + 1);
    uri.push_str("file://");
    let relative = bytes.strip_prefix(b"/").unwrap_or(bytes);
    uri.push('/');
    let first = relative.split(|b| *b == b'/').next().unwrap_or_default();
    let drive_mark = is_drive(first).then_some(1);
    for (index, &byte) in relative.iter().enumerate() {
        let escaped = matches!(
            byte,
            0..=b' '
                | b'"'
                | b'#'
                | b'%'
                | b'<'
                | b'>'
                | b'?'
                | b'\\'
                | b'`'
                | b'{'
                | b'}'
                | 0x7f..
        ) || drive_mark == Some(index);
        if escaped {
            uri.push('%');
            uri.push(char::from(DIGITS[usize::from(byte >> 4)]));
            uri.push(char::from(DIGITS[usize::from(byte & 15)]));
        } else {
            uri.push(char::from(byte));
        }
    }
    uri
}

/// Whether a byte of a URI's path stands for itself and for nothing else.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~' | b'+' | b',' | b'=' | b'@')
}

/// What follows `file:`, or `None` when there is no scheme.
fn after_scheme(uri: &str) -> Result<Option<&str>, PathUriError> {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return Ok(None);
    };
    let mut characters = scheme.chars();
    let proper = characters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !proper {
        return Ok(None);
    }
    let scheme = scheme.to_ascii_lowercase();
    if scheme == "file" {
        Ok(Some(rest))
    } else {
        Err(PathUriError::params(format!("unsupported path URI scheme `{scheme}`")))
    }
}

/// Whether the host of a URI is another one than this.
fn is_foreign(host: &str) -> Result<bool, PathUriError> {
    let mut name = Vec::new();
    decode_into(host, &mut name);
    let is_address = name.first() == Some(&b'[') && name.last() == Some(&b']');
    let forbidden = |byte: &u8| matches!(byte, 0..=b' ' | 0x7f) || b"#%/:<>?@[\\]^|".contains(byte);
    if !is_address && name.iter().any(forbidden) {
        return Err(PathUriError::params("invalid URI: invalid international domain name"));
    }
    Ok(!name.is_empty() && !name.eq_ignore_ascii_case(b"localhost"))
}

/// The still encoded components of a URI's path, `.` and `..` worked off.
fn segments(path: &str) -> Vec<&str> {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split(['/', '\\']) {
        match dots(segment) {
            1 => {}
            2 => {
                let on_drive = kept.len() == 1 && is_drive(kept[0].as_bytes());
                if !on_drive {
                    kept.pop();
                }
            }
            _ => kept.push(segment),
        }
    }
    kept
}

/// 1 for `.`, 2 for `..`, however spelled; 0 for anything else.
fn dots(segment: &str) -> usize {
    if segment.len() > "%2e%2e".len() {
        return 0;
    }
    match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
        "." => 1,
        ".." => 2,
        _ => 0,
    }
}

fn is_drive(segment: &[u8]) -> bool {
    matches!(segment, [letter, b':' | b'|'] if letter.is_ascii_alphabetic())
}

fn decode_into(text: &str, out: &mut Vec<u8>) {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let mut bytes = text.as_bytes();
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        if byte == b'%'
            && let (Some(high), Some(low)) = (digit(rest.first()), digit(rest.get(1)))
        {
            out.push((high * 16 + low) as u8);
            bytes = &rest[2..];
        } else {
            out.push(byte);
        }
    }
}

/// Whether an absolute path certainly has no `.`, `..` or superfluous slashes.
fn is_tidy(path: &[u8]) -> bool {
    let is_suspect = |pair: &[u8]| pair[0] == b'/' && matches!(pair[1], b'/' | b'.');
    path.first() == Some(&b'/') && (path == b"/" || path.last() != Some(&b'/')) && !path.windows(2).any(is_suspect)
}

/// The path with `.`, `..` and superfluous slashes taken out, by its text alone.
fn without_dots(path: &[u8]) -> PathBuf {
    if is_tidy(path) {
        return OsString::from_vec(path.to_vec()).into();
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let mut native = Vec::with_capacity(path.len().max(1));
    for component in kept {
        native.push(b'/');
        native.extend_from_slice(component);
    }
    if native.is_empty() {
        native.push(b'/');
    }
    PathBuf::from(OsString::from_vec(native))
}

#[cfg(test)]
mod tests {
    use super::super::decode::decode;
    use super::*;
    use std::ffi::OsStr;

    fn native(bytes: &[u8]) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(bytes))
    }

    #[test]
    fn accepted() {
        let table: &[(&str, &[u8])] = &[
            ("file:///srv/a.txt", b"/srv/a.txt"),
            ("file:/srv/a.txt", b"/srv/a.txt"),
            ("FILE:///srv/a.txt", b"/srv/a.txt"),
            ("file://localhost/srv/a.txt", b"/srv/a.txt"),
            ("file://LOCALHOST/srv", b"/srv"),
            ("file://", b"/"),
            ("file:", b"/"),
            ("file:///", b"/"),
            ("file:a.txt", b"/a.txt"),
            ("file:///srv/%61.txt", b"/srv/a.txt"),
            ("file:///srv/d/../a.txt", b"/srv/a.txt"),
            ("file:///srv/./a.txt", b"/srv/a.txt"),
            ("file:///srv/d/%2e%2E/a.txt", b"/srv/a.txt"),
            ("file:///srv/d/.%2e/a.txt", b"/srv/a.txt"),
            ("file:///../../a", b"/a"),
            ("file:///srv/..", b"/"),
            ("file:///srv//a.txt", b"/srv/a.txt"),
            ("file:///srv/a//../b", b"/srv/a/b"),
            ("file:///srv/a.txt/", b"/srv/a.txt"),
            ("file:///srv/d%2Fx", b"/srv/d/x"),
            ("file:///srv/d%2F..%2Fx", b"/srv/x"),
            ("file:///srv/bad%FF.txt", b"/srv/bad\xff.txt"),
            ("file:///srv/bad%ff.txt", b"/srv/bad\xff.txt"),
            ("file:///srv/sp ace%25%23%3F", b"/srv/sp ace%#?"),
            ("file:///srv/a.txt%", b"/srv/a.txt%"),
            ("file:///srv/a%zz.txt", b"/srv/a%zz.txt"),
            ("file:///srv/a%4", b"/srv/a%4"),
            ("file:///srv/\u{e9}", b"/srv/\xc3\xa9"),
            ("file:///srv/back%5Cslash", b"/srv/back\\slash"),
            ("file:///srv\\d\\x", b"/srv/d/x"),
            (" file:///srv/a\n", b"/srv/a"),
            ("file:///C%3A/x", b"/C:/x"),
            ("/", b"/"),
            ("/srv/a.txt", b"/srv/a.txt"),
            ("/srv/%61 ?#", b"/srv/%61 ?#"),
            ("/srv/../a/./b//c/", b"/a/b/c"),
            ("//server/share", b"/server/share"),
            ("/..", b"/"),
        ];
        for (text, path) in table {
            assert_eq!(parse(text), Ok(native(path)), "{text}");
        }
    }

    #[test]
    fn refused() {
        use PathUriErrorKind::{InvalidParams, InvalidRequest};
        let no_base = "invalid URI: relative URL without a base";
        let domain = "invalid URI: invalid international domain name";
        let table = [
            ("a.txt", InvalidParams, no_base),
            ("./a.txt", InvalidParams, no_base),
            ("~/x", InvalidParams, no_base),
            ("~", InvalidParams, no_base),
            ("", InvalidParams, no_base),
            ("\\\\server\\share", InvalidParams, no_base),
            ("C:\\a.txt", InvalidParams, "unsupported path URI scheme `c`"),
            ("C:/a.txt", InvalidParams, "unsupported path URI scheme `c`"),
            ("http://x/y", InvalidParams, "unsupported path URI scheme `http`"),
            ("data:,x", InvalidParams, "unsupported path URI scheme `data`"),
            (
                "file:///srv/a?x=1",
                InvalidParams,
                "query parameters are not allowed in path URIs",
            ),
            (
                "file:///srv/a#f",
                InvalidParams,
                "fragments are not allowed in path URIs",
            ),
            (
                "file://C:/srv/a?x=1",
                InvalidParams,
                "query parameters are not allowed in path URIs",
            ),
            (
                "file://C:/srv/a#f",
                InvalidParams,
                "fragments are not allowed in path URIs",
            ),
            ("file://user@localhost/srv/a", InvalidParams, domain),
            ("file://localhost:80/srv/a", InvalidParams, domain),
            (
                "file:///srv/a%00.txt",
                InvalidParams,
                "'file:///srv/a%00.txt' is invalid on 'linux'",
            ),
            (
                "file://otherhost/srv/a",
                InvalidRequest,
                "'file://otherhost/srv/a' is invalid on 'linux'",
            ),
            (
                "file://127.0.0.1/srv/a",
                InvalidRequest,
                "'file://127.0.0.1/srv/a' is invalid on 'linux'",
            ),
            (
                "file://[::1]/srv/a",
                InvalidRequest,
                "'file://[::1]/srv/a' is invalid on 'linux'",
            ),
            (
                "file:///C:/a.txt",
                InvalidRequest,
                "'file:///C:/a.txt' is invalid on 'linux'",
            ),
            (
                "file://C:/a.txt",
                InvalidRequest,
                "'file://C:/a.txt' is invalid on 'linux'",
            ),
            (
                "file:///C:/../a",
                InvalidRequest,
                "'file:///C:/../a' is invalid on 'linux'",
            ),
            (
                "file:///%00/bad/path/L3RtcA",
                InvalidRequest,
                "'file:///%00/bad/path/L3RtcA' is invalid on 'linux'",
            ),
        ];
        for (text, kind, message) in table {
            let error = parse(text).expect_err(text);
            assert_eq!((error.kind, error.message.as_str()), (kind, message));
        }
        assert_eq!(parse("/a\0b").map_err(|e| e.kind), Err(PathUriErrorKind::InvalidParams));
    }

    #[test]
    fn output_encoding() {
        let plain = b"/d/ !\"#$%&'()*+,-.;:<=>?@[\\]^_`{|}~";
        assert_eq!(
            format(&native(plain)),
            "file:///d/%20!%22%23$%25&'()*+,-.;:%3C=%3E%3F@[%5C]^_%60%7B|%7D~"
        );
        assert_eq!(
            format(&native("/u\u{e9}\u{1}\u{7f}".as_bytes())),
            "file:///u%C3%A9%01%7F"
        );
        assert_eq!(format(Path::new("/")), "file:///");
        assert_eq!(format(Path::new("/C:/x")), "file:///C%3A/x");
    }

    #[test]
    fn every_byte_survives_the_round_trip() {
        for byte in 1..=255u8 {
            for shape in [&b"/d/x?y"[..], b"/?", b"/a?", b"/?|/z", b"/d/%?"] {
                let bytes: Vec<u8> = shape.iter().map(|b| if *b == b'?' { byte } else { *b }).collect();
                let path = without_dots(&bytes);
                assert_eq!(parse(&format(&path)), Ok(path.clone()), "{path:?}");
            }
        }
    }

    #[test]
    fn serde_forms() {
        let path: PathUri = serde_json::from_str("\"file:///a%20b\"").unwrap();
        assert_eq!(path, PathUri(PathBuf::from("/a b")));
        assert_eq!(serde_json::to_string(&path).unwrap(), "\"file:///a%20b\"");
        let text = |json| serde_json::from_value::<PathUri>(json).unwrap_err().to_string();
        assert_eq!(text(serde_json::json!("x")), "invalid URI: relative URL without a base");
        assert!(text(serde_json::json!(null)).ends_with("expected a string"));
    }

    #[test]
    fn a_foreign_path_is_kept_until_it_is_used() {
        let foreign: RequestPath = decode(b"\"file://server/x\"").unwrap();
        assert_eq!(foreign.native().unwrap_err().kind, PathUriErrorKind::InvalidRequest);
        assert!(decode::<RequestPath>(b"\"x\"").is_err());
        let own: RequestPath = decode(b"\"file:///x\"").unwrap();
        assert_eq!(own.native(), Ok(Path::new("/x")));
    }
}
