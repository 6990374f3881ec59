//! What a client asks for, a step at a time.

use super::{Client, Command, Kind, MAX_STARTS, NAMES, Request, Steps, Wire, mode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use exec_server::transport::memory::ToServer;
use serde_json::{Value, json};
use tungstenite::Bytes;

impl Client {
    pub(super) fn step(&mut self, step: u8, steps: &mut Steps<'_>) {
        // Mostly the handshake comes first, now and then something else.
        if !self.initialized && step < 240 {
            self.initialize();
        }
        match step % 24 {
            0..=3 => self.start(steps.argument()),
            4..=7 => self.write(steps.argument(), steps.argument()),
            8 | 9 => self.read(steps.argument(), steps.argument()),
            10 => self.terminate(steps.argument()),
            11 => self.signal(steps.argument()),
            12 => self.resize(steps.argument()),
            13 => self.list(),
            14 => self.acknowledge(steps.argument()),
            15 => self.files(steps.argument()),
            16 => self.first_wire(steps.argument()),
            17 => self.environment(steps.argument()),
            18 => self.nonsense(steps.argument()),
            19 => self.wrong_params(steps),
            20 => self.twice_the_same_id(),
            21 => self.wait_for_a_start(),
            _ => self.synchronize(),
        }
    }

    fn initialize(&mut self) {
        self.initialized = true;
        let asked = |bit| self.mode & bit != 0;
        let params = json!({
            "clientName": if asked(mode::LINES) { "codex-environment" } else { "test" },
            "ackOutput": asked(mode::ACK_OUTPUT),
            "extendedSignals": asked(mode::EXTENDED_SIGNALS),
        });
        self.request("initialize", params, Kind::Other);
        self.notify("initialized", Value::Null);
    }

    fn start(&mut self, argument: u8) {
        if self.starts >= MAX_STARTS {
            return;
        }
        self.starts += 1;
        let name = name(argument).to_owned();
        let command = match argument / 8 % 16 {
            0 | 1 => Command::True,
            2 => Command::False,
            3 => Command::Missing,
            4 => Command::Terminal,
            5 => Command::Cat(false),
            6 => Command::Zeros(100_000),
            7 => Command::Zeros(5000),
            _ => Command::Cat(true),
        };
        let zeros;
        let argv = match command {
            Command::True => &["true"][..],
            Command::False => &["false"],
            Command::Missing => &["exec-server-has-no-such-program"],
            Command::Terminal | Command::Cat(_) => &["cat"],
            Command::Zeros(n) => {
                zeros = n.to_string();
                &["head", "-c", &zeros, "/dev/zero"]
            }
        };
        let params = json!({
            "processId": name, "argv": argv, "cwd": "file:///", "env": {"PATH": "/usr/local/bin:/usr/bin:/bin"},
            "tty": command == Command::Terminal, "pipeStdin": command == Command::Cat(true),
            "ackOutput": argument >= 128,
        });
        self.request("process/start", params, Kind::Start { name, command });
    }

    fn write(&mut self, argument: u8, size: u8) {
        let name = name(argument).to_owned();
        // An id in eight is one that there was.
        let n = match argument / 8 % 8 {
            0 => usize::from(size) % (self.written + 1),
            _ => self.written,
        };
        self.written += 1;
        let id = format!("write {n}");
        let len = match size {
            0..200 => size.into(),
            // A large message, as base64.
            255 => 60_000,
            _ => usize::from(size) * 30,
        };
        // The same id, the same content.
        let mut content = format!("<{n}>").into_bytes();
        content.resize(len, b'a' + (n % 26) as u8);
        if let Some(first) = self.requests.iter().find_map(|request| match &request.kind {
            Kind::Write { id: other, content, .. } if *other == id => Some(content.clone()),
            _ => None,
        }) {
            content = first;
        }
        self.send_write(name, id, content, argument / 64 == 3);
    }

    pub(super) fn send_write(&mut self, name: String, id: String, content: Vec<u8>, close: bool) {
        let mut params = json!({"processId": name, "writeId": id, "closeStdin": close});
        let in_memory = matches!(self.wire, Wire::Memory(_));
        let as_bytes = in_memory && self.written.is_multiple_of(2);
        params["chunk"] = match as_bytes {
            true => "".into(),
            false => BASE64_STANDARD.encode(&content).into(),
        };
        let bulk = as_bytes.then(|| ("chunk", Bytes::from(content.clone())));
        self.request_with("process/write", params, bulk, Kind::Write { name, id, content });
    }

    fn read(&mut self, argument: u8, how: u8) {
        let name = name(argument).to_owned();
        let mut params = json!({"processId": name, "afterSeq": how % 8});
        if how & 8 != 0 {
            params["maxBytes"] = (u64::from(how / 64) * 2000).into();
        }
        if how & 16 != 0 {
            params["waitMs"] = (u64::from(how / 32) * 4).into();
        }
        self.request("process/read", params, Kind::Read { name });
    }

    fn terminate(&mut self, argument: u8) {
        let name = name(argument).to_owned();
        let params = json!({"processId": name, "graceMs": u64::from(argument / 64) * 10});
        self.request("process/terminate", params, Kind::Kill { name });
    }

    fn signal(&mut self, argument: u8) {
        let name = name(argument).to_owned();
        let signals = [
            "interrupt",
            "hangup",
            "quit",
            "kill",
            "usr1",
            "usr2",
            "terminate",
            "none",
        ];
        let params = json!({"processId": name, "signal": signals[usize::from(argument / 8 % 8)]});
        self.request("process/signal", params, Kind::Kill { name });
    }

    fn resize(&mut self, argument: u8) {
        let size = json!({"rows": argument / 8, "cols": 80});
        let params = json!({"processId": name(argument), "size": size});
        self.request("process/resize", params, Kind::Other);
    }

    fn list(&mut self) {
        self.request("process/list", Value::Null, Kind::Other);
    }

    fn acknowledge(&mut self, argument: u8) {
        let seq = match argument / 8 {
            31 => u64::MAX,
            seq => seq.into(),
        };
        self.send_acknowledgement(name(argument), seq);
    }

    pub(super) fn send_acknowledgement(&mut self, name: &str, seq: u64) {
        if !self.initialized {
            // Told, as all that comes before the handshake.
            self.complaints += 1;
        }
        self.notify("process/ack", json!({"processId": name, "seq": seq}));
    }

    /// Calls that change no file.
    fn files(&mut self, argument: u8) {
        let handle = format!("h{}", argument / 16 % 4);
        let (method, params) = match argument % 12 {
            0 => ("fs/getMetadata", json!({"path": "file:///dev/null"})),
            1 => ("fs/readFile", json!({"path": "/proc/self/cmdline"})),
            2 => ("fs/readFile", json!({"path": "/proc/none"})),
            3 => ("fs/canonicalize", json!({"path": "file:///proc/../dev/./null"})),
            4 => ("fs/readDirectory", json!({"path": "file:///proc/self/task"})),
            5 => ("fs/open", json!({"path": "file:///proc/self/maps", "handleId": handle})),
            6 | 7 => ("fs/readBlock", json!({"handleId": handle, "offset": 0, "len": 100})),
            8 => ("fs/close", json!({"handleId": handle})),
            9 | 10 => {
                self.watches += 1;
                let watch = self.watches - u64::from(argument / 128);
                let missing = json!(["file:///proc/none", "file:///none/a"]);
                ("fs/watchMissing", json!({"watchId": watch, "missing": missing}))
            }
            _ => ("fs/readFile", json!({"path": "file://elsewhere/a"})),
        };
        self.request(method, params, Kind::Other);
    }

    fn first_wire(&mut self, argument: u8) {
        let name = format!("f{}", argument % 4);
        match argument / 4 % 8 {
            0..=3 if self.starts < MAX_STARTS => {
                self.starts += 1;
                self.initialized = true;
                let tty = argument / 4 % 8 == 3;
                let params = json!({
                    "processId": name, "argv": [if tty { "cat" } else { "true" }], "cwd": "/",
                    "env": {"PATH": "/usr/local/bin:/usr/bin:/bin"}, "tty": tty,
                });
                let command = Command::Missing;
                self.request("command/exec", params, Kind::Start { name, command });
            }
            4 | 5 if !self.first_wire.is_empty() => {
                let params = json!({"processId": name, "chunk": "YQo="});
                self.request("command/exec/write", params, Kind::Other);
            }
            6 if !self.first_wire.is_empty() => {
                self.request("command/exec/terminate", json!({"processId": name}), Kind::Other);
            }
            _ => {}
        }
    }

    fn environment(&mut self, argument: u8) {
        let (method, params) = match argument % 4 {
            0 => ("environment/status", json!({})),
            1 => ("environment/status", json!([])),
            2 => (
                "environmentConfig/read",
                json!({"cwd": "/", "configPaths": [["a"]], "requirementsPaths": []}),
            ),
            _ => ("initialize", json!({"clientName": "again"})),
        };
        if method == "initialize" && !self.initialized {
            return;
        }
        self.request(method, params, Kind::Other);
    }

    /// What nobody asks for.
    fn nonsense(&mut self, argument: u8) {
        match argument % 4 {
            0 => {
                self.complaints += 1;
                self.notify("process/start", json!({"processId": "p0"}));
            }
            1 => self.request("process/nothing", json!([1, {"a": null}]), Kind::Other),
            // On the first wire an answer is nothing to complain about.
            2 if !self.speaks_first_wire() => {
                self.complaints += 1;
                let text = br#"{"id":7,"result":{}}"#;
                match &mut self.wire {
                    Wire::Memory(Some(end)) => drop(end.outgoing.send(ToServer::Answer(Bytes::from_static(text)))),
                    Wire::Memory(None) => {}
                    Wire::Lines(_) => self.send_line(text),
                }
            }
            _ if self.mode & mode::LINES != 0 => {
                let lines: [&[u8]; 8] = [
                    b"{",
                    b"[]",
                    b"{\"id\":1}",
                    b"\xff\xfe",
                    b"{\"id\":1,\"id\":2,\"method\":\"process/list\"}",
                    b"{\"id\":1.5,\"method\":\"process/list\"}",
                    b"{\"id\":null,\"method\":\"process/list\"}",
                    b"nothing",
                ];
                self.complaints += 1;
                self.send_line(lines[usize::from(argument / 4 % 8)]);
            }
            _ => {}
        }
    }

    fn speaks_first_wire(&self) -> bool {
        self.starts > 0
            && self.requests.iter().any(|request| match &request.kind {
                Kind::Start { name, .. } => name.starts_with('f'),
                _ => false,
            })
    }

    /// A known method with any JSON that the input has. None of those that start commands or change files.
    fn wrong_params(&mut self, steps: &mut Steps<'_>) {
        let methods = [
            "process/read",
            "process/resize",
            "process/list",
            "fs/getMetadata",
            "fs/readBlock",
            "fs/close",
            "environmentConfig/read",
            "environment/status",
        ];
        let head = steps.argument();
        let method = methods[usize::from(head % 8)];
        let len = usize::from(head / 8 * 2).min(steps.0.len());
        let (text, rest) = steps.0.split_at(len);
        steps.0 = rest;
        let Ok(params) = serde_json::from_slice::<Value>(text) else {
            return;
        };
        if params.get("waitMs").is_some() {
            return;
        }
        self.request(method, params, Kind::Other);
    }

    fn twice_the_same_id(&mut self) {
        let id = self.next_id();
        for method in ["process/list", "process/nothing"] {
            self.send(&id, method, Value::Null, None, Kind::Other);
        }
    }

    /// Waits until the newest command runs, or could not be started.
    fn wait_for_a_start(&mut self) {
        let is_start = |request: &Request| matches!(request.kind, Kind::Start { .. });
        if let Some(start) = self.requests.iter().rposition(is_start) {
            self.wait(|client| client.requests[start].answer.is_some());
        }
    }

    /// Waits until everything before is received, if not done.
    pub(super) fn synchronize(&mut self) {
        self.request("process/nothing", Value::Null, Kind::Other);
        let last = self.requests.len() - 1;
        self.wait(|client| client.requests[last].answer.is_some());
    }
}

fn name(argument: u8) -> &'static str {
    NAMES[usize::from(argument % 8).min(NAMES.len() - 1)]
}
