//! A client within the server's program, on the bare connection.

mod kit;

use crossbeam_channel::{Receiver, bounded};
use exec_server::protocol::message::RequestId;
use exec_server::server::{Server, ServerConfig};
use exec_server::transport::memory::{self, ClientEnd, ToClient, ToServer};
use kit::{DEADLINE, Dir, base64, is_alive, program, script, until, wait_until_blocked, with_stdin};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use tungstenite::Bytes;

/// Taken for reading by every test that starts threads, and for writing by the one that counts them.
static THREADS: RwLock<()> = RwLock::new(());

struct Client {
    end: ClientEnd,
    /// Fails once the connection is over.
    ended: Receiver<()>,
    last_id: i64,
    /// Came before an answer that was waited for.
    kept: VecDeque<ToClient>,
    _threads: Option<RwLockReadGuard<'static, ()>>,
}

fn connect(config: ServerConfig, capacity: usize) -> Client {
    let threads = THREADS.read().unwrap_or_else(PoisonError::into_inner);
    let mut client = connect_alone(config, capacity);
    client._threads = Some(threads);
    client
}

fn connect_alone(config: ServerConfig, capacity: usize) -> Client {
    let (end, server_end) = memory::pair(NonZeroUsize::new(capacity).unwrap());
    let (tell, ended) = bounded(1);
    let tell = move || _ = tell.send(());
    Server::new(config).serve_memory(server_end, tell).unwrap();
    let mut client = Client {
        end,
        ended,
        last_id: 0,
        kept: VecDeque::new(),
        _threads: None,
    };
    let result = client.call("initialize", json!({"clientName": "test"}));
    assert!(result["sessionId"].is_string());
    client.notify("initialized", Value::Null);
    client
}

