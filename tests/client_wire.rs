//! The blocking client against servers that behave as none should, or as old ones do.

#![cfg(feature = "client")]

mod kit;

use exec_server::client::events::ExecProcessEvent;
use exec_server::client::{
    ExecServerClient, ExecServerError, ExecServerProcess, RemoteExecServerConnectArgs, StartOptions, WriteStatus,
};
use kit::{DEADLINE, ScriptedServer, base64, scripted};
use serde_json::{Value, json};
use std::io::Read;
use std::time::Duration;
use tungstenite::Message;

fn args(url: &str) -> RemoteExecServerConnectArgs {
    let mut args = RemoteExecServerConnectArgs::new(url);
    args.options.recovery_interval = Duration::from_millis(1);
    args
}

fn connect(url: &str) -> ExecServerClient {
    ExecServerClient::connect_websocket(args(url)).unwrap()
}

fn start(client: &ExecServerClient) -> ExecServerProcess {
    client
        .start_process(&StartOptions::new(["x"]).process_id("p").pipe_stdin())
        .unwrap()
}

fn seqs(process: &ExecServerProcess) -> Vec<u64> {
    let events = process.events().unwrap().map(Result::unwrap);
    events.filter_map(|event| event.seq()).collect()
}

/// The failure that a process's stream ends with.
fn failure(process: &ExecServerProcess) -> String {
    match process.events().unwrap().map(Result::unwrap).last() {
        Some(ExecProcessEvent::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

fn message<T>(result: Result<T, ExecServerError>) -> String {
    result.err().map_or_else(|| "no error".into(), |e| e.to_string())
}

/// Reads from a server until the client is gone.
fn until_gone(server: &mut ScriptedServer) {
    while server.socket().read().is_ok() {}
}

#[test]
fn process_events_are_delivered_in_seq_order_when_notifications_are_reordered() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        let params = server.start();
        assert!(params.get("ackOutput").is_none(), "the server cannot do it");
        for (kind, seq) in [("closed", 4), ("a", 1), ("exited", 3), ("a", 1), ("b", 2), ("c", 5)] {
            server.event(kind, seq);
        }
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    assert_eq!(seqs(&process), [1, 2, 3, 4]);
    assert_eq!(process.exit_code(), Some(3));
    drop((process, client));
    script.join().unwrap();
}

#[test]
fn wake_notifications_do_not_block_other_sessions() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.start();
        let other = server.start();
        for seq in 1..=2000 {
            server.event("noise", seq);
        }
        server.event("exited", 2001);
        server.send(
            &json!({"method": "process/exited", "params": {"processId": other["processId"], "seq": 1, "exitCode": 0}}),
        );
        until_gone(server);
    });
    let client = connect(&url);
    let noisy = start(&client);
    let quiet = client.start_process(&StartOptions::new(["y"]).process_id("q")).unwrap();
    // Nobody reads the noise.
    assert_eq!(quiet.wait(Some(DEADLINE)).unwrap().exit_code, 0);
    assert!(noisy.wake().wait(2000, Some(DEADLINE)) >= 2001);
    drop((noisy, quiet, client));
    script.join().unwrap();
}

#[test]
fn output_before_the_answer_to_the_start_is_kept() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        let request = server.request("process/start");
        server.event("early", 1);
        server.answer(&request, json!({"processId": "p"}));
        server.event("exited", 2);
        server.event("closed", 3);
        until_gone(server);
    });
    let client = connect(&url);
    assert_eq!(start(&client).output().unwrap().stdout, b"early");
    drop(client);
    script.join().unwrap();
}

