//! Input that the blocking client sends ahead of the answers.

#![cfg(feature = "client")]

mod kit;
#[path = "kit/scripted_client.rs"]
mod scripted_client;

use crossbeam_channel::bounded;
use exec_server::client::{ExecServerClient, ExecServerProcess, RemoteExecServerConnectArgs, StartOptions};
use kit::{DEADLINE, Dir, PATH, ScriptedServer, Server, base64, scripted, until};
use scripted_client::{args, connect, message, start, until_gone};
use serde_json::{Value, json};
use std::io::{Error, ErrorKind, Write};
use std::thread;
use std::time::Duration;

/// Opens a session as a server that keeps writes in order, and starts the process `p`.
fn open(server: &mut ScriptedServer) {
    server.open("s", json!({"processCloseStdin": true}));
    server.start();
}

/// The next write, which must have that id and input.
fn written(server: &mut ScriptedServer, id: &str, input: &str) -> Value {
    let request = server.request("process/write");
    assert_eq!(
        request["params"],
        json!({"processId": "p", "writeId": id, "chunk": base64(input)})
    );
    request
}

/// The next write, which must close the input.
fn closed(server: &mut ScriptedServer, id: &str) -> Value {
    let request = server.request("process/write");
    assert_eq!(
        request["params"],
        json!({"processId": "p", "writeId": id, "chunk": "", "closeStdin": true})
    );
    request
}

fn answer(server: &mut ScriptedServer, request: &Value, status: &str) {
    server.answer(request, json!({"status": status}));
}

/// Has the client say something, before which it has sent all that it would.
fn nothing_more(server: &mut ScriptedServer) {
    server.event("go", 1);
    let request = server.request("process/list");
    server.answer(&request, json!({"processes": []}));
}

/// The client's part in that.
fn say_something(client: &ExecServerClient, process: &ExecServerProcess) {
    process.events().unwrap().recv().unwrap();
    client.list().unwrap();
}

fn told<T>(result: Result<T, Error>) -> (ErrorKind, String) {
    result.map_or_else(|e| (e.kind(), e.to_string()), |_| panic!("no error"))
}

const CLOSED: &str = "exec-server protocol error: stdin of process p is closed";

