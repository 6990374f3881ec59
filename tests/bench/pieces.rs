//! The pieces that every byte or message goes through, each beside what it cannot be faster than, or should beat:
//! `cargo bench --bench pieces`, or with a word that is in the names of those wanted.
//!
//! A line has the time of the piece, that of the limit, and how many times the limit it takes. The two take turns of some
//! milliseconds each, so that a busy machine is busy for both; the times are medians, and the ratio is the median of
//! those of all turns.

#[path = "../../src/server/encode.rs"]
#[allow(dead_code)]
mod encode;

// What the encoder finds in its own crate.
use exec_server::{process, protocol, transport};
mod outbox {
    #[derive(Clone, Copy, PartialEq)]
    pub(super) enum Wire {
        #[expect(dead_code)]
        First,
        Modern,
    }
}

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use encode::Batch;
use exec_server::server::{Server, ServerConfig};
use outbox::Wire;
use process::{BLOCK_BYTES, Block, Bytes, Event, OutputLog, Retention, StdinQueue, Stream};
use protocol::message::{self, Limits};
use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};
use transport::Framing;
use transport::outlet::Outlet;

const TURNS: usize = 21;
const TURN: Duration = Duration::from_millis(4);

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let bench = Bench { wanted };
    println!("{:46}{:>12}{:>12}{:>8}  the limit", "piece", "takes", "limit", "times");
    encode(&bench);
    parse(&bench);
    ring(&bench);
    queue(&bench);
    turns(&bench);
}

struct Bench {
    wanted: Option<String>,
}

impl Bench {
    /// Measures two things in turns and prints a line; `bytes` is what one run goes through, 0 if that is not the point.
    fn compare(&self, name: &str, bytes: usize, limit: &str, mut piece: impl FnMut(), mut other: impl FnMut()) {
        if self.wanted.as_ref().is_some_and(|wanted| !name.contains(wanted)) {
            return;
        }
        let (mut pieces, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let (a, b) = (nanos(&mut piece), nanos(&mut other));
            pieces.push(a);
            others.push(b);
            ratios.push(a / b);
        }
        let (piece, other, ratio) = (median(pieces), median(others), median(ratios));
        let rate = if bytes > 0 {
            format!(", {:.1} GB/s", bytes as f64 / piece)
        } else {
            String::new()
        };
        println!(
            "{name:46}{:>12}{:>12}{ratio:>8.2}  {limit}{rate}",
            time(piece),
            time(other)
        );
    }
}

