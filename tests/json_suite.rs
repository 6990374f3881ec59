//! All of Nicolas Seriot's JSONTestSuite, as lines, as frames and as `params`: whatever the text, it is answered, the
//! verdict is that of `serde_json`, and the next message works.
//!
//! The suite is read from where `JSON_TEST_SUITE` says, or from beside the checkout. Where it is not, its short inputs
//! are taken, which `checks/json_inputs.rs` has. Two verdicts differ from `serde_json`'s: a repeated key is refused,
//! and a text frame that is not UTF-8 ends its connection, as RFC 6455 wants it.

#[path = "checks/json_inputs.rs"]
mod json_inputs;
mod kit;

use kit::{Client, Server};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How many inputs the suite has.
const CASES: usize = 318;

struct Case {
    name: String,
    text: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/jsontestsuite");
    let suite = std::env::var_os("JSON_TEST_SUITE").map_or_else(beside, PathBuf::from);
    let Ok(files) = fs::read_dir(suite.join("test_parsing")) else {
        println!("without the suite itself: {}", suite.display());
        return of_lists();
    };
    let mut cases: Vec<Case> = files
        .map(|file| {
            let file = file.unwrap();
            Case {
                name: file.file_name().into_string().unwrap(),
                text: fs::read(file.path()).unwrap(),
            }
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(cases.len(), CASES);
    cases
}

fn of_lists() -> Vec<Case> {
    let lists = [
        ("y", json_inputs::VALID),
        ("n", json_inputs::INVALID),
        ("i", json_inputs::OPEN),
    ];
    let of_list = |(verdict, list): (&str, &[&[u8]])| -> Vec<Case> {
        let case = |(n, text): (usize, &&[u8])| Case {
            name: format!("{verdict}_{n}"),
            text: text.to_vec(),
        };
        list.iter().enumerate().map(case).collect()
    };
    lists.into_iter().flat_map(of_list).collect()
}

impl Case {
    /// The same as the parameters of a request that takes any. Its id is 1.
    fn as_params(&self) -> Vec<u8> {
        [br#"{"id":1,"method":"process/list","params":"#, &self.text[..], b"}"].concat()
    }

    /// Whether the suite says that it is to be accepted, if it says so.
    fn verdict(&self) -> Option<bool> {
        match self.name.as_bytes()[0] {
            b'y' => Some(true),
            b'n' => Some(false),
            _ => None,
        }
    }

    /// What the verdict of a server must be. The suite finds repeated keys good.
    fn is_good(&self, text: &[u8]) -> bool {
        let is_good = serde_json::from_slice::<Value>(text).is_ok();
        if let Some(verdict) = self.verdict() {
            assert_eq!(is_good, verdict, "serde_json about {}", self.name);
        }
        is_good && !self.has_repeated_keys()
    }

    fn has_repeated_keys(&self) -> bool {
        self.verdict() == Some(true) && self.text.windows(4).filter(|four| four == b"\"a\":").count() > 1
    }
}

/// What comes up to the answer to a request that is sent now.
fn answers(client: &mut Client) -> Vec<Value> {
    let last = client.request("environment/status", Value::Null);
    let mut answers = Vec::new();
    loop {
        let message = client.next().expect("the connection has ended");
        if message["id"] == last {
            assert_eq!(message["result"], json!({"status": "ready"}));
            return answers;
        }
        answers.push(message);
    }
}

/// What is wrong with a message, from the one answer to it.
fn complaint(answers: &[Value], name: &str) -> String {
    let [answer] = answers else {
        panic!("{name}: {answers:?}");
    };
    assert_eq!(
        (&answer["id"], &answer["error"]["code"]),
        (&json!(-1), &json!(-32600)),
        "{name}: {answer}"
    );
    let text = answer["error"]["message"].as_str().unwrap();
    let (_, what) = text.split_once(": ").unwrap_or_else(|| panic!("{name}: {text}"));
    what.to_owned()
}

/// Checks the answer to a whole message: none of the suite is one, so it is always refused, but not always because it is
/// no JSON.
fn check_message(text: &[u8], answers: &[Value], name: &str) {
    let what = complaint(answers, name);
    let no_message = ["expected a JSON-RPC object", "missing field `error`"].contains(&&*what);
    let own = ["duplicate JSON object key", "invalid unicode code point"];
    let in_other_words = own.iter().any(|start| what.starts_with(start));
    match serde_json::from_slice::<Value>(text) {
        Ok(_) => assert!(no_message || what.starts_with(own[0]), "{name}: {what}"),
        Err(e) => assert!(what == e.to_string() || in_other_words, "{name}: {what}, but {e}"),
    }
}

/// Checks the answer to a request that has the case as its parameters.
fn check_request(case: &Case, answers: &[Value]) {
    if case.is_good(&case.as_params()) {
        assert_eq!(
            answers,
            [json!({"id": 1, "result": {"processes": []}})],
            "{}",
            case.name
        );
    } else {
        complaint(answers, &case.name);
    }
}

#[test]
fn as_lines() {
    let (_server, mut client) = Server::stdio();
    client.handshake();
    for case in cases() {
        // A line is a message: a case with newlines is as many as it has lines, and blank ones are none.
        client.send_bytes(&case.text);
        let mut told = answers(&mut client).into_iter();
        for line in case.text.split(|byte| *byte == b'\n') {
            if line.iter().any(|byte| !b" \t\r".contains(byte)) {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                check_message(line, &told.by_ref().take(1).collect::<Vec<_>>(), &case.name);
            }
        }
        assert_eq!(told.next(), None, "{}", case.name);
    }
}

#[test]
fn as_params_of_lines() {
    let (_server, mut client) = Server::stdio();
    client.handshake();
    for case in cases() {
        let text = case.as_params();
        client.send_bytes(&text);
        let told = answers(&mut client);
        if text.contains(&b'\n') {
            // It is cut where it has newlines, and no part is a message.
            assert!(!told.is_empty(), "{}", case.name);
            told.chunks(1).for_each(|one| drop(complaint(one, &case.name)));
        } else {
            check_request(&case, &told);
        }
    }
}

#[test]
fn as_frames() {
    let server = Server::websocket(&[]);
    let mut client = server.client();
    for case in cases() {
        client.send_bytes(&case.text);
        check_message(&case.text, &answers(&mut client), &case.name);
        match std::str::from_utf8(&case.text) {
            Ok(text) => {
                client.send_text(text);
                check_message(&case.text, &answers(&mut client), &case.name);
            }
            Err(_) => ends_its_connection(&server, &case),
        }
    }
}

/// A text frame that is not UTF-8. It takes nobody else along.
fn ends_its_connection(server: &Server, case: &Case) {
    let mut client = server.client();
    let len = u8::try_from(case.text.len()).ok().filter(|len| *len < 126);
    let head = [0x81, 0x80 | len.expect("a short one"), 0, 0, 0, 0];
    client
        .websocket()
        .get_mut()
        .write_all(&[&head, &case.text[..]].concat())
        .unwrap();
    assert_eq!(client.rest(), [] as [Value; 0], "{}", case.name);
    let code = client.close_frame.map(|frame| u16::from(frame.code));
    assert_eq!(code, Some(1007), "{}", case.name);
}

#[test]
fn as_params_of_frames() {
    let server = Server::websocket(&[]);
    let mut client = server.client();
    for case in cases() {
        let text = case.as_params();
        client.send_bytes(&text);
        check_request(&case, &answers(&mut client));
        if let Ok(text) = std::str::from_utf8(&text) {
            client.send_text(text);
            check_request(&case, &answers(&mut client));
        }
    }
}