#[test]
fn writes_do_not_wait_for_answers_and_a_flush_does() {
    let (url, script) = scripted(|server| {
        open(server);
        let writes: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .zip(["1", "2", "3"])
            .map(|(input, id)| written(server, id, input))
            .collect();
        for request in &writes {
            answer(server, request, "accepted");
        }
        // Sent only when the flush has returned.
        let request = server.request("process/list");
        server.answer(&request, json!({"processes": []}));
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    let mut stdin = process.stdin();
    for input in ["a", "b", "c"] {
        stdin.write_all(input.as_bytes()).unwrap();
    }
    stdin.flush().unwrap();
    client.list().unwrap();
    drop((stdin, process, client));
    script.join().unwrap();
}

#[test]
fn a_flush_waits_for_the_last_answer() {
    let (url, script) = scripted(|server| {
        open(server);
        let (first, second) = (written(server, "1", "a"), written(server, "2", "b"));
        answer(server, &first, "accepted");
        server.event("x", 1);
        // The other answer never comes.
        until_gone(server);
        drop(second);
    });
    let mut args = args(&url);
    args.options.call_timeout = Some(Duration::from_millis(200));
    let client = ExecServerClient::connect_websocket(args).unwrap();
    let process = start(&client);
    let mut stdin = process.stdin();
    stdin.write_all(b"a").unwrap();
    stdin.write_all(b"b").unwrap();
    process.events().unwrap().recv().unwrap();
    let (_, text) = told(stdin.flush());
    assert_eq!(
        text,
        "exec-server protocol error: timed out waiting for exec-server `process/write` response after 200ms"
    );
    drop((stdin, process, client));
    script.join().unwrap();
}

#[test]
fn only_so_much_is_unanswered() {
    // So many bytes at a time, how many writes of them, and how many of those are sent without an answer.
    for (len, writes, ahead) in [(64 * 1024, 5, 4), (1, 65, 64)] {
        let piece = "x".repeat(len);
        let (url, script) = scripted({
            let piece = piece.clone();
            move |server| {
                open(server);
                let sent: Vec<_> = (1..=ahead).map(|n| written(server, &n.to_string(), &piece)).collect();
                nothing_more(server);
                answer(server, &sent[0], "accepted");
                let last = written(server, &writes.to_string(), &piece);
                for request in sent[1..].iter().chain([&last]) {
                    answer(server, request, "accepted");
                }
                until_gone(server);
            }
        });
        let client = connect(&url);
        let process = start(&client);
        let mut stdin = process.stdin();
        thread::scope(|scope| {
            scope.spawn(move || {
                (0..writes).for_each(|_| stdin.write_all(piece.as_bytes()).unwrap());
                stdin.flush().unwrap();
            });
            say_something(&client, &process);
        });
        drop((process, client));
        script.join().unwrap();
    }
}

#[test]
fn a_server_that_may_change_the_order_gets_one_write_at_a_time() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.start();
        let first = written(server, "1", "a");
        nothing_more(server);
        answer(server, &first, "accepted");
        let second = written(server, "2", "b");
        answer(server, &second, "accepted");
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    let mut stdin = process.stdin();
    thread::scope(|scope| {
        scope.spawn(move || {
            stdin.write_all(b"a").unwrap();
            stdin.write_all(b"b").unwrap();
        });
        say_something(&client, &process);
    });
    drop((process, client));
    script.join().unwrap();
}

#[test]
fn what_a_write_was_refused_with_is_told_later() {
    let (url, script) = scripted(|server| {
        open(server);
        let (first, second) = (written(server, "1", "a"), written(server, "2", "b"));
        answer(server, &first, "stdinClosed");
        answer(server, &second, "stdinClosed");
        // The one after that was not sent.
        let close = closed(server, "3");
        answer(server, &close, "stdinClosed");
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    let mut stdin = process.stdin();
    stdin.write_all(b"a").unwrap();
    stdin.write_all(b"b").unwrap();
    assert_eq!(told(stdin.flush()), (ErrorKind::BrokenPipe, CLOSED.into()));
    // A clone has the same input.
    assert_eq!(
        told(process.stdin().write(b"c")),
        (ErrorKind::BrokenPipe, CLOSED.into())
    );
    assert_eq!(message(process.write(b"d")), CLOSED);
    process.close_stdin().unwrap();
    drop((stdin, process, client));
    script.join().unwrap();
}

#[test]
fn closing_tells_what_nobody_was_told() {
    for (refusal, expected) in [
        ("stdinClosed", CLOSED),
        ("unknownProcess", "exec-server protocol error: unknown process id p"),
        ("an error", "exec-server rejected request (-32603): full"),
    ] {
        let (url, script) = scripted(move |server| {
            open(server);
            let write = written(server, "1", "a");
            let close = closed(server, "2");
            match refusal {
                "an error" => server.refuse(&write, -32603, "full"),
                status => answer(server, &write, status),
            }
            answer(server, &close, "stdinClosed");
            until_gone(server);
        });
        let client = connect(&url);
        let process = start(&client);
        process.stdin().write_all(b"a").unwrap();
        assert_eq!(message(process.close_stdin()), expected);
        drop((process, client));
        script.join().unwrap();
    }
}

#[test]
fn what_was_not_answered_is_sent_again_in_order_though_nobody_has_it_any_more() {
    let (url, script) = scripted(|server| {
        open(server);
        let first = written(server, "1", "a");
        for (id, input) in [("2", "b"), ("3", "c"), ("4", "d")] {
            written(server, id, input);
        }
        server.request("process/list");
        answer(server, &first, "accepted");
        server.cut();
        server.open("s", json!({"processCloseStdin": true}));
        let request = server.request("process/read");
        server.answer(
            &request,
            json!({"chunks": [], "nextSeq": 1, "exited": false, "closed": false}),
        );
        for (id, input) in [("2", "b"), ("3", "c"), ("4", "d")] {
            let request = written(server, id, input);
            answer(server, &request, "accepted");
        }
        let request = server.request("process/list");
        server.answer(&request, json!({"processes": []}));
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    let mut stdin = process.stdin();
    for input in ["a", "b", "c", "d"] {
        stdin.write_all(input.as_bytes()).unwrap();
    }
    drop((stdin, process));
    assert_eq!(message(client.list()), "exec-server transport disconnected");
    // Waits for the next connection.
    client.list().unwrap();
    drop(client);
    script.join().unwrap();
}

#[test]
fn writes_behind_a_recovery_follow_those_from_before() {
    let (url, script) = scripted(|server| {
        open(server);
        written(server, "1", "a");
        written(server, "2", "b");
        server.request("process/list");
        server.cut();
        server.open("s", json!({"processCloseStdin": true}));
        let request = server.request("process/read");
        server.answer(
            &request,
            json!({"chunks": [], "nextSeq": 1, "exited": false, "closed": false}),
        );
        let writes = [
            written(server, "1", "a"),
            written(server, "2", "b"),
            written(server, "3", "c"),
            closed(server, "4"),
        ];
        for request in &writes {
            answer(server, request, "accepted");
        }
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    let mut stdin = process.stdin();
    for input in ["a", "b"] {
        stdin.write_all(input.as_bytes()).unwrap();
    }
    assert_eq!(message(client.list()), "exec-server transport disconnected");
    stdin.write_all(b"c").unwrap();
    stdin.close().unwrap();
    drop((stdin, process, client));
    script.join().unwrap();
}

#[test]
fn a_connection_lost_for_good_is_told() {
    let (url, script) = scripted(|server| {
        open(server);
        written(server, "1", "a");
        server.cut();
        server.accept();
        let request = server.request("initialize");
        server.refuse(&request, -32600, "unknown session id s");
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    let mut stdin = process.stdin();
    stdin.write_all(b"a").unwrap();
    let expected = "exec-server transport disconnected; failed to resume exec-server session: \
                    exec-server rejected request (-32600): unknown session id s";
    let lost = (ErrorKind::BrokenPipe, expected.to_owned());
    assert_eq!(told(stdin.flush()), lost);
    assert_eq!(told(stdin.write(b"b")), lost);
    assert_eq!(message(stdin.close()), expected);
    drop((stdin, process, client));
    script.join().unwrap();
}

#[test]
fn a_client_that_is_dropped_waits_for_the_answers() {
    let (tell, dropping) = bounded(0);
    let (url, script) = scripted(move |server| {
        open(server);
        let write = written(server, "1", "a");
        dropping.recv().unwrap();
        // A client that does not wait closes the connection.
        let patience =
            |server: &mut ScriptedServer, time| server.socket().get_ref().set_read_timeout(Some(time)).unwrap();
        patience(server, Duration::from_millis(50));
        match server.socket().read() {
            Err(tungstenite::Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => {}
            other => panic!("{other:?}"),
        }
        patience(server, DEADLINE);
        answer(server, &write, "accepted");
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    process.stdin().write_all(b"a").unwrap();
    drop(process);
    tell.send(()).unwrap();
    drop(client);
    script.join().unwrap();
}

#[test]
fn what_was_written_arrives_though_all_is_dropped_at_once() {
    const BYTES: usize = 3_000_000;
    let dir = Dir::new();
    let server = Server::websocket(&[]);
    for round in 0..5 {
        let name = format!("{round}");
        let client = ExecServerClient::connect_websocket(RemoteExecServerConnectArgs::new(server.url())).unwrap();
        let script = format!("head -c {BYTES} >{name}.part && mv {name}.part {name}; exec sleep 1000");
        let process = client
            .start_process(
                &StartOptions::new(["/bin/sh", "-c", &script])
                    .env("PATH", PATH)
                    .cwd(dir.path(""))
                    .pipe_stdin(),
            )
            .unwrap();
        process.stdin().write_all(&vec![b'x'; BYTES]).unwrap();
        drop((process, client));
        until("the file", || dir.path(&name).exists().then_some(()));
        assert_eq!(dir.path(&name).metadata().unwrap().len(), BYTES as u64);
    }
}
