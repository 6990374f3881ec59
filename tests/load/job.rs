//! One command of a soak: how it is started, what it must write, and what is checked of that.

use super::numbers::{LINE, Numbers};
use super::random::Random;
use super::wire::{Result, Stop};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// What the server keeps of a process whose client is away (its default).
const RETAINED: u64 = 1 << 20;

/// The least of that which must be there after a loss: whole blocks go.
const LEAST_RETAINED: u64 = RETAINED - 2 * 64 * 1024;

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ends at once.
    Brief,
    /// Writes much as fast as it can.
    Flood,
    /// The same on a terminal.
    TerminalFlood,
    /// Writes to both streams.
    Both,
    /// Writes a little from time to time.
    Paced,
    /// Gives back its input.
    Echo,
    /// The same on a terminal.
    TerminalEcho,
    /// Says nothing until its input ends.
    Quiet,
    /// Has others beside it that do not end, also orphans and in sessions of their own, and has to be terminated with them.
    Tree,
}

/// All of them, as often as they are to come.
const MIX: [Kind; 20] = [
    Kind::Brief,
    Kind::Flood,
    Kind::Flood,
    Kind::TerminalFlood,
    Kind::Both,
    Kind::Both,
    Kind::Paced,
    Kind::Paced,
    Kind::Paced,
    Kind::Paced,
    Kind::Echo,
    Kind::Echo,
    Kind::Echo,
    Kind::Echo,
    Kind::TerminalEcho,
    Kind::TerminalEcho,
    Kind::Quiet,
    Kind::Quiet,
    Kind::Tree,
    Kind::Tree,
];

/// What comes on one stream.
pub(crate) struct Flow {
    numbers: Numbers,
    /// How much is to come; if the command is not terminated before.
    total: u64,
    /// How much has come.
    at: u64,
}

/// Something written to a command that was not answered yet.
pub(crate) struct Write {
    pub(crate) id: u64,
    at: u64,
    len: usize,
    closes: bool,
}

/// The input of a command.
#[derive(Default)]
pub(crate) struct Input {
    /// Where the next write begins, and where the last one ends.
    at: u64,
    end: u64,
    /// The write at the end closes it.
    closes: bool,
    is_over: bool,
    last_write: u64,
    pub(crate) unanswered: VecDeque<Write>,
}

/// The last event, and how much has come on each stream by then.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    at: [u64; 2],
}

/// An event that came live.
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) what: What,
}

pub(crate) enum What {
    Output { is_stderr: bool, bytes: Vec<u8> },
    Exited(i64),
    Closed,
}

pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) params: Value,
    /// The server keeps what was not acknowledged.
    pub(crate) acks: bool,
    flows: [Flow; 2],
    pub(crate) input: Input,
    code: i64,
    /// Whether it has been said that it runs.
    pub(crate) runs: bool,
    /// The events since the connection was resumed wait for what came before.
    pub(crate) held: Option<Vec<Event>>,
    /// The last event, and the last one that was read after a loss of the connection: it may come again.
    pub(crate) last: u64,
    covered: u64,
    pub(crate) acked: u64,
    exit: Option<i64>,
    pub(crate) closed: bool,
    /// It was asked to end, and how much it writes is not known any more.
    pub(crate) terminated: bool,
    /// Bytes that came, and that were gone before they could be asked for.
    pub(crate) received: u64,
    pub(crate) lost: u64,
    /// The tick of the soak in which something was last heard of it.
    pub(crate) seen_at: u64,
}

