//! How requests go out and messages come in, in memory or as lines.

use super::{Client, DEADLINE, Event, Kind, Request, Wire};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use exec_server::protocol::message::RequestId;
use exec_server::transport::memory::{ToClient, ToServer};
use serde_json::Value;
use std::io::{BufRead, ErrorKind, Write};
use tungstenite::Bytes;

impl Client {
    pub(super) fn next_id(&self) -> RequestId {
        match self.requests.len() as i64 {
            n if n % 3 == 2 => RequestId::from(&*format!("id \"{n}\"")),
            n => RequestId::from(n),
        }
    }

    pub(super) fn request(&mut self, method: &'static str, params: Value, kind: Kind) {
        self.request_with(method, params, None, kind);
    }

    pub(super) fn request_with(
        &mut self,
        method: &'static str,
        params: Value,
        bulk: Option<(&'static str, Bytes)>,
        kind: Kind,
    ) {
        let id = self.next_id();
        self.send(&id, method, params, bulk, kind);
    }

    pub(super) fn send(
        &mut self,
        id: &RequestId,
        method: &'static str,
        params: Value,
        bulk: Option<(&'static str, Bytes)>,
        kind: Kind,
    ) {
        let number = self.requests.len();
        self.open.entry(id.as_json().to_owned()).or_default().push(number);
        self.requests.push(Request { kind, answer: None });
        match &mut self.wire {
            Wire::Memory(Some(end)) => {
                let request = ToServer::Request {
                    id: id.clone(),
                    method: method.into(),
                    params: text_of(&params).into(),
                    bulk,
                    raw: number.is_multiple_of(2),
                };
                end.outgoing.send(request).expect("the server is gone");
            }
            Wire::Memory(None) => {}
            Wire::Lines(_) => {
                let (id, params) = (id.as_json(), params.to_string());
                self.send_line(format!(r#"{{"id":{id},"method":"{method}","params":{params}}}"#).as_bytes());
            }
        }
    }

    pub(super) fn notify(&mut self, method: &'static str, params: Value) {
        match &mut self.wire {
            Wire::Memory(Some(end)) => {
                let notification = ToServer::Notification {
                    method: method.into(),
                    params: text_of(&params).into(),
                };
                end.outgoing.send(notification).expect("the server is gone");
            }
            Wire::Memory(None) => {}
            Wire::Lines(_) => self.send_line(format!(r#"{{"method":"{method}","params":{params}}}"#).as_bytes()),
        }
    }

    pub(super) fn send_line(&mut self, line: &[u8]) {
        if let Wire::Lines(lines) = &mut self.wire {
            lines
                .get_mut()
                .write_all(&[line, b"\n"].concat())
                .expect("the server is gone");
        }
    }

    pub(super) fn wait(&mut self, done: impl Fn(&Client) -> bool) {
        while !done(self) {
            assert!(self.receive(), "the server ends the connection: {}", self.state());
        }
    }

    /// Waits for a message and takes note of it; false at the end of the connection.
    pub(super) fn receive(&mut self) -> bool {
        let message = match &mut self.wire {
            Wire::Memory(None) => return false,
            Wire::Memory(Some(end)) => {
                let message = end.incoming.recv_timeout(DEADLINE);
                let message = message.or_else(|e| match e.is_timeout() {
                    true => end.incoming.recv_timeout(DEADLINE),
                    false => Err(e),
                });
                match message {
                    Ok(ToClient::Message(text)) => value(&text),
                    Ok(ToClient::Answer { text, bulk }) => with_bulk(&text, bulk),
                    Ok(ToClient::Output {
                        process_id, seq, chunk, ..
                    }) => {
                        self.event(&process_id, seq, Event::Output(chunk.to_vec()));
                        return true;
                    }
                    Err(e) if e.is_disconnected() => return false,
                    Err(_) => panic!("nothing comes: {}", self.state()),
                }
            }
            Wire::Lines(lines) => {
                let mut line = Vec::new();
                let mut late = 0;
                loop {
                    match lines.read_until(b'\n', &mut line) {
                        Ok(0) if line.is_empty() => return false,
                        Ok(_) => break,
                        Err(e) if e.kind() == ErrorKind::WouldBlock && late == 0 => late = 1,
                        Err(_) => panic!("nothing comes: {}", self.state()),
                    }
                }
                assert_eq!(line.pop(), Some(b'\n'), "a line is cut off");
                value(&line)
            }
        };
        self.received(message);
        true
    }

    pub(super) fn state(&self) -> String {
        let open: Vec<_> = self.open.values().flatten().map(|n| &self.requests[*n].kind).collect();
        let runs: Vec<_> = self
            .runs
            .iter()
            .map(|run| (&run.name, run.command, run.events.len(), run.closed))
            .collect();
        format!(
            "unanswered {open:?}, {} complaints to come, runs {runs:?}",
            self.complaints
        )
    }
}

/// Nothing for `null`.
fn text_of(params: &Value) -> String {
    if params.is_null() {
        String::new()
    } else {
        params.to_string()
    }
}

fn value(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|e| panic!("no JSON: {e}: {}", text.escape_ascii()))
}

/// An answer with base64 where its text has empty strings.
fn with_bulk(text: &[u8], bulk: Vec<Bytes>) -> Value {
    let mut message = value(text);
    let mut bulk = bulk.into_iter();
    let result = &mut message["result"];
    if let Some(chunks) = result["chunks"].as_array_mut() {
        for chunk in chunks {
            let bytes = bulk.next().expect("a chunk's bytes");
            chunk["chunk"] = BASE64_STANDARD.encode(bytes).into();
        }
        assert!(bulk.next().is_none(), "bytes of no chunk");
    }
    message
}
