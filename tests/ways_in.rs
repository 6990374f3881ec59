//! The ways in beside stdio and TCP: who gets in by which, and what is spoken there.

mod kit;

use kit::{Client, DEADLINE, Dir, Server, base64, command, program, script, with_stdin};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, bind, socket};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Instant;

/// A server that listens on a socket file, with more arguments.
fn on_file(path: &Path, arguments: &[&str]) -> Server {
    let url = format!("unix://{}", path.display());
    let server = Server::on_port(command(&[&["--listen", &url], arguments].concat()));
    assert_eq!(server.url(), url);
    server
}

/// A session with a command, gone on with over a second connection.
fn a_session(connect: &dyn Fn() -> Client) {
    let mut client = connect();
    client.handshake();
    assert_eq!(client.run(program("true", &["/bin/echo", "hello"])).stdout, b"hello\n");
    client.start(with_stdin(script("cat", "echo ready; cat; exit 3")));
    client.output_until("cat", "ready");
    let session = client.session.clone();
    drop(client);
    kit::until("the session is free", || {
        let mut client = connect();
        let id = client.request("initialize", json!({"clientName": "test", "resumeSessionId": session}));
        let answer = client.answer(id);
        if answer["error"]["code"] == -32010 {
            return None;
        }
        assert_eq!(answer["result"]["sessionId"], *session, "{answer}");
        client.continue_at(&session);
        client.send(&json!({"method": "initialized"}));
        let write = json!({"processId": "cat", "writeId": "w", "chunk": base64("more\n"), "closeStdin": true});
        client.call("process/write", write);
        let run = client.finish("cat");
        assert!((&run.stdout[..], run.code) == (b"more\n", 3), "{run:?}");
        Some(())
    });
}

#[test]
fn websocket_and_lines_on_one_socket_file() {
    let dir = Dir::new();
    let server = on_file(&dir.path("s"), &[]);
    a_session(&|| Client::of_websocket(server.url()));
    a_session(&|| Client::of_lines(server.url()));
    // What is sent at once with the first message is not lost.
    let mut client = Client::of_lines(server.url());
    let hello = json!({"id": 1, "method": "initialize", "params": {"clientName": "test"}});
    client.send_text(&format!(" \r\n{hello}\n{}", json!({"method": "initialized"})));
    assert!(client.answer(1)["result"]["sessionId"].is_string());
    assert_eq!(client.call("environment/status", Value::Null)["status"], "ready");
    client.send_text("no message");
    let complaint = client.wait_for("a complaint", |message| message["id"] == -1);
    let text = complaint["error"]["message"].as_str().unwrap();
    assert!(text.contains("from exec-server socket"), "{text}");
}

#[test]
fn vsock() {
    let arguments = ["--listen", "vsock://1:0"];
    let loopback = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|socket| bind(socket.as_raw_fd(), &VsockAddr::new(1, u32::MAX)));
    if let Err(e) = loopback {
        println!("skipped: there is no way from this machine to itself over vsock (vsock_loopback): {e}");
        let refused = kit::cli(&arguments);
        let says = format!("failed to listen on vsock://1:0: {}", std::io::Error::from(e));
        assert!(refused.code == 1 && refused.stderr.contains(&says), "{refused:?}");
        return;
    }
    let server = Server::on_port(command(&arguments));
    a_session(&|| Client::of_websocket(server.url()));
    a_session(&|| Client::of_lines(server.url()));
}

/// What comes on a connection until its end.
fn answer(mut stream: TcpStream, request: &str) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

