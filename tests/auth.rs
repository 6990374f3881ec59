//! Who may enter, and whose a session is.

mod kit;

#[cfg(feature = "client")]
use kit::Cli;
use kit::{Client, Dir, Server, command, program, until};
use serde_json::{Value, json};
use std::path::PathBuf;
#[cfg(feature = "client")]
use std::process::Stdio;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderValue, Request};
use tungstenite::{Error, WebSocket};

/// A file that only its owner can read.
fn secret(dir: &Dir, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let file = dir.path("secret");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    file
}

fn request(server: &Server, authorization: &[&str]) -> Request<()> {
    let mut request = server.url().into_client_request().unwrap();
    for value in authorization {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().append("Authorization", value);
    }
    request
}

/// The status and the words with which a client is turned away.
fn refusal(server: &Server, authorization: &[&str]) -> (u16, String) {
    match tungstenite::connect(request(server, authorization)) {
        Err(Error::Http(answer)) => {
            assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
            let body = answer.body().clone().unwrap_or_default();
            (answer.status().as_u16(), String::from_utf8(body).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(server: &Server, authorization: &[&str], says: &str) {
    let refusal = refusal(server, authorization);
    assert_eq!(refusal, (401, says.to_owned()), "{authorization:?}");
}

/// A client that is let in.
fn client(server: &Server, token: &str) -> Client {
    let request = request(server, &[&format!("Bearer {token}")]);
    let stream = std::net::TcpStream::connect(server.address()).unwrap();
    let (socket, _): (WebSocket<_>, _) = tungstenite::client(request, stream).unwrap();
    Client::of_socket(socket)
}

/// Has a session, started by one, resumed by others: nobody but the last can, which is to be the same.
fn belongs(server: &Server, owner: &str, others: &[&str], same: &str) {
    let mut one = client(server, owner);
    one.handshake();
    let session = one.session.clone();
    let wanted = json!({"clientName": "test", "resumeSessionId": session});
    let unknown = (-32600, format!("unknown session id {session}"));
    let stranger = |token: &str| client(server, token).refusal("initialize", wanted.clone());
    for other in others {
        assert_eq!(stranger(other), unknown, "{other}");
    }
    // It is not disturbed by that, not even asked whether it is still there.
    one.start(program("a", &["/bin/sleep", "1000"]));
    assert_eq!(stranger(same).0, -32010);
    drop(one);
    let mut two = client(server, same);
    until("the session", || {
        for other in others {
            assert_eq!(stranger(other), unknown, "{other}");
        }
        let id = two.request("initialize", wanted.clone());
        two.answer(id).get("result").map(drop)
    });
    two.send(&json!({"method": "initialized"}));
    let list = two.call("process/list", Value::Null);
    assert_eq!(list["processes"][0]["processId"], "a");
    two.call("process/terminate", json!({"processId": "a"}));
}

#[test]
fn a_capability_token() {
    let dir = Dir::new();
    let file = secret(&dir, " s3cret\r\n");
    let arguments = [
        "--ws-auth",
        "capability-token",
        "--ws-token-file",
        file.to_str().unwrap(),
    ];
    let server = Server::websocket(&arguments);
    refused(&server, &[], "missing websocket bearer token");
    for header in ["Basic s3cret", "s3cret", "Bearer", "Bearer  ", ""] {
        refused(&server, &[header], "invalid authorization header");
    }
    refused(
        &server,
        &["Bearer s3cret", "Bearer s3cret"],
        "invalid authorization header",
    );
    for token in ["s3cre", "s3crets", "S3cret", "s3cret s3cret"] {
        refused(&server, &[&format!("bearer {token}")], "invalid websocket bearer token");
    }
    belongs(&server, "s3cret", &[], "s3cret");
}

#[cfg(feature = "client")]
#[test]
fn tokens_are_not_in_logs_or_what_a_command_inherits() {
    let dir = Dir::new();
    let file = secret(&dir, "s3cret");
    let mut server = command(&["--listen", "ws://127.0.0.1:0", "--log-level", "trace"]);
    server
        .args(["--ws-auth", "capability-token", "--ws-token-file"])
        .arg(&file);
    let server = Cli::of(server.stdin(Stdio::null()).env("EXEC_SERVER_TOKEN", "s3cret"));
    let url = server.output_until("\n").trim().to_owned();
    let run = |arguments: &[&str], token: &str| {
        let mut run = command(&["run"]);
        run.args(arguments)
            .args(["-v", "--", "/usr/bin/env"])
            .stdin(Stdio::null());
        Cli::run(run.env("EXEC_SERVER_TOKEN", token).env("SEEN", "yes"))
    };
    let server_command = format!(
        "env >{}; exec {} --listen stdio",
        dir.path("env").display(),
        kit::exec_server()
    );
    // By default names with TOKEN are left out of another server's variables, but not of those of this program.
    for place in [&["--connect", &url][..], &["--spawn", &server_command], &[]] {
        let ended = run(place, "s3cret");
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(ended.text().contains("PATH="));
        assert!(
            !ended.text().contains("s3cret") && !ended.stderr.contains("s3cret"),
            "{place:?}"
        );
    }
    let seen = std::fs::read_to_string(dir.path("env")).unwrap();
    assert!(seen.contains("SEEN=yes") && !seen.contains("s3cret"));
    let wrong = run(&["--connect", &url], "wr0ng");
    assert!(wrong.code == 125 && !wrong.stderr.contains("wr0ng"), "{}", wrong.stderr);
    // Nor when a client asks for all there is.
    let ended = run(&["--connect", &url, "--env", "EXEC_SERVER_TOKEN=asked-for"], "s3cret");
    assert!(ended.text().contains("EXEC_SERVER_TOKEN=asked-for"));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = server.finish();
    assert!(ended.stderr.contains("session"), "{}", ended.stderr);
    for token in ["s3cret", "wr0ng"] {
        assert!(!ended.stderr.contains(token), "{}", ended.stderr);
    }
}

#[test]
fn all_of_the_server_s_variables_are_not_its_token() {
    let mut server = command(&["--listen", "stdio"]);
    server.env("EXEC_SERVER_TOKEN", "s3cret").env("OTHER_TOKEN", "other");
    let (_server, mut client) = Server::on_pipes(server);
    client.handshake();
    let mut start = program("a", &["/usr/bin/env"]);
    start["envPolicy"] =
        json!({"inherit": "all", "ignoreDefaultExcludes": true, "exclude": [], "set": {}, "includeOnly": []});
    let output = String::from_utf8(client.run(start).stdout).unwrap();
    assert!(
        output.contains("OTHER_TOKEN=other") && !output.contains("s3cret"),
        "{output}"
    );
}

#[cfg(feature = "signed-tokens")]
mod signed {
    use super::*;
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use hmac::{Hmac, KeyInit, Mac};
    use std::time::{SystemTime, UNIX_EPOCH};

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    /// A token that says this, signed with that key.
    fn signed(header: &str, payload: &Value, key: &str) -> String {
        let payload = payload.to_string();
        let parts = [header, &payload].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        let signed = parts.join(".");
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        let signature = BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    fn token(payload: &Value) -> String {
        signed(r#"{"alg":"HS256","typ":"JWT"}"#, payload, KEY)
    }

    /// Seconds since 1970, later or earlier than now.
    fn time(offset: i64) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs() as i64 + offset
    }

    fn server(dir: &Dir, more: &[&str]) -> Server {
        let file = secret(dir, &format!("{KEY}\n"));
        let arguments = [
            "--ws-auth",
            "signed-bearer-token",
            "--ws-shared-secret-file",
            file.to_str().unwrap(),
        ];
        Server::websocket(&[&arguments, more].concat())
    }

    fn bearer(token: &str) -> String {
        format!("Bearer {token}")
    }

    #[test]
    fn a_signed_token() {
        let dir = Dir::new();
        let server = server(&dir, &[]);
        let good = json!({"exp": time(3600)});
        refused(&server, &[], "missing websocket bearer token");
        refused(&server, &["Basic x"], "invalid authorization header");
        for (payload, says) in [
            (json!({}), "invalid websocket jwt"),
            (json!({"exp": "soon"}), "invalid websocket jwt"),
            (json!({"exp": time(-60)}), "expired websocket jwt"),
            (
                json!({"exp": time(3600), "nbf": time(60)}),
                "websocket jwt is not valid yet",
            ),
        ] {
            refused(&server, &[&bearer(&token(&payload))], says);
        }
        for token in [
            signed(r#"{"alg":"HS384"}"#, &good, KEY),
            signed(r#"{"alg":"none"}"#, &good, KEY),
            signed(r#"{"alg":"HS256"}"#, &good, "another key of 32 bytes or more …"),
            KEY.to_owned(),
        ] {
            refused(&server, &[&bearer(&token)], "invalid websocket jwt");
        }
        // Within the skew, and with anything that is not asked about.
        for payload in [
            good,
            json!({"exp": time(-20), "nbf": time(20)}),
            json!({"exp": time(10 * 365 * 86400), "iss": "a", "aud": ["b"], "iat": 5}),
        ] {
            client(&server, &token(&payload)).handshake();
        }
    }

    #[test]
    fn issuer_audience_and_skew() {
        let dir = Dir::new();
        let more = [
            "--ws-issuer",
            "me",
            "--ws-audience",
            "you",
            "--ws-max-clock-skew-seconds",
            "0",
        ];
        let server = server(&dir, &more);
        for (payload, says) in [
            (
                json!({"exp": time(3600), "aud": "you"}),
                "websocket jwt issuer mismatch",
            ),
            (
                json!({"exp": time(3600), "iss": "me", "aud": ["they"]}),
                "websocket jwt audience mismatch",
            ),
            (
                json!({"exp": time(-2), "iss": "me", "aud": "you"}),
                "expired websocket jwt",
            ),
        ] {
            refused(&server, &[&bearer(&token(&payload))], says);
        }
        for audience in [json!("you"), json!(["they", "you"])] {
            client(
                &server,
                &token(&json!({"exp": time(3600), "iss": "me", "aud": audience})),
            )
            .handshake();
        }
    }

    #[test]
    fn a_session_belongs_to_the_subject_and_issuer_that_have_made_it() {
        let dir = Dir::new();
        let server = server(&dir, &[]);
        let of = |iss: Option<&str>, sub: Option<&str>, exp: i64| {
            let mut payload = json!({"exp": time(exp)});
            for (name, value) in [("iss", iss), ("sub", sub)] {
                if let Some(value) = value {
                    payload[name] = value.into();
                }
            }
            token(&payload)
        };
        let others = [
            (Some("i"), Some("b")),
            (Some("j"), Some("a")),
            (None, Some("a")),
            (Some("i"), None),
            (None, None),
        ];
        let others = others.map(|(iss, sub)| of(iss, sub, 3600));
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        // Another token of the same, such as the next when the first has expired.
        belongs(
            &server,
            &of(Some("i"), Some("a"), 3600),
            &others,
            &of(Some("i"), Some("a"), 7200),
        );
    }

    #[test]
    fn a_token_that_is_known_by_its_digest() {
        // printf s3cret | sha256sum
        let digest = "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0";
        let server = Server::websocket(&["--ws-auth", "capability-token", "--ws-token-sha256", digest]);
        refused(&server, &["Bearer s3cre"], "invalid websocket bearer token");
        refused(&server, &[&bearer(digest)], "invalid websocket bearer token");
        belongs(&server, "s3cret", &[], "s3cret");
    }

    #[test]
    fn a_key_that_is_no_secret_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = Dir::new();
        let file = secret(&dir, KEY);
        let start = || {
            let mut server = command(&["--listen", "ws://127.0.0.1:0", "--ws-auth", "signed-bearer-token"]);
            let output = server.arg("--ws-shared-secret-file").arg(&file).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        let (code, says) = start();
        assert!(
            code == Some(1) && says.contains("is open to group or others (mode 0640"),
            "{says}"
        );
        let file = secret(&dir, &KEY[1..]);
        let (code, says) = start();
        assert!(code == Some(1) && says.contains("must be at least 32 bytes"), "{says}");
        assert!(!says.contains(&KEY[1..]), "{}", file.display());
    }
}
