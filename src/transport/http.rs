//! What is answered before a connection becomes a WebSocket: health, refusals, the upgrade.
//!
//! One request per connection, and everything but the upgrade ends it. The rules and texts are
//! those of Codex's exec-server, and stricter where a head could be read in two ways.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tungstenite::handshake::derive_accept_key;

use super::auth::{Authorizer, Identity};

/// The longest head (request line and headers) in bytes. Real ones are well below 1 KiB, or
/// 8 KiB with a large token.
pub const MAX_HEAD: usize = 16 * 1024;

/// The most headers a request may have.
pub const MAX_HEADERS: usize = 64;

/// What to do about the bytes that have come so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Wait for more.
    Incomplete,
    /// Send this whole response and close the connection.
    Respond(Vec<u8>),
    /// Send [`upgrade_response`] and speak WebSocket from here on.
    Upgrade {
        /// The value of `Sec-WebSocket-Accept`.
        accept: String,
        /// Who the client is.
        identity: Identity,
        /// How many bytes the head has; frames may already follow it.
        head_len: usize,
    },
}

/// What the answers depend on that is not the request's.
pub trait Pages {
    /// Whether new clients are welcome, for `/readyz`.
    fn is_ready(&self) -> bool;
    /// Whether there is `/metrics`.
    fn offers_metrics(&self) -> bool;
    /// What it says.
    fn metrics(&self) -> String;
}

/// Of a server about which there is nothing special.
impl Pages for () {
    fn is_ready(&self) -> bool {
        true
    }

    fn offers_metrics(&self) -> bool {
        false
    }

    fn metrics(&self) -> String {
        String::new()
    }
}

/// [`examine_for`] a server about which there is nothing special.
pub fn examine(head: &[u8], auth: &Authorizer) -> Verdict {
    examine_for(head, auth, &())
}

/// Judges all the bytes a new connection has sent so far.
///
/// An `Origin` header is refused before anything else, health checks included: only browsers
/// send it, and no web page may talk to this server.
pub fn examine_for(head: &[u8], auth: &Authorizer, pages: &dyn Pages) -> Verdict {
    examine_at(head, auth, pages, SystemTime::now())
}

/// The response that makes the connection a WebSocket; extensions and protocols are not
/// offered.
pub fn upgrade_response(accept: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Connection: Upgrade\r\n\
         Upgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// A whole response that turns a client away, and says why.
pub fn refusal(status: &'static str, text: &str) -> Vec<u8> {
    Response::text(status, text).write(true)
}

fn examine_at(bytes: &[u8], auth: &Authorizer, pages: &dyn Pages, now: SystemTime) -> Verdict {
    let head_len = match head_length(bytes) {
        Ok(Some(length)) => length,
        Ok(None) => return Verdict::Incomplete,
        Err(response) => return Verdict::Respond(response.write(true)),
    };
    let request = match Request::parse(&bytes[..head_len]) {
        Ok(request) => request,
        Err(response) => return Verdict::Respond(response.write(true)),
    };
    match answer(&request, auth, pages, now) {
        Ok((accept, identity)) => Verdict::Upgrade {
            accept,
            identity,
            head_len,
        },
        Err(response) => Verdict::Respond(response.write(request.method != "HEAD")),
    }
}

/// The value of `Sec-WebSocket-Accept` and who is let in, or what to say instead.
fn answer(
    request: &Request<'_>,
    auth: &Authorizer,
    pages: &dyn Pages,
    now: SystemTime,
) -> Result<(String, Identity), Response> {
    if request.values("origin").next().is_some() {
        return Err(Response::empty("403 Forbidden"));
    }
    let reading = matches!(request.method, "GET" | "HEAD");
    match request.path() {
        "/readyz" if reading && !pages.is_ready() => {
            Err(Response::text("503 Service Unavailable", "the server is about to end"))
        }
        "/readyz" | "/healthz" if reading => Err(Response::empty("200 OK")),
        "/metrics" if pages.offers_metrics() && reading => {
            identify(request, auth, now)?;
            Err(Response::text("200 OK", &pages.metrics()))
        }
        "/metrics" if !pages.offers_metrics() => Err(Response::empty("404 Not Found")),
        "/readyz" | "/healthz" | "/metrics" => Err(Response::empty("405 Method Not Allowed").with("Allow: GET,HEAD")),
        "/" if request.method == "GET" => upgrade(request, auth, now),
        "/" => Err(Response::empty("405 Method Not Allowed").with("Allow: GET")),
        _ => Err(Response::empty("404 Not Found")),
    }
}

fn upgrade(request: &Request<'_>, auth: &Authorizer, now: SystemTime) -> Result<(String, Identity), Response> {
    if !request.lists("connection", "upgrade") {
        return Err(bad_request("Connection header did not include 'upgrade'"));
    }
    if !request.lists("upgrade", "websocket") {
        return Err(bad_request("`Upgrade` header did not include 'websocket'"));
    }
    if !request.is_http_1_1 {
        return Err(bad_request("an upgrade needs HTTP/1.1"));
    }
    if !request.lists("sec-websocket-version", "13") {
        let text = "`Sec-WebSocket-Version` header did not include '13'";
        return Err(Response::text("426 Upgrade Required", text).with("Sec-WebSocket-Version: 13"));
    }
    let key = match request.only("sec-websocket-key") {
        Some(key) => key,
        None => return Err(bad_request("`Sec-WebSocket-Key` header missing")),
    };
    if !BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16) {
        return Err(bad_request("`Sec-WebSocket-Key` header is not 16 bytes in base64"));
    }
    // What follows the head are frames; to a proxy in between it would be a body.
    let length = request.values("content-length").any(|value| value != b"0");
    if length || request.values("transfer-encoding").next().is_some() {
        return Err(bad_request("an upgrade must not have a body"));
    }
    let identity = identify(request, auth, now)?;
    Ok((derive_accept_key(key), identity))
}

