//! A server by itself, and single processes.

use super::percentile;
use crate::Result;
use crate::connection::{Said, Streams, start_params};
use crate::results::Values;
use crate::server::Server;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nothing of one kind is repeated for longer.
const PATIENCE: Duration = Duration::from_secs(8);

/// The time from before each server's start to its answer to `initialize`.
pub(super) fn start(command: &[String], values: &mut Values) -> Result<()> {
    let times: Result<Vec<_>> = (0..8)
        .map(|_| Server::start(command).map(|s| s.started_in.as_secs_f64() * 1e3))
        .collect();
    let mut times = times?;
    let best = percentile(&mut times, 0.0);
    values.put("start to initialized, best of 8", "ms", best);
    values.put("start to initialized, median of 8", "ms", percentile(&mut times, 0.5));
    Ok(())
}

/// After the handshake and one call.
pub(super) fn idle(command: &[String], values: &mut Values) -> Result<()> {
    let mut server = Server::start(command)?;
    server.call("fs/getMetadata", r#"{"path":"file:///"}"#)?;
    values.put("resident memory, idle", "KiB", server.kib("VmRSS")?);
    Ok(())
}

pub(super) fn run_true(command: &[String], values: &mut Values) -> Result<()> {
    let mut server = Server::start(command)?;
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < 300 && begin.elapsed() < PATIENCE {
        times.push(server.run(r#"["/bin/true"]"#, Streams::Output, 0)? * 1e6);
    }
    values.put("/bin/true, start to closed, p50", "us", percentile(&mut times, 0.5));
    values.put("/bin/true, start to closed, p99", "us", percentile(&mut times, 0.99));
    Ok(())
}

/// Many, of which a few are unanswered at a time.
pub(super) fn spawn(command: &[String], values: &mut Values) -> Result<()> {
    const COUNT: usize = 2000;
    let mut server = Server::start(command)?;
    let (begin, before) = (Instant::now(), server.cpu()?);
    run_many(&mut server, COUNT)?;
    let (took, cpu) = (begin.elapsed().as_secs_f64(), server.cpu()? - before);
    values.put("/bin/true, 32 at a time", "1/s", COUNT as f64 / took);
    values.put(
        "the same, CPU of the server for each",
        "us",
        cpu.as_secs_f64() * 1e6 / COUNT as f64,
    );
    Ok(())
}

/// Runs `/bin/true` so many times.
pub(super) fn run_many(server: &mut Server, count: usize) -> Result<()> {
    let mut closed = 0;
    // Numbers that are not those of others.
    let start = |n| {
        let params = start_params(1_000_000 + n, r#"["/bin/true"]"#, Streams::Output);
        ("process/start", params)
    };
    server.call_many(count, 32, start, |said| {
        closed += usize::from(matches!(said, Said::Closed(_)));
    })?;
    while closed < count {
        closed += usize::from(matches!(server.read()?, Said::Closed(_)));
    }
    Ok(())
}

pub(super) fn echo(command: &[String], values: &mut Values) -> Result<()> {
    let mut server = Server::start(command)?;
    server.call("process/start", &start_params(0, r#"["cat"]"#, Streams::Pipes))?;
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < 1000 && begin.elapsed() < PATIENCE {
        times.push(echo_once(&mut server, 0, times.len())?);
    }
    values.put(
        "6 bytes through cat, write to output, p50",
        "us",
        percentile(&mut times, 0.5),
    );
    values.put(
        "6 bytes through cat, write to output, p99",
        "us",
        percentile(&mut times, 0.99),
    );
    Ok(())
}

/// The microseconds from a write to the last of the output that it brings, whatever others say meanwhile; it is also
/// waited for the answer.
pub(super) fn echo_once(server: &mut Server, process: usize, write: usize) -> Result<f64> {
    let start = Instant::now();
    let params = format!(r#"{{"processId":"p{process}","writeId":"w{write}","chunk":"aGVsbG8K"}}"#);
    let id = server.send("process/write", &params)?;
    let (mut missing, mut answered, mut time) = (6, false, 0.0);
    while missing > 0 || !answered {
        match server.read()? {
            Said::Output { process: p, bytes } if p == process && bytes <= missing => {
                missing -= bytes;
                time = start.elapsed().as_secs_f64() * 1e6;
            }
            Said::Answer(answer) => answered |= answer == id,
            Said::Output { process: p, .. } | Said::Closed(p) if p == process => {
                return Err("`cat` did not echo".into());
            }
            _ => {}
        }
    }
    Ok(time)
}

/// A `process/read` waits for a process to write the time, every few milliseconds.
pub(super) fn poll(command: &[String], values: &mut Values) -> Result<()> {
    const COUNT: usize = 300;
    let mut server = Server::start(command)?;
    let script = format!("for ((i = 0; i < {COUNT}; i++)); do sleep 0.003; echo $EPOCHREALTIME; done");
    let argv = format!(r#"["bash","-c","{script}"]"#);
    server.call("process/start", &start_params(0, &argv, Streams::Output))?;
    let (mut seen, mut times) = (0, Vec::new());
    loop {
        let params = format!(r#"{{"processId":"p0","afterSeq":{seen},"waitMs":1000}}"#);
        server.call("process/read", &params)?;
        let received = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let answer: Answer = serde_json::from_slice(server.text())?;
        let Some(chunk) = answer.result.chunks.last() else {
            break;
        };
        let text = String::from_utf8(STANDARD.decode(&chunk.chunk)?)?;
        let written: f64 = text.lines().last().unwrap_or_default().replace(',', ".").parse()?;
        times.push((received - written) * 1e6);
        seen = chunk.seq;
    }
    if times.len() < COUNT / 6 {
        return Err(format!("only {} answers had output", times.len()).into());
    }
    let p50 = percentile(&mut times, 0.5);
    values.put("a write to the answer of a waiting process/read, p50", "us", p50);
    Ok(())
}

#[derive(Deserialize)]
struct Answer {
    result: Replay,
}

#[derive(Deserialize)]
struct Replay {
    chunks: Vec<Chunk>,
}

#[derive(Deserialize)]
struct Chunk {
    seq: u64,
    chunk: String,
}
