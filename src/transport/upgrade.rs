//! The client's side of becoming a WebSocket: the address, the request, the answer (RFC 6455, section 4.1).

use crate::sys::random;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::io;
use tungstenite::handshake::derive_accept_key;

/// The longest answer's head in bytes.
pub const MAX_HEAD: usize = 16 * 1024;

/// How much of a refusal's body is shown, in bytes.
const MAX_REASON: usize = 200;

/// Where a WebSocket server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketUrl {
    /// A name or an address, an IPv6 one without its brackets.
    pub host: String,
    /// 80 if the URL has none.
    pub port: u16,
    /// What the `Host` header says.
    authority: String,
    /// Path and query.
    target: String,
}

impl WebSocketUrl {
    /// Reads `ws://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// Why it is none, or none that can be used.
    pub fn parse(url: &str) -> Result<WebSocketUrl, &'static str> {
        if url.starts_with("wss://") {
            return Err("there is no TLS here; use a tunnel and `ws://`");
        }
        let rest = url
            .strip_prefix("ws://")
            .ok_or("the URL does not begin with `ws://`, `unix://` or `vsock://`")?;
        let rest = &rest[..rest.find('#').unwrap_or(rest.len())];
        if rest.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err("the URL has a character that a URL cannot have");
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("the URL has a user name, which would be ignored");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("the URL has a `[` without a `]`")?;
                (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, Some("")),
            },
        };
        let port = match port {
            Some("") if !authority.ends_with(':') => Some(80),
            Some(port) => port.parse().ok(),
            None => None,
        };
        if host.is_empty() {
            return Err("the URL has no host");
        }
        Ok(WebSocketUrl {
            host: host.to_owned(),
            port: port.ok_or("the URL has no proper port")?,
            authority: authority.to_owned(),
            target: if target.starts_with('/') {
                target.to_owned()
            } else {
                format!("/{target}")
            },
        })
    }
}

/// A request to become a WebSocket, and what the answer must have.
pub struct UpgradeRequest {
    /// To be sent.
    pub bytes: Vec<u8>,
    accept: String,
}

/// What is in the bytes that have come so far.
#[derive(Debug, PartialEq, Eq)]
pub enum UpgradeAnswer {
    /// Not all of the answer.
    Incomplete,
    /// The connection is a WebSocket; frames may already follow after that many bytes.
    Upgraded(usize),
    /// What else the server said.
    Refused(String),
}

impl UpgradeRequest {
    /// A request to the server at `url`, with `token` as `Authorization: Bearer`.
    ///
    /// # Errors
    /// A token that cannot be in a header, or no random bytes.
    pub fn new(url: &WebSocketUrl, token: Option<&str>) -> io::Result<UpgradeRequest> {
        let mut key = [0; 16];
        random::fill(&mut key)?;
        let key = BASE64_STANDARD.encode(key);
        let authorization = match token {
            None => String::new(),
            Some(token) if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) => {
                format!("Authorization: Bearer {token}\r\n")
            }
            Some(_) => {
                let text = "the token is empty or has characters that cannot be in a header";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        let bytes = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{authorization}\r\n",
            url.target, url.authority
        );
        Ok(UpgradeRequest {
            bytes: bytes.into_bytes(),
            accept: derive_accept_key(key.as_bytes()),
        })
    }

