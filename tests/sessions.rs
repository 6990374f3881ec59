//! Sessions: what they keep, and whose they are.

mod kit;

use kit::{Client, Dir, Server, both, bytes, is_alive, program, script, threads_and_fds, until, with_stdin};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

/// Resumes a session whose connection may not be known to be gone yet.
fn resume(server: &Server, session: &str) -> Client {
    let mut client = server.connect();
    let params = json!({"clientName": "test", "resumeSessionId": session});
    until("a free session", || {
        let id = client.request("initialize", params.clone());
        client.answer(id).get("result").is_some().then_some(())
    });
    client.send(&json!({"method": "initialized"}));
    client.continue_at(session);
    client
}

#[test]
fn a_session_goes_on_after_its_connection_is_cut() {
    let server = Server::websocket(&[]);
    let mut client = server.client();
    client.start(with_stdin(program("a", &["/bin/cat"])));
    assert_eq!(client.write("a", "1", "one"), "accepted");
    client.output_until("a", "one");
    for _ in 0..10 {
        client.request(
            "process/read",
            json!({"processId": "a", "afterSeq": 1, "waitMs": u64::MAX}),
        );
    }
    // Before the client sees what comes of it.
    client.request("process/write", kit::write("a", "2", "two"));
    until("the output of the second write", || {
        let mut poll = |after| client.call("process/read", json!({"processId": "a", "afterSeq": after}));
        (poll(0)["nextSeq"] == 3).then_some(())
    });
    let session = client.session.clone();
    drop(client);
    let mut client = resume(&server, &session);
    let missed = client.call("process/read", json!({"processId": "a", "afterSeq": 1}));
    assert_eq!(bytes(&missed["chunks"][0]["chunk"]), b"two");
    assert_eq!(missed["lostBytes"], 0);
    // A retry of a write whose answer was lost.
    assert_eq!(client.write("a", "2", "two"), "accepted");
    assert_eq!(client.write("a", "3", "three"), "accepted");
    assert_eq!(client.event("a").params["seq"], 3);
    let list = client.call("process/list", Value::Null);
    assert_eq!(
        (&list["processes"][0]["processId"], &list["processes"][0]["exited"]),
        (&json!("a"), &json!(false))
    );
}

#[test]
fn who_only_ends_the_input_gets_what_was_asked_for_before() {
    let directory = Dir::new();
    let fifo = directory.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let mut hold = File::options().read(true).write(true).open(&fifo).unwrap();
    let arguments = ["--drain-limit", "1000"];
    let on_pipes = Server::on_pipes(kit::command(&[&["--listen", "stdio"][..], &arguments].concat()));
    let over_websocket = Server::websocket(&arguments);
    let client = over_websocket.connect();
    for (_server, mut client) in [on_pipes, (over_websocket, client)] {
        client.handshake();
        client.start(script("a", &format!("read line <{}; echo $line", fifo.display())));
        let poll = client.request("process/read", json!({"processId": "a", "waitMs": u64::MAX}));
        let info = client.request("environment/info", Value::Null);
        client.close_input();
        // Long before the line.
        assert!(client.answer(info)["result"].is_object());
        hold.write_all(b"asked before\n").unwrap();
        let answer = client.answer(poll);
        assert_eq!(bytes(&answer["result"]["chunks"][0]["chunk"]), b"asked before\n");
    }
}

#[test]
fn a_session_whose_client_sends_no_more_is_free_though_there_are_answers_to_come() {
    let server = Server::websocket(&["--drain-limit", "1000", "--probe-limit", "1000"]);
    let mut client = server.client();
    client.start(with_stdin(program("a", &["/bin/cat"])));
    let poll = client.request("process/read", json!({"processId": "a", "waitMs": u64::MAX}));
    client.close_input();
    let mut other = resume(&server, &client.session);
    // The one before is cut off.
    assert!(client.rest().iter().all(|message| message["id"] != poll));
    assert_eq!(other.write("a", "1", "one"), "accepted");
    other.output_until("a", "one");
    drop(client);
    assert_eq!(other.write("a", "2", "two"), "accepted");
    other.output_until("a", "two");
}

#[test]
fn an_attached_session_is_not_given_away() {
    let server = Server::websocket(&[]);
    let mut owner = server.client();
    let mut other = server.connect();
    let params = json!({"clientName": "test", "resumeSessionId": owner.session});
    let (code, message) = other.refusal("initialize", params);
    let expected = format!("session {} is already attached to another connection", owner.session);
    assert_eq!((code, message), (-32010, expected));
    assert_eq!(owner.run(program("a", &["/bin/echo", "hi"])).stdout, b"hi\n");
    other.handshake();
    assert_ne!(other.session, owner.session);
}

