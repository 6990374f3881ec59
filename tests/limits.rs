//! What happens when a limit is met: each is answered clearly, and what was there before goes on.

mod kit;

use kit::{Client, DEADLINE, Dir, Server, bytes, program, script, until, with_stdin, write};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// A connection without an HTTP request.
fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// All that the server says on it.
fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn works(client: &mut Client) {
    assert_eq!(client.call("environment/status", Value::Null)["status"], "ready");
}

/// A process that has said so many bytes and runs on until its input ends.
fn speaker(id: &str, bytes: usize) -> Value {
    with_stdin(script(id, &format!("head -c {bytes} /dev/zero; exec cat")))
}

/// What is kept of the output of a process, and what is not.
fn kept(client: &mut Client, id: &str) -> (usize, u64) {
    let read = client.call("process/read", json!({"processId": id}));
    let chunks = read["chunks"].as_array().unwrap();
    let kept = chunks.iter().map(|chunk| bytes(&chunk["chunk"]).len()).sum();
    (kept, read["lostBytes"].as_u64().unwrap())
}

/// Takes so many bytes of output, and returns the number of the last event.
fn take(client: &mut Client, id: &str, mut len: usize) -> Value {
    loop {
        let event = client.event(id);
        len -= bytes(&event.params["chunk"]).len();
        if len == 0 {
            return event.params["seq"].clone();
        }
    }
}

