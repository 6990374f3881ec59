//! Output that its client acknowledges: how far it runs ahead, and that none of it is lost.

mod kit;

use kit::{Client, Server, both, bytes, is_alive, program, until, wait_until_blocked, with_stdin};
use serde_json::{Value, json};

/// What is sent ahead of the last acknowledged event, by default.
const WINDOW: usize = 512 * 1024;

/// Numbers enough for several megabytes.
const LAST: usize = 1_000_000;

fn numbers() -> Vec<u8> {
    (1..=LAST).map(|n| format!("{n}\n")).collect::<String>().into_bytes()
}

fn start_numbers(client: &mut Client, id: &str, acknowledged: bool) -> i32 {
    let mut start = program(id, &["/usr/bin/seq", &LAST.to_string()]);
    start["ackOutput"] = acknowledged.into();
    client.start(start);
    let list = client.call("process/list", Value::Null);
    let listed = list["processes"].as_array().unwrap();
    listed.iter().find(|p| p["processId"] == id).unwrap()["pid"]
        .as_i64()
        .unwrap() as i32
}

fn acknowledge(client: &mut Client, id: &str, seq: &Value) {
    client.send(&json!({"method": "process/ack", "params": {"processId": id, "seq": seq}}));
}

fn read(client: &mut Client, id: &str, after: u64) -> Value {
    let read = client.call(
        "process/read",
        json!({"processId": id, "afterSeq": after, "waitMs": u64::MAX}),
    );
    assert_eq!(read["lostBytes"], 0);
    read
}

/// Waits until a process is held up because nothing is acknowledged, and takes what was sent by then. Returns how many
/// events that were, and their output.
fn receive_window(client: &mut Client, id: &str, pid: i32) -> (usize, Vec<u8>) {
    // Everything is still there, and this much of it is sent. A process may be blocked for a moment before that.
    let chunks = loop {
        wait_until_blocked(pid);
        let chunks = read(client, id, 0)["chunks"].as_array().unwrap().clone();
        if chunks.iter().map(|chunk| bytes(&chunk["chunk"]).len()).sum::<usize>() > WINDOW {
            break chunks;
        }
    };
    let mut sent = 0;
    let within = |chunk: &&Value| {
        sent += bytes(&chunk["chunk"]).len();
        sent <= WINDOW
    };
    let ahead = chunks.iter().take_while(within).count();
    assert!(ahead > 0 && ahead < chunks.len());
    let mut output = Vec::new();
    for _ in 0..ahead {
        output.extend(bytes(&client.event(id).params["chunk"]));
    }
    let no_more = client.request("environment/status", Value::Null);
    while let Some(message) = client.next() {
        assert_ne!(message["method"], "process/output", "the window is not kept");
        if message["id"] == no_more {
            break;
        }
    }
    (ahead, output)
}

#[test]
fn a_client_that_acknowledges_nothing_holds_up_one_process_and_loses_nothing() {
    both(|_, client| {
        let pid = start_numbers(client, "a", true);
        let (ahead, mut output) = receive_window(client, "a", pid);
        assert_eq!(client.run(program("b", &["/bin/echo", "hi"])).stdout, b"hi\n");
        // An old number changes nothing, and one beyond the end is as good as the last there is.
        acknowledge(client, "a", &ahead.into());
        acknowledge(client, "a", &0.into());
        loop {
            let event = client.event("a");
            acknowledge(client, "a", &event.params["seq"]);
            match &*event.kind {
                "output" => output.extend(bytes(&event.params["chunk"])),
                "exited" => assert_eq!(event.params["exitCode"], 0),
                _ => break,
            }
        }
        acknowledge(client, "a", &u64::MAX.into());
        assert!(output == numbers());
    });
}

#[test]
fn a_paused_process_is_terminated_at_once() {
    both(|_, client| {
        let pid = start_numbers(client, "a", true);
        wait_until_blocked(pid);
        let running = client.call("process/terminate", json!({"processId": "a"}));
        assert_eq!(running, json!({"running": true}));
        until("the end of the process", || (!is_alive(pid)).then_some(()));
        let mut ended = read(client, "a", u64::MAX - 1);
        while ended["closed"] == false {
            ended = read(client, "a", ended["nextSeq"].as_u64().unwrap() - 1);
        }
        assert_eq!(ended["exitCode"], 137);
        // What it had written is told in order all the same.
        let mut kind = String::new();
        let mut output = Vec::new();
        while kind != "closed" {
            let event = client.event("a");
            acknowledge(client, "a", &event.params["seq"]);
            if event.kind == "output" {
                output.extend(bytes(&event.params["chunk"]));
            }
            kind = event.kind;
        }
        assert!(output.len() > WINDOW && numbers().starts_with(&output));
    });
}

#[test]
fn a_cut_connection_loses_nothing_however_much_is_written() {
    let server = Server::websocket(&[]);
    let mut client = server.client();
    let pid = start_numbers(&mut client, "a", true);
    let mut output = Vec::new();
    for _ in 0..3 {
        output.extend(bytes(&client.event("a").params["chunk"]));
    }
    acknowledge(&mut client, "a", &2.into());
    let session = client.session.clone();
    drop(client);
    // It does not run on while nobody is there.
    wait_until_blocked(pid);
    let mut client = server.connect();
    let resume = json!({"clientName": "test", "resumeSessionId": session});
    until("a free session", || {
        let id = client.request("initialize", resume.clone());
        client.answer(id).get("result").map(drop)
    });
    client.send(&json!({"method": "initialized"}));
    client.continue_at(&session);
    assert!(is_alive(pid));
    let mut last = 3;
    loop {
        let read = read(&mut client, "a", last);
        for chunk in read["chunks"].as_array().unwrap() {
            output.extend(bytes(&chunk["chunk"]));
        }
        last = read["nextSeq"].as_u64().unwrap() - 1;
        acknowledge(&mut client, "a", &last.into());
        if read["closed"] == true {
            break;
        }
    }
    assert!(output == numbers());
}

#[test]
fn a_client_can_acknowledge_the_output_of_all_its_processes() {
    let server = Server::websocket(&[]);
    let mut client = server.connect();
    client.initialize(json!({"clientName": "test", "ackOutput": true}));
    let pid = start_numbers(&mut client, "a", false);
    receive_window(&mut client, "a", pid);
}

#[test]
fn an_acknowledgement_is_never_answered_but_a_wrong_one_is_complained_about() {
    both(|_, client| {
        client.start(with_stdin(program("a", &["/bin/cat"])));
        acknowledge(client, "nobody", &1.into());
        // Nothing is acknowledged of this one; it is let be.
        acknowledge(client, "a", &1.into());
        assert_eq!(client.write("a", "1", "hi"), "accepted");
        assert_eq!(client.output_until("a", "hi"), "hi");
        for params in [
            json!({"processId": "a"}),
            json!({"processId": "a", "seq": -1}),
            Value::Null,
        ] {
            client.send(&json!({"method": "process/ack", "params": params}));
            let complaint = client.answer(-1);
            assert_eq!(complaint["error"]["code"], -32602, "{complaint}");
        }
        client.call("environment/status", Value::Null);
    });
    let server = Server::websocket(&[]);
    let mut client = server.connect();
    acknowledge(&mut client, "a", &1.into());
    let complaint = client.answer(-1);
    assert_eq!(
        complaint["error"]["message"],
        "client must call initialize before using exec methods"
    );
}
