//! How the server ends, and what it leaves: nothing.

mod kit;

use kit::{
    Client, Dir, Server, both, bytes, children, is_alive, on_terminal, processor_time, program, script,
    threads_and_fds, until, wait_until_blocked, with_stdin,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Duration;

/// Starts processes that do not end by themselves, deaf to signals, on a pipe, on a terminal and in sessions of their
/// own; returns their pids.
fn start_stubborn(client: &mut Client) -> Vec<i32> {
    let deaf = "trap '' HUP INT TERM; echo pid-$$-end; while :; do sleep 0.1; done";
    client.start(script("leader", deaf));
    client.start(on_terminal(script("terminal", deaf)));
    client.start(script(
        "orphan",
        &format!("(setsid sh -c \"{}\" &)", deaf.replace('$', "\\$")),
    ));
    client.start(script(
        "child",
        &format!("trap '' TERM; sh -c \"{}\" & wait", deaf.replace('$', "\\$")),
    ));
    let mut pid = |id| -> i32 {
        let said = client.output_until(id, "-end");
        said.split('-').nth(1).unwrap().parse().unwrap()
    };
    ["leader", "terminal", "orphan", "child"].map(&mut pid).to_vec()
}

fn all_gone(pids: &[i32]) {
    until("the end of what was started", || {
        pids.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
}

#[test]
fn the_end_of_the_input_ends_everything_that_was_started() {
    let (mut server, mut client) = Server::stdio();
    client.handshake();
    let pids = start_stubborn(&mut client);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    client.close_input();
    assert!(server.wait().success());
    all_gone(&pids);
}

#[test]
fn what_was_received_before_the_end_is_carried_out_and_answered() {
    let (mut server, mut client) = Server::stdio();
    let dir = Dir::new();
    client.handshake();
    let mut ids = vec![
        client.request("process/start", script("a", "seq 1 20000")),
        client.request(
            "process/read",
            json!({"processId": "a", "afterSeq": u64::MAX, "waitMs": u64::MAX}),
        ),
        client.request(
            "fs/writeFile",
            json!({"path": dir.uri("file"), "dataBase64": kit::base64("content")}),
        ),
        client.request("process/start", program("b", &["/no/such/program"])),
    ];
    ids.extend((0..50).map(|_| client.request("environment/status", Value::Null)));
    client.close_input();
    let rest = client.rest();
    for id in &ids {
        assert_eq!(
            rest.iter().filter(|message| message["id"] == *id).count(),
            1,
            "request {id}"
        );
    }
    let output = rest.iter().filter(|message| message["method"] == "process/output");
    let output: Vec<u8> = output.flat_map(|message| bytes(&message["params"]["chunk"])).collect();
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert!(output == expected.as_bytes());
    assert!(rest.iter().any(|message| message["method"] == "process/closed"));
    assert_eq!(std::fs::read(dir.path("file")).unwrap(), b"content");
    assert!(server.wait().success());
}

#[test]
fn a_last_line_without_an_end_counts() {
    let (mut server, mut client) = Server::stdio();
    client.handshake();
    client.send_unfinished(r#"{"id":"last","method":"environment/status"}"#);
    client.close_input();
    let rest = client.rest();
    assert_eq!(rest[0]["id"], "last");
    assert!(server.wait().success());
}

#[test]
fn a_client_that_reads_nothing_does_not_keep_the_server() {
    let (mut server, mut client) = Server::stdio();
    client.handshake();
    client.start(with_stdin(script("a", "echo $$; read x; exec yes")));
    let pid = client.output_until("a", "\n").trim().parse().unwrap();
    client.request("process/write", kit::write("a", "1", "\n"));
    wait_until_blocked(pid);
    client.close_input();
    assert!(server.wait().success());
    all_gone(&[pid]);
}

#[test]
fn a_client_that_closes_the_output_ends_the_server() {
    let (mut server, mut client) = Server::stdio();
    client.handshake();
    client.start(script("a", "echo $$; while :; do echo more; sleep 0.1; done"));
    let pid = client.output_until("a", "\n").lines().next().unwrap().parse().unwrap();
    let _input = client.close_output();
    assert!(server.wait().success());
    all_gone(&[pid]);
}

#[test]
fn signals_end_the_server_and_everything_that_was_started() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let (mut server, mut client) = Server::stdio();
        client.handshake();
        let pids = start_stubborn(&mut client);
        server.signal(signal);
        assert!(server.wait().success());
        all_gone(&pids);

        let mut server = Server::websocket(&[]);
        let mut client = server.client();
        let pids = start_stubborn(&mut client);
        let mut idle = server.connect();
        idle.refusal("nope", Value::Null);
        server.signal(signal);
        client.rest();
        let frame = client.close_frame.unwrap();
        assert_eq!(
            (u16::from(frame.code), frame.reason.as_str()),
            (1001, "server is shutting down")
        );
        idle.rest();
        assert_eq!(idle.close_frame.map(|frame| frame.code.into()), Some(1001));
        assert!(server.wait().success());
        all_gone(&pids);
    }
}

#[test]
fn ended_processes_leave_no_descriptor_thread_or_zombie() {
    both(|server, client| {
        let run = |client: &mut Client, i: usize| {
            let (id, text) = (format!("p{i}"), "echo hi; exit 1");
            let start = match i % 4 {
                0 => script(&id, text),
                1 => with_stdin(script(&id, text)),
                2 => on_terminal(script(&id, text)),
                _ => script(&id, "sleep 0.2 & exit 1"),
            };
            client.request("process/start", start);
            id
        };
        // What is there for good comes with the first.
        let first = run(client, 0);
        client.finish(&first);
        let mut before = (0, 0);
        until("the end of the first", || {
            before = threads_and_fds(server.pid());
            children(server.pid()).is_empty().then_some(())
        });
        let ids: Vec<String> = (1..=200).map(|i| run(client, i)).collect();
        for id in ids {
            assert_eq!(client.finish(&id).code, 1);
        }
        until("the same descriptors and threads as before", || {
            let (threads, fds) = threads_and_fds(server.pid());
            (threads <= before.0 && fds <= before.1 && children(server.pid()).is_empty()).then_some(())
        });
    });
}

#[test]
fn waiting_costs_no_processor_time() {
    both(|server, client| {
        for i in 0..20 {
            client.start(program(&format!("p{i}"), &["/bin/sleep", "1000"]));
        }
        let poll = json!({"processId": "p0", "waitMs": 1000});
        // What comes of the starts is over by the end of the first.
        client.call("process/read", poll.clone());
        let before = processor_time(server.pid());
        client.call("process/read", poll);
        let used = processor_time(server.pid()) - before;
        // The answer itself takes a fraction of a millisecond.
        assert!(used < Duration::from_millis(5), "{used:?}");
    });
}
