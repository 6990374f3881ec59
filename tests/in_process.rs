//! The in-process host: every rule of what it does when, with its own server and with one that the test plays.

#![cfg(feature = "client")]

mod kit;

use exec_server::host::{
    InProcessClientHandle, InProcessClientSender, InProcessServerEvent, InProcessStartArgs, JsonText, OVERLOADED,
    connect, start, start_on,
};
use exec_server::protocol::error::RpcError;
use exec_server::protocol::message::RequestId;
use exec_server::server::ServerConfig;
use exec_server::transport::memory::{self, ServerEnd, ToClient, ToServer};
use kit::{DEADLINE, base64, is_alive, program, script, until, wait_until_blocked, with_stdin};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};
use tungstenite::Bytes;

/// Taken for reading by every test that starts threads, and for writing by the one that counts them.
static THREADS: RwLock<()> = RwLock::new(());

fn beside_others() -> RwLockReadGuard<'static, ()> {
    THREADS.read().unwrap_or_else(PoisonError::into_inner)
}

fn args(channel_capacity: usize) -> InProcessStartArgs {
    InProcessStartArgs {
        channel_capacity,
        ..InProcessStartArgs::new("test")
    }
}

/// Asks until there is room, which with a small capacity there need not be at once.
fn call(host: &InProcessClientHandle, id: i64, method: &str, params: Value) -> Value {
    let answer = until("room", || match host.request(id, method, &params) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => None,
        Ok(Err(e)) if e.code == OVERLOADED => None,
        outcome => Some(outcome.unwrap().unwrap()),
    });
    answer.decode().unwrap()
}

fn next(host: &mut InProcessClientHandle) -> InProcessServerEvent {
    host.next_event_timeout(DEADLINE).unwrap().expect("an event")
}

fn next_request(host: &mut InProcessClientHandle) -> (RequestId, String, JsonText) {
    match next(host) {
        InProcessServerEvent::ServerRequest(request) => (request.id, request.method, request.params),
        other => panic!("{other:?}"),
    }
}

/// An event in short: the method, or how many were skipped.
fn next_name(host: &mut InProcessClientHandle) -> String {
    match next(host) {
        InProcessServerEvent::ServerRequest(request) => request.method,
        InProcessServerEvent::ServerNotification(notification) => notification.method,
        InProcessServerEvent::Output(output) => format!("output {}", output.seq),
        InProcessServerEvent::Lagged { skipped } => format!("skipped {skipped}"),
    }
}

/// All that a process does up to its last event.
fn finish(host: &mut InProcessClientHandle, process: &str) -> (Vec<u8>, i64) {
    let (mut output, mut code, mut last) = (Vec::new(), 0, 0);
    loop {
        let seq = match next(host) {
            InProcessServerEvent::Output(event) => {
                assert_eq!(&*event.process_id, process);
                output.extend_from_slice(&event.chunk);
                event.seq
            }
            InProcessServerEvent::ServerNotification(event) => {
                let params: Value = event.params.decode().unwrap();
                assert_eq!(params["processId"], process);
                if event.method == "process/closed" {
                    return (output, code);
                }
                code = params["exitCode"].as_i64().unwrap();
                params["seq"].as_u64().unwrap()
            }
            other => panic!("{other:?}"),
        };
        last += 1;
        assert_eq!(seq, last);
    }
}

fn pid_of(host: &InProcessClientHandle, process: &str) -> i32 {
    let list = call(host, 1000, "process/list", Value::Null);
    let listed = list["processes"].as_array().unwrap();
    let listed = listed.iter().find(|p| p["processId"] == process);
    listed.unwrap()["pid"].as_i64().unwrap() as i32
}

/// A server that the test plays.
struct Script(ServerEnd);

impl Script {
    /// The id and method of the next request.
    fn request(&self) -> (RequestId, String) {
        match self.0.incoming.recv_timeout(DEADLINE).unwrap() {
            ToServer::Request { id, method, .. } => (id, method.into()),
            other => panic!("{other:?}"),
        }
    }

