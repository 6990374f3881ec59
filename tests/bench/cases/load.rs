//! How long things take while another process of the same connection writes as much as it can.

use super::percentile;
use super::processes::echo_once;
use crate::Result;
use crate::connection::{Said, Streams, start_params};
use crate::results::Values;
use crate::server::Server;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a kind of call is repeated in each turn, and how often at most.
const TURN: Duration = Duration::from_millis(200);
const MOST: usize = 2000;
/// Turns, quiet and loaded.
const TURNS: usize = 4;

const CAT: usize = 0;
const SIGNALLED: usize = 1;
const FIRST_FLOOD: usize = 2;

/// Quiet and loaded turns alternate, so that both see the same machine. In each turn the same is done without a server,
/// to know what of it is the machine's.
pub(super) fn load(command: &[String], values: &mut Values) -> Result<()> {
    let mut server = Server::start(command)?;
    server.call("process/start", &start_params(CAT, r#"["cat"]"#, Streams::Pipes))?;
    // What runs in the background does not get the signal.
    let script = r#"["sh","-c","trap 'echo x' INT; sleep 1000 & echo; while :; do wait; done"]"#;
    let id = server.send("process/start", &start_params(SIGNALLED, script, Streams::Output))?;
    let (mut is_started, mut is_ready) = (false, false);
    while !(is_started && is_ready) {
        match server.read()? {
            Said::Answer(answer) => is_started |= answer == id,
            Said::Output { .. } => is_ready = true,
            _ => {}
        }
    }
    let mut bare = Bare::start()?;
    let mut writes = 0;
    let (mut idle, mut loaded) = (Times::default(), Times::default());
    let (mut flooded, mut flood_bytes) = (Duration::ZERO, 0);
    for turn in 0..TURNS {
        idle.take(&mut server, &mut writes)?;
        repeat(&mut idle.bare, || bare.echo())?;
        repeat_bare_under_load(&mut loaded.bare, &mut bare)?;
        let flood = FIRST_FLOOD + turn;
        server.call(
            "process/start",
            &start_params(flood, r#"["cat","/dev/zero"]"#, Streams::Output),
        )?;
        while !matches!(server.read()?, Said::Output { .. }) {}
        let (begin, before) = (Instant::now(), server.output_bytes);
        loaded.take(&mut server, &mut writes)?;
        flooded += begin.elapsed();
        flood_bytes += server.output_bytes - before;
        server.send("process/terminate", &format!(r#"{{"processId":"p{flood}"}}"#))?;
        while !matches!(server.read()?, Said::Closed(_)) {}
    }
    values.put(
        "output while under load",
        "MB/s",
        flood_bytes as f64 / 1e6 / flooded.as_secs_f64(),
    );
    let kinds: [(_, [&'static str; 5]); 4] = [
        (
            |times: &mut Times| &mut times.echo,
            [
                "echo through cat, idle, p50",
                "echo through cat, idle, p99",
                "echo through cat, under load, p50",
                "echo through cat, under load, p99",
                "echo through cat, p99 under load by p99 idle",
            ],
        ),
        (
            |times: &mut Times| &mut times.bare,
            [
                "echo through cat on bare pipes, idle, p50",
                "echo through cat on bare pipes, idle, p99",
                "echo through cat on bare pipes, under load, p50",
                "echo through cat on bare pipes, under load, p99",
                "echo through cat on bare pipes, p99 under load by p99 idle",
            ],
        ),
        (
            |times: &mut Times| &mut times.signal,
            [
                "signal to what it makes a process write, idle, p50",
                "signal to what it makes a process write, idle, p99",
                "signal to what it makes a process write, under load, p50",
                "signal to what it makes a process write, under load, p99",
                "signal, p99 under load by p99 idle",
            ],
        ),
        (
            |times: &mut Times| &mut times.answer,
            [
                "answer to environment/status, idle, p50",
                "answer to environment/status, idle, p99",
                "answer to environment/status, under load, p50",
                "answer to environment/status, under load, p99",
                "answer, p99 under load by p99 idle",
            ],
        ),
    ] as [(fn(&mut Times) -> &mut Vec<f64>, _); 4];
    for (of, titles) in kinds {
        let quiet = [0.5, 0.99].map(|share| percentile(of(&mut idle), share));
        let busy = [0.5, 0.99].map(|share| percentile(of(&mut loaded), share));
        for (title, value) in titles.into_iter().zip([quiet, busy].concat()) {
            values.put(title, "us", value);
        }
        values.put(titles[4], "x", busy[1] / quiet[1]);
    }
    Ok(())
}

/// Microseconds.
#[derive(Default)]
struct Times {
    echo: Vec<f64>,
    /// The same on bare pipes.
    bare: Vec<f64>,
    signal: Vec<f64>,
    answer: Vec<f64>,
}

impl Times {
    fn take(&mut self, server: &mut Server, writes: &mut usize) -> Result<()> {
        repeat(&mut self.echo, || {
            *writes += 1;
            echo_once(server, CAT, *writes)
        })?;
        repeat(&mut self.signal, || signal_once(server))?;
        repeat(&mut self.answer, || {
            let start = Instant::now();
            server.call("environment/status", "{}")?;
            Ok(start.elapsed().as_secs_f64() * 1e6)
        })
    }
}

fn repeat(times: &mut Vec<f64>, mut once: impl FnMut() -> Result<f64>) -> Result<()> {
    let begin = Instant::now();
    for _ in 0..MOST {
        times.push(once()?);
        if begin.elapsed() > TURN {
            break;
        }
    }
    Ok(())
}

/// From the signal to the output that tells that it came.
fn signal_once(server: &mut Server) -> Result<f64> {
    let start = Instant::now();
    let id = server.send(
        "process/signal",
        &format!(r#"{{"processId":"p{SIGNALLED}","signal":"interrupt"}}"#),
    )?;
    let (mut is_answered, mut time) = (false, None);
    while !is_answered || time.is_none() {
        match server.read()? {
            Said::Answer(answer) => is_answered |= answer == id,
            Said::Output { process: SIGNALLED, .. } => time = Some(start.elapsed().as_secs_f64() * 1e6),
            Said::Closed(SIGNALLED) => return Err("the signal ended the process".into()),
            _ => {}
        }
    }
    time.ok_or_else(|| "no time".into())
}

/// A process `cat` without a server.
struct Bare {
    cat: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Bare {
    fn start() -> Result<Bare> {
        let mut cat = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = cat.stdin.take().zip(cat.stdout.take()).ok_or("no pipes")?;
        Ok(Bare { cat, input, output })
    }

    fn echo(&mut self) -> Result<f64> {
        let start = Instant::now();
        self.input.write_all(b"hello\n")?;
        self.output.read_exact(&mut [0; 6])?;
        Ok(start.elapsed().as_secs_f64() * 1e6)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.cat.kill();
        let _ = self.cat.wait();
    }
}

/// While another process writes as much as it can to a thread that does nothing else than read it.
fn repeat_bare_under_load(times: &mut Vec<f64>, bare: &mut Bare) -> Result<()> {
    let mut flood = Command::new("cat").arg("/dev/zero").stdout(Stdio::piped()).spawn()?;
    let mut pipe = flood.stdout.take().ok_or("no pipe")?;
    let reader = thread::spawn(move || {
        let mut room = vec![0; 64 << 10];
        while pipe.read(&mut room).is_ok_and(|n| n > 0) {}
    });
    let result = repeat(times, || bare.echo());
    flood.kill()?;
    flood.wait()?;
    let _ = reader.join();
    result
}