#[test]
fn a_process_with_too_large_a_gap_fails_alone_and_is_ended() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.start();
        for seq in 2..=258 {
            server.event("x", seq);
        }
        // From two threads, so in any order.
        for _ in 0..2 {
            let request = server.next();
            if request["method"] == "process/terminate" {
                assert_eq!(request["params"]["processId"], "p");
                server.answer(&request, json!({"running": true}));
            } else {
                server.answer(&request, json!({"status": "ready"}));
            }
        }
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    assert_eq!(failure(&process), "process event reorder buffer exceeds 256 entries");
    assert!(process.wake().wait(258, Some(DEADLINE)) > 258);
    let read = process.read(None, None, Duration::ZERO).unwrap();
    assert!(read.exited && read.closed && read.failure == process.failure() && read.next_seq > 258);
    assert_eq!(client.environment_status().unwrap(), "ready");
    drop((process, client));
    script.join().unwrap();
}

#[test]
fn a_session_in_use_is_tried_again_and_what_was_missed_is_read() {
    let (url, script) = scripted(|server| {
        let first = server.open("s", json!({}));
        assert_eq!(
            first,
            json!({"clientName": "exec-server-client", "extendedSignals": true})
        );
        server.start();
        server.event("a", 1);
        server.cut();
        for _ in 0..3 {
            server.accept();
            let request = server.request("initialize");
            assert_eq!(
                (&request["id"], &request["params"]["resumeSessionId"]),
                (&json!(1), &json!("s"))
            );
            server.refuse(&request, -32010, "session s is already attached to another connection");
        }
        let resumed = server.open("s", json!({}));
        assert_eq!(resumed["resumeSessionId"], "s");
        let request = server.request("process/read");
        assert_eq!(request["params"], json!({"processId": "p", "afterSeq": 1, "waitMs": 0}));
        // What goes on meanwhile comes before the answer.
        server.event("e", 5);
        let chunk = |seq: u64, text: &str| json!({"seq": seq, "stream": "stdout", "chunk": base64(text)});
        server.answer(
            &request,
            json!({
                "chunks": [chunk(2, "b"), chunk(4, "d")], "nextSeq": 5, "exited": true, "exitCode": 3,
                "closed": false, "failure": null, "sandboxDenied": false,
            }),
        );
        server.event("closed", 6);
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    let mut events = process.events().unwrap();
    let mut text = Vec::new();
    let mut seen = Vec::new();
    for event in events.by_ref() {
        let event = event.unwrap();
        seen.extend(event.seq());
        if let ExecProcessEvent::Output(output) = event {
            text.extend_from_slice(&output.chunk);
        }
    }
    assert_eq!((seen, text.as_slice()), (vec![1, 2, 3, 4, 5, 6], &b"abde"[..]));
    assert_eq!(process.exit_code(), Some(3));
    drop((events, process, client));
    script.join().unwrap();
}

#[test]
fn a_process_that_cannot_be_recovered_fails_alone() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.start();
        let other = server.start()["processId"].clone();
        server.cut();
        server.open("s", json!({}));
        let mut lost = false;
        for _ in 0..2 {
            let request = server.request("process/read");
            if request["params"]["processId"] == "p" {
                server.refuse(&request, -32600, "unknown process id p");
                let request = server.request("process/terminate");
                assert_eq!(request["params"]["processId"], "p");
                server.answer(&request, json!({"running": false}));
                lost = true;
            } else {
                server.answer(
                    &request,
                    json!({"chunks": [], "nextSeq": 1, "exited": false, "closed": false}),
                );
            }
        }
        assert!(lost);
        server.send(&json!({"method": "process/exited", "params": {"processId": other, "seq": 1, "exitCode": 5}}));
        until_gone(server);
    });
    let client = connect(&url);
    let (lost, kept) = (
        start(&client),
        client.start_process(&StartOptions::new(["y"]).process_id("q")).unwrap(),
    );
    assert_eq!(
        failure(&lost),
        "failed to recover process p: exec-server rejected request (-32600): unknown process id p"
    );
    assert_eq!(kept.wait(Some(DEADLINE)).unwrap().exit_code, 5);
    drop((lost, kept, client));
    script.join().unwrap();
}

