//! Whole sessions with real commands: what a client may rely on, whatever it asks for in whatever order.
//!
//! Every request is answered exactly once; the events of a process have the numbers 1, 2, 3 … in that order, `exited`
//! once and `closed` last; what `cat` writes is what was written to it; and in the end nothing is left behind.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use exec_server::protocol::message::RequestId;
use exec_server::server::{Server, ServerConfig};
use exec_server::transport::memory::{self, ClientEnd, ToClient, ToServer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::Duration;
use tungstenite::Bytes;

/// How long anything may take. It is waited for twice, because the first time it may be over when the whole program
/// was stopped for a while.
const DEADLINE: Duration = Duration::from_secs(30);

/// The most steps of one session.
const MAX_STEPS: usize = 60;

/// How many commands a session starts at most.
const MAX_STARTS: usize = 12;

const NAMES: [&str; 5] = ["p0", "p1", "p2", "p3", "\u{e9} \"\\\n"];

/// What is in the first byte of an input.
mod mode {
    /// Lines over a socket, not messages in memory.
    pub(super) const LINES: u8 = 1;
    pub(super) const ACK_OUTPUT: u8 = 2;
    pub(super) const EXTENDED_SIGNALS: u8 = 4;
    /// Little is retained and sent ahead.
    pub(super) const SMALL_LOGS: u8 = 8;
    /// Few processes, reads, file calls and little input at a time.
    pub(super) const SMALL_COUNTS: u8 = 16;
    /// The client acknowledges late, not at once.
    pub(super) const LATE_ACKS: u8 = 32;
}

/// How a session ends: the two highest bits of the first byte.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Everything is waited for.
    Finished,
    /// All that runs is terminated and the input closed, without waiting for answers first.
    HalfClosed,
    /// The client is gone at once.
    Cut,
    /// The server is shut down under the client.
    ShutDown,
}