#[test]
fn connections() {
    let server = Server::websocket(&["--max-connections", "2"]);
    let (mut one, two) = (server.client(), server.client());
    let answer = |request: &str| {
        let mut stream = connect(&server);
        write!(stream, "{request}\r\n\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        rest(stream)
    };
    let upgrade = "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    let refused = answer(upgrade);
    assert!(refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{refused}");
    assert!(
        refused.ends_with("\r\n\r\ntoo many connections: the server has its limit of 2"),
        "{refused}"
    );
    assert!(answer("GET /readyz HTTP/1.1").starts_with("HTTP/1.1 200"));
    works(&mut one);
    drop(two);
    until("room for a connection", || {
        answer(upgrade).starts_with("HTTP/1.1 101").then_some(())
    });
}

#[test]
fn connections_without_a_complete_request() {
    let server = Server::websocket(&["--max-handshakes", "2"]);
    let mut slow: Vec<TcpStream> = (0..2).map(|_| connect(&server)).collect();
    for stream in &mut slow {
        write!(stream, "GET / HTTP/1.1\r\n").unwrap();
    }
    // Whoever completes the request at once is let in all the same, and the oldest of the others goes for it.
    let mut client = server.client();
    let refused = rest(slow.remove(0));
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(
        refused.ends_with("\r\n\r\ntoo many connections without a complete request"),
        "{refused}"
    );
    write!(slow[0], "Origin: x\r\n\r\n").unwrap();
    assert!(rest(slow.remove(0)).starts_with("HTTP/1.1 403"));
    works(&mut client);
}

#[test]
fn the_time_for_a_request() {
    let server = Server::websocket(&["--upgrade-timeout", "50ms"]);
    let mut slow = connect(&server);
    write!(slow, "GET / HTTP/1.1\r\n").unwrap();
    let refused = rest(slow);
    assert!(refused.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{refused}");
    assert!(
        refused.ends_with("\r\n\r\nthe request did not come in time"),
        "{refused}"
    );
    // One that has given up is told nothing.
    let gone = connect(&server);
    gone.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(gone), "");
}

#[test]
fn the_time_for_initialize() {
    let server = Server::websocket(&["--initialize-timeout", "300ms"]);
    let mut with_session = server.client();
    let mut without = server.connect();
    without.send(&json!({"method": "process/list"}));
    assert_eq!(without.next().unwrap()["error"]["code"], -32600);
    assert!(without.rest().is_empty());
    let close = without.close_frame.unwrap();
    assert_eq!(
        (u16::from(close.code), &*close.reason),
        (1008, "there was no initialize in time")
    );
    works(&mut with_session);
}

#[test]
fn sessions() {
    let server = Server::websocket(&["--max-sessions", "1", "--session-ttl", "0"]);
    let mut one = server.client();
    let mut two = server.connect();
    let hello = json!({"clientName": "test"});
    let refusal = two.refusal("initialize", hello.clone());
    assert_eq!(
        refusal,
        (-32603, "too many sessions: the server has its limit of 1".to_owned())
    );
    works(&mut one);
    drop(one);
    until("room for a session", || {
        let id = two.request("initialize", hello.clone());
        two.answer(id).get("result").map(drop)
    });
}

#[test]
fn processes_of_a_session() {
    let server = Server::websocket(&["--max-processes", "2"]);
    let mut client = server.client();
    for id in ["a", "b"] {
        client.start(with_stdin(program(id, &["/bin/cat"])));
    }
    let refusal = client.refusal("process/start", program("c", &["/bin/true"]));
    assert_eq!(refusal, (-32603, "too many processes: a session may have 2".to_owned()));
    assert_eq!(server.client().run(program("c", &["/bin/true"])).code, 0);
    // One that has ended gives way.
    client.call("process/terminate", json!({"processId": "a"}));
    client.finish("a");
    until("room for a process", || {
        let id = client.request("process/start", program("c", &["/bin/true"]));
        client.answer(id).get("result").map(drop)
    });
    assert_eq!(client.finish("c").code, 0);
    let refusal = client.refusal("process/read", json!({"processId": "a"}));
    assert_eq!(refusal, (-32600, "unknown process id a".to_owned()));
    assert_eq!(client.write("b", "1", "b"), "accepted");
    client.output_until("b", "b");
}

#[test]
fn running_processes_of_the_server() {
    let server = Server::websocket(&["--max-running", "1"]);
    let (mut one, mut two) = (server.client(), server.client());
    one.start(with_stdin(program("a", &["/bin/cat"])));
    let refusal = two.refusal("process/start", program("a", &["/bin/true"]));
    assert_eq!(
        refusal,
        (
            -32603,
            "too many processes run: the server has its limit of 1".to_owned()
        )
    );
    one.call("process/terminate", json!({"processId": "a"}));
    one.finish("a");
    until("room for a process", || {
        let id = two.request("process/start", program("a", &["/bin/true"]));
        two.answer(id).get("result").map(drop)
    });
    assert_eq!(two.finish("a").code, 0);
}

#[test]
fn requests_without_an_answer() {
    let server = Server::websocket(&["--max-requests", "2", "--max-long-polls", "1"]);
    let mut client = server.client();
    client.start(with_stdin(script("a", "echo up; exec sleep 1000")));
    // Whoever has answered the start is done with it.
    client.output_until("a", "up");
    let poll = json!({"processId": "a", "afterSeq": 1, "waitMs": u64::MAX});
    let waiting = client.request("process/read", poll.clone());
    let refusal = client.refusal("process/read", poll.clone());
    assert_eq!(
        refusal,
        (-32603, "too many reads wait: a connection may have 1".to_owned())
    );
    // More than a pipe takes, and than is answered before it was read.
    let input = "x".repeat(4 << 20);
    let unread = client.request("process/write", write("a", "1", &input));
    for (method, params) in [("process/read", poll), ("fs/getMetadata", json!({"path": "/"}))] {
        let refusal = client.refusal(method, params);
        assert_eq!(
            refusal,
            (
                -32603,
                "too many requests are unanswered: a connection may have 2".to_owned()
            )
        );
    }
    works(&mut client);
    let ended = client.call("process/terminate", json!({"processId": "a"}));
    assert_eq!(ended, json!({"running": true}));
    client.result(waiting);
    client.result(unread);
    client.call("fs/getMetadata", json!({"path": "/"}));
}

#[test]
fn file_calls_and_open_files() {
    let server = Server::websocket(&["--max-file-calls", "1", "--max-file-handles", "2"]);
    let mut client = server.client();
    let dir = Dir::new();
    let large = std::fs::File::create(dir.path("large")).unwrap();
    large.set_len(30 << 20).unwrap();
    let read = json!({"path": dir.uri("large")});
    until("a second call during a first", || {
        let calls = [0; 2].map(|_| client.request("fs/readFile", read.clone()));
        let answers = calls.map(|id| client.answer(id));
        let error = &answers[1]["error"];
        assert!(answers[0].get("result").is_some());
        (!error.is_null()).then(|| {
            let text = "too many file calls are unfinished: a connection may have 1";
            assert_eq!(*error, json!({"code": -32603, "message": text}));
        })
    });
    let open = |id: u32| json!({"handleId": id.to_string(), "path": dir.uri("large"), "mode": "read"});
    for id in 0..2 {
        client.call("fs/open", open(id));
    }
    let refusal = client.refusal("fs/open", open(2));
    assert_eq!(
        refusal,
        (-32600, "at most 2 file handles may be open per connection".to_owned())
    );
    client.call("fs/close", json!({"handleId": "0"}));
    client.call("fs/open", open(2));
}

#[test]
fn unread_input() {
    let server = Server::websocket(&["--stdin-hard-bytes", "200k", "--stdin-total-bytes", "300k"]);
    let (mut one, mut two) = (server.client(), server.client());
    // The pipes take some of it.
    let input = "x".repeat(200 << 10);
    for client in [&mut one, &mut two] {
        client.start(with_stdin(program("a", &["/bin/sleep", "1000"])));
    }
    assert_eq!(one.write("a", "1", &input), "accepted");
    let refusal = one.refusal("process/write", write("a", "2", &input[..100 << 10]));
    let text = "stdin of process a is full: it may have 204800 bytes that it has not read";
    assert_eq!(refusal, (-32603, text.to_owned()));
    let refusal = two.refusal("process/write", write("a", "1", &input));
    let text = "the server is full of input: all processes together may have 307200 bytes that they have not read";
    assert_eq!(refusal, (-32603, text.to_owned()));
    // What was accepted is so again, and nothing of what was not is left.
    assert_eq!(one.write("a", "1", &input), "accepted");
    one.call("process/terminate", json!({"processId": "a"}));
    one.finish("a");
    assert_eq!(two.write("a", "1", &input), "accepted");
}

#[test]
fn retained_output_of_ended_processes() {
    let server = Server::websocket(&["--retain-total-bytes", "500k"]);
    let (mut one, mut two) = (server.client(), server.client());
    let run = |client: &mut Client, id: &str| {
        let run = client.run(program(id, &["/usr/bin/head", "-c", "200000", "/dev/zero"]));
        assert_eq!((run.stdout.len(), run.code), (200_000, 0));
    };
    run(&mut one, "a");
    run(&mut two, "a");
    assert_eq!(kept(&mut one, "a"), (200_000, 0));
    // The one that ended first goes first, whosever it is; how it ended is still told.
    run(&mut two, "b");
    assert_eq!(kept(&mut one, "a"), (0, 200_000));
    let read = one.call("process/read", json!({"processId": "a"}));
    assert_eq!((&read["exitCode"], &read["closed"]), (&json!(0), &json!(true)));
    for id in ["a", "b"] {
        assert_eq!(kept(&mut two, id), (200_000, 0));
    }
}

#[test]
fn retained_output_of_running_processes() {
    let server = Server::websocket(&["--retain-total-bytes", "500k", "--retain-bytes", "300k"]);
    let mut client = server.client();
    for id in ["a", "b"] {
        client.start(speaker(id, 280 << 10));
        take(&mut client, id, 280 << 10);
    }
    // Its client has got all of it, and what is kept for it to be asked for again is half of what it may be.
    assert_eq!(client.run(program("c", &["/bin/echo", "c"])).stdout, b"c\n");
    let mut sum = 0;
    for id in ["a", "b"] {
        let (kept, lost) = kept(&mut client, id);
        assert!(kept >= 80 << 10 && kept + lost as usize == 280 << 10, "{kept} {lost}");
        sum += kept;
        assert_eq!(client.write(id, "1", id), "accepted");
        client.output_until(id, id);
    }
    assert!(sum <= 500 << 10, "{sum}");
}

#[test]
fn retained_output_that_must_not_be_lost() {
    let server = Server::websocket(&["--retain-total-bytes", "500k"]);
    let mut client = server.client();
    let acknowledged = |id: &str| {
        let mut start = program(id, &["/usr/bin/head", "-c", "300000", "/dev/zero"]);
        start["ackOutput"] = true.into();
        start
    };
    for id in ["a", "b"] {
        assert_eq!(client.run(acknowledged(id)).stdout.len(), 300_000);
    }
    let refusal = client.refusal("process/start", program("c", &["/bin/true"]));
    let text = "too much output is retained: all processes together may have 512000 bytes";
    assert_eq!(refusal, (-32603, text.to_owned()));
    for id in ["a", "b"] {
        assert_eq!(kept(&mut client, id), (300_000, 0));
    }
    client.send(&json!({"method": "process/ack", "params": {"processId": "a", "seq": 1_000_000}}));
    assert_eq!(client.run(program("c", &["/bin/true"])).code, 0);
    assert_eq!(kept(&mut client, "b"), (300_000, 0));
}

#[test]
fn retained_events_and_ended_processes() {
    let server = Server::websocket(&["--retain-events", "4", "--retain-ended", "300ms"]);
    let mut client = server.client();
    client.start(with_stdin(program("a", &["/bin/cat"])));
    for i in 1..=10 {
        assert_eq!(client.write("a", &i.to_string(), "x"), "accepted");
        client.output_until("a", "x");
    }
    let read = client.call("process/read", json!({"processId": "a"}));
    assert_eq!(
        (&read["firstSeq"], &read["lostBytes"], &read["nextSeq"]),
        (&json!(7), &json!(6), &json!(11))
    );
    client.call("process/terminate", json!({"processId": "a"}));
    client.finish("a");
    until("the process to be forgotten", || {
        let id = client.request("process/read", json!({"processId": "a"}));
        let error = client.answer(id)["error"].take();
        let unknown = json!({"code": -32600, "message": "unknown process id a"});
        (!error.is_null()).then(|| assert_eq!(error, unknown))
    });
}

#[test]
fn the_time_after_the_end_of_the_input() {
    let command = kit::command(&["--listen", "stdio", "--drain-limit", "50ms"]);
    let (mut server, mut client) = Server::on_pipes(command);
    client.handshake();
    client.start(program("a", &["/bin/sleep", "1000"]));
    let poll = client.request("process/read", json!({"processId": "a", "waitMs": u64::MAX}));
    client.close_input();
    assert_eq!(client.error(poll), (-32603, "the request was given up".to_owned()));
    assert!(client.rest().is_empty());
    assert!(server.wait().success());
}

#[test]
fn the_size_of_a_message() {
    let server = Server::websocket(&["--max-message-bytes", "1000"]);
    let mut client = server.client();
    works(&mut client);
    client.send(&json!({"id": 1, "method": "environment/status", "x": "x".repeat(1000)}));
    assert!(client.rest().is_empty());
    assert_eq!(client.close_frame.map(|frame| frame.code.into()), Some(1009));
}

#[test]
fn answers_that_are_not_read() {
    let server = Server::websocket(&["--max-unread-bytes", "1MiB", "--session-ttl", "0"]);
    let mut client = server.client();
    let dir = Dir::new();
    std::fs::write(dir.path("f"), vec![0; 8 << 20]).unwrap();
    for _ in 0..3 {
        client.request("fs/readFile", json!({"path": dir.uri("f")}));
    }
    let session = client.session.clone();
    until("the end of its session", || {
        let params = json!({"clientName": "test", "resumeSessionId": session});
        (server.connect().refusal("initialize", params).0 == -32600).then_some(())
    });
}