#[test]
fn what_is_no_longer_retained_is_said() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.start();
        server.cut();
        server.open("s", json!({}));
        let request = server.request("process/read");
        let chunk = json!({"seq": 8, "stream": "stdout", "chunk": ""});
        server.answer(
            &request,
            json!({"chunks": [chunk], "nextSeq": 9, "exited": false, "closed": false, "firstSeq": 8, "lostBytes": 99}),
        );
        let request = server.request("process/terminate");
        server.answer(&request, json!({"running": true}));
        let request = server.request("process/list");
        server.answer(&request, json!({"processes": []}));
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    assert_eq!(
        failure(&process),
        "failed to recover process p: process events are no longer retained while recovering through sequence 8"
    );
    // Waits for the end of the recovery.
    assert!(client.list().unwrap().is_empty());
    drop((process, client));
    script.join().unwrap();
}

#[test]
fn a_session_that_is_gone_is_not_asked_for_again() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.start();
        server.cut();
        server.accept();
        let request = server.request("initialize");
        server.refuse(&request, -32600, "unknown session id s");
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    let expected = "exec-server transport disconnected; failed to resume exec-server session: \
                    exec-server rejected request (-32600): unknown session id s";
    assert_eq!(failure(&process), expected);
    assert_eq!(message(client.list()), expected);
    assert_eq!(
        client.read("p", Some(6), None, DEADLINE).unwrap().failure.as_deref(),
        Some(expected)
    );
    assert_eq!(message(client.write("p", "1", b"x", false)), expected);
    drop((process, client));
    script.join().unwrap();
}

#[test]
fn another_session_than_the_one_asked_for_is_refused() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.start();
        server.cut();
        server.accept();
        let request = server.request("initialize");
        server.answer(&request, json!({"sessionId": "t"}));
        until_gone(server);
    });
    let client = connect(&url);
    let failure = failure(&start(&client));
    assert!(
        failure.ends_with("exec-server protocol error: exec-server initialized an unexpected session t"),
        "{failure}"
    );
    drop(client);
    script.join().unwrap();
}

#[test]
fn recovery_ends_at_its_time() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.start();
        server.cut();
    });
    let mut args = args(&url);
    args.options.recovery_timeout = Duration::from_millis(50);
    let client = ExecServerClient::connect_websocket(args).unwrap();
    let failure = failure(&start(&client));
    // The server is gone with its script.
    let words = "; failed to resume exec-server session: recovery timed out after 50ms";
    assert!(failure.contains(words), "{failure}");
    drop(client);
    script.join().unwrap();
}

#[test]
fn writes_are_sent_again_under_the_same_id_and_signals_are_not() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.start();
        let first = server.request("process/write");
        server.cut();
        server.open("s", json!({}));
        let request = server.request("process/read");
        server.answer(
            &request,
            json!({"chunks": [], "nextSeq": 1, "exited": false, "closed": false}),
        );
        let again = server.request("process/write");
        assert_eq!(first["params"], again["params"]);
        assert_eq!(
            again["params"],
            json!({"processId": "p", "writeId": "1", "chunk": base64("input")})
        );
        server.answer(&again, json!({"status": "accepted"}));
        server.request("process/signal");
        server.cut();
        server.open("s", json!({}));
        let request = server.request("process/read");
        server.answer(
            &request,
            json!({"chunks": [], "nextSeq": 1, "exited": false, "closed": false}),
        );
        let request = server.request("process/write");
        assert_eq!(
            request["params"],
            json!({"processId": "p", "writeId": "2", "chunk": "", "closeStdin": true})
        );
        server.answer(&request, json!({"status": "accepted"}));
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    process.write(b"input").unwrap();
    let signalled = message(process.signal(exec_server::protocol::process::ProcessSignal::Interrupt));
    assert_eq!(signalled, "exec-server transport disconnected");
    process.close_stdin().unwrap();
    drop((process, client));
    script.join().unwrap();
}

