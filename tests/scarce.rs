//! Places where something is missing: memory, descriptors, anything to write to, `/proc`, `/dev/pts`. What can't be had is
//! refused with an error that says so, and all else goes on.

mod kit;

use kit::{
    Cli, Client, Dir, Server, base64, exec_server, on_terminal, program, script, server_where, until, with_stdin,
};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A server with less of something, as `ulimit` says.
fn limited(limit: &str) -> (Server, Client) {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!("ulimit {limit}; exec \"$0\" --listen stdio"),
        exec_server(),
    ]);
    let (server, mut client) = Server::on_pipes(command);
    client.handshake();
    (server, client)
}

fn pipes_work(client: &mut Client) {
    let run = client.run(script("pipes", "echo out; echo err >&2; exit 3"));
    assert_eq!(
        (&run.stdout[..], &run.stderr[..], run.code),
        (&b"out\n"[..], &b"err\n"[..], 3)
    );
}

fn terminals_work(client: &mut Client) {
    let run = client.run(on_terminal(script("terminal", "test -t 0 && echo yes")));
    assert_eq!(run.pty, b"yes\r\n");
}

fn what_runs_can_be_ended(client: &mut Client) {
    client.start(program("long", &["sleep", "1000"]));
    assert_eq!(
        client.call("process/terminate", json!({"processId": "long"})),
        json!({"running": true})
    );
    assert_eq!(client.finish("long").signal.as_deref(), Some("SIGKILL"));
}

/// Starts what `start` makes, one after the other, until one is refused; how many were started, and what was said.
fn start_until_refused(client: &mut Client, start: impl Fn(&str) -> Value) -> (usize, String) {
    for n in 0..1000 {
        let id = client.request("process/start", start(&format!("p{n}")));
        let answer = client.answer(id);
        if let Some(error) = answer["error"]["message"].as_str() {
            assert_eq!(answer["error"]["code"], -32603, "{answer}");
            return (n, error.to_owned());
        }
    }
    panic!("nothing is refused");
}

#[test]
fn where_nothing_can_be_written() {
    let dir = Dir::new();
    std::fs::write(dir.path("f"), "old").unwrap();
    let setup = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -o remount,bind,ro /"#;
    let Some((_server, mut client)) = server_where(setup, &dir) else {
        return;
    };
    let file = dir.uri("f");
    let attempts = [
        ("fs/writeFile", json!({"path": file, "dataBase64": base64("new")})),
        ("fs/createDirectory", json!({"path": dir.uri("d")})),
        ("fs/remove", json!({"path": file})),
        (
            "fs/copy",
            json!({"sourcePath": file, "destinationPath": dir.uri("g"), "recursive": false}),
        ),
        ("fs/open", json!({"handleId": "h", "path": file, "mode": "replace"})),
    ];
    for (method, params) in attempts {
        let id = client.request(method, params);
        let error = client.answer(id)["error"].take();
        assert_eq!(
            (&error["code"], &error["data"]["errno"]),
            (&json!(-32603), &json!(30)),
            "{method}: {error}"
        );
    }
    let read = client.call("fs/readFile", json!({"path": file}));
    assert_eq!(read["dataBase64"], base64("old"));
    pipes_work(&mut client);
    terminals_work(&mut client);
    what_runs_can_be_ended(&mut client);
}

#[test]
fn without_terminals() {
    let dir = Dir::new();
    let Some((_server, mut client)) = server_where("mount -t tmpfs none /dev/pts", &dir) else {
        return;
    };
    let (code, text) = client.refusal("process/start", on_terminal(script("t", "tty")));
    assert_eq!(code, -32603);
    assert!(
        text.starts_with("failed to create a terminal (/dev/ptmx) for the process: "),
        "{text}"
    );
    pipes_work(&mut client);
    what_runs_can_be_ended(&mut client);
}

#[test]
fn without_proc() {
    let dir = Dir::new();
    let Some((_server, mut client)) = server_where("mount -t tmpfs none /proc", &dir) else {
        return;
    };
    pipes_work(&mut client);
    terminals_work(&mut client);
    what_runs_can_be_ended(&mut client);
    client.call(
        "fs/writeFile",
        json!({"path": dir.uri("f"), "dataBase64": base64("new")}),
    );
    client.call(
        "fs/copy",
        json!({"sourcePath": dir.uri("f"), "destinationPath": dir.uri("g"), "recursive": false}),
    );
    assert_eq!(
        client.call("fs/readFile", json!({"path": dir.uri("g")}))["dataBase64"],
        base64("new")
    );
    client.call("fs/remove", json!({"path": dir.uri("f")}));
    assert_eq!(
        client.call("fs/walk", walk(&dir))["entries"].as_array().unwrap().len(),
        1
    );
}

