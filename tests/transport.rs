//! Framing, limits, and who is let in.

mod kit;

use kit::{Client, DEADLINE, Dir, Server, both, command};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::{Value, json};
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Error, Message};

const LIMIT: usize = 64 * 1024 * 1024;

/// The server says what it made of the last message, and goes on.
fn complains(client: &mut Client) -> String {
    let complaint = client.wait_for("a complaint", |message| message["id"] == -1);
    assert_eq!(complaint["error"]["code"], -32600, "{complaint}");
    assert_eq!(
        client.call("environment/status", Value::Null),
        json!({"status": "ready"})
    );
    complaint["error"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_no_message_is_answered_and_skipped() {
    both(|_, client| {
        let deep = format!(
            r#"{{"id":1,"method":"x","params":{}{}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        );
        let many = format!(r#"{{"id":1,"method":"x","params":[{}1]}}"#, "1,".repeat(300_000));
        for (text, says) in [
            ("not JSON", "expected ident"),
            ("[]", "expected a JSON-RPC object"),
            (r#"[{"id":1,"method":"x"}]"#, "expected a JSON-RPC object"),
            ("42", "expected a JSON-RPC object"),
            ("{}", "missing field `error`"),
            (r#"{"id":null,"method":"x"}"#, "RequestId"),
            (r#"{"id":1.5,"method":"x"}"#, "RequestId"),
            (r#"{"id":1,"id":2,"method":"x"}"#, "duplicate JSON object key `id`"),
            (r#"{"id":1,"method":"x"} {}"#, "trailing characters"),
            (r#"{"id":1,"method":"x""#, "EOF"),
            (&deep, "recursion limit"),
            (&many, "262144"),
            (r#"{"method":"bogus"}"#, "bogus"),
            (r#"{"id":7,"result":{}}"#, "nothing was asked"),
        ] {
            client.send_text(text);
            let complaint = complains(client);
            assert!(complaint.contains(says), "{text:.40}: {complaint}");
        }
        client.send_bytes(b"{\"id\":1,\"method\":\"\xff\"}");
        complains(client);
    });
}

#[test]
fn parameters_may_be_nested_as_deeply_as_a_message() {
    both(|_, client| {
        let deep = format!("{}{}", r#"{"x":"#.repeat(120), "1".to_owned() + &"}".repeat(120));
        let start = kit::program("a", &["/bin/true"]).to_string();
        let start = format!(r#"{{"sandbox":{deep},{}"#, &start[1..]);
        let read = format!(r#"{{"path":"file:///etc/passwd","sandbox":{deep}}}"#);
        for (method, params) in [("process/start", start), ("fs/readFile", read), ("nope", deep)] {
            client.send_text(&format!(r#"{{"id":"deep","method":"{method}","params":{params}}}"#));
            let answer = client.wait_for("an answer", |message| message["id"] == "deep");
            assert!(answer["error"]["code"].is_i64(), "{answer}");
        }
    });
}

#[test]
fn ids_of_every_kind_come_back() {
    both(|_, client| {
        for id in [
            json!(-5),
            json!(i64::MAX),
            json!(""),
            json!("ünï\"\\\n"),
            json!("x".repeat(100_000)),
        ] {
            client.send(&json!({"jsonrpc": "2.0", "id": id, "method": "nope", "other": [1]}));
            let answer = client.wait_for("an answer", |message| message["id"] == id);
            assert_eq!(answer["error"]["code"], -32601);
        }
    });
}

#[test]
fn lines_may_end_in_crlf_and_be_blank() {
    let (_server, mut client) = Server::stdio();
    client.handshake();
    client.send_text("\r\n  \n\t\n {\"id\":\"a\",\"method\":\"environment/status\"} \r");
    let answer = client.next().unwrap();
    assert_eq!(
        (&answer["id"], &answer["result"]["status"]),
        (&json!("a"), &json!("ready"))
    );
}

/// A request that is `len` bytes long.
fn request_of(len: usize) -> String {
    let (head, tail) = (r#"{"id":"long","method":"environment/status","x":""#, r#""}"#);
    format!("{head}{}{tail}", "x".repeat(len - head.len() - tail.len()))
}

#[test]
fn a_message_may_be_as_long_as_the_limit() {
    both(|_, client| {
        client.send_text(&request_of(LIMIT));
        let answer = client.wait_for("an answer", |message| message["id"] == "long");
        assert_eq!(answer["result"]["status"], "ready");
    });
}

#[test]
fn a_line_beyond_the_limit_is_answered_and_skipped() {
    let (_server, mut client) = Server::stdio();
    client.handshake();
    client.send_text(&request_of(LIMIT + 1));
    assert!(complains(&mut client).contains("exceeds the limit of 67108864 bytes"));
}

#[test]
fn a_message_may_come_in_fragments_with_pings_between() {
    let server = Server::websocket(&[]);
    let mut client = server.client();
    let text = r#"{"id":"pieces","method":"environment/status"}"#;
    let socket = client.websocket();
    let piece = |text: &str, code, last| Message::Frame(Frame::message(text.to_owned(), OpCode::Data(code), last));
    socket.send(piece(&text[..10], Data::Text, false)).unwrap();
    socket.send(Message::Ping("hello".into())).unwrap();
    socket.send(piece(&text[10..20], Data::Continue, false)).unwrap();
    socket.send(piece(&text[20..], Data::Continue, true)).unwrap();
    socket.get_ref().set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("hello".into()));
    assert_eq!(client.next().unwrap()["id"], "pieces");
}

#[test]
fn a_close_frame_is_echoed() {
    let server = Server::websocket(&[]);
    let mut client = server.client();
    let frame = CloseFrame {
        code: CloseCode::Library(4001),
        reason: "enough".into(),
    };
    client.websocket().close(Some(frame.clone())).unwrap();
    assert!(client.rest().is_empty());
    assert_eq!(client.close_frame, Some(frame));
}

#[test]
fn nothing_follows_a_close_frame() {
    let server = Server::websocket(&[]);
    for (close, code) in [
        (&[0x88, 0x82, 0, 0, 0, 0, 3, 232][..], 1000),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
    ] {
        let mut client = server.client();
        // One that writes all the time, and a read that waits for another.
        client.start(kit::program("noisy", &["/usr/bin/yes"]));
        client.start(kit::program("quiet", &["/bin/sleep", "100"]));
        client.request("process/read", json!({"processId": "quiet", "waitMs": 60_000}));
        client.event("noisy");
        let stream = client.websocket().get_mut();
        stream.write_all(close).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        // Looked for from the end: the first bytes may be the rest of a frame whose head the client has read.
        let code = u16::to_be_bytes(code);
        let at = rest
            .windows(4)
            .rposition(|part| part[0] == 0x88 && part[2..] == code)
            .unwrap();
        assert_eq!(rest.len(), at + 2 + usize::from(rest[at + 1]));
    }
}

#[test]
fn broken_framing_ends_the_connection_with_a_code() {
    let server = Server::websocket(&[]);
    let ends = |send: &dyn Fn(&mut Client), code: u16| {
        let mut client = server.client();
        send(&mut client);
        assert!(client.rest().is_empty());
        assert_eq!(client.close_frame.map(|frame| frame.code.into()), Some(code));
    };
    let raw = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        move |client: &mut Client| client.websocket().get_mut().write_all(&bytes).unwrap()
    };
    ends(&raw(&[0x81, 2, b'{', b'}']), 1002);
    ends(&raw(&[0xc1, 0x80, 0, 0, 0, 0]), 1002);
    ends(&raw(&[0x83, 0x80, 0, 0, 0, 0]), 1002);
    ends(&raw(&[0x80, 0x80, 0, 0, 0, 0]), 1002);
    ends(&raw(&[&[0x89, 0xfe, 0, 126][..], &[0; 4 + 126]].concat()), 1002);
    ends(&raw(&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]), 1007);
    let mut too_long = vec![0x81, 0xff];
    too_long.extend((LIMIT as u64 + 1).to_be_bytes());
    too_long.extend([0; 4]);
    ends(&raw(&too_long), 1009);
    ends(&raw(&[0x8b, 0x80, 0, 0, 0, 0]), 1002);
    assert_eq!(
        server.client().call("environment/status", Value::Null)["status"],
        "ready"
    );
}

#[test]
fn initialized_before_initialize_ends_the_connection() {
    let server = Server::websocket(&[]);
    let mut client = server.connect();
    client.send(&json!({"method": "initialized"}));
    assert_eq!(client.rest()[0]["id"], -1);
    assert_eq!(client.close_frame.map(|frame| frame.code.into()), Some(1002));
    let (mut server, mut client) = Server::stdio();
    client.send(&json!({"method": "initialized"}));
    assert_eq!(client.rest()[0]["id"], -1);
    assert!(server.wait().success());
}

/// The status line and the body of the answer to an HTTP request.
fn http(server: &Server, head: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "{}\r\nHost: x\r\n\r\n", head.replace('\n', "\r\n")).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.lines().next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn health_is_told_and_browsers_are_refused() {
    let server = Server::websocket(&[]);
    let status = |head: &str| http(&server, head).0;
    for path in ["/readyz", "/readyz?x=1", "/healthz"] {
        assert_eq!(status(&format!("GET {path} HTTP/1.1")), "200 OK");
        assert_eq!(status(&format!("HEAD {path} HTTP/1.1")), "200 OK");
        assert_eq!(status(&format!("POST {path} HTTP/1.1")), "405 Method Not Allowed");
        assert_eq!(status(&format!("GET {path} HTTP/1.1\nOrigin: null")), "403 Forbidden");
    }
    assert_eq!(status("GET /other HTTP/1.1"), "404 Not Found");
    let (status, body) = http(&server, "GET / HTTP/1.1");
    assert_eq!(status, "400 Bad Request");
    assert_eq!(body, "Connection header did not include 'upgrade'");
    let mut request = format!("ws://{}", server.address()).into_client_request().unwrap();
    let origin = format!("http://{}", server.address()).parse().unwrap();
    request.headers_mut().insert("Origin", origin);
    assert_eq!(refusal(request), 403);
}

fn refusal(request: tungstenite::http::Request<()>) -> u16 {
    match tungstenite::connect(request) {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_those_who_know_the_token_are_let_in() {
    let dir = Dir::new();
    let file = dir.path("token");
    std::fs::write(&file, "  secret\n").unwrap();
    let arguments = [
        "--ws-auth",
        "capability-token",
        "--ws-token-file",
        file.to_str().unwrap(),
    ];
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let readable_by_all = command(&["--listen", "ws://127.0.0.1:0"])
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(
        (readable_by_all.status.code(), &readable_by_all.stdout[..]),
        (Some(1), &b""[..])
    );
    let told = String::from_utf8(readable_by_all.stderr).unwrap();
    assert!(
        told.contains(file.to_str().unwrap()) && !told.contains("secret\n"),
        "{told}"
    );

    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let server = Server::websocket(&arguments);
    let request = |authorization: Option<&str>| {
        let mut request = format!("ws://{}", server.address()).into_client_request().unwrap();
        if let Some(value) = authorization {
            request.headers_mut().insert("Authorization", value.parse().unwrap());
        }
        request
    };
    for wrong in [
        None,
        Some("Bearer other"),
        Some("Bearer "),
        Some("secret"),
        Some("Basic secret"),
    ] {
        assert_eq!(refusal(request(wrong)), 401, "{wrong:?}");
    }
    assert_eq!(http(&server, "GET /readyz HTTP/1.1").0, "200 OK");
    for right in ["Bearer secret", "bearer   secret"] {
        let (mut socket, _) = tungstenite::connect(request(Some(right))).unwrap();
        socket.send(Message::text(r#"{"id":1,"method":"nope"}"#)).unwrap();
        assert!(socket.read().unwrap().to_text().unwrap().contains("-32601"));
    }
}

#[test]
fn a_server_that_anybody_could_reach_does_not_start() {
    for arguments in [
        &["--listen", "ws://0.0.0.0:0"][..],
        &["--listen", "ws://[::]:0"],
        &["--listen", "http://127.0.0.1:0"],
        &["--listen", "ws://localhost:0"],
        &["--listen", "stdio", "--ws-auth", "capability-token"],
    ] {
        let output = command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let server = Server::websocket(&[]);
    let taken = format!("ws://{}", server.address());
    let output = command(&["--listen", &taken]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_pipe_of_another_user_that_does_not_wait_is_waited_for() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root can start a server as another user");
    }
    let dir = Dir::new();
    let (large, server) = (dir.path("large"), dir.path("exec-server"));
    std::fs::write(&large, vec![7; 3_000_000]).unwrap();
    std::fs::copy(kit::PROGRAM, &server).unwrap();
    for path in [large.parent().unwrap(), &large, &server] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&theirs, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let mut child = command
        .arg(server)
        .args(["--listen", "stdio"])
        .stdin(Stdio::piped())
        .stdout(theirs)
        .spawn()
        .unwrap();
    drop(command);
    let mut client = Client::of_pipes(child.stdin.take().unwrap(), ours.into());
    client.handshake();
    let content = client.call("fs/readFile", json!({"path": dir.uri("large")}));
    assert_eq!(content["dataBase64"].as_str().map(str::len), Some(4_000_000));
    client.close_input();
    assert!(child.wait().unwrap().success());
}

#[test]
fn standard_streams_that_do_not_wait_are_waited_for() {
    let dir = Dir::new();
    std::fs::write(dir.path("large"), vec![7; 3_000_000]).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_read_timeout(Some(kit::DEADLINE)).unwrap();
    let mut child = kit::command(&["--listen", "stdio"])
        .stdin(OwnedFd::from(theirs.try_clone().unwrap()))
        .stdout(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(ours.try_clone().unwrap());
    let mut answer = |ours: &mut UnixStream, request: Value| {
        writeln!(ours, "{request}").unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let hello = json!({"id": 1, "method": "initialize", "params": {"clientName": "test"}});
    assert!(answer(&mut ours, hello)["result"].is_object());
    writeln!(ours, "{}", json!({"method": "initialized"})).unwrap();
    let read = json!({"id": 2, "method": "fs/readFile", "params": {"path": dir.uri("large")}});
    let content = answer(&mut ours, read)["result"]["dataBase64"].take();
    assert_eq!(content.as_str().map(str::len), Some(4_000_000));
    drop((ours, lines));
    assert!(child.wait().unwrap().success());
}
