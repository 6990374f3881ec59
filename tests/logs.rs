//! What the server logs, and what it does not.

mod kit;

use kit::{Client, Dir, Server, command, script, until};
use serde_json::{Value, json};
use std::fs::File;

/// A server that logs all there is to a file.
fn logging(dir: &Dir, arguments: &[&str]) -> Server {
    let mut command = command(&[&["--listen", "ws://127.0.0.1:0", "--log-level", "debug"], arguments].concat());
    Server::on_port({
        command.stderr(File::create(dir.path("log")).unwrap());
        command
    })
}

/// The whole lines that are there.
fn lines(dir: &Dir) -> Vec<String> {
    let text = std::fs::read_to_string(dir.path("log")).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

/// Has a command run whose words, environment and output are nobody's business, and a failure that has line ends in it.
fn session(server: &Server) -> String {
    let mut client = Client::of_websocket(server.url());
    client.initialize(json!({"clientName": "a\nclient \"of\" some kind"}));
    let mut start = script(
        "some\nprocess",
        "read a; echo hidden-output $PRIVATE hidden-argument; exit 3",
    );
    start["env"]["PRIVATE"] = "hidden-variable".into();
    start["pipeStdin"] = true.into();
    client.start(start);
    assert_eq!(client.write("some\nprocess", "1", "hidden-input\n"), "accepted");
    assert_eq!(client.finish("some\nprocess").code, 3);
    client.session
}

#[test]
fn json_lines_say_whom_they_are_about() {
    let dir = Dir::new();
    let server = logging(&dir, &["--log-format", "json"]);
    let session = session(&server);
    let log = until("the end of the connection", || {
        let log: Vec<Value> = lines(&dir)
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let is_over = |line: &Value| line["message"].as_str().unwrap().ends_with(" is over");
        log.iter().any(is_over).then_some(log)
    });
    for line in &log {
        let time = line["ts"].as_str().unwrap();
        assert!(
            time.len() == 24 && time.starts_with("20") && time.ends_with('Z') && &time[10..11] == "T",
            "{time}"
        );
        assert!(["info", "debug"].contains(&line["level"].as_str().unwrap()), "{line}");
    }
    let of = |key: &str, value: Value| log.iter().filter(|line| line[key] == value).count();
    assert!(of("session", session.into()) >= 2);
    assert_eq!(of("process", "some\nprocess".into()), 3);
    assert_eq!(log.iter().filter(|line| line["pid"].is_i64()).count(), 3);
    let opened = log
        .iter()
        .find(|line| line["message"].as_str().unwrap().starts_with("client `a\\nclient"));
    assert!(opened.unwrap()["conn"].is_i64());
    assert!(!lines(&dir).concat().contains("hidden"), "{log:?}");
}

#[test]
fn text_is_a_line_for_each_event() {
    let dir = Dir::new();
    let server = logging(&dir, &[]);
    let session = session(&server);
    let log = until("a session without a client", || {
        let log = lines(&dir);
        log.iter().any(|line| line.contains("is detached")).then_some(log)
    });
    assert!(log.iter().all(|line| line.starts_with("exec-server: ")), "{log:?}");
    assert!(
        log.iter()
            .any(|line| line.ends_with(&format!("opens session {session}"))),
        "{log:?}"
    );
    assert!(!log.concat().contains("hidden"), "{log:?}");
    let refused = command(&["--log-format", "xml"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
