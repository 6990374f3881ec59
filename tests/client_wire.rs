//! The blocking client against servers that behave as none should, or as old ones do.

#![cfg(feature = "client")]

mod kit;
#[path = "kit/scripted_client.rs"]
mod scripted_client;

use exec_server::client::{ExecServerClient, StartOptions, WriteStatus};
use kit::{DEADLINE, scripted};
use scripted_client::{args, connect, failure, message, seqs, start, until_gone};
use serde_json::{Value, json};
use std::io::Read;
use std::time::Duration;
use tungstenite::Message;

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