    /// The answer to a request of the script's.
    fn answer(&self) -> Value {
        match self.0.incoming.recv_timeout(DEADLINE).unwrap() {
            ToServer::Answer(text) => serde_json::from_slice(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn say(&self, message: &Value) {
        let message = ToClient::Message(message.to_string().into());
        self.0.outgoing.send_timeout(message, DEADLINE).unwrap();
    }

    fn respond(&self, id: &RequestId, result: &Value) {
        let id: Value = serde_json::from_str(id.as_json()).unwrap();
        self.say(&json!({"id": id, "result": result}));
    }

    fn output(&self, seq: u64) {
        let output = ToClient::Output {
            process_id: "p".into(),
            seq,
            stream: "stdout",
            chunk: Bytes::from_static(b"x"),
        };
        self.0.outgoing.send_timeout(output, DEADLINE).unwrap();
    }

    /// Everything said so far has been dealt with.
    fn wait_until_heard(&self, sender: &InProcessClientSender) {
        let asking = ask(sender, "barrier", "barrier");
        let (id, _) = self.request();
        self.respond(&id, &Value::Null);
        asking.join().unwrap().unwrap().unwrap();
    }
}

type Asking = JoinHandle<std::io::Result<Result<JsonText, RpcError>>>;

/// Asks on another thread.
fn ask(sender: &InProcessClientSender, id: &'static str, method: &'static str) -> Asking {
    let sender = sender.clone();
    spawn(move || sender.request(id, method, &()))
}

/// A host whose handshake is done but for that the script has not read `initialized`.
fn scripted_to_the_last_step(capacity: usize) -> (InProcessClientHandle, Script) {
    let (end, server_end) = memory::pair(NonZeroUsize::new(capacity).unwrap());
    let starting = spawn(move || start_on(end, &args(capacity)));
    let script = Script(server_end);
    let ToServer::Request { id, method, params, .. } = script.0.incoming.recv_timeout(DEADLINE).unwrap() else {
        panic!("no request");
    };
    assert_eq!((id.as_json(), &*method), ("0", "initialize"));
    let params: Value = serde_json::from_slice(&params).unwrap();
    assert_eq!(params["clientName"], "test");
    script.respond(&id, &json!({"sessionId": "s"}));
    (starting.join().unwrap().unwrap(), script)
}

fn scripted(capacity: usize) -> (InProcessClientHandle, Script) {
    let (host, script) = scripted_to_the_last_step(capacity);
    let next = script.0.incoming.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(next, ToServer::Notification { method, .. } if &*method == "initialized"));
    (host, script)
}

#[test]
fn a_command_runs_whatever_the_capacity() {
    let _threads = beside_others();
    for capacity in [0, 1, 128] {
        let mut host = start(args(capacity)).unwrap();
        let params = with_stdin(script("p", "read x; echo $x; seq 100000; exit 3"));
        assert_eq!(call(&host, 1, "process/start", params)["processId"], "p");
        let write = json!({"processId": "p", "writeId": "1", "chunk": base64("hi\n")});
        assert_eq!(call(&host, 1, "process/write", write)["status"], "accepted");
        let (output, code) = finish(&mut host, "p");
        let numbers: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
        assert!(output == ["hi\n", &numbers].concat().as_bytes() && code == 3);
        if capacity > 1 {
            let refused = host.request(1, "process/nothing", &()).unwrap().unwrap_err();
            assert_eq!(refused.code, -32601);
        }
        host.shutdown().unwrap();
    }
}

#[test]
fn the_first_wire_is_refused() {
    let _threads = beside_others();
    let host = start(args(128)).unwrap();
    let refused = host
        .request(1, "command/exec", &script("p", "exit 0"))
        .unwrap()
        .unwrap_err();
    assert!(
        refused.code == -32601 && refused.message.contains("use process/start"),
        "{refused}"
    );
    assert_eq!(call(&host, 1, "process/list", json!({}))["processes"], json!([]));
    host.shutdown().unwrap();
}

#[test]
fn input_goes_in_as_the_bytes_it_is() {
    let _threads = beside_others();
    let mut host = start(args(128)).unwrap();
    call(&host, 1, "process/start", with_stdin(program("p", &["/bin/cat"])));
    let input: Vec<u8> = (0..3_000_000).map(|i| (i % 251) as u8).collect();
    let params = json!({"processId": "p", "writeId": "1", "chunk": "", "closeStdin": true});
    let sender = host.sender();
    let bytes = Bytes::from(input.clone());
    let writing = spawn(move || sender.request_with_bytes(2, "process/write", &params, ("chunk", bytes)));
    assert!(finish(&mut host, "p") == (input, 0));
    let status: Value = writing.join().unwrap().unwrap().unwrap().decode().unwrap();
    assert_eq!(status["status"], "accepted");
}

#[test]
fn contents_come_out_as_json_text() {
    let _threads = beside_others();
    let host = start(args(4)).unwrap();
    let path = std::env::current_exe().unwrap();
    let read = call(&host, 1, "fs/readFile", json!({"path": path}));
    assert!(kit::bytes(&read["dataBase64"]) == std::fs::read(&path).unwrap());
    host.shutdown().unwrap();
}

#[test]
fn a_refused_handshake_is_told() {
    let _threads = beside_others();
    let config = ServerConfig {
        max_sessions: 0,
        ..ServerConfig::default()
    };
    let refused = start(InProcessStartArgs { config, ..args(1) }).err().unwrap();
    assert_eq!(
        (refused.kind(), refused.to_string().as_str()),
        (
            ErrorKind::InvalidData,
            "in-process initialize failed: too many sessions: the server has its limit of 0"
        )
    );
}

#[test]
fn an_id_in_use_is_refused_and_can_be_used_again_after_the_answer() {
    let _threads = beside_others();
    let (host, script) = scripted(4);
    let sender = host.sender();
    let first = ask(&sender, "same", "first");
    let (id, method) = script.request();
    assert_eq!((id.as_json(), &*method), ("\"same\"", "first"));
    let refused = host.request("same", "second", &()).unwrap().unwrap_err();
    assert_eq!(
        (refused.code, &*refused.message),
        (-32600, "duplicate request id: \"same\"")
    );
    script.respond(&id, &json!("for the first"));
    let answer = first.join().unwrap().unwrap().unwrap();
    assert_eq!(answer.decode::<&str>().unwrap(), "for the first");
    let again = ask(&sender, "same", "third");
    let (id, method) = script.request();
    assert_eq!(method, "third");
    script.say(&json!({"id": "same", "error": {"code": -5, "message": "no"}}));
    assert_eq!(id.as_json(), "\"same\"");
    assert_eq!(again.join().unwrap().unwrap().unwrap_err(), RpcError::new(-5, "no"));
    // An answer to nothing is nobody's.
    script.say(&json!({"id": "same", "result": 1}));
    script.wait_until_heard(&sender);
}

#[test]
fn a_request_that_finds_the_server_busy_is_answered_at_once() {
    let _threads = beside_others();
    let (host, script) = scripted_to_the_last_step(1);
    // `initialized` lies in the queue, or is about to.
    let refused = until("a full queue", || {
        let sender = host.sender();
        let asking = spawn(move || sender.request(1, "a", &()));
        until("an answer or the request", || asking.is_finished().then_some(()));
        match asking.join().unwrap() {
            Ok(answer) => Some(answer.unwrap_err()),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                None
            }
        }
    });
    assert_eq!(
        (refused.code, &*refused.message),
        (-32001, "in-process exec-server request queue is full")
    );
    // The same id is free: the request was never sent.
    drop(script.0.incoming.recv_timeout(DEADLINE).unwrap());
    let asking = ask(&host.sender(), "1", "b");
    assert_eq!(script.request().1, "b");
    drop(script);
    let gone = asking.join().unwrap().unwrap().unwrap_err();
    assert_eq!(
        (gone.code, &*gone.message),
        (-32603, "in-process exec-server request processor is closed")
    );
}

#[test]
fn events_of_processes_wait_and_others_are_counted() {
    let _threads = beside_others();
    let (mut host, script) = scripted(2);
    for n in 0..5 {
        script.say(&json!({"method": format!("other/{n}")}));
    }
    for seq in 1..=4 {
        script.output(seq);
    }
    script.say(&json!({"method": "other/lost"}));
    script.say(&json!({"method": "process/exited", "params": {"processId": "p", "seq": 5, "exitCode": 0}}));
    script.say(&json!({"method": "process/closed", "params": {"processId": "p", "seq": 6}}));
    script.wait_until_heard(&host.sender());
    let names: Vec<String> = (0..10).map(|_| next_name(&mut host)).collect();
    let expected = [
        "other/0",
        "other/1",
        "skipped 3",
        "output 1",
        "output 2",
        "output 3",
        "output 4",
        "skipped 1",
        "process/exited",
        "process/closed",
    ];
    assert_eq!(names, expected);
    let nothing = host.next_event_timeout(Duration::ZERO).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::TimedOut);
    script.say(&json!({"method": "other/5", "params": [1]}));
    assert_eq!(next_name(&mut host), "other/5");
}