#[test]
fn a_start_without_an_answer_is_not_repeated_and_its_process_ended() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.request("process/start");
        server.cut();
        server.open("s", json!({}));
        let request = server.request("process/terminate");
        assert_eq!(request["params"], json!({"processId": "p"}));
        server.answer(&request, json!({"running": true}));
        server.start();
        until_gone(server);
    });
    let client = connect(&url);
    let lost = message(client.start_process(&StartOptions::new(["x"]).process_id("p")));
    assert_eq!(lost, "exec-server transport disconnected");
    // The name is free, and this waits for the next connection.
    drop((start(&client), client));
    script.join().unwrap();
}

#[test]
fn malformed_messages_end_the_connection_and_unknown_ones_nothing() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        let request = server.request("environment/status");
        server.send(&json!({"method": "some/news", "params": [1, 2]}));
        server.send(&json!({"id": 4711, "result": {}}));
        server.send(&json!({"id": "text", "result": {}}));
        server.send(&json!({"error": {"code": -32600, "message": "complaint"}, "id": -1}));
        server.send(&json!({"id": 0, "method": "network/policy", "params": {}}));
        let refusal = server.next();
        let words = "exec-server client does not implement `network/policy` yet";
        assert_eq!(refusal, json!({"error": {"code": -32601, "message": words}, "id": 0}));
        server
            .socket()
            .send(Message::Ping(b"are you there"[..].into()))
            .unwrap();
        match server.socket().read().unwrap() {
            Message::Pong(payload) => assert_eq!(payload, "are you there"),
            other => panic!("{other:?}"),
        }
        server
            .socket()
            .send(Message::binary(
                json!({"id": request["id"], "result": {"status": "ready"}}).to_string(),
            ))
            .unwrap();
        server.request("process/list");
        server.send_text("{\"id\":}");
        until_gone(server);
        server.open("s", json!({}));
        server.request("process/list");
        server.send(&json!({"method": "process/output", "params": {"processId": "p"}}));
        until_gone(server);
        server.open("s", json!({}));
        let request = server.request("process/list");
        server.answer(&request, json!({"processes": []}));
        until_gone(server);
    });
    let client = connect(&url);
    assert_eq!(client.environment_status().unwrap(), "ready");
    let disconnected = |reason: &str| format!("exec-server transport disconnected: {reason}");
    assert_eq!(
        message(client.list()),
        disconnected(&format!(
            "failed to parse websocket JSON-RPC message from {url}: expected value at line 1 column 7"
        ))
    );
    let failed = message(client.list());
    assert!(
        failed.starts_with(&disconnected("exec-server notification handling failed: ")),
        "{failed}"
    );
    assert!(client.list().unwrap().is_empty());
    drop(client);
    script.join().unwrap();
}

#[test]
fn an_answer_that_came_before_the_end_counts() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        let request = server.request("process/write");
        server.answer(&request, json!({"status": "unknownProcess"}));
        server.cut();
        server.open("s", json!({}));
        let request = server.request("process/list");
        server.answer(&request, json!({"processes": []}));
        until_gone(server);
    });
    let client = connect(&url);
    assert_eq!(
        client.write("p", "7", b"x", false).unwrap(),
        WriteStatus::UnknownProcess
    );
    // The end of the first connection may still be to come.
    assert!(kit::until("the next connection", || client.list().ok()).is_empty());
    drop(client);
    script.join().unwrap();
}

#[test]
fn calls_that_take_too_long_are_given_up_and_their_late_answers_ignored() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        let late = server.request("process/list");
        let next = server.request("environment/status");
        server.answer(&late, json!({"processes": []}));
        server.answer(&next, json!({"status": "ready"}));
        until_gone(server);
    });
    let mut args = args(&url);
    args.options.call_timeout = Some(Duration::from_millis(30));
    let client = ExecServerClient::connect_websocket(args).unwrap();
    assert_eq!(
        message(client.list()),
        "exec-server protocol error: timed out waiting for exec-server `process/list` response after 30ms"
    );
    assert_eq!(client.environment_status().unwrap(), "ready");
    drop(client);
    script.join().unwrap();
}

