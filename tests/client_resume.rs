//! What the blocking client says to a server whose connection it has lost, and what becomes of what was under way.

#![cfg(feature = "client")]

mod kit;
#[path = "kit/scripted_client.rs"]
mod scripted_client;

use exec_server::client::events::ExecProcessEvent;
use exec_server::client::{ExecServerClient, StartOptions};
use kit::{DEADLINE, base64, scripted};
use scripted_client::{args, connect, failure, message, start, until_gone};
use serde_json::json;
use std::time::{Duration, Instant};

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
fn an_earlier_clients_session_is_asked_for_until_it_is_free() {
    let (url, script) = scripted(|server| {
        for _ in 0..2 {
            server.accept();
            let request = server.request("initialize");
            assert_eq!(
                (&request["id"], &request["params"]["resumeSessionId"]),
                (&json!(1), &json!("s"))
            );
            server.refuse(&request, -32010, "session s is already attached to another connection");
        }
        assert_eq!(server.open("s", json!({}))["resumeSessionId"], "s");
        server.start();
        until_gone(server);
    });
    let mut args = args(&url);
    args.options.resume_session_id = Some("s".into());
    let client = ExecServerClient::connect_websocket(args).unwrap();
    assert_eq!(client.session_id(), "s");
    drop((start(&client), client));
    script.join().unwrap();
}

#[test]
fn a_session_that_stays_in_use_is_given_up_in_time() {
    let (url, script) = scripted(|server| {
        server.accept();
        let request = server.request("initialize");
        server.refuse(&request, -32010, "session s is already attached to another connection");
        until_gone(server);
    });
    let mut args = args(&url);
    args.options.resume_session_id = Some("s".into());
    args.options.recovery_timeout = Duration::from_millis(50);
    // The wait for the next try ends with the time there is.
    args.options.recovery_interval = Duration::from_secs(3600);
    let began = Instant::now();
    let refused = ExecServerClient::connect_websocket(args).unwrap_err();
    assert_eq!(refused.code(), Some(-32010));
    assert!(began.elapsed() >= Duration::from_millis(50));
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