fn walk(dir: &Dir) -> Value {
    let options = json!({"maxDepth": 3, "maxDirectories": 9, "maxEntries": 9, "followDirectorySymlinks": false});
    json!({"path": dir.uri(""), "options": options})
}

#[test]
fn with_few_descriptors() {
    let dir = Dir::new();
    let (_server, mut client) = limited("-n 64");
    let (started, text) = start_until_refused(&mut client, |id| with_stdin(program(id, &["sleep", "1000"])));
    assert!(started >= 8 && text.contains("os error 24"), "after {started}: {text}");
    // What needs none goes on, and what was started can be ended.
    client.call("process/list", Value::Null);
    for n in 0..started {
        client.call("process/terminate", json!({"processId": format!("p{n}")}));
        assert_eq!(client.finish(&format!("p{n}")).signal.as_deref(), Some("SIGKILL"));
    }
    pipes_work(&mut client);
    terminals_work(&mut client);
    client.call(
        "fs/writeFile",
        json!({"path": dir.uri("f"), "dataBase64": base64("new")}),
    );
}

/// The least address space, in KiB, with which the program answers at all: how it was built says that.
fn least_memory() -> usize {
    let message = r#"{"id":1,"method":"initialize","params":{"clientName":"least"}}"#;
    let answers = |kib: &usize| {
        let script = format!("ulimit -v {kib}; echo '{message}' | \"$0\" --listen stdio");
        let ended = Cli::run(
            Command::new("sh")
                .args(["-c", &script, exec_server()])
                .stdin(Stdio::null()),
        );
        ended.text().contains("sessionId")
    };
    (2..64)
        .map(|mib| mib * 1024)
        .find(answers)
        .expect("it answers with 64 MiB")
}

#[test]
fn with_little_memory() {
    let dir = Dir::new();
    let least = least_memory();
    println!("{least} KiB are enough to answer");
    let (_server, mut client) = limited(&format!("-v {}", least + 8 * 1024));
    // What they have written stays.
    for n in 0..12 {
        let id = client.request("process/start", script(&format!("w{n}"), "head -c 2000000 /dev/zero"));
        if client.answer(id)["error"].is_null() {
            client.finish(&format!("w{n}"));
        }
    }
    let (started, text) = start_until_refused(&mut client, |id| with_stdin(program(id, &["sleep", "1000"])));
    println!("{started} commands run at once, then: {text}");
    assert!(started > 0, "{text}");
    // Large messages, much input that nobody reads, a large file, all at once: done or refused.
    let large = base64(vec![b'x'; 200_000]);
    let mut requests = Vec::new();
    for n in 0..40 {
        let write = json!({"processId": format!("p{}", n % started), "writeId": n.to_string(), "chunk": large});
        requests.push(client.request("process/write", write));
    }
    for n in 0..started {
        client.call("process/terminate", json!({"processId": format!("p{n}")}));
    }
    for request in requests {
        client.answer(request);
    }
    let megabytes = json!({"path": dir.uri("f"), "dataBase64": base64(vec![b'x'; 6_000_000])});
    let id = client.request("fs/writeFile", megabytes);
    let skipped = client.wait_for("the answer to a large message", |m| m["id"] == id || m["id"] == -1);
    assert_eq!(skipped["error"]["code"], -32600, "{skipped}");
    std::fs::write(dir.path("g"), vec![b'x'; 20_000_000]).unwrap();
    let (code, _) = client.refusal("fs/readFile", json!({"path": dir.uri("g")}));
    assert_eq!(code, -32603);
    // It is still there, and as soon as the memory is free again all is as before.
    let mut attempts = 0;
    until("a command that can be started", || {
        attempts += 1;
        let id = client.request("process/start", script(&format!("again{attempts}"), "echo out"));
        let answer = client.answer(id);
        assert!(
            answer["error"].is_null() || answer["error"]["code"] == -32603,
            "{answer}"
        );
        answer["error"]
            .is_null()
            .then(|| assert_eq!(client.finish(&format!("again{attempts}")).stdout, b"out\n"))
    });
}