impl Job {
    pub(crate) fn new(n: u64, name: &str, mark: &str, is_short: bool, random: &mut Random) -> Job {
        let kind = MIX[random.below(MIX.len())];
        let numbers = [Numbers::of(2 * n), Numbers::of(2 * n + 1)];
        let mut lines = [0, 0];
        let mut input = Input::default();
        let script = |text: String| vec!["/bin/sh".to_owned(), "-c".to_owned(), text];
        let range = |i: usize, lines: u64| format!("{} {}", numbers[i].first, numbers[i].last_of(lines));
        let code = if matches!(kind, Kind::Both | Kind::Paced) { 7 } else { 0 };
        let argv = match kind {
            Kind::Brief => vec!["/bin/true".to_owned()],
            Kind::Flood => {
                let most = if random.below(4) == 0 { 500_000 } else { 60_000 };
                lines[0] = 1 + random.below(most) as u64;
                let mut argv = vec!["/usr/bin/seq".to_owned()];
                argv.extend(range(0, lines[0]).split(' ').map(str::to_owned));
                argv
            }
            Kind::TerminalFlood => {
                lines[0] = 1 + random.below(60_000) as u64;
                script(format!("stty raw -echo; exec seq {}", range(0, lines[0])))
            }
            Kind::Both => {
                lines = [1 + random.below(20_000) as u64, 1 + random.below(20_000) as u64];
                script(format!(
                    "seq {} & seq {} >&2; wait; exit 7",
                    range(0, lines[0]),
                    range(1, lines[1])
                ))
            }
            Kind::Paced => {
                let (pieces, each) = (1 + random.below(30) as u64, 1 + random.below(200) as u64);
                lines[0] = pieces * each;
                let first = numbers[0].first;
                script(format!(
                    "i=0; while [ $i -lt {pieces} ]; do seq $(({first} + i * {each})) $(({first} + i * {each} + {each} - 1)); \
                     i=$((i + 1)); sleep 0.{:02}; done; exit 7",
                    1 + random.below(if is_short { 10 } else { 50 })
                ))
            }
            Kind::Echo => {
                lines[0] = 1 + random.below(30_000) as u64;
                (input.end, input.closes) = (lines[0] * LINE, true);
                vec!["/bin/cat".to_owned()]
            }
            Kind::TerminalEcho => {
                // The first line says that the terminal is as it has to be.
                lines[0] = 2 + random.below(5_000) as u64;
                (input.at, input.end) = (LINE, lines[0] * LINE);
                script(format!(
                    "stty raw -echo; seq {}; exec head -c {}",
                    range(0, 1),
                    input.end - LINE
                ))
            }
            Kind::Quiet => {
                input.closes = true;
                vec!["/bin/cat".to_owned()]
            }
            Kind::Tree => {
                lines[0] = 1 + random.below(50_000) as u64;
                script(format!(
                    "setsid sh -c 'sleep 9999 & sleep 9999' & (setsid sleep 9999 &) & sh -c 'sleep 9999 & sleep 9999' & \
                     seq {}; sleep 9999",
                    range(0, lines[0])
                ))
            }
        };
        let has_input = matches!(kind, Kind::Echo | Kind::Quiet);
        let acks = random.below(2) == 0;
        let params = json!({
            "processId": name, "argv": argv, "cwd": "file:///", "ackOutput": acks, "pipeStdin": has_input,
            "tty": matches!(kind, Kind::TerminalEcho | Kind::TerminalFlood),
            "env": {"PATH": "/usr/local/bin:/usr/bin:/bin", "EXEC_SERVER_SOAK": mark},
        });
        let flow = |i: usize| Flow {
            numbers: numbers[i],
            total: lines[i] * LINE,
            at: 0,
        };
        Job {
            kind,
            params,
            acks,
            flows: [flow(0), flow(1)],
            input,
            code,
            runs: false,
            held: None,
            last: 0,
            covered: 0,
            acked: 0,
            exit: None,
            closed: false,
            terminated: false,
            received: 0,
            lost: 0,
            seen_at: 0,
        }
    }

