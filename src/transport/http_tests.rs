use super::*;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An upgrade of `target` with these header lines instead of or beside the usual ones.
fn upgrade_head(target: &str, headers: &[&str]) -> String {
    let usual = [
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        KEY,
    ];
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let mut lines = vec![format!("GET {target} HTTP/1.1")];
    for line in usual {
        if !headers.iter().any(|header| name(header) == name(line)) {
            lines.push(line.to_owned());
        }
    }
    // A name alone takes the usual header away.
    lines.extend(
        headers
            .iter()
            .filter(|line| line.contains(':'))
            .map(|line| line.to_string()),
    );
    lines.join("\r\n") + "\r\n\r\n"
}

#[track_caller]
fn upgraded(head: &str) {
    assert_eq!(
        examine(head.as_bytes(), &Authorizer::None),
        Verdict::Upgrade {
            accept: ACCEPT.to_owned(),
            identity: Identity::default(),
            head_len: head.len()
        },
        "{head}"
    );
}

/// Status line and body of what is answered.
#[track_caller]
fn response(head: impl AsRef<[u8]>) -> (String, String) {
    let head = head.as_ref();
    let Verdict::Respond(response) = examine(head, &Authorizer::None) else {
        panic!("no response to {}", head.escape_ascii());
    };
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    let (status, _) = head.split_once("\r\n").unwrap();
    (status.to_owned(), body.to_owned())
}

#[track_caller]
fn refused(head: impl AsRef<[u8]>, status: &str) -> String {
    let (line, body) = response(head);
    assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{line}");
    body
}