#[test]
fn a_consumer_that_takes_no_events_gets_answers_and_comes_to_an_end() {
    let _threads = beside_others();
    for capacity in [1, 128] {
        let host = start(args(capacity)).unwrap();
        let yes = "trap '' TERM; exec yes";
        call(&host, 1, "process/start", script("p", yes));
        let pid = pid_of(&host, "p");
        // The command waits for whom it writes to.
        wait_until_blocked(pid);
        for id in 0..200 {
            assert_eq!(call(&host, id, "environment/status", Value::Null)["status"], "ready");
        }
        call(&host, 1, "process/start", script("q", "exit 0"));
        let began = Instant::now();
        host.shutdown().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(!is_alive(pid));
    }
}

#[test]
fn requests_of_the_server_are_answered() {
    let _threads = beside_others();
    let (mut host, script) = scripted(4);
    script.say(&json!({"id": 7, "method": "ask/a", "params": {"x": 1}}));
    let (id, method, params) = next_request(&mut host);
    assert_eq!((method.as_str(), params.as_json()), ("ask/a", &br#"{"x":1}"#[..]));
    host.respond_to_server_request(id.clone(), &json!({"y": 2})).unwrap();
    assert_eq!(script.answer(), json!({"id": 7, "result": {"y": 2}}));
    script.say(&json!({"id": "s", "method": "ask/b"}));
    let (id_b, _, params) = next_request(&mut host);
    assert_eq!(params.as_json(), b"null");
    // The first is answered already.
    host.respond_to_server_request(id, &json!(1)).unwrap();
    host.fail_server_request(id_b, RpcError::new(-1, "no")).unwrap();
    let refused = json!({"id": "s", "error": {"code": -1, "message": "no"}});
    assert_eq!(script.answer(), refused);
}

#[test]
fn a_request_of_the_server_for_which_there_is_no_room_is_refused() {
    let _threads = beside_others();
    let (mut host, script) = scripted(1);
    script.say(&json!({"id": 1, "method": "ask/a"}));
    for id in [2, 3] {
        script.say(&json!({"id": id, "method": "ask/b"}));
        let error = json!({"code": -32001, "message": "in-process server request queue is full"});
        assert_eq!(script.answer(), json!({"id": id, "error": error}));
    }
    let (id, ..) = next_request(&mut host);
    host.respond_to_server_request(id, &json!({})).unwrap();
    assert_eq!(script.answer(), json!({"id": 1, "result": {}}));
}

#[test]
fn answers_to_a_server_that_does_not_read_are_kept() {
    let _threads = beside_others();
    let (host, script) = scripted(1);
    // The first waits for the consumer; the others are refused, and only one refusal finds room.
    for id in 0..4 {
        script.say(&json!({"id": id, "method": "ask"}));
    }
    let answers: Vec<Value> = (0..3).map(|_| script.answer()["id"].take()).collect();
    assert_eq!(answers, [1, 2, 3]);
    script.wait_until_heard(&host.sender());
}

#[test]
fn nothing_hangs_when_the_host_is_shut_down() {
    let _threads = beside_others();
    let (mut host, script) = scripted(4);
    let sender = host.sender();
    let asking = ask(&sender, "a", "a");
    script.request();
    script.say(&json!({"id": 1, "method": "ask"}));
    let (id, ..) = next_request(&mut host);
    host.shutdown().unwrap();
    let error = json!({"code": -32603, "message": "in-process exec-server runtime is shutting down"});
    assert_eq!(script.answer(), json!({"id": 1, "error": error}));
    let refused = asking.join().unwrap().unwrap().unwrap_err();
    assert_eq!(
        (refused.code, json!(refused.message)),
        (-32603, error["message"].clone())
    );
    assert!(script.0.incoming.recv_timeout(DEADLINE).is_err());
    for outcome in [
        sender.request(1, "a", &()).map(drop),
        sender.notify("a", &()),
        sender.respond_to_server_request(id, &()),
    ] {
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::BrokenPipe, "in-process exec-server runtime is closed")
        );
    }
}