/// Who the client is, if it may be let in.
fn identify(request: &Request<'_>, auth: &Authorizer, now: SystemTime) -> Result<Identity, Response> {
    let authorization = match request.values("authorization").count() {
        0 => None,
        // Two headers, or one that is no text, are no `Bearer` either.
        _ => Some(
            request
                .only("authorization")
                .and_then(|value| std::str::from_utf8(value).ok())
                .unwrap_or_default(),
        ),
    };
    auth.check(authorization, now)
        .map_err(|refusal| Response::text("401 Unauthorized", &refusal.to_string()).with("WWW-Authenticate: Bearer"))
}

fn bad_request(text: &str) -> Response {
    Response::text("400 Bad Request", text)
}

/// How long the head is, `None` if its end has not come yet.
///
/// Refuses what cannot become a good head at once, so that a client that speaks something
/// else, such as TLS, is not left waiting.
fn head_length(bytes: &[u8]) -> Result<Option<usize>, Response> {
    let mut line_start = 0;
    for (at, &byte) in bytes.iter().enumerate().take(MAX_HEAD) {
        let after_return = at > 0 && bytes[at - 1] == b'\r';
        match byte {
            b'\n' if after_return => {
                if at - 1 == line_start {
                    return Ok(Some(at + 1));
                }
                line_start = at + 1;
            }
            // A bare LF or CR is a line end to some and not to others.
            b'\n' => return Err(bad_request("a line of the head does not end in CR LF")),
            _ if after_return => {
                return Err(bad_request("a line of the head does not end in CR LF"));
            }
            b'\r' | b'\t' => {}
            0..0x20 | 0x7f => return Err(bad_request("control character in the head")),
            _ => {}
        }
    }
    if bytes.len() >= MAX_HEAD {
        return Err(too_large("the head is too long"));
    }
    Ok(None)
}

fn too_large(text: &str) -> Response {
    Response::text("431 Request Header Fields Too Large", text)
}

struct Request<'a> {
    method: &'a str,
    target: &'a str,
    is_http_1_1: bool,
    headers: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Request<'a> {
    /// Parses a head that has its end and no control characters but CR LF and TAB.
    fn parse(head: &'a [u8]) -> Result<Self, Response> {
        let mut lines = head
            .split(|&byte| byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .take_while(|line| !line.is_empty());
        let malformed = || bad_request("malformed request line");
        let line = lines.next().ok_or_else(malformed)?;
        let line = std::str::from_utf8(line).map_err(|_| malformed())?;
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(malformed());
        };
        let is_http_1_1 = match version {
            "HTTP/1.1" => true,
            "HTTP/1.0" => false,
            _ => return Err(malformed()),
        };
        if !is_token(method.as_bytes()) || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed());
        }
        let mut headers = Vec::new();
        for line in lines {
            if headers.len() == MAX_HEADERS {
                return Err(too_large("the head has too many headers"));
            }
            headers.push(header(line).ok_or_else(|| bad_request("malformed header"))?);
        }
        Ok(Self {
            method,
            target,
            is_http_1_1,
            headers,
        })
    }

    /// The target without the query, and without the server's name if that is there.
    fn path(&self) -> &'a str {
        let target = match self.target.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case("http://") => {
                let authority = &self.target[7..];
                authority.find(['/', '?']).map_or("/", |at| &authority[at..])
            }
            _ => self.target,
        };
        match target.split_once('?').map_or(target, |(path, _)| path) {
            "" => "/",
            path => path,
        }
    }

    /// The values of all headers of this name, which must be in lower case.
    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |(header, _)| header.eq_ignore_ascii_case(name))
            .map(|&(_, value)| value)
    }

    /// The value of the header of this name if there is exactly one.
    fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether the headers of this name, which are lists, have `item` in any case.
    fn lists(&self, name: &str, item: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
    }
}

/// Name and value of a header line. A line that continues the one before begins with white
/// space, which is no name.
fn header(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = &line[..colon];
    if !is_token(name) {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?;
    Some((name, line[colon + 1..].trim_ascii()))
}

/// Whether this is a `token` of RFC 9110.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

struct Response {
    status: &'static str,
    header: Option<&'static str>,
    text: String,
}

impl Response {
    fn empty(status: &'static str) -> Self {
        Self::text(status, "")
    }

    fn text(status: &'static str, text: &str) -> Self {
        Self {
            status,
            header: None,
            text: text.to_owned(),
        }
    }

    fn with(mut self, header: &'static str) -> Self {
        self.header = Some(header);
        self
    }

    fn write(&self, with_body: bool) -> Vec<u8> {
        let mut response = format!("HTTP/1.1 {}\r\nConnection: close\r\n", self.status);
        if let Some(header) = self.header {
            response.push_str(header);
            response.push_str("\r\n");
        }
        if !self.text.is_empty() {
            response.push_str("Content-Type: text/plain; charset=utf-8\r\n");
        }
        response.push_str(&format!("Content-Length: {}\r\n\r\n", self.text.len()));
        if with_body {
            response.push_str(&self.text);
        }
        response.into_bytes()
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
