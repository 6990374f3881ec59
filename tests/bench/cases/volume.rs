//! Much output.

use super::percentile;
use crate::Result;
use crate::connection::{Said, Streams, payload, start_params};
use crate::results::Values;
use crate::server::Server;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const GIB: f64 = (1u64 << 30) as f64;

pub(super) fn output(command: &[String], values: &mut Values) -> Result<()> {
    let mut server = Server::start(command)?;
    let (bytes, before) = (256 * MIB, server.cpu()?);
    let time = server.run(
        r#"["dd","if=/dev/zero","bs=64k","count=4096","status=none"]"#,
        Streams::Output,
        bytes,
    )?;
    let cpu = server.cpu()? - before;
    values.put("output on a pipe, 256 MiB", "MB/s", bytes as f64 / 1e6 / time);
    values.put(
        "the same, CPU seconds of the server per GiB",
        "s",
        cpu.as_secs_f64() * GIB / bytes as f64,
    );
    Ok(())
}

pub(super) fn lines(command: &[String], values: &mut Values) -> Result<()> {
    let mut server = Server::start(command)?;
    let count = 1_000_000;
    let script = format!("yes {} | head -n {count}", "0123456789".repeat(7).split_at(63).0);
    let time = server.run(&format!(r#"["sh","-c","{script}"]"#), Streams::Output, 64 * count)?;
    values.put("lines of 64 bytes", "1/s", count as f64 / time);
    Ok(())
}

pub(super) fn writes(command: &[String], values: &mut Values) -> Result<()> {
    let mut server = Server::start(command)?;
    let (count, before) = (200_000, server.cpu()?);
    let time = server.run(
        &format!(r#"["dd","if=/dev/zero","bs=64","count={count}","status=none"]"#),
        Streams::Output,
        64 * count,
    )?;
    let cpu = server.cpu()? - before;
    values.put("writes of 64 bytes", "1/s", count as f64 / time);
    values.put(
        "the same, CPU of the server for each",
        "us",
        cpu.as_secs_f64() * 1e6 / count as f64,
    );
    Ok(())
}

pub(super) fn terminal(command: &[String], values: &mut Values) -> Result<()> {
    let mut server = Server::start(command)?;
    let count = 200_000;
    let script = format!("yes {} | head -n {count}", "0123456789".repeat(8).split_at(79).0);
    // The terminal makes two of the end of a line.
    let bytes = 81 * count;
    let time = server.run(&format!(r#"["sh","-c","{script}"]"#), Streams::Terminal, bytes)?;
    values.put(
        "output on a terminal, lines of 80 bytes",
        "MB/s",
        bytes as f64 / 1e6 / time,
    );
    Ok(())
}

/// Many processes that all write at the same time.
pub(super) fn fanout(command: &[String], values: &mut Values) -> Result<()> {
    const PROCESSES: usize = 100;
    let mut server = Server::start(command)?;
    let script = r#"["sh","-c","read x; exec dd if=/dev/zero bs=64k count=32 status=none"]"#;
    let start = |n| ("process/start", start_params(n, script, Streams::Pipes));
    server.call_many(PROCESSES, 64, start, |_| ())?;
    let write = |n| format!(r#"{{"processId":"p{n}","writeId":"w","chunk":"Cg=="}}"#);
    let (begin, before) = (Instant::now(), server.cpu()?);
    for n in 0..PROCESSES {
        server.send("process/write", &write(n))?;
    }
    let (mut first, mut total, mut closed) = (vec![0.0; PROCESSES], 0, 0);
    while closed < PROCESSES {
        match server.read()? {
            Said::Output { process, bytes } => {
                total += bytes;
                if first[process] == 0.0 {
                    first[process] = begin.elapsed().as_secs_f64() * 1e3;
                }
            }
            Said::Closed(_) => closed += 1,
            _ => {}
        }
    }
    let (took, cpu) = (begin.elapsed().as_secs_f64(), server.cpu()? - before);
    if total != PROCESSES * 2 * MIB {
        return Err(format!("{total} bytes of output came").into());
    }
    values.put("100 processes at once, 2 MiB each", "MB/s", total as f64 / 1e6 / took);
    values.put(
        "the same, first byte of a process, p99",
        "ms",
        percentile(&mut first, 0.99),
    );
    values.put(
        "the same, CPU seconds of the server per GiB",
        "s",
        cpu.as_secs_f64() * GIB / total as f64,
    );
    Ok(())
}

/// Reads what is retained of a process that has written more than that, again and again.
pub(super) fn replay(command: &[String], values: &mut Values) -> Result<()> {
    let mut server = Server::start(command)?;
    let bytes = 4 * MIB;
    server.run(
        r#"["dd","if=/dev/zero","bs=64k","count=64","status=none"]"#,
        Streams::Output,
        bytes,
    )?;
    let process = server.text().to_vec();
    let process = String::from_utf8(process)?;
    let (_, name) = process
        .split_once(r#""processId":""#)
        .ok_or("the last event is of no process")?;
    let name = name.split('"').next().unwrap_or_default();
    let params = format!(r#"{{"processId":"{name}","afterSeq":0}}"#);
    let begin = Instant::now();
    let mut total = 0;
    for _ in 0..200 {
        server.call("process/read", &params)?;
        total += all_payload(server.text());
        if begin.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    values.put(
        "process/read of what is retained",
        "MB/s",
        total as f64 / 1e6 / begin.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// The bytes in all chunks of an answer.
fn all_payload(mut text: &[u8]) -> usize {
    const KEY: &[u8] = br#""chunk":""#;
    let mut total = 0;
    while let Some(start) = text.windows(KEY.len()).take(400).position(|part| part == KEY) {
        text = &text[start..];
        let Some(bytes) = payload(text, r#""chunk":""#) else {
            break;
        };
        total += bytes;
        text = &text[(KEY.len() + bytes.div_ceil(3) * 4).min(text.len())..];
    }
    total
}

/// A client that reads nothing for a while, and then all.
pub(super) fn slow_reader(command: &[String], values: &mut Values) -> Result<()> {
    let mut server = Server::start(command)?;
    let bytes = 512 * MIB;
    let argv = r#"["dd","if=/dev/zero","bs=64k","count=8192","status=none"]"#;
    server.call("process/start", &start_params(0, argv, Streams::Output))?;
    let mut total = 0;
    std::thread::sleep(Duration::from_secs(3));
    loop {
        match server.read()? {
            Said::Output { bytes, .. } => total += bytes,
            Said::Closed(_) => break,
            _ => {}
        }
    }
    if total != bytes {
        return Err(format!("{total} bytes of output came, not {bytes}").into());
    }
    values.put(
        "peak with a client that reads nothing for 3 s, then 512 MiB",
        "MiB",
        server.kib("VmHWM")? / 1024.0,
    );
    Ok(())
}