#[test]
fn health_needs_nothing() {
    for path in ["/readyz", "/healthz", "/readyz?x=1", "/healthz?"] {
        for method in ["GET", "HEAD"] {
            for version in ["HTTP/1.1", "HTTP/1.0"] {
                let head = format!("{method} {path} {version}\r\n\r\n");
                assert_eq!(
                    examine(head.as_bytes(), &Authorizer::None),
                    Verdict::Respond(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into())
                );
            }
        }
        for method in ["POST", "PUT", "OPTIONS", "get"] {
            let head = format!("{method} {path} HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
            let Verdict::Respond(response) = examine(head.as_bytes(), &Authorizer::None) else {
                panic!("no response");
            };
            let response = String::from_utf8(response).unwrap();
            assert!(response.starts_with("HTTP/1.1 405 "), "{response}");
            assert!(response.contains("\r\nAllow: GET,HEAD\r\n"), "{response}");
        }
    }
}

#[test]
fn other_paths_are_not_found() {
    for path in [
        "/livez",
        "/health",
        "/metrics",
        "/ws",
        "/readyz/",
        "//",
        "/../",
        "*",
        "x",
        "http://h/x",
    ] {
        assert_eq!(refused(format!("GET {path} HTTP/1.1\r\n\r\n"), "404"), "");
        assert_eq!(refused(upgrade_head(path, &[]), "404"), "");
    }
}

#[test]
fn an_upgrade_is_taken_at_the_root_only() {
    for target in ["/", "/?token=x", "http://127.0.0.1/", "HTTP://h", "http://h?x=/y"] {
        upgraded(&upgrade_head(target, &[]));
    }
    for headers in [
        ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket"],
        ["Connection: close,UPGRADE , x", "Upgrade: h2c, websocket"],
        ["connection:upgrade", "UPGRADE:websocket"],
        ["Connection: x\r\nConnection: upgrade", "Sec-WebSocket-Protocol: a"],
        ["Sec-WebSocket-Extensions: permessage-deflate", "Content-Length: 0"],
        ["X-Odd: \u{e4}\t\u{f6}", "X-Empty:"],
    ] {
        upgraded(&upgrade_head("/", &headers));
    }
    assert_eq!(
        String::from_utf8(upgrade_response(ACCEPT)).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
}

#[test]
fn frames_may_follow_the_head() {
    let head = upgrade_head("/", &[]);
    let bytes = [head.as_bytes(), b"\x81\x85\n\r\n\r\nframe"].concat();
    assert_eq!(
        examine(&bytes, &Authorizer::None),
        Verdict::Upgrade {
            accept: ACCEPT.to_owned(),
            identity: Identity::default(),
            head_len: head.len()
        }
    );
}

#[test]
fn bad_upgrades_are_told_why() {
    let no_upgrade = "Connection header did not include 'upgrade'";
    let table: [(&[&str], &str, &str); 14] = [
        (&["Connection"], "400", no_upgrade),
        (&["Connection: keep-alive"], "400", no_upgrade),
        (&["Connection: upgrade-insecure"], "400", no_upgrade),
        (&["Upgrade"], "400", "`Upgrade` header did not include 'websocket'"),
        (&["Upgrade: h2c"], "400", "`Upgrade` header did not include 'websocket'"),
        (
            &["Sec-WebSocket-Version"],
            "426",
            "`Sec-WebSocket-Version` header did not include '13'",
        ),
        (
            &["Sec-WebSocket-Version: 8"],
            "426",
            "`Sec-WebSocket-Version` header did not include '13'",
        ),
        (&["Sec-WebSocket-Key"], "400", "`Sec-WebSocket-Key` header missing"),
        (&[KEY, KEY], "400", "`Sec-WebSocket-Key` header missing"),
        (
            &["Sec-WebSocket-Key:"],
            "400",
            "`Sec-WebSocket-Key` header is not 16 bytes in base64",
        ),
        (
            &["Sec-WebSocket-Key: c2hvcnQ="],
            "400",
            "`Sec-WebSocket-Key` header is not 16 bytes in base64",
        ),
        (
            &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"],
            "400",
            "`Sec-WebSocket-Key` header is not 16 bytes in base64",
        ),
        (&["Content-Length: 5"], "400", "an upgrade must not have a body"),
        (
            &["Transfer-Encoding: chunked"],
            "400",
            "an upgrade must not have a body",
        ),
    ];
    for (headers, status, text) in table {
        assert_eq!(refused(upgrade_head("/", headers), status), text);
    }
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n", "400"), no_upgrade);
    assert_eq!(refused("POST / HTTP/1.1\r\n\r\n", "405"), "");
    assert_eq!(refused("HEAD / HTTP/1.1\r\n\r\n", "405"), "");
    let old = upgrade_head("/", &[]).replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(refused(old, "400"), "an upgrade needs HTTP/1.1");
}

#[test]
fn an_origin_is_refused_before_all_else() {
    for origin in [
        "Origin: http://evil.example",
        "origin:null",
        "ORIGIN:",
        "Origin: http://127.0.0.1",
    ] {
        assert_eq!(refused(upgrade_head("/", &[origin]), "403"), "");
        for target in ["/readyz", "/healthz", "/", "/nope"] {
            let head = format!("POST {target} HTTP/1.1\r\n{origin}\r\n\r\n");
            assert_eq!(refused(head, "403"), "");
        }
    }
}

#[test]
fn a_token_is_wanted_for_the_upgrade_only() {
    let scratch = std::env::temp_dir().join(format!("http-token-{}", std::process::id()));
    write_secret(&scratch, "s3cret\n");
    let auth = Authorizer::from_token_file(&scratch).unwrap();
    std::fs::remove_file(&scratch).unwrap();

    let answer = |head: String| match examine(head.as_bytes(), &auth) {
        Verdict::Respond(response) => String::from_utf8(response).unwrap(),
        verdict => format!("{verdict:?}"),
    };
    let table: [(&[&str], &str); 6] = [
        (&[], "missing websocket bearer token"),
        (&["Authorization: Basic x"], "invalid authorization header"),
        (&["Authorization: Bearer "], "invalid authorization header"),
        (
            &["Authorization: Bearer s3cret", "Authorization: Bearer s3cret"],
            "invalid authorization header",
        ),
        (&["Authorization: Bearer x"], "invalid websocket bearer token"),
        (
            &["Authorization: Bearer s3cret\u{e4}"],
            "invalid websocket bearer token",
        ),
    ];
    for (headers, text) in table {
        assert_eq!(
            answer(upgrade_head("/", headers)),
            format!(
                "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nWWW-Authenticate: Bearer\r\n\
                 Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            )
        );
    }
    let good = answer(upgrade_head("/", &["authorization:  bearer   s3cret "]));
    assert!(good.starts_with("Upgrade"), "{good}");
    assert!(answer("GET /readyz HTTP/1.1\r\n\r\n".to_owned()).starts_with("HTTP/1.1 200 "));
    assert!(answer("GET / HTTP/1.1\r\n\r\n".to_owned()).contains("'upgrade'"));
    assert!(answer(upgrade_head("/", &["Origin: x"])).starts_with("HTTP/1.1 403 "));
}

fn write_secret(path: &std::path::Path, content: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(content.as_bytes()).unwrap();
}

#[test]
fn every_beginning_of_a_head_is_incomplete() {
    let head = upgrade_head("/", &["X: y"]);
    for length in 0..head.len() {
        assert_eq!(
            examine(&head.as_bytes()[..length], &Authorizer::None),
            Verdict::Incomplete
        );
    }
    upgraded(&head);
}

#[test]
fn malformed_heads_are_refused() {
    let heads: [&[u8]; 22] = [
        b"GET /readyz HTTP/1.1\r\nX: a\rb\r\n\r\n",
        b"\x16\x03\x01garbage",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\rX: y\r\n\r\n",
        b"\n",
        b"\r\n",
        b"GET / HTTP/1.1\r\nX: a\0b\r\n",
        b"GET / HTTP/1.1\r\nX: a\x7fb\r\n",
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1 \r\n\r\n",
        b"GET / x HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / http/1.1\r\n\r\n",
        b"G(T / HTTP/1.1\r\n\r\n",
        b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nX : y\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\n: y\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nX: y\r\n folded\r\n\r\n",
    ];
    for head in heads {
        refused(head, "400");
    }
}

#[test]
fn large_heads_are_refused() {
    let with = |count: usize| format!("GET /readyz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(count));
    refused(with(64), "200");
    refused(with(65), "431");
    let long = |length: usize| {
        let fixed = "GET /readyz HTTP/1.1\r\nX: \r\n\r\n".len();
        format!("GET /readyz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(length - fixed))
    };
    refused(long(MAX_HEAD), "200");
    refused(long(MAX_HEAD + 1), "431");
    refused("x".repeat(MAX_HEAD), "431");
    let almost = "x".repeat(MAX_HEAD - 1);
    assert_eq!(examine(almost.as_bytes(), &Authorizer::None), Verdict::Incomplete);
}