/// The nanoseconds of one run, from as many as fit a turn.
fn nanos(run: &mut impl FnMut()) -> f64 {
    let (begin, mut runs, mut batch) = (Instant::now(), 0, 1);
    loop {
        for _ in 0..batch {
            run();
        }
        runs += batch;
        let elapsed = begin.elapsed();
        if elapsed >= TURN {
            return elapsed.as_nanos() as f64 / runs as f64;
        }
        batch *= 2;
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn time(nanos: f64) -> String {
    match nanos {
        n if n < 1e4 => format!("{n:.1} ns"),
        n if n < 1e7 => format!("{:.1} us", n / 1e3),
        n => format!("{:.1} ms", n / 1e6),
    }
}

/// An output event to the bytes on the wire: frame, JSON and base64.
fn encode(bench: &Bench) {
    for (name, framing) in [("lines", Framing::Lines), ("websocket", Framing::WebSocket)] {
        for len in [6, 1024, BLOCK_BYTES] {
            let output = vec![b'x'; len];
            let event = Event::Output(Stream::Stdout, Bytes::from(&output[..]));
            let mut batch = Batch::new(framing);
            let mut room = vec![0; protocol::bytes::encoded_len(len)];
            bench.compare(
                &format!("encode {name}, {len} bytes"),
                len,
                "base64 alone",
                || {
                    batch.clear();
                    encode::event(&mut batch, "process-1", Wire::Modern, 12345, &event);
                    black_box(batch.bytes());
                },
                || {
                    protocol::bytes::encode_into(black_box(&output), &mut room);
                    black_box(&room);
                },
            );
        }
    }
    let output = vec![b'x'; BLOCK_BYTES];
    let mut room = vec![0; protocol::bytes::encoded_len(BLOCK_BYTES)];
    let (text, mut copy) = (room.clone(), room.clone());
    bench.compare(
        "encode, base64 alone, 65536 bytes",
        BLOCK_BYTES,
        "memcpy of the text",
        || {
            protocol::bytes::encode_into(black_box(&output), &mut room);
            black_box(&room);
        },
        || {
            copy.copy_from_slice(black_box(&text));
            black_box(&copy);
        },
    );
}

/// A message as it comes in to its method, id and params.
fn parse(bench: &Bench) {
    let write = |bytes: usize| {
        let chunk = STANDARD.encode(vec![b'x'; bytes]);
        format!(
            r#"{{"id":12345,"method":"process/write","params":{{"processId":"process-1","writeId":"w-12345","chunk":"{chunk}"}}}}"#
        )
    };
    let start = r#"{"id":7,"method":"process/start","params":{"processId":"process-1","argv":["/bin/bash","-lc","cargo test"],"cwd":"file:///srv/work","env":{"PATH":"/usr/local/bin:/usr/bin:/bin","HOME":"/home/me","TERM":"xterm"},"tty":false,"pipeStdin":false}}"#;
    let metadata = r#"{"id":12345,"method":"fs/getMetadata","params":{"path":"file:///etc/passwd"}}"#;
    for (name, text) in [
        ("fs/getMetadata", metadata.to_owned()),
        ("process/start", start.to_owned()),
        ("process/write, 6 bytes", write(6)),
        ("process/write, 64 KiB", write(64 << 10)),
        ("process/write, 1 MiB", write(1 << 20)),
    ] {
        let (text, limits) = (text.as_bytes(), Limits::default());
        let parse = || {
            black_box(message::parse(black_box(text), &limits).is_ok());
        };
        bench.compare(&format!("parse {name}"), text.len(), "serde_json::Value", parse, || {
            black_box(serde_json::from_slice::<serde_json::Value>(black_box(text)).is_ok());
        });
        if text.len() < 1024 {
            continue;
        }
        let mut copy = vec![0; text.len()];
        bench.compare(&format!("parse {name}"), text.len(), "memcpy", parse, || {
            copy.copy_from_slice(black_box(text));
            black_box(&copy);
        });
    }
}

/// The log of a process's events.
fn ring(bench: &Bench) {
    let limits = |events| Retention {
        bytes: 1 << 20,
        events,
        credit: 256 << 10,
        ack_window: None,
    };
    for len in [64, BLOCK_BYTES] {
        let output = vec![b'x'; len];
        for is_attached in [true, false] {
            let mut log = OutputLog::new(limits(16 << 10));
            if is_attached {
                log.attach();
            }
            let mut queue = VecDeque::new();
            let how = if is_attached {
                "append, take, evict"
            } else {
                "append, evict"
            };
            let mut block = None;
            bench.compare(
                &format!("ring {how}, {len} bytes"),
                0,
                "a VecDeque of the same depth",
                || {
                    log.append(Stream::Stdout, output_of(&output, &mut block));
                    if is_attached {
                        black_box(log.take());
                    }
                    block = block.take().or_else(|| log.spare_block());
                },
                {
                    let depth = ((1 << 20) / len).min(16 << 10);
                    let bytes = Bytes::from(&output[..]);
                    move || {
                        queue.push_back((Stream::Stdout, bytes.clone()));
                        if queue.len() > depth {
                            black_box(queue.pop_front());
                        }
                    }
                },
            );
        }
    }
    for (events, len) in [(16, BLOCK_BYTES), (16 << 10, 64)] {
        let mut log = OutputLog::new(limits(16 << 10));
        for _ in 0..events {
            log.append(Stream::Stdout, Bytes::from(&vec![b'x'; len][..]));
        }
        let outputs = vec![Bytes::from(&vec![b'x'; len][..]); events];
        bench.compare(
            &format!("ring replay of {events} times {len} bytes"),
            0,
            "to clone a Vec of them",
            || {
                black_box(log.replay(0, None));
            },
            || {
                black_box(black_box(&outputs).clone());
            },
        );
    }
}

/// As it is made of what was read: in the block when that is well filled, else a copy.
fn output_of(output: &[u8], block: &mut Option<Block>) -> Bytes {
    let full = match block.take() {
        Some(block) => block,
        None => Block::new().expect("memory"),
    };
    let (bytes, rest) = full.take(output.len());
    *block = rest;
    bytes
}

/// The input of a process, written to nowhere.
fn queue(bench: &Bench) {
    for len in [6, 64 << 10] {
        let input = vec![b'x'; len];
        let mut queue = StdinQueue::new(1 << 20, 64 << 20);
        let mut n = 0_u64;
        let mut pieces = VecDeque::new();
        let (piece, other) = (input.clone(), input);
        bench.compare(
            &format!("queue push, drain, answer, {len} bytes"),
            len,
            "a VecDeque of Vecs, and the text of the id",
            || {
                n += 1;
                queue.push(
                    &n.to_string(),
                    piece.clone(),
                    false,
                    Box::new(|status| {
                        black_box(status);
                    }),
                );
                queue.drain(|bytes| Ok(black_box(bytes).len()));
            },
            || {
                pieces.push_back((black_box(1_000_000_u64).to_string(), other.clone()));
                black_box(pieces.pop_front());
            },
        );
    }
}

/// A request's way through the threads of a connection, to its answer.
fn turns(bench: &Bench) {
    const REQUEST: &[u8] = b"{\"id\":1,\"method\":\"environment/status\",\"params\":{}}\n";
    let (to_server, input) = bounded::<Vec<u8>>(1024);
    let (output, from_server) = unbounded();
    let server = Server::new(ServerConfig::default());
    server
        .serve_lines(
            Input(input, Vec::new()),
            Outlet::Stream(Box::new(Output(output, 0))),
            || (),
        )
        .expect("threads");
    let hello =
        b"{\"id\":0,\"method\":\"initialize\",\"params\":{\"clientName\":\"bench\"}}\n{\"method\":\"initialized\"}\n";
    to_server.send(hello.to_vec()).expect("a server");
    from_server.recv().expect("an answer");
    let (first, stage) = bounded::<Vec<u8>>(1024);
    let (last, ends) = unbounded();
    std::thread::spawn(move || stage.iter().try_for_each(|_| last.send(1)));
    for count in [1, 100] {
        bench.compare(
            &format!("turn of {count} requests and answers"),
            0,
            "a thread that hands back",
            || {
                let texts = (0..count).map(|_| REQUEST.to_vec());
                round(&to_server, &from_server, texts);
            },
            || round(&first, &ends, (0..count).map(|_| REQUEST.to_vec())),
        );
    }
}

fn round(to: &Sender<Vec<u8>>, from: &Receiver<usize>, texts: impl ExactSizeIterator<Item = Vec<u8>>) {
    let mut missing = texts.len();
    for text in texts {
        to.send(text).expect("a receiver");
    }
    while missing > 0 {
        missing -= from.recv().expect("a sender");
    }
}

struct Input(Receiver<Vec<u8>>, Vec<u8>);

impl Read for Input {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            match self.0.recv() {
                Ok(text) => self.1 = text,
                Err(_) => return Ok(0),
            }
        }
        let n = self.1.len().min(room.len());
        room[..n].copy_from_slice(&self.1[..n]);
        self.1.drain(..n);
        Ok(n)
    }
}

/// Tells how many lines were written.
struct Output(Sender<usize>, usize);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 += bytes.iter().filter(|byte| **byte == b'\n').count();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.1 > 0 {
            let _ = self.0.send(std::mem::take(&mut self.1));
        }
        Ok(())
    }
}
