//! Whole sessions with real commands: what a client may rely on, whatever it asks for in whatever order.
//!
//! Every request is answered exactly once; the events of a process have the numbers 1, 2, 3 … in that order, `exited`
//! once and `closed` last; what `cat` writes is what was written to it; and in the end nothing is left behind.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use exec_server::server::{Server, ServerConfig};
use exec_server::transport::memory::{self, ClientEnd};
use exec_server::transport::outlet::Outlet;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::BufReader;
use std::net::Shutdown;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::Duration;

#[path = "session/end.rs"]
mod end;
#[path = "session/news.rs"]
mod news;
#[path = "session/steps.rs"]
mod steps;
#[path = "session/wire.rs"]
mod wire;

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
        let output = match mode & mode::SMALL_COUNTS {
            0 => Outlet::of_file(OwnedFd::from(output).into()),
            // As if it could only be waited for.
            _ => Outlet::Stream(Box::new(output)),
        };
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
}

enum Event {
    Output(Vec<u8>),
    Exited(i64),
    Closed,
}

fn bytes(base64: &Value) -> Vec<u8> {
    BASE64_STANDARD
        .decode(base64.as_str().expect("base64"))
        .expect("base64")
}