#[test]
fn http_is_answered_on_a_socket_file_as_elsewhere() {
    let dir = Dir::new();
    let server = on_file(&dir.path("s"), &[]);
    let status = |request: &str| {
        let answer = answer(kit::connect(server.url()), request);
        answer.lines().next().unwrap().to_owned()
    };
    for path in ["/readyz", "/healthz"] {
        assert_eq!(
            status(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")),
            "HTTP/1.1 200 OK"
        );
    }
    let page = format!("{UPGRADE}Origin: http://x\r\n\r\n");
    assert_eq!(status(&page), "HTTP/1.1 403 Forbidden");
    assert_eq!(
        status("GET /other HTTP/1.1\r\nHost: x\r\n\r\n"),
        "HTTP/1.1 404 Not Found"
    );
    // Over TCP nothing but HTTP is understood: a web page can send anything there, but for that.
    let server = Server::websocket(&[]);
    let tcp = TcpStream::connect(server.address()).unwrap();
    assert!(answer(tcp, "{\"id\":1,\"method\":\"initialize\"}\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn who_has_to_present_a_token_cannot_do_without_websocket() {
    let dir = Dir::new();
    let file = dir.path("token");
    std::fs::write(&file, "secret").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let auth = [
        "--ws-auth",
        "capability-token",
        "--ws-token-file",
        file.to_str().unwrap(),
    ];
    let server = on_file(&dir.path("s"), &auth);
    let told = answer(kit::connect(server.url()), "{\"id\":1,\"method\":\"initialize\"}\n");
    let complaint: Value = serde_json::from_str(told.strip_suffix('\n').unwrap()).unwrap();
    assert_eq!(
        (&complaint["id"], &complaint["error"]["code"]),
        (&json!(-1), &json!(-32600))
    );
    assert!(
        told.contains("a token is wanted, which only a WebSocket client can present"),
        "{told}"
    );
    let upgrade = |header: &str| answer_head(kit::connect(server.url()), &format!("{UPGRADE}{header}\r\n"));
    assert!(upgrade("").starts_with("HTTP/1.1 401"));
    assert!(upgrade("Authorization: Bearer secret\r\n").starts_with("HTTP/1.1 101"));
    let ready = answer(kit::connect(server.url()), "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(ready.starts_with("HTTP/1.1 200"));
}

/// The first bytes that come on a connection.
fn answer_head(mut stream: TcpStream, request: &str) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    String::from_utf8(head.to_vec()).unwrap()
}

#[test]
fn what_was_asked_by_lines_is_answered_after_the_end_of_the_input() {
    let dir = Dir::new();
    let server = on_file(&dir.path("s"), &[]);
    let stream = kit::connect(server.url());
    let lines = [
        json!({"id": 1, "method": "initialize", "params": {"clientName": "test"}}),
        json!({"method": "initialized"}),
        json!({"id": 2, "method": "process/start", "params": script("p", "read x; echo late")}),
        json!({"id": 3, "method": "process/read", "params": {"processId": "p", "afterSeq": 99, "waitMs": 60000}}),
    ];
    let request: String = lines.iter().map(|line| format!("{line}\n")).collect();
    (&stream).write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let told = answer(stream, "");
    assert!(told.contains("\"id\":2") && told.contains("\"closed\":true"), "{told}");
}

#[test]
fn a_client_that_is_gone_leaves_its_session_at_once() {
    let dir = Dir::new();
    let server = on_file(&dir.path("s"), &["--drain-limit", "60"]);
    let mut client = Client::of_lines(server.url());
    client.handshake();
    client.start(program("p", &["/bin/sleep", "1000"]));
    client.request(
        "process/read",
        json!({"processId": "p", "afterSeq": 99, "waitMs": 60_000}),
    );
    client.call("environment/status", Value::Null);
    let session = client.session.clone();
    drop(client);
    let begin = Instant::now();
    kit::until("the session is free", || {
        let mut client = Client::of_lines(server.url());
        let id = client.request("initialize", json!({"clientName": "test", "resumeSessionId": session}));
        client.answer(id)["result"].is_object().then_some(())
    });
    assert!(begin.elapsed() < DEADLINE);
}

#[test]
fn bounds_hold_for_all_ways_together() {
    let dir = Dir::new();
    let (one, two) = (dir.path("one"), dir.path("two"));
    let listen = [&one, &two].map(|path| format!("unix://{}", path.display()));
    let server = Server::on_port(command(&[
        "--listen",
        &listen[0],
        "--listen",
        "ws://127.0.0.1:0",
        "--listen",
        &listen[1],
        "--max-connections",
        "2",
        "--max-handshakes",
        "1",
        "--initialize-timeout",
        "2s",
        "--drain-limit",
        "100ms",
    ]));
    let mut first = Client::of_lines(&listen[0]);
    first.handshake();
    let mut second = Client::of_websocket(&listen[1]);
    second.handshake();
    let told = answer(kit::connect(&listen[1]), "{\"id\":1,\"method\":\"initialize\"}\n");
    assert!(
        told.contains("-32603") && told.contains("too many connections: the server has its limit of 2"),
        "{told}"
    );
    let told = answer(kit::connect(&listen[0]), &format!("{UPGRADE}\r\n"));
    assert!(
        told.starts_with("HTTP/1.1 503") && told.contains("too many connections"),
        "{told}"
    );
    // Of two who say nothing one goes, by whichever way they came.
    let mut silent = [kit::connect(&listen[0]), kit::connect(&listen[1])];
    let mut waiting = silent.each_ref().map(|one| PollFd::new(one.as_fd(), PollFlags::POLLIN));
    let limit = PollTimeout::try_from(DEADLINE).unwrap();
    assert!(poll(&mut waiting, limit).unwrap() > 0);
    let told = waiting.map(|one| one.any() == Some(true));
    let gone = told.iter().position(|told| *told).unwrap();
    let mut told = String::new();
    silent[gone].read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 503"), "{told}");
    // And one without a session goes, whatever it speaks.
    drop(second);
    let told = kit::until("room for another", || {
        let told = answer(
            kit::connect(&listen[1]),
            "{\"id\":1,\"method\":\"environment/status\"}\n",
        );
        (!told.contains("too many")).then_some(told)
    });
    assert!(told.contains("there was no initialize in time"), "{told}");
    assert_eq!(first.call("environment/status", Value::Null)["status"], "ready");
    server.signal(Signal::SIGTERM);
    drop(server);
    assert!(!one.exists() && !two.exists());
}

#[test]
fn each_way_is_told_in_the_order_given() {
    let dir = Dir::new();
    let path = dir.path("s");
    let url = format!("unix://{}", path.display());
    let mut server = kit::Cli::start(&[
        "--listen",
        "ws://127.0.0.1:0",
        "--listen",
        &url,
        "--listen",
        "ws://127.0.0.1:0",
    ]);
    let told = server.output_until_times("\n", 3);
    let lines: Vec<&str> = told.lines().collect();
    assert!(
        lines[0].starts_with("ws://127.0.0.1:") && lines[2].starts_with("ws://127.0.0.1:"),
        "{told}"
    );
    assert!(lines[1] == url && lines[0] != lines[2], "{told}");
    for url in lines {
        a_session(&|| Client::of_websocket(url));
    }
    server.close_input();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.finish().code, 0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let dir = Dir::new();
    let path = dir.path("s");
    let url = format!("unix://{}", path.display());
    for (arguments, code, says) in [
        (
            &["--listen", "stdio", "--listen", &url][..],
            2,
            "cannot be given with another --listen",
        ),
        (
            &["--listen", "vsock://any:5000"],
            2,
            "it needs --ws-auth or --insecure-no-auth",
        ),
        (
            &["--listen", &url, "--listen", "ws://0.0.0.0:0"],
            2,
            "--listen ws://0.0.0.0:0 can be reached",
        ),
        (
            &["--listen", "unix:///nowhere/at/all"],
            1,
            "failed to lock its directory: No such file",
        ),
        (
            &["--listen", &format!("unix:///{}", "x".repeat(200))],
            1,
            "failed to listen on unix:///xxx",
        ),
        (
            &["--listen", &url, "--listen", "fd://99"],
            1,
            "failed to use descriptor 99 as a socket for clients: ",
        ),
        (
            &["--listen", "fd://0"],
            1,
            "failed to use descriptor 0 as a socket for clients: ",
        ),
        (&["--listen", "systemd"], 1, "LISTEN_PID does not name it"),
    ] {
        let ended = kit::cli(arguments);
        assert!(
            ended.code == code && ended.stderr.contains(says),
            "{arguments:?}: {ended:?}"
        );
        assert!(ended.stdout.is_empty() && !path.exists(), "{arguments:?}");
    }
}

#[cfg(feature = "client")]
mod client {
    use super::*;
    use exec_server::client::{ExecServerClient, ExecServerError, RemoteExecServerConnectArgs, StartOptions};
    use kit::cli;

    #[test]
    fn the_client_connects_by_a_socket_file_and_resumes() {
        let dir = Dir::new();
        let server = on_file(&dir.path("s"), &[]);
        let client = ExecServerClient::connect_websocket(RemoteExecServerConnectArgs::new(server.url())).unwrap();
        let process = client
            .start_process(&StartOptions::new(["/bin/cat"]).pipe_stdin())
            .unwrap();
        process.stdin().write_all(b"one ").unwrap();
        client.drop_connection();
        process.stdin().write_all(b"two").unwrap();
        process.close_stdin().unwrap();
        assert_eq!(process.output().unwrap().stdout, b"one two");
    }

    #[test]
    fn commands_take_the_url_of_a_socket_file() {
        let dir = Dir::new();
        let server = on_file(&dir.path("s"), &[]);
        let url = server.url();
        let ended = cli(&["run", "--connect", url, "--", "sh", "-c", "echo hello; exit 3"]);
        assert_eq!((ended.code, ended.text()), (3, "hello\n"), "{}", ended.stderr);
        let detached = cli(&[
            "run",
            "--connect",
            url,
            "--detach",
            "--",
            "sh",
            "-c",
            "echo $((40 + 2)); sleep 1000",
        ]);
        let session = detached.text().split_whitespace().next().unwrap();
        let listed = cli(&["ps", "--connect", url, "--session", session]);
        assert!(listed.code == 0 && listed.text().contains("running"), "{listed:?}");
        let attached = kit::Cli::start(&["attach", "--connect", url, "--session", session]);
        attached.output_until("42");
        let file = dir.path("file");
        std::fs::write(&file, "content").unwrap();
        let remote = format!("remote:{}", file.display());
        let copied = cli(&["cp", "--connect", url, &remote, dir.path("copy").to_str().unwrap()]);
        assert_eq!(
            (copied.code, std::fs::read(dir.path("copy")).unwrap()),
            (0, b"content".to_vec())
        );
    }

    #[test]
    fn where_nobody_listens_nobody_is_waited_for() {
        let dir = Dir::new();
        let url = format!("unix://{}", dir.path("s").display());
        for (url, says) in [
            (&url[..], "No such file or directory"),
            ("unix://relative", "expected `unix:///PATH`"),
            ("vsock://1", "expected `vsock://CID:PORT`"),
            ("tcp://x", "does not begin with `ws://`, `unix://` or `vsock://`"),
        ] {
            let ended = cli(&["run", "--connect", url, "--", "true"]);
            assert!(ended.code == 125 && ended.stderr.contains(says), "{ended:?}");
            assert!(ended.stderr.contains(url), "{ended:?}");
        }
        // More wait to be accepted than can: it ends in time.
        let listener = std::os::unix::net::UnixListener::bind(dir.path("s")).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let mut waiting = Vec::new();
        let mut args = RemoteExecServerConnectArgs::new(&url);
        args.connect_timeout = std::time::Duration::from_millis(100);
        for _ in 0..3 {
            let result = ExecServerClient::connect_websocket(args.clone());
            assert!(
                matches!(result, Err(ExecServerError::WebSocketConnectTimeout { .. })),
                "{result:?}"
            );
            waiting.push(std::thread::spawn({
                let path = dir.path("s");
                move || std::os::unix::net::UnixStream::connect(path).is_ok()
            }));
        }
        drop(listener);
        for waiting in waiting {
            waiting.join().unwrap();
        }
    }
}
