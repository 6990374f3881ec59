//! A process that has ended is not forgotten before its client could hear all of it.

mod kit;

use exec_server::protocol::message::RequestId;
use exec_server::server::{Server, ServerConfig};
use exec_server::transport::memory::{self, ClientEnd, ToClient, ToServer};
use kit::{DEADLINE, base64, program, until, with_stdin};
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::time::Duration;

/// A client in this program, and the numbers of the events of `p` that it was told of.
struct Client {
    end: ClientEnd,
    events: Vec<u64>,
}

impl Client {
    /// Acknowledges output. A process may be 500 bytes ahead of that.
    fn new(mut config: ServerConfig) -> Client {
        config.ack_window_bytes = 500;
        let (end, server_end) = memory::pair(NonZeroUsize::MIN);
        Server::new(config).serve_memory(server_end, || ()).unwrap();
        let mut client = Client {
            end,
            events: Vec::new(),
        };
        let params = json!({"clientName": "test", "ackOutput": true});
        client.call("initialize", &params).unwrap();
        client.notify("initialized", "");
        client
    }

    fn notify(&self, method: &str, params: &str) {
        let params = params.to_owned().into();
        let method = method.into();
        self.end
            .outgoing
            .send(ToServer::Notification { method, params })
            .unwrap();
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value, Value> {
        let request = ToServer::Request {
            id: RequestId::from(1),
            method: method.into(),
            params: params.to_string().into(),
            bulk: None,
            raw: false,
        };
        self.end.outgoing.send(request).unwrap();
        loop {
            if let Some(mut answer) = self.next() {
                return match answer.get_mut("error") {
                    Some(error) => Err(error.take()),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }

    /// An answer, or nothing for an event.
    fn next(&mut self) -> Option<Value> {
        let text = match self.end.incoming.recv_timeout(DEADLINE).unwrap() {
            ToClient::Message(text) | ToClient::Answer { text, .. } => text,
            ToClient::Output { process_id, seq, .. } => {
                assert_eq!(&*process_id, "p");
                self.events.push(seq);
                return None;
            }
        };
        let message: Value = serde_json::from_slice(&text).unwrap();
        if message.get("method").is_none() {
            return Some(message);
        }
        if message["params"]["processId"] == "p" {
            self.events.push(message["params"]["seq"].as_u64().unwrap());
        }
        None
    }

    fn names(&mut self) -> Vec<String> {
        let list = self.call("process/list", &Value::Null).unwrap();
        let name = |process: &Value| process["processId"].as_str().unwrap().to_owned();
        list["processes"].as_array().unwrap().iter().map(name).collect()
    }

    /// Runs a process `p` to its end that has four events of output, of which the first is sent.
    fn run_ahead(&mut self) {
        self.call("process/start", &with_stdin(program("p", &["/bin/cat"])))
            .unwrap();
        for n in 0..4 {
            let write =
                json!({"processId": "p", "writeId": n.to_string(), "chunk": base64([b'x'; 300]), "closeStdin": n == 3});
            assert_eq!(self.call("process/write", &write).unwrap()["status"], "accepted");
            self.call(
                "process/read",
                &json!({"processId": "p", "afterSeq": n, "waitMs": u64::MAX}),
            )
            .unwrap();
        }
        let end = json!({"processId": "p", "afterSeq": 100, "waitMs": u64::MAX});
        assert_eq!(self.call("process/read", &end).unwrap()["closed"], true);
        assert_eq!(self.events, [1]);
    }

    /// Acknowledges event after event until there are no more.
    fn hear_the_rest(&mut self) {
        while self.events.len() < 6 {
            if let Some(last) = self.events.last() {
                self.notify("process/ack", &json!({"processId": "p", "seq": last}).to_string());
            }
            let heard = self.events.len();
            while self.events.len() == heard {
                assert_eq!(self.next(), None);
            }
        }
        assert_eq!(self.events, [1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn not_to_make_room_for_others() {
    let mut client = Client::new(ServerConfig {
        max_processes: 1,
        ..ServerConfig::default()
    });
    client.run_ahead();
    let another = program("q", &["/bin/true"]);
    let refused = client.call("process/start", &another).unwrap_err();
    assert_eq!(refused["code"], -32603, "{refused}");
    client.hear_the_rest();
    client.call("process/start", &another).unwrap();
    assert_eq!(client.names(), ["q"]);
}

#[test]
fn not_because_its_time_is_up() {
    let mut client = Client::new(ServerConfig {
        retain_ended: Duration::ZERO,
        ..ServerConfig::default()
    });
    client.run_ahead();
    // When another one is forgotten that ended later, the time of the first is up as well.
    client.call("process/start", &program("q", &["/bin/true"])).unwrap();
    until("the end of its time", || {
        (!client.names().contains(&"q".into())).then_some(())
    });
    assert_eq!(client.names(), ["p"]);
    client.hear_the_rest();
    until("its end", || client.names().is_empty().then_some(()));
}