    fn wrong<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        Err(Stop::Wrong(format!("{what}: {}", self.describe())))
    }

    /// All that is known of it.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} {:?}, {}acknowledged, at {}/{} and {}/{}, event {} ({} covered), exit {:?}{}{}, {} bytes lost, {} writes \
             unanswered, input at {}/{}, runs {}, held {:?}",
            self.params["processId"],
            self.kind,
            if self.acks { "" } else { "not " },
            self.flows[0].at,
            self.flows[0].total,
            self.flows[1].at,
            self.flows[1].total,
            self.last,
            self.covered,
            self.exit,
            if self.closed { ", closed" } else { "" },
            if self.terminated { ", terminated" } else { "" },
            self.lost,
            self.input.unanswered.len(),
            self.input.at,
            self.input.end,
            self.runs,
            self.held.as_ref().map(Vec::len),
        )
    }

    /// Whether what it says while nobody listens may be more than is kept.
    fn may_lose(&self) -> bool {
        !self.acks && self.flows[0].total + self.flows[1].total > RETAINED
    }

    /// Whether all that it has to say is there, and only its end is missing.
    pub(crate) fn has_said_all(&self) -> bool {
        self.flows.iter().all(|flow| flow.at == flow.total)
    }

    /// Whether there is something to write to it, and those before are not in doubt.
    pub(crate) fn may_write(&self) -> bool {
        let is_ready = match self.kind {
            Kind::TerminalEcho => self.flows[0].at >= LINE,
            _ => true,
        };
        let more = self.input.at < self.input.end || (self.input.closes && !self.input.is_over);
        self.runs && self.held.is_none() && is_ready && more && self.exit.is_none() && self.input.unanswered.len() < 4
    }

    /// The parameters of the next write.
    pub(crate) fn next_write(&mut self, random: &mut Random) -> Value {
        let most = if self.kind == Kind::TerminalEcho { 6_000 } else { 60_000 };
        let left = (self.input.end - self.input.at) as usize;
        let len = (1 + random.below(most)).min(left);
        self.input.last_write += 1;
        let write = Write {
            id: self.input.last_write,
            at: self.input.at,
            len,
            closes: self.input.closes && len == left,
        };
        self.input.at += len as u64;
        self.input.is_over = write.closes;
        let params = self.write_params(&write);
        self.input.unanswered.push_back(write);
        params
    }

    pub(crate) fn write_params(&self, write: &Write) -> Value {
        let bytes = self.flows[0].numbers.bytes(write.at, write.len);
        json!({
            "processId": self.params["processId"], "writeId": write.id.to_string(),
            "chunk": BASE64_STANDARD.encode(bytes), "closeStdin": write.closes,
        })
    }

    /// An event that came live.
    pub(crate) fn event(&mut self, event: Event) -> Result<()> {
        if let Some(held) = &mut self.held {
            held.push(event);
            return Ok(());
        }
        if event.seq <= self.covered {
            return Ok(());
        }
        if event.seq != self.last + 1 || self.closed {
            return self.wrong(format_args!("event {} came after {}", event.seq, self.last));
        }
        self.last = event.seq;
        match event.what {
            What::Output { is_stderr, bytes } => self.output(is_stderr, &bytes),
            What::Exited(code) => self.exited(code),
            What::Closed => self.end(),
        }
    }

    fn output(&mut self, is_stderr: bool, bytes: &[u8]) -> Result<()> {
        let flow = &mut self.flows[usize::from(is_stderr)];
        let expected = flow.numbers.bytes(flow.at, bytes.len());
        if flow.at + bytes.len() as u64 > flow.total || bytes != expected {
            let differs = bytes.iter().zip(&expected).position(|(a, b)| a != b);
            let at = differs.unwrap_or(0);
            let shown = String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 40)]).into_owned();
            return self.wrong(format_args!(
                "{} bytes differ from byte {differs:?} on, {shown:?}",
                bytes.len()
            ));
        }
        flow.at += bytes.len() as u64;
        self.received += bytes.len() as u64;
        Ok(())
    }

    fn exited(&mut self, code: i64) -> Result<()> {
        let is_right = code == self.code || (self.terminated && matches!(code, 137 | 143));
        if self.exit.replace(code).is_some() || !is_right {
            return self.wrong(format_args!("exit code {code}"));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.closed = true;
        if self.exit.is_none() {
            return self.wrong("closed and not exited");
        }
        if !self.terminated && !self.has_said_all() {
            return self.wrong("closed, and output is missing");
        }
        Ok(())
    }

    /// Where it is now.
    pub(crate) fn place(&self) -> Place {
        Place {
            seq: self.last,
            at: [self.flows[0].at, self.flows[1].at],
        }
    }

    /// The answer to a long poll that was asked at that place: the same that comes, or came, as events.
    pub(crate) fn polled(&self, mut place: Place, answer: &Value) -> Result<()> {
        let (chunks, next) = chunks(answer)?;
        if answer["lostBytes"] != 0 {
            // More came behind the question than is kept; that it comes as events is seen there.
            return if self.acks {
                self.wrong("lost for a long poll")
            } else {
                Ok(())
            };
        }
        for (seq, is_stderr, bytes) in &chunks {
            let at = &mut place.at[usize::from(*is_stderr)];
            let expected = self.flows[usize::from(*is_stderr)].numbers.bytes(*at, bytes.len());
            if *seq <= place.seq || *seq >= next || *bytes != expected {
                return self.wrong(format_args!("a long poll after {} has a wrong event {seq}", place.seq));
            }
            (place.seq, *at) = (*seq, *at + bytes.len() as u64);
        }
        Ok(())
    }

    /// The answer to a read after a loss of the connection: all that was missed, and then what came live meanwhile.
    pub(crate) fn recovered(&mut self, answer: &Value) -> Result<()> {
        let (chunks, next) = chunks(answer)?;
        let lost = answer["lostBytes"].as_u64().unwrap_or(0);
        let (asked, news) = (self.last, chunks.len() as u64);
        if lost > 0 {
            if !self.may_lose() {
                return self.wrong(format_args!("{lost} bytes are lost that had to be kept"));
            }
            let rest: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.2.clone()).collect();
            let flow = &mut self.flows[0];
            let from = flow.numbers.find(&rest).unwrap_or(flow.at.saturating_add(lost));
            // Never understated.
            if from < flow.at || from > flow.at.saturating_add(lost) {
                return self.wrong(format_args!("{lost} bytes are lost, and the next is byte {from}"));
            }
            if self.acks || (rest.len() as u64) < LEAST_RETAINED {
                return self.wrong(format_args!("{lost} bytes are lost, and only {} kept", rest.len()));
            }
            self.lost += from - flow.at;
            flow.at = from;
        }
        for (seq, is_stderr, bytes) in &chunks {
            if *seq <= self.last {
                return self.wrong(format_args!("event {seq} was read after {}", self.last));
            }
            self.last = *seq;
            self.output(*is_stderr, bytes)?;
        }
        let exits = answer["exited"] == true && self.exit.is_none();
        let closes = answer["closed"] == true && !self.closed;
        // Each number belongs to output, or to one of these.
        let expected = asked + news + u64::from(exits) + u64::from(closes) + 1;
        if lost == 0 && next != expected {
            return self.wrong(format_args!("the next event is {next} and not {expected}"));
        }
        self.last = next - 1;
        self.covered = self.last;
        if exits {
            self.exited(answer["exitCode"].as_i64().unwrap_or(-1))?;
        }
        if closes {
            self.end()?;
        }
        for event in self.held.take().unwrap_or_default() {
            self.event(event)?;
        }
        Ok(())
    }
}

/// The number of an event of output, its stream, and what it has.
pub(crate) type Chunk = (u64, bool, Vec<u8>);

/// What a read has brought, and where the next one goes on.
pub(crate) fn chunks(answer: &Value) -> Result<(Vec<Chunk>, u64)> {
    let malformed = || Stop::Wrong(format!("no proper answer to a read: {answer:.200}"));
    let next = answer["nextSeq"]
        .as_u64()
        .filter(|seq| *seq > 0)
        .ok_or_else(malformed)?;
    let mut chunks = Vec::new();
    for chunk in answer["chunks"].as_array().ok_or_else(malformed)? {
        let seq = chunk["seq"].as_u64().ok_or_else(malformed)?;
        let text = chunk["chunk"].as_str().ok_or_else(malformed)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| malformed())?;
        chunks.push((seq, chunk["stream"] == "stderr", bytes));
    }
    Ok((chunks, next))
}