#[test]
fn what_was_sent_before_the_shutdown_still_goes_out() {
    let _threads = beside_others();
    let (host, script) = scripted(4);
    host.notify("last/words", &json!({"a": 1})).unwrap();
    host.shutdown().unwrap();
    let last = script.0.incoming.recv_timeout(DEADLINE).unwrap();
    assert!(
        matches!(last, ToServer::Notification { method, params } if &*method == "last/words" && &*params == b"{\"a\":1}")
    );
}

#[test]
fn a_shutdown_does_not_wait_for_a_server_that_does_not_read() {
    let _threads = beside_others();
    let (mut host, script) = scripted(1);
    script.say(&json!({"id": 1, "method": "ask"}));
    next_request(&mut host);
    host.notify("fills/the/queue", &()).unwrap();
    let began = Instant::now();
    host.shutdown().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(script);
}

#[test]
fn events_that_came_before_the_end_of_the_server_are_still_taken() {
    let _threads = beside_others();
    let (mut host, script) = scripted(4);
    script.output(1);
    script.output(2);
    let asking = ask(&host.sender(), "a", "a");
    script.request();
    drop(script);
    let refused = asking.join().unwrap().unwrap().unwrap_err();
    assert_eq!(refused.message, "in-process exec-server request processor is closed");
    assert_eq!([(); 2].map(|()| next_name(&mut host)), ["output 1", "output 2"]);
    assert!(host.next_event().is_none());
    assert!(host.next_event_timeout(DEADLINE).unwrap().is_none());
    until("the end of the host", || {
        let error = host.request(1, "a", &()).err()?;
        (error.kind() == ErrorKind::BrokenPipe).then_some(())
    });
}