impl Client {
    fn send(&mut self, method: &str, params: Value, bulk: Option<(&'static str, Bytes)>) -> i64 {
        self.send_as(method, params, bulk, false)
    }

    fn send_as(&mut self, method: &str, params: Value, bulk: Option<(&'static str, Bytes)>, raw: bool) -> i64 {
        self.last_id += 1;
        let request = ToServer::Request {
            id: RequestId::from(self.last_id),
            method: method.into(),
            params: params.to_string().into(),
            bulk,
            raw,
        };
        self.end.outgoing.send_timeout(request, DEADLINE).unwrap();
        self.last_id
    }

    fn notify(&self, method: &str, params: Value) {
        let params = params.to_string().into();
        let notification = ToServer::Notification {
            method: method.into(),
            params,
        };
        self.end.outgoing.send_timeout(notification, DEADLINE).unwrap();
    }

    fn next(&mut self) -> ToClient {
        self.kept.pop_front().unwrap_or_else(|| self.receive())
    }

    fn receive(&self) -> ToClient {
        self.end.incoming.recv_timeout(DEADLINE).unwrap()
    }

    /// The result of a request.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.call_with(method, params, None)
    }

    fn call_with(&mut self, method: &str, params: Value, bulk: Option<(&'static str, Bytes)>) -> Value {
        let id = self.send(method, params, bulk);
        loop {
            let received = self.receive();
            if let ToClient::Message(text) = &received {
                let mut message: Value = serde_json::from_slice(text).unwrap();
                if message["id"] == id {
                    assert!(message["error"].is_null(), "{message}");
                    return message["result"].take();
                }
            }
            self.kept.push_back(received);
        }
    }

    /// The result of a request that wants bytes as they are, and those.
    fn call_raw(&mut self, method: &str, params: Value) -> (Value, Vec<Bytes>) {
        let wanted = self.send_as(method, params, None, true);
        loop {
            match self.receive() {
                ToClient::Answer { text, bulk } => {
                    let mut message: Value = serde_json::from_slice(&text).unwrap();
                    assert_eq!(message["id"], wanted);
                    return (message["result"].take(), bulk);
                }
                received => {
                    if let ToClient::Message(text) = &received {
                        let message: Value = serde_json::from_slice(text).unwrap();
                        assert_ne!(message["id"], wanted, "no bytes");
                    }
                    self.kept.push_back(received);
                }
            }
        }
    }

    /// The output of a process up to its last event, and its exit code.
    fn finish(&mut self, id: &str) -> (Vec<u8>, i64) {
        let (mut output, mut code, mut last) = (Vec::new(), 0, 0);
        loop {
            match self.next() {
                ToClient::Output {
                    process_id, seq, chunk, ..
                } if *process_id == *id => {
                    last += 1;
                    assert_eq!(seq, last);
                    output.extend_from_slice(&chunk);
                }
                ToClient::Output { .. } | ToClient::Answer { .. } => {}
                ToClient::Message(text) => {
                    let message: Value = serde_json::from_slice(&text).unwrap();
                    if message["params"]["processId"] != id {
                        continue;
                    }
                    last += 1;
                    assert_eq!(message["params"]["seq"], last);
                    match message["method"].as_str() {
                        Some("process/exited") => code = message["params"]["exitCode"].as_i64().unwrap(),
                        _ => return (output, code),
                    }
                }
            }
        }
    }

    fn pid_of(&mut self, id: &str) -> i32 {
        let list = self.call("process/list", Value::Null);
        let listed = list["processes"].as_array().unwrap();
        listed.iter().find(|p| p["processId"] == id).unwrap()["pid"]
            .as_i64()
            .unwrap() as i32
    }
}

#[test]
fn output_and_input_are_the_bytes_they_are() {
    let mut client = connect(ServerConfig::default(), 8);
    client.call("process/start", with_stdin(program("a", &["/bin/cat"])));
    let all: Vec<u8> = (0..200_000).map(|i| (i % 251) as u8).collect();
    let write = json!({"processId": "a", "writeId": "1", "chunk": "", "closeStdin": true});
    let written = client.call_with("process/write", write, Some(("chunk", all.clone().into())));
    assert_eq!(written["status"], "accepted");
    assert_eq!(client.finish("a"), (all, 0));
    // Base64 in the parameters is still base64.
    client.call("process/start", with_stdin(program("b", &["/bin/cat"])));
    let write = json!({"processId": "b", "writeId": "1", "chunk": base64("hi"), "closeStdin": true});
    client.call("process/write", write);
    assert_eq!(client.finish("b"), (b"hi".to_vec(), 0));
}

#[test]
fn files_are_written_from_bytes() {
    let mut client = connect(ServerConfig::default(), 8);
    let dir = Dir::new();
    let content: Vec<u8> = (0..1_000_000).map(|i| (i % 249) as u8).collect();
    let bytes = |key| Some((key, Bytes::from(content.clone())));
    let write = json!({"path": dir.uri("f"), "dataBase64": ""});
    assert_eq!(client.call_with("fs/writeFile", write, bytes("dataBase64")), json!({}));
    assert!(std::fs::read(dir.path("f")).unwrap() == content);
    client.call(
        "fs/open",
        json!({"handleId": "h", "path": dir.uri("g"), "mode": "replace"}),
    );
    let block = json!({"handleId": "h", "offset": 3, "chunk": ""});
    client.call_with("fs/writeBlock", block, bytes("chunk"));
    assert!(std::fs::read(dir.path("g")).unwrap()[3..] == content);
    // A large answer comes whole.
    let read = client.call("fs/readFile", json!({"path": dir.uri("f")}));
    assert!(read["dataBase64"] == base64(&content));
}

#[test]
fn a_client_that_does_not_read_stops_the_command_and_misses_nothing() {
    let mut client = connect(ServerConfig::default(), 1);
    client.call("process/start", with_stdin(script("a", "read x; exec seq 500000")));
    let pid = client.pid_of("a");
    let write = json!({"processId": "a", "writeId": "1", "chunk": base64("\n")});
    client.call("process/write", write);
    wait_until_blocked(pid);
    let expected: String = (1..=500_000).map(|n| format!("{n}\n")).collect();
    let (output, code) = client.finish("a");
    assert!(output == expected.as_bytes() && code == 0);
}

#[test]
fn reads_of_what_is_retained_are_answered() {
    let mut client = connect(ServerConfig::default(), 8);
    client.call("process/start", script("a", "echo hi; exit 3"));
    client.finish("a");
    let read = client.call("process/read", json!({"processId": "a"}));
    assert_eq!(
        (&read["chunks"][0]["chunk"], &read["exitCode"]),
        (&json!(base64("hi\n")), &json!(3))
    );
}

#[test]
fn what_makes_no_sense_is_complained_about() {
    let mut client = connect(ServerConfig::default(), 8);
    let answer = br#"{"id":1,"result":{}}"#[..].into();
    client.end.outgoing.send(ToServer::Answer(answer)).unwrap();
    client.notify("process/nothing", Value::Null);
    for _ in 0..2 {
        let ToClient::Message(text) = client.next() else {
            panic!("output")
        };
        let complaint: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            (&complaint["id"], &complaint["error"]["code"]),
            (&json!(-1), &json!(-32600))
        );
    }
    assert_eq!(
        client.call("environment/status", Value::Null),
        json!({"status": "ready"})
    );
}

#[test]
fn the_session_ends_with_either_end() {
    for drop_receiver_only in [false, true] {
        let mut client = connect(ServerConfig::default(), 8);
        client.call(
            "process/start",
            script("a", "trap '' TERM; while :; do echo x; sleep 0.01; done"),
        );
        let pid = client.pid_of("a");
        // What hangs is given up.
        client.send(
            "process/read",
            json!({"processId": "a", "afterSeq": u64::MAX - 1, "waitMs": u64::MAX}),
            None,
        );
        let Client { end, ended, .. } = client;
        let ClientEnd { outgoing, incoming } = end;
        drop(incoming);
        let kept = drop_receiver_only.then_some(outgoing);
        ended.recv_timeout(DEADLINE).unwrap();
        until("the end of the process", || (!is_alive(pid)).then_some(()));
        assert!(kept.is_none_or(|outgoing| {
            let nothing = ToServer::Answer(Bytes::new());
            outgoing.send_timeout(nothing, DEADLINE).is_err()
        }));
    }
}

#[test]
fn contents_come_as_the_bytes_they_are_if_they_are_wanted_so() {
    let dir = kit::Dir::new();
    let mut client = connect(ServerConfig::default(), 1);
    let path = dir.path("f");
    for len in [
        0,
        1,
        2,
        3,
        49_151,
        49_152,
        196_607,
        196_608,
        196_609,
        1 << 20,
        3_000_001,
    ] {
        let content: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let (result, bulk) = client.call_raw("fs/readFile", json!({"path": path}));
        assert_eq!(result, json!({"dataBase64": ""}));
        assert!(bulk.len() == 1 && bulk[0] == content, "{len} bytes");
        let result = client.call("fs/readFile", json!({"path": path}));
        assert!(kit::bytes(&result["dataBase64"]) == content, "{len} bytes");

        let handle = format!("h{len}");
        client.call("fs/open", json!({"handleId": handle, "path": path}));
        let wanted = 1 << 20;
        let block = json!({"handleId": handle, "offset": 0, "len": wanted});
        let (result, bulk) = client.call_raw("fs/readBlock", block.clone());
        assert_eq!(result, json!({"chunk": "", "eof": len < wanted}));
        assert!(
            bulk.len() == 1 && bulk[0] == content[..len.min(wanted)],
            "block of {len} bytes"
        );
        let result = client.call("fs/readBlock", block);
        assert!(kit::bytes(&result["chunk"]) == content[..len.min(wanted)]);
    }
}

#[test]
fn retained_output_comes_as_the_bytes_it_is_if_it_is_wanted_so() {
    let mut client = connect(ServerConfig::default(), 1);
    let script = "echo one; seq 30000; echo two >&2";
    client.call("process/start", kit::script("p", script));
    let (output, _) = client.finish("p");
    let read = json!({"processId": "p"});
    let (result, bulk) = client.call_raw("process/read", read.clone());
    assert!(bulk.len() > 2 && bulk.concat() == output);
    let plain = client.call("process/read", read);
    let (chunks, encoded) = (
        result["chunks"].as_array().unwrap(),
        plain["chunks"].as_array().unwrap(),
    );
    assert_eq!((chunks.len(), encoded.len()), (bulk.len(), bulk.len()));
    for ((chunk, encoded), bytes) in chunks.iter().zip(encoded).zip(&bulk) {
        assert_eq!(chunk["chunk"], "");
        assert!(kit::bytes(&encoded["chunk"]) == *bytes);
        assert_eq!((&chunk["seq"], &chunk["stream"]), (&encoded["seq"], &encoded["stream"]));
    }
    // Nothing is retained after that, so there are no bytes to give.
    let (result, bulk) = client.call_raw("process/read", json!({"processId": "p", "afterSeq": 1_000_000}));
    assert_eq!((&result["chunks"], bulk.len()), (&json!([]), 0));
}

#[test]
fn a_client_that_reads_no_answers_is_cut_off() {
    let config = ServerConfig {
        max_unread_answers: 10,
        ..ServerConfig::default()
    };
    let client = connect(config, 1);
    let asked = (0..).find(|n| {
        let request = ToServer::Request {
            id: RequestId::from(*n),
            method: "environment/status".into(),
            params: Bytes::new(),
            bulk: None,
            raw: false,
        };
        client.end.outgoing.send_timeout(request, DEADLINE).is_err()
    });
    assert!(asked.is_some_and(|n| n > 10));
    client.ended.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn nothing_is_left_of_a_client_that_is_gone() {
    let _alone = THREADS.write().unwrap_or_else(PoisonError::into_inner);
    let of_servers = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let ours = ["reader", "dispatcher", "writer", "supervisor", "janitor", "file-worker"];
        names.filter(|name| ours.contains(&name.trim_end())).count()
    };
    until("the end of what other tests started", || {
        (of_servers() == 0).then_some(())
    });
    let mut client = connect_alone(ServerConfig::default(), 8);
    client.call("process/start", program("a", &["/bin/sleep", "1000"]));
    // Its end is on the janitor's agenda for a while.
    client.call("process/start", program("b", &["/bin/true"]));
    client.finish("b");
    client.call("fs/getMetadata", json!({"path": "file:///"}));
    assert!(of_servers() >= 5);
    drop(client);
    until("the end of the server's threads", || (of_servers() == 0).then_some(()));
}
