//! What Codex's clients of earlier versions say otherwise than the newest.

mod kit;

use kit::{Client, Dir, Server, base64, bytes, program, with_stdin};
use serde_json::{Value, json};

/// Runs a test over each transport with a client that calls itself what every Codex does.
fn as_codex(test: impl Fn(&mut Client)) {
    let name = json!({"clientName": "codex-environment"});
    let (server, mut client) = Server::stdio();
    client.initialize(name.clone());
    test(&mut client);
    drop((client, server));
    let server = Server::websocket(&[]);
    let mut client = server.connect();
    client.initialize(name);
    test(&mut client);
}

#[test]
fn writes_need_no_id() {
    as_codex(|client| {
        client.start(with_stdin(program("a", &["/bin/cat"])));
        for input in ["one ", "one ", "end"] {
            let params = json!({"processId": "a", "chunk": base64(input)});
            assert_eq!(client.call("process/write", params), json!({"status": "accepted"}));
        }
        assert_eq!(client.output_until("a", "end"), "one one end");
        let empty = json!({"processId": "a", "chunk": base64("x"), "writeId": ""});
        assert_eq!(client.refusal("process/write", empty).0, -32602);
    });
}

#[test]
fn paths_are_plain_and_output_is_polled() {
    as_codex(|client| {
        let dir = Dir::new();
        let plain = |name: &str| dir.path(name).display().to_string();
        let write = json!({"path": plain("f"), "dataBase64": base64("text"), "sandboxPolicy": null});
        client.call("fs/writeFile", write);
        client.start(json!({"processId": "1", "argv": ["/bin/cat", "f"], "cwd": plain(""), "env": {}, "tty": false, "arg0": null}));
        let (mut after, mut output) = (Value::Null, Vec::new());
        loop {
            let params = json!({"processId": "1", "afterSeq": after, "maxBytes": null, "waitMs": 0});
            let read = client.call("process/read", params);
            for chunk in read["chunks"].as_array().unwrap() {
                output.extend(bytes(&chunk["chunk"]));
            }
            after = json!(read["nextSeq"].as_u64().unwrap() - 1);
            if read["closed"] == true {
                assert_eq!(read["exitCode"], 0);
                break;
            }
        }
        assert_eq!(output, b"text");
    });
}

#[test]
fn the_environment_is_asked_for() {
    as_codex(|client| {
        let info = client.call("environment/info", Value::Null);
        assert!(
            info["shell"]["path"].is_string() && info["capabilities"].is_object(),
            "{info}"
        );
    });
}

#[test]
fn clients_of_all_times_share_a_server() {
    let server = Server::websocket(&[]);
    let (mut first, mut older, mut newest) = (server.connect(), server.connect(), server.connect());
    older.initialize(json!({"clientName": "codex-environment"}));
    newest.initialize(json!({"clientName": "codex-environment", "resumeSessionId": null}));
    // All use the same name for a process, each its own way of writing to it.
    let exec = json!({"processId": "a", "argv": ["/bin/cat"], "cwd": "/", "env": {}, "tty": true, "arg0": null});
    assert_eq!(first.call("command/exec", exec)["processId"], "a");
    older.start(with_stdin(program("a", &["/bin/cat"])));
    newest.start(with_stdin(program("a", &["/bin/cat"])));
    for n in 0..20 {
        let params = |who: &str| json!({"processId": "a", "chunk": base64(format!("{who} {n}\n"))});
        let first_id = first.request("command/exec/write", params("first"));
        let older_id = older.request("process/write", params("older"));
        let mut write = params("newest");
        write["writeId"] = n.to_string().into();
        let newest_id = newest.request("process/write", write);
        assert_eq!(first.result(first_id), json!({"accepted": true}));
        assert_eq!(older.result(older_id), json!({"status": "accepted"}));
        assert_eq!(newest.result(newest_id), json!({"status": "accepted"}));
    }
    let said = |who: &str| (0..20).map(|n| format!("{who} {n}\n")).collect::<String>();
    assert_eq!(older.output_until("a", "older 19\n"), said("older"));
    assert_eq!(newest.output_until("a", "newest 19\n"), said("newest"));
    let mut output = String::new();
    while output.matches("first 19\r\n").count() < 2 {
        let message = first.wait_for("output of the first wire", |m| {
            m["method"] == "command/exec/outputDelta"
        });
        output += &String::from_utf8(bytes(&message["params"]["chunk"])).unwrap();
    }
    assert!(!output.contains("older") && !output.contains("newest"));
    assert_eq!(
        first.call("command/exec/terminate", json!({"processId": "a"})),
        json!({"running": true})
    );
    // The others are still there.
    assert_eq!(
        older.call("process/terminate", json!({"processId": "a"})),
        json!({"running": true})
    );
    assert_eq!(
        newest.call("process/terminate", json!({"processId": "a"})),
        json!({"running": true})
    );
}