/// Does what `input` describes, a byte for the mode and then a byte for each step and one or two for its arguments, and
/// panics where something is not as it should be.
///
/// Counts the threads, descriptors and children of the whole program, so nothing else must run beside it.
pub(crate) fn check_input(input: &[u8]) {
    static BEFORE: OnceLock<Left> = OnceLock::new();
    // What is opened once and for all is not left behind.
    let before = BEFORE.get_or_init(|| {
        run(&[0, 0, 0]);
        run(&[mode::LINES, 0, 0]);
        Left::settled()
    });
    run(input);
    // Threads end on their own once the server is gone, which nothing announces.
    for _ in 0..20_000 {
        if Left::now() == *before {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("something is left behind: {before:?} before, {:?} after", Left::now());
}

/// What a session could leave behind.
#[derive(Debug, PartialEq)]
struct Left {
    threads: usize,
    /// What each is open on, without numbers.
    descriptors: Vec<String>,
    /// Their names.
    children: Vec<String>,
}

impl Left {
    /// What there is when nothing has changed for a while.
    fn settled() -> Left {
        let (mut seen, mut times) = (Left::now(), 0);
        while times < 200 {
            std::thread::park_timeout(Duration::from_millis(1));
            let now = Left::now();
            times = if now == seen { times + 1 } else { 0 };
            seen = now;
        }
        seen
    }

    fn now() -> Left {
        let names = |what: &str| {
            let all = fs::read_dir(format!("/proc/self/{what}")).expect("/proc").flatten();
            all.map(|entry| entry.file_name()).collect::<Vec<_>>()
        };
        let tasks = names("task");
        let target = |fd| fs::read_link(format!("/proc/self/fd/{fd}")).ok();
        let mut descriptors: Vec<_> = names("fd")
            .iter()
            .filter_map(|fd| Some(target(fd.to_str()?)?.display().to_string()))
            .map(|target| target.replace(|c: char| c.is_ascii_digit(), ""))
            .collect();
        descriptors.sort();
        let children = tasks.iter().filter_map(|task| {
            let path = format!("/proc/self/task/{}/children", task.to_str()?);
            fs::read_to_string(path).ok()
        });
        let mut children: Vec<String> = children
            .flat_map(|pids| pids.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
            .collect();
        // What a fuzzer starts, with two pipes, to name the functions that it sees for the first time.
        if children.iter().any(|name| name.contains("symbolizer")) {
            children.retain(|name| !name.contains("symbolizer"));
            for _ in 0..2 {
                descriptors
                    .iter()
                    .position(|name| name.starts_with("pipe"))
                    .map(|at| descriptors.remove(at));
            }
        }
        Left {
            threads: tasks.len(),
            descriptors,
            children,
        }
    }
}

fn run(input: &[u8]) {
    let [mode, steps @ ..] = input else {
        return;
    };
    let end = [End::Finished, End::HalfClosed, End::Cut, End::ShutDown][usize::from(mode >> 6)];
    let server = Server::new(config(*mode, end));
    let (tell, ended) = channel();
    let tell = move || {
        let _ = tell.send(());
    };
    let wire = if mode & mode::LINES != 0 {
        let (ours, theirs) = UnixStream::pair().expect("a socket");
        let output = theirs.try_clone().expect("a descriptor");
        let cut = theirs.try_clone().expect("a descriptor");
        ours.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        let ended = move || {
            // As a program ends with its connection, so that nobody reads or writes for ever.
            let _ = cut.shutdown(Shutdown::Both);
            tell();
        };
        server.serve_lines(theirs, output, ended).expect("threads");
        Wire::Lines(BufReader::new(ours))
    } else {
        let (client, end) = memory::pair(NonZeroUsize::new(128).expect("not 0"));
        server.serve_memory(end, tell).expect("threads");
        Wire::Memory(Some(client))
    };
    let mut client = Client::new(wire, *mode);
    let mut steps = Steps(steps);
    for _ in 0..MAX_STEPS {
        let Some(step) = steps.0.split_off_first() else { break };
        client.step(*step, &mut steps);
    }
    match end {
        End::Finished => client.finish(),
        End::HalfClosed => client.half_close(),
        End::Cut => {}
        End::ShutDown => server.shut_down(),
    }
    drop(client);
    let waited = ended.recv_timeout(DEADLINE).or_else(|_| ended.recv_timeout(DEADLINE));
    waited.expect("the connection does not end");
    server.shut_down();
}

fn config(mode: u8, end: End) -> ServerConfig {
    let mut config = ServerConfig::default();
    if mode & mode::SMALL_LOGS != 0 {
        config.retain_bytes = 3000;
        config.retain_events = 8;
        config.credit_bytes = 1000;
        config.ack_window_bytes = 500;
        config.batch_bytes = 700;
        config.quantum_bytes = 300;
    }
    if mode & mode::SMALL_COUNTS != 0 {
        config.max_processes = 3;
        config.max_long_polls = 1;
        config.max_file_calls = 1;
        config.stdin_soft_bytes = 100;
        config.stdin_hard_bytes = 3000;
    }
    if end == End::HalfClosed {
        // No time limit may save a request that is never answered.
        config.drain_limit = DEADLINE;
    }
    config
}

struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    fn argument(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or_default()
    }
}

enum Wire {
    Memory(Option<ClientEnd>),
    Lines(BufReader<UnixStream>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Command {
    True,
    False,
    /// With a pipe for input, or `/dev/null`.
    Cat(bool),
    Terminal,
    /// That many NUL bytes.
    Zeros(usize),
    Missing,
}

#[derive(Debug)]
enum Kind {
    Start { name: String, command: Command },
    Write { name: String, id: String, content: Vec<u8> },
    Read { name: String },
    Kill { name: String },
    Other,
}

struct Request {
    kind: Kind,
    answer: Option<Result<Value, Value>>,
}

/// One run of a command.
struct Run {
    name: String,
    command: Command,
    /// Which request has started it.
    start: usize,
    /// Output by its number, the first being 1; what is no output is empty.
    events: Vec<Vec<u8>>,
    exit: Option<i64>,
    closed: bool,
}

struct Client {
    wire: Wire,
    mode: u8,
    requests: Vec<Request>,
    /// The unanswered ones, by the JSON of their id.
    open: HashMap<String, Vec<usize>>,
    /// The answers with the id -1 that have yet to come.
    complaints: usize,
    initialized: bool,
    runs: Vec<Run>,
    /// The newest run of each name.
    named: HashMap<String, usize>,
    /// How many commands of the first wire were started, and how many have exited.
    first_wire: BTreeMap<String, (usize, usize)>,
    starts: usize,
    written: usize,
    watches: u64,
}

impl Client {
    fn new(wire: Wire, mode: u8) -> Client {
        Client {
            wire,
            mode,
            requests: Vec::new(),
            open: HashMap::new(),
            complaints: 0,
            initialized: false,
            runs: Vec::new(),
            named: HashMap::new(),
            first_wire: BTreeMap::new(),
            starts: 0,
            written: 0,
            watches: 0,
        }
    }

    fn step(&mut self, step: u8, steps: &mut Steps<'_>) {
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
        let len = usize::from(size) * if size < 200 { 1 } else { 30 };
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

    fn send_write(&mut self, name: String, id: String, content: Vec<u8>, close: bool) {
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

    fn send_acknowledgement(&mut self, name: &str, seq: u64) {
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
    fn synchronize(&mut self) {
        self.request("process/nothing", Value::Null, Kind::Other);
        let last = self.requests.len() - 1;
        self.wait(|client| client.requests[last].answer.is_some());
    }

    fn next_id(&self) -> RequestId {
        match self.requests.len() as i64 {
            n if n % 3 == 2 => RequestId::from(&*format!("id \"{n}\"")),
            n => RequestId::from(n),
        }
    }

    fn request(&mut self, method: &'static str, params: Value, kind: Kind) {
        self.request_with(method, params, None, kind);
    }

    fn request_with(&mut self, method: &'static str, params: Value, bulk: Option<(&'static str, Bytes)>, kind: Kind) {
        let id = self.next_id();
        self.send(&id, method, params, bulk, kind);
    }

    fn send(
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

    fn notify(&mut self, method: &'static str, params: Value) {
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

    fn send_line(&mut self, line: &[u8]) {
        if let Wire::Lines(lines) = &mut self.wire {
            lines
                .get_mut()
                .write_all(&[line, b"\n"].concat())
                .expect("the server is gone");
        }
    }

    fn wait(&mut self, done: impl Fn(&Client) -> bool) {
        while !done(self) {
            assert!(self.receive(), "the server ends the connection: {}", self.state());
        }
    }

    /// Waits for a message and takes note of it; false at the end of the connection.
    fn receive(&mut self) -> bool {
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

    fn state(&self) -> String {
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

    fn received(&mut self, message: Value) {
        if let Some(method) = message["method"].as_str() {
            assert!(message.get("id").is_none(), "the server asks: {message}");
            return self.notified(method, &message["params"]);
        }
        let id = message["id"].to_string();
        let answer = match (message.get("result"), message.get("error")) {
            (Some(result), None) => Ok(result.clone()),
            (None, Some(error)) => {
                assert!(error["code"].is_i64() && error["message"].is_string(), "{message}");
                Err(error.clone())
            }
            _ => panic!("no answer: {message}"),
        };
        if id == "-1" {
            assert!(self.complaints > 0 && answer.is_err(), "out of the blue: {message}");
            self.complaints -= 1;
            return;
        }
        let Some(open) = self.open.get_mut(&id) else {
            panic!("not asked, or answered before: {message}");
        };
        let number = open.remove(0);
        if open.is_empty() {
            self.open.remove(&id);
        }
        self.answered(number, answer);
    }

    fn answered(&mut self, number: usize, answer: Result<Value, Value>) {
        if let (Kind::Start { name, command }, Ok(result)) = (&self.requests[number].kind, &answer) {
            assert_eq!(result["processId"], **name);
            if name.starts_with('f') {
                self.first_wire.entry(name.clone()).or_default().0 += 1;
            } else {
                assert!(*command != Command::Missing, "nothing was started");
                self.named.insert(name.clone(), self.runs.len());
                self.runs.push(Run {
                    name: name.clone(),
                    command: *command,
                    start: number,
                    events: Vec::new(),
                    exit: None,
                    closed: false,
                });
            }
        }
        self.requests[number].answer = Some(answer);
    }

    fn notified(&mut self, method: &str, params: &Value) {
        let name = params["processId"].as_str().unwrap_or_default();
        let seq = params["seq"].as_u64().unwrap_or_default();
        match method {
            "process/output" => self.event(name, seq, Event::Output(bytes(&params["chunk"]))),
            "process/exited" => self.event(name, seq, Event::Exited(params["exitCode"].as_i64().expect("a code"))),
            "process/closed" => self.event(name, seq, Event::Closed),
            "command/exec/outputDelta" => assert!(self.first_wire.contains_key(name), "not started: {name}"),
            "command/exec/exited" => {
                let (started, exited) = self.first_wire.get_mut(name).expect("not started");
                *exited += 1;
                assert!(exited <= started, "{name} has exited twice");
            }
            "fs/missingChanged" => {}
            _ => panic!("{method} {params}"),
        }
    }

    fn event(&mut self, name: &str, seq: u64, event: Event) {
        let Some(run) = self.named.get(name) else {
            panic!("an event of {name}, which is not started");
        };
        let run = &mut self.runs[*run];
        assert_eq!(seq, run.events.len() as u64 + 1, "{name} has a gap");
        assert!(!run.closed, "{name} goes on after its end");
        let mut output = Vec::new();
        match event {
            Event::Output(bytes) => output = bytes,
            Event::Exited(code) => assert_eq!(run.exit.replace(code), None, "{name} exits twice"),
            Event::Closed => {
                assert!(run.exit.is_some(), "{name} is closed before it exits");
                run.closed = true;
            }
        }
        run.events.push(output);
        if self.mode & mode::LATE_ACKS == 0 {
            self.send_acknowledgement(name, seq);
        }
    }

    /// Lets all commands come to their end, and checks what has become of everything.
    fn finish(&mut self) {
        // Late or not, now everything is acknowledged as it comes.
        self.mode &= !mode::LATE_ACKS;
        self.synchronize();
        let is_start = |kind: &Kind| matches!(kind, Kind::Start { .. });
        self.wait(|client| {
            !client
                .open
                .values()
                .flatten()
                .any(|n| is_start(&client.requests[*n].kind))
        });
        for run in 0..self.runs.len() {
            let (name, seq) = (self.runs[run].name.clone(), self.runs[run].events.len() as u64);
            if self.named[&name] == run {
                self.send_acknowledgement(&name, seq);
            }
        }
        for run in 0..self.runs.len() {
            self.end(run);
        }
        for name in self.first_wire.keys().cloned().collect::<Vec<_>>() {
            self.request("command/exec/terminate", json!({"processId": name}), Kind::Other);
        }
        self.wait(|client| client.open.is_empty() && client.complaints == 0);
        self.wait(|client| client.first_wire.values().all(|(started, exited)| started == exited));
        // Nothing more comes than there should.
        self.synchronize();
        for run in &self.runs {
            self.check_run(run);
        }
        self.check_reads();
    }

    /// Lets a command come to its end: `cat` by the end of its input, others by themselves or by force.
    fn end(&mut self, run: usize) {
        let (name, command) = (self.runs[run].name.clone(), self.runs[run].command);
        let mut ends = command != Command::Terminal;
        if command == Command::Cat(true) && !self.runs[run].closed {
            self.send_write(name.clone(), format!("the last of {run}"), Vec::new(), true);
            let last = self.requests.len() - 1;
            self.wait(|client| client.requests[last].answer.is_some());
            ends = !matches!(self.requests[last].answer, Some(Err(_)));
        }
        if !ends && !self.runs[run].closed {
            self.request("process/terminate", json!({"processId": name}), Kind::Kill { name });
        }
        self.wait(|client| client.runs[run].closed);
    }

    /// Has all commands terminated and says that nothing more comes: everything is answered all the same.
    fn half_close(&mut self) {
        for name in NAMES {
            self.request(
                "process/terminate",
                json!({"processId": name}),
                Kind::Kill { name: name.into() },
            );
        }
        match &mut self.wire {
            // In a program there is no such thing.
            Wire::Memory(_) => return,
            Wire::Lines(lines) => lines.get_mut().shutdown(Shutdown::Write).expect("a socket"),
        }
        // What is acknowledged after that is not heard.
        self.mode |= mode::LATE_ACKS;
        while self.receive() {}
        assert!(
            self.open.is_empty() && self.complaints == 0,
            "at the end: {}",
            self.state()
        );
    }

    /// The run that a request was about, if it is known.
    fn run_of(&self, name: &str, request: usize) -> Option<usize> {
        self.runs
            .iter()
            .rposition(|run| run.name == name && run.start < request)
    }

    fn check_run(&self, run: &Run) {
        let shown = (&run.name, run.command, run.exit);
        assert!(run.closed, "{shown:?} has no end");
        let next = self
            .runs
            .iter()
            .find(|other| other.name == run.name && other.start > run.start);
        let mine = run.start..next.map_or(usize::MAX, |next| next.start);
        let requests = self.requests.iter().enumerate().filter(|(n, _)| mine.contains(n));
        let killed =
            |(_, request): (usize, &Request)| matches!(&request.kind, Kind::Kill { name } if *name == run.name);
        let is_killed = requests.clone().any(killed);
        let output = run.events.concat();
        let whole = match run.command {
            Command::True | Command::False | Command::Cat(false) => Vec::new(),
            Command::Zeros(n) => vec![0; n],
            Command::Cat(true) => {
                let mut input = Vec::new();
                let mut ids = HashSet::new();
                for (_, request) in requests {
                    if let (Kind::Write { name, id, content }, Some(Ok(answer))) = (&request.kind, &request.answer)
                        && *name == run.name
                        && answer["status"] != "unknownProcess"
                        // Of what was refused at the end something may have been read all the same.
                        && (answer["status"] == "accepted" || is_killed)
                        && ids.insert(id)
                    {
                        input.extend_from_slice(content);
                    }
                }
                input
            }
            Command::Terminal | Command::Missing => return,
        };
        assert!(whole.starts_with(&output), "{shown:?}: other output");
        if !is_killed {
            assert!(whole == output, "{shown:?}: {} bytes of {}", output.len(), whole.len());
            assert_eq!(run.exit, Some(i64::from(run.command == Command::False)), "{shown:?}");
        }
    }

    /// What was read is what was told.
    fn check_reads(&self) {
        for (number, request) in self.requests.iter().enumerate() {
            let (Kind::Read { name }, Some(Ok(answer))) = (&request.kind, &request.answer) else {
                continue;
            };
            let Some(run) = self.run_of(name, number).map(|run| &self.runs[run]) else {
                continue;
            };
            let mut last = 0;
            for chunk in answer["chunks"].as_array().expect("chunks") {
                let seq = chunk["seq"].as_u64().expect("a number");
                assert!(seq > last, "{answer}");
                last = seq;
                assert!(
                    run.events.get(seq as usize - 1) == Some(&bytes(&chunk["chunk"])),
                    "output {seq} of {name} is another one"
                );
            }
            let next = answer["nextSeq"].as_u64().expect("a number");
            assert!(last < next && next <= run.events.len() as u64 + 1, "{answer}");
        }
    }
}

enum Event {
    Output(Vec<u8>),
    Exited(i64),
    Closed,
}

fn name(argument: u8) -> &'static str {
    NAMES[usize::from(argument % 8).min(NAMES.len() - 1)]
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

fn bytes(base64: &Value) -> Vec<u8> {
    BASE64_STANDARD
        .decode(base64.as_str().expect("base64"))
        .expect("base64")
}
