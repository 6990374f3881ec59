//! What comes in on a new connection, from the first byte of the HTTP request to the last frame, in any pieces.

use crate::frames;
use exec_server::transport::auth::Authorizer;
use exec_server::transport::http::{self, MAX_HEAD, MAX_HEADERS, Verdict};
use exec_server::transport::upgrade::{UpgradeAnswer, UpgradeRequest, WebSocketUrl};
use std::fs::{self, OpenOptions};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::LazyLock;
use tungstenite::handshake::HandshakeError;

/// What a client must present, if anything.
const TOKEN: &[u8] = b"s3cret";

static AUTHORIZER: LazyLock<Authorizer> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("exec-server-token-{}", std::process::id()));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path);
    file.and_then(|mut file| file.write_all(TOKEN)).expect("a file");
    let authorizer = Authorizer::from_token_file(&path);
    fs::remove_file(&path).expect("a file");
    authorizer.expect("a token")
});

/// The limit of a message, small enough to be met.
const MAX_BYTES: usize = 300;

/// The first byte says whether a token is wanted, the next four the sizes of the pieces, the rest is the wire.
pub(crate) fn check(data: &[u8]) {
    let Some((head, wire)) = data.split_at_checked(5) else {
        return;
    };
    let authorizer = if head[0] & 1 == 0 {
        &Authorizer::None
    } else {
        &*AUTHORIZER
    };
    let sizes: Vec<usize> = head[1..].iter().map(|size| usize::from(*size) % 100 + 1).collect();
    client(wire, &sizes);
    // As the listener does it: look at all there is after each piece.
    let mut came = 0;
    let mut sizes = sizes.iter().cycle();
    let verdict = loop {
        match http::examine(&wire[..came], authorizer) {
            Verdict::Incomplete if came == wire.len() => break Verdict::Incomplete,
            Verdict::Incomplete => came = wire.len().min(came + sizes.next().expect("a size")),
            verdict => break verdict,
        }
    };
    assert_eq!(verdict, http::examine(wire, authorizer), "it depends on the pieces");
    let theirs = reference(wire);
    match verdict {
        Verdict::Incomplete => assert!(wire.len() < MAX_HEAD && theirs.is_none(), "it waits for more"),
        Verdict::Upgrade { accept, head_len, .. } => {
            match theirs {
                Some(answer) => assert_eq!(answer, http::upgrade_response(&accept), "another answer"),
                None => assert!(
                    has_lists(&wire[..head_len]) || names_a_host(wire),
                    "an upgrade that is none"
                ),
            }
            assert!(head[0] & 1 == 0 || has_token(&wire[..head_len]), "it has no token");
            let pieces: Vec<usize> = head[1..].iter().map(|size| usize::from(*size) % 40 + 1).collect();
            let pieces = frames::Pieces {
                early: came - head_len,
                sizes: &pieces,
            };
            frames::compare(&wire[head_len..], MAX_BYTES, pieces);
        }
        Verdict::Respond(response) => {
            is_a_response(&response);
            let refused = response.starts_with(b"HTTP/1.1 401 ");
            let may_be = refused && head[0] & 1 == 1;
            assert!(
                theirs.is_none() || may_be || is_odd(wire),
                "refused: {}",
                response.escape_ascii()
            );
        }
    }
}

/// Whether a request has a header with the token.
fn has_token(head: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        name.eq_ignore_ascii_case(b"authorization") && line.trim_ascii_end().ends_with(TOKEN)
    })
}

/// Whether a request names several protocols or versions, in one header or two, which tungstenite does not look through.
fn has_lists(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head).to_lowercase();
    ["upgrade:", "sec-websocket-version:", "connection:"]
        .iter()
        .any(|name| {
            let mut lines = text.split('\n').filter(|line| line.starts_with(name));
            lines.clone().count() > 1 || lines.any(|line| line.contains(','))
        })
}

/// Whether the target of a request has a host in it, as for a proxy, whose name tungstenite judges. Here no target does
/// anything.
fn names_a_host(head: &[u8]) -> bool {
    let target = head.split(|byte| *byte == b' ').nth(1);
    target.is_some_and(|target| !target.starts_with(b"/"))
}

/// What tungstenite answers if it takes it for an upgrade, in the words of this server.
fn reference(wire: &[u8]) -> Option<Vec<u8>> {
    struct Wire<'a>(Cursor<&'a [u8]>, Vec<u8>);
    impl Read for Wire<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            match self.0.read(room)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                n => Ok(n),
            }
        }
    }
    impl Write for Wire<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    // It takes nothing that follows the head at once.
    let end = wire
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map_or(wire.len(), |at| at + 4);
    let answer = match tungstenite::accept(Wire(Cursor::new(&wire[..end]), Vec::new())) {
        Ok(socket) => socket.get_ref().1.clone(),
        Err(HandshakeError::Interrupted(_) | HandshakeError::Failure(_)) => return None,
    };
    let answer = String::from_utf8(answer).expect("text");
    let accept = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-accept")
            .then(|| value.trim().to_owned())
    });
    Some(http::upgrade_response(&accept.expect("an accept header")))
}

