//! Recorded exchanges: what the client sends is sent again, and the server must say the same.
//!
//! A line is `{"C": message}` for the client, or `{"C": "text"}` for something that is no message, and
//! `{"S": message}` for the server, in which `"*"` stands for anything. What the server says between two lines of the
//! client may come in any order; the events of one process are in order as in every test.

mod kit;

use kit::{Client, Server};
use serde_json::Value;

fn is_like(expected: &Value, said: &Value) -> bool {
    match (expected, said) {
        (Value::String(any), _) if any == "*" => true,
        (Value::Object(expected), Value::Object(said)) => {
            expected.len() == said.len()
                && expected
                    .iter()
                    .all(|(key, value)| said.get(key).is_some_and(|said| is_like(value, said)))
        }
        (Value::Array(expected), Value::Array(said)) => {
            expected.len() == said.len() && expected.iter().zip(said).all(|(e, s)| is_like(e, s))
        }
        _ => expected == said,
    }
}

/// Over stdio and, with the words of that transport, over WebSocket.
fn replay(transcript: &str) {
    let (_server, mut client) = Server::stdio();
    play(&mut client, transcript);
    let words = [
        "JSON-RPC message from exec-server stdio",
        "websocket JSON-RPC message from exec-server websocket",
    ];
    let server = Server::websocket(&[]);
    play(&mut server.connect(), &transcript.replace(words[0], words[1]));
}

fn play(client: &mut Client, transcript: &str) {
    for line in transcript.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        match (&line["C"], &line["S"]) {
            (Value::String(text), _) => client.send_text(text),
            (Value::Null, expected) => drop(client.wait_for(&line.to_string(), |said| is_like(expected, said))),
            (message, _) => client.send(message),
        }
    }
    client.send_text(r#"{"id":"the end","method":"nope"}"#);
    assert_eq!(client.next().unwrap()["id"], "the end", "the server said more");
}

#[test]
fn handshake() {
    replay(include_str!("transcripts/handshake.jsonl"));
}

#[test]
fn simple_process() {
    replay(include_str!("transcripts/simple_process.jsonl"));
}

#[test]
fn malformed() {
    replay(include_str!("transcripts/malformed.jsonl"));
}

#[test]
fn write_dedupe() {
    replay(include_str!("transcripts/write_dedupe.jsonl"));
}

#[test]
fn start_errors() {
    replay(include_str!("transcripts/start_errors.jsonl"));
}