#[test]
fn sessions_do_not_see_each_other() {
    let server = Server::websocket(&[]);
    let (mut one, mut two) = (server.client(), server.client());
    one.start(with_stdin(program("a", &["/bin/cat"])));
    assert_eq!(two.write("a", "1", "x"), "unknownProcess");
    assert_eq!(two.refusal("process/read", json!({"processId": "a"})).0, -32600);
    assert_eq!(
        two.call("process/terminate", json!({"processId": "a"})),
        json!({"running": false})
    );
    assert_eq!(two.call("process/list", Value::Null), json!({"processes": []}));
    assert_eq!(two.run(program("a", &["/bin/echo", "two"])).stdout, b"two\n");
    assert_eq!(one.write("a", "1", "one"), "accepted");
    one.output_until("a", "one");
}

#[test]
fn a_session_without_a_connection_ends_with_its_processes() {
    let server = Server::websocket(&["--session-ttl", "1"]);
    let mut client = server.client();
    client.start(script("a", "trap '' HUP TERM; echo $$; while :; do sleep 0.1; done"));
    let pid: i32 = client.output_until("a", "\n").trim().parse().unwrap();
    let session = client.session.clone();
    // A session that is taken up again in time lives on.
    drop(client);
    let client = resume(&server, &session);
    assert!(is_alive(pid));
    let cut = Instant::now();
    drop(client);
    until("the end of the process", || (!is_alive(pid)).then_some(()));
    assert!(cut.elapsed() >= Duration::from_millis(900));
    let params = json!({"clientName": "test", "resumeSessionId": session});
    let (code, message) = server.connect().refusal("initialize", params);
    assert_eq!((code, message), (-32600, format!("unknown session id {session}")));
}

#[test]
fn initialize_is_sent_until_it_succeeds_and_not_again() {
    let server = Server::websocket(&[]);
    let mut client = server.connect();
    assert_eq!(client.refusal("initialize", json!({})).0, -32602);
    let unknown = json!({"clientName": "test", "resumeSessionId": "nobody's"});
    assert_eq!(client.refusal("initialize", unknown).0, -32600);
    client.handshake();
    assert_eq!(client.refusal("initialize", json!({"clientName": "test"})).0, -32600);
    assert_eq!(client.run(program("a", &["/bin/true"])).code, 0);
}

#[test]
fn nothing_is_done_before_the_handshake() {
    both(|server, client| {
        assert_eq!(
            client.call("environment/status", Value::Null),
            json!({"status": "ready"})
        );
        if !client.is_websocket() {
            return;
        }
        let mut new = server.connect();
        let family = |method: &str| match method {
            "process/start" | "process/write" => "exec",
            _ => "filesystem",
        };
        for step in ["call initialize", "send initialized"] {
            for (method, params) in [
                ("process/start", program("a", &["/bin/true"])),
                ("process/write", kit::write("a", "1", "x")),
                ("fs/readFile", json!({"path": "file:///etc/passwd"})),
            ] {
                let message = format!("client must {step} before using {} methods", family(method));
                assert_eq!(new.refusal(method, params), (-32600, message));
            }
            if step == "call initialize" {
                new.call("initialize", json!({"clientName": "test"}));
            }
        }
    });
}

#[test]
fn a_client_that_answers_no_pings_loses_its_session_to_one_that_asks() {
    let server = Server::websocket(&[]);
    let mut alive = server.client();
    let mut silent = server.client();
    // Fills what lies between the two, so that not even a ping gets through.
    silent.start(program("a", &["/usr/bin/yes"]));
    let mut other = server.connect();
    other.continue_at(&silent.session);
    let start = Instant::now();
    let wanted = |session: &str| json!({"clientName": "test", "resumeSessionId": session});
    until("the session of the silent client", || {
        let (id, session) = (
            other.request("initialize", wanted(&silent.session)),
            alive.session.clone(),
        );
        let outcome = other.answer(id);
        if outcome.get("result").is_some() {
            return Some(());
        }
        assert_eq!(outcome["error"]["code"], -32010);
        alive.call("environment/status", Value::Null);
        assert_eq!(server.connect().refusal("initialize", wanted(&session)).0, -32010);
        Some(()).filter(|()| false)
    });
    assert!(
        start.elapsed() >= Duration::from_secs(4),
        "it was not given the time to answer"
    );
    other.send(&json!({"method": "initialized"}));
    assert_eq!(
        other.call("process/terminate", json!({"processId": "a"})),
        json!({"running": true})
    );
    assert_eq!(alive.run(program("b", &["/bin/true"])).code, 0);
}

#[test]
fn a_client_that_was_cut_off_leaves_no_thread_or_descriptor() {
    let server = Server::websocket(&[]);
    let silent = server.client();
    let before = threads_and_fds(server.pid());
    let mut other = server.connect();
    let params = json!({"clientName": "test", "resumeSessionId": silent.session});
    until("the session of the silent client", || {
        let id = other.request("initialize", params.clone());
        other.answer(id).get("result").map(drop)
    });
    until("the end of what served the silent client", || {
        (threads_and_fds(server.pid()) == before).then_some(())
    });
}