    /// Judges all the bytes that have come. `ended` says that there will be no more.
    pub fn judge(&self, bytes: &[u8], ended: bool) -> UpgradeAnswer {
        let Some(head_len) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
            return match (ended, bytes.len() > MAX_HEAD) {
                (_, true) => UpgradeAnswer::Refused(format!("the server's answer exceeds {MAX_HEAD} bytes")),
                (true, _) => UpgradeAnswer::Refused("the server closed the connection without an answer".into()),
                _ => UpgradeAnswer::Incomplete,
            };
        };
        let head = String::from_utf8_lossy(&bytes[..head_len]);
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let header = |name: &str| {
            head.split("\r\n").skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let Some(code) = status.strip_prefix("HTTP/1.1 ") else {
            return UpgradeAnswer::Refused("the server does not speak HTTP/1.1".into());
        };
        if !code.starts_with("101") {
            let body = &bytes[head_len..];
            let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
            if !ended && body.len() < length.unwrap_or(0).min(MAX_REASON) {
                return UpgradeAnswer::Incomplete;
            }
            let body = &body[..body.len().min(MAX_REASON)];
            let reason = String::from_utf8_lossy(body);
            let reason = reason.lines().next().unwrap_or_default();
            let colon = if reason.is_empty() { "" } else { ": " };
            return UpgradeAnswer::Refused(format!("the server answered HTTP {}{colon}{reason}", code.trim()));
        }
        let upgrades = header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
        if upgrades && header("sec-websocket-accept") == Some(&self.accept) {
            UpgradeAnswer::Upgraded(head_len)
        } else {
            UpgradeAnswer::Refused("the server's answer to the upgrade is not that of a WebSocket server".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::auth::Authorizer;
    use crate::transport::http;

    fn url(text: &str) -> Result<(String, u16, String), &'static str> {
        WebSocketUrl::parse(text).map(|url| (url.host, url.port, url.target))
    }

    #[test]
    fn addresses() {
        let table = [
            ("ws://127.0.0.1:9400", Ok(("127.0.0.1", 9400, "/"))),
            ("ws://box", Ok(("box", 80, "/"))),
            ("ws://box/a?b#c", Ok(("box", 80, "/a?b"))),
            ("ws://box:1?b", Ok(("box", 1, "/?b"))),
            ("ws://[::1]:8080/", Ok(("::1", 8080, "/"))),
            ("ws://[::1]", Ok(("::1", 80, "/"))),
            ("wss://box", Err("there is no TLS here; use a tunnel and `ws://`")),
            (
                "http://box",
                Err("the URL does not begin with `ws://`, `unix://` or `vsock://`"),
            ),
            ("ws://", Err("the URL has no host")),
            ("ws://:80", Err("the URL has no host")),
            ("ws://box:", Err("the URL has no proper port")),
            ("ws://box:99999", Err("the URL has no proper port")),
            ("ws://[::1]8080", Err("the URL has no proper port")),
            ("ws://[::1", Err("the URL has a `[` without a `]`")),
            ("ws://me@box", Err("the URL has a user name, which would be ignored")),
            ("ws://box/a b", Err("the URL has a character that a URL cannot have")),
        ];
        for (text, expected) in table {
            let expected = expected.map(|(host, port, target): (&str, _, &str)| (host.into(), port, target.into()));
            assert_eq!(url(text), expected, "{text}");
        }
    }

    #[test]
    fn the_server_takes_the_request_and_the_client_the_answer() {
        let url = WebSocketUrl::parse("ws://127.0.0.1:9400").unwrap();
        let request = UpgradeRequest::new(&url, None).unwrap();
        let http::Verdict::Upgrade { accept, head_len, .. } = http::examine(&request.bytes, &Authorizer::None) else {
            panic!("refused")
        };
        assert_eq!(head_len, request.bytes.len());
        let mut answer = http::upgrade_response(&accept);
        let len = answer.len();
        assert_eq!(request.judge(&answer[..len - 1], false), UpgradeAnswer::Incomplete);
        answer.extend_from_slice(b"\x81\x00");
        assert_eq!(request.judge(&answer, false), UpgradeAnswer::Upgraded(len));
        let other = UpgradeRequest::new(&url, Some("token")).unwrap();
        assert!(matches!(other.judge(&answer, false), UpgradeAnswer::Refused(_)));
        assert!(other.bytes.ends_with(b"Authorization: Bearer token\r\n\r\n"));
        for token in ["", "a b", "a\r\nX: y", "\u{e9}"] {
            assert!(UpgradeRequest::new(&url, Some(token)).is_err(), "{token:?}");
        }
    }

    #[test]
    fn refusals_say_what_the_server_said() {
        let url = WebSocketUrl::parse("ws://127.0.0.1:9400").unwrap();
        let request = UpgradeRequest::new(&url, None).unwrap();
        let judge = |bytes: &[u8], ended| match request.judge(bytes, ended) {
            UpgradeAnswer::Refused(reason) => reason,
            other => format!("{other:?}"),
        };
        let answer = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 6\r\n\r\nreason";
        assert_eq!(
            judge(answer, false),
            "the server answered HTTP 401 Unauthorized: reason"
        );
        assert_eq!(judge(&answer[..answer.len() - 1], false), "Incomplete");
        assert_eq!(
            judge(b"HTTP/1.1 403 Forbidden\r\n\r\n", false),
            "the server answered HTTP 403 Forbidden"
        );
        assert_eq!(judge(b"", true), "the server closed the connection without an answer");
        assert_eq!(judge(b"220 mail\r\n\r\n", false), "the server does not speak HTTP/1.1");
        assert_eq!(
            judge(&[b'x'; MAX_HEAD + 1], false),
            "the server's answer exceeds 16384 bytes"
        );
    }
}