#[test]
fn a_waiting_consumer_is_woken_by_an_event() {
    let _threads = beside_others();
    let (mut host, script) = scripted(4);
    let (began, waits) = crossbeam_channel::bounded(1);
    let waiting = spawn(move || {
        began.send(()).unwrap();
        host.next_event().map(|event| format!("{event:?}"))
    });
    waits.recv_timeout(DEADLINE).unwrap();
    script.say(&json!({"method": "late"}));
    assert!(waiting.join().unwrap().unwrap().contains("late"));
}

#[test]
fn the_bare_end_of_a_connection_is_there_too() {
    let _threads = beside_others();
    let (server, end) = connect(ServerConfig::default()).unwrap();
    let request = ToServer::Request {
        id: RequestId::from("x"),
        method: "initialize".into(),
        params: br#"{"clientName":"test"}"#[..].into(),
        bulk: None,
        raw: true,
    };
    end.outgoing.send(request).unwrap();
    let ToClient::Message(answer) = end.incoming.recv_timeout(DEADLINE).unwrap() else {
        panic!("output");
    };
    assert!(answer.starts_with(br#"{"id":"x","result":{"sessionId":"#));
    server.shut_down();
    assert!(end.incoming.recv_timeout(DEADLINE).is_err());
}

#[test]
fn nothing_is_left_of_a_host_that_is_shut_down_or_dropped() {
    let _alone = THREADS.write().unwrap_or_else(PoisonError::into_inner);
    let of_hosts = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let ours = [
            "in-process-host",
            "dispatcher",
            "writer",
            "supervisor",
            "janitor",
            "file-worker",
        ];
        names.filter(|name| ours.contains(&name.trim_end())).count()
    };
    until("the end of what other tests started", || {
        (of_hosts() == 0).then_some(())
    });
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = fds();
    for shut_down in [true, false] {
        let host = start(args(8)).unwrap();
        let deaf = "trap '' TERM HUP; while :; do sleep 0.1; done";
        call(&host, 1, "process/start", script("p", deaf));
        call(&host, 1, "process/start", program("q", &["/bin/true"]));
        call(&host, 1, "fs/getMetadata", json!({"path": "file:///"}));
        let pid = pid_of(&host, "p");
        assert!(of_hosts() >= 4);
        if shut_down {
            host.shutdown().unwrap();
            assert!(!is_alive(pid));
        } else {
            drop(host);
        }
        until("the end of the process", || (!is_alive(pid)).then_some(()));
        until("the end of the host's threads", || (of_hosts() == 0).then_some(()));
        until("the end of the host's descriptors", || (fds() == before).then_some(()));
    }
}