#[test]
fn so_many_calls_may_wait() {
    let (all_wait, waiting) = crossbeam_channel::bounded(1);
    let (url, script) = scripted(move |server| {
        server.open("s", json!({}));
        let requests: Vec<Value> = (0..1024).map(|_| server.request("process/read")).collect();
        all_wait.send(()).unwrap();
        // One more is for what cleans up.
        let request = server.request("process/terminate");
        server.answer(&request, json!({"running": false}));
        for request in requests {
            server.answer(
                &request,
                json!({"chunks": [], "nextSeq": 1, "exited": false, "closed": false}),
            );
        }
        until_gone(server);
    });
    let client = connect(&url);
    std::thread::scope(|scope| {
        for _ in 0..1024 {
            let thread = std::thread::Builder::new().stack_size(128 * 1024);
            let read = || client.read("p", None, None, DEADLINE).unwrap();
            thread.spawn_scoped(scope, read).unwrap();
        }
        waiting.recv_timeout(DEADLINE).unwrap();
        let words = "exec-server protocol error: exec-server has reached its limit of 1024 pending requests";
        assert_eq!(message(client.list()), words);
        assert!(!client.terminate("p", Duration::ZERO).unwrap());
    });
    drop(client);
    script.join().unwrap();
}

#[test]
fn a_silent_server_is_pinged_and_then_given_up() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        while !matches!(server.socket().read().unwrap(), Message::Ping(_)) {}
        // Not answered: read below the protocol.
        let mut rest = [0; 64];
        while matches!(server.socket().get_mut().read(&mut rest), Ok(1..)) {}
    });
    let mut args = args(&url);
    args.options.ping_interval = Duration::from_millis(20);
    args.options.silence_limit = Duration::from_millis(60);
    args.options.recovery_timeout = Duration::ZERO;
    let client = ExecServerClient::connect_websocket(args).unwrap();
    let lost = message(client.list());
    assert_eq!(lost, "exec-server transport disconnected: nothing was heard for 60ms");
    drop(client);
    script.join().unwrap();
}

#[test]
fn output_is_acknowledged_as_it_is_consumed_and_again_after_a_recovery() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({"processAck": true}));
        assert_eq!(server.start()["ackOutput"], true);
        let text = "x".repeat(100_000);
        for seq in 1..=3 {
            server.event(&text, seq);
        }
        let mut acked = 0;
        while acked < 3 {
            let ack = server.next();
            assert_eq!(
                (&ack["method"], &ack["params"]["processId"]),
                (&json!("process/ack"), &json!("p"))
            );
            acked = ack["params"]["seq"].as_u64().unwrap();
        }
        server.cut();
        server.open("s", json!({"processAck": true}));
        let request = server.request("process/read");
        server.answer(
            &request,
            json!({"chunks": [], "nextSeq": 4, "exited": false, "closed": false}),
        );
        let ack = server.next();
        assert_eq!(
            ack,
            json!({"method": "process/ack", "params": {"processId": "p", "seq": 3}})
        );
        server.event("exited", 4);
        server.event("closed", 5);
        until_gone(server);
    });
    let client = connect(&url);
    let process = start(&client);
    assert_eq!(process.output().unwrap().stdout.len(), 300_000);
    drop((process, client));
    script.join().unwrap();
}

#[test]
fn a_client_can_be_dropped_while_it_recovers() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.cut();
        server.ignore_one();
    });
    let client = connect(&url);
    let cloned = client.clone();
    std::thread::scope(|scope| {
        let call = scope.spawn(move || message(cloned.list()));
        client.close();
        let said = call.join().unwrap();
        let is_lost = said.starts_with("exec-server transport disconnected");
        assert!(is_lost || said == "exec-server transport closed", "{said}");
    });
    drop(client);
    // Wakes the script if it still waits for the connection.
    let _ = std::net::TcpStream::connect(url.strip_prefix("ws://").unwrap());
    script.join().unwrap();
}