/// Whether there is something in a request for which it may be refused although it looks like an upgrade.
fn is_odd(wire: &[u8]) -> bool {
    let end = wire
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap_or(wire.len());
    let head = &wire[..end.min(wire.len())];
    let text = String::from_utf8_lossy(head).to_lowercase();
    let lines: Vec<&str> = text.split('\n').collect();
    let named = |name: &str| lines.iter().filter(|line| line.trim_start().starts_with(name)).count();
    let odd_byte = |line: &&str| line.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f);
    let odd_line = |line: &&str| !line.ends_with('\r') || odd_byte(&line.trim_end_matches('\r'));
    let odd_name = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        !line.contains(':')
            || !name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let target = lines[0].split(' ').nth(1).unwrap_or_default();
    let key_is_odd = named("sec-websocket-key") != 1
        || !lines.iter().any(|line| {
            let value = line.strip_prefix("sec-websocket-key:").unwrap_or_default().trim();
            value.len() == 24 && value.ends_with("==")
        });
    end >= MAX_HEAD - 4
        || named("origin") > 0
        || named("content-length") + named("transfer-encoding") > 0
        || key_is_odd
        || lines.len() > MAX_HEADERS
        || lines[..lines.len() - 1].iter().any(odd_line)
        || lines.last().is_some_and(odd_byte)
        || lines[1..].iter().any(odd_name)
        || !lines[0].starts_with("get / http/1.1")
        || !target.bytes().all(|byte| byte.is_ascii_graphic())
        || base64_is_odd(head)
        // What stands between white space, not commas, is no member of a list.
        || !lines.iter().any(|line| {
            let list = line.strip_prefix("connection:").unwrap_or_default();
            list.split(',').any(|member| member.trim() == "upgrade")
        })
}

/// Whether the last bits of the key, which mean nothing, are not 0.
fn base64_is_odd(head: &[u8]) -> bool {
    let Some(end) = head.windows(2).position(|two| two == b"==") else {
        return true;
    };
    !end.checked_sub(1).is_some_and(|last| b"AQgw".contains(&head[last]))
}

/// That a response has all that it needs.
fn is_a_response(response: &[u8]) {
    let text = std::str::from_utf8(response).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .expect("a status");
    assert!(
        ["200", "400", "401", "403", "404", "405", "426", "431"].contains(&&status[..3]),
        "{status}"
    );
    let headers: Vec<&str> = lines.collect();
    assert!(headers.contains(&"Connection: close"), "{text}");
    let length = headers.iter().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.expect("a length").parse().expect("a length");
    // The answer to HEAD tells the length of what it leaves out.
    assert!(body.is_empty() || body.len() == length, "{text}");
    assert!(
        body.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '),
        "{text}"
    );
}

/// The same bytes as a server's answer, to a client: how they come does not matter, and only the right one is taken.
/// `ACCEPT` stands for what is right.
fn client(wire: &[u8], sizes: &[usize]) {
    let url = WebSocketUrl::parse("ws://127.0.0.1:1").expect("a URL");
    let request = UpgradeRequest::new(&url, None).expect("a request");
    let Verdict::Upgrade { accept, head_len, .. } = http::examine(&request.bytes, &Authorizer::None) else {
        panic!("the server refuses the client");
    };
    assert_eq!(head_len, request.bytes.len());
    let mut wire = wire.to_vec();
    let mark = b"ACCEPT";
    let marked = wire.windows(mark.len()).position(|window| window == mark);
    if let Some(at) = marked {
        wire.splice(at..at + mark.len(), accept.bytes());
    }
    let mut came = 0;
    let mut sizes = sizes.iter().cycle();
    while came < wire.len() && request.judge(&wire[..came], false) == UpgradeAnswer::Incomplete {
        came = wire.len().min(came + sizes.next().expect("a size"));
    }
    let whole = request.judge(&wire, true);
    assert_ne!(whole, UpgradeAnswer::Incomplete, "it waits for what never comes");
    match request.judge(&wire[..came], false) {
        UpgradeAnswer::Upgraded(len) => {
            assert!(marked.is_some_and(|at| at < len) && wire[..len].ends_with(b"\r\n\r\n"));
            assert_eq!(whole, UpgradeAnswer::Upgraded(len));
        }
        UpgradeAnswer::Refused(reason) => {
            assert!(!reason.is_empty() && reason.len() < 2 * MAX_HEAD);
            assert!(matches!(whole, UpgradeAnswer::Refused(_)), "{whole:?}");
        }
        UpgradeAnswer::Incomplete => assert!(matches!(whole, UpgradeAnswer::Refused(_)), "{whole:?}"),
    }
}
