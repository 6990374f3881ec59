//! Measures a server over the wire: what a client sees, and what it costs the server.
//!
//! ```sh
//! cargo bench --bench wire                               # the built program, over stdio and over WebSocket
//! cargo bench --bench wire -- --only echo --rounds 5     # one measurement, five times
//! cargo bench --bench wire -- --server 'codex exec-server --listen stdio' \
//!                             --server 'codex exec-server --listen ws://127.0.0.1:0'
//! ```
//!
//! Each `--server` is one more server to measure beside the built program: a command, split at its spaces. If it has
//! `ws://` in it, it is a WebSocket server and its first line of output is the URL, else it talks on its standard
//! streams. It has to be the server itself and not a script that starts it, as it is measured and killed by its pid.
//!
//! Every measurement has a server of its own. The servers take turns, and take them again in each round (`--rounds`,
//! else 3), so that a busy machine is busy for all of them. A line has the medians of the rounds, and behind that of a
//! further server how many times it is that of the built program over the same transport: good when it is more than 1
//! for what is counted in a second, and less than 1 for all else. MB are 1,000,000 bytes of payload, not of base64.
//!
//! What a server fails at is `failed` in its column, with the reason below; the rest go on.

mod server;

use nix::time::clock_getcpuclockid;
use server::{Result, Said, Server, TMP, is_websocket, payload, start_params, stderr_path};
use std::fs;
use std::process::exit;
use std::time::{Duration, Instant};

const GIB: f64 = (1u64 << 30) as f64;

/// Its name, what the values are, and how they come about.
type Measurement = (&'static str, &'static [&'static str], fn(&[String]) -> Result<Vec<f64>>);

const MEASUREMENTS: &[Measurement] = &[
    (
        "start",
        &["start to initialized, best of 8, ms", "the same, median, ms"],
        start,
    ),
    ("idle", &["resident memory, idle, KiB"], idle),
    ("true", &["/bin/true, start to closed, p50, us"], run_true),
    ("echo", &["6 bytes through cat, write to output, p50, us"], echo),
    (
        "output",
        &["256 MiB on a pipe, MB/s", "the same, CPU s of the server per GiB"],
        output,
    ),
    ("lines", &["lines of 64 bytes a second"], lines),
    ("metadata", &["fs/getMetadata, 32 at a time, calls/s"], metadata),
    ("read", &["fs/readFile of 32 MiB, MB/s"], read_file),
];

fn main() {
    let command = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let own = |listen: &str| [vec![env!("CARGO_BIN_EXE_exec-server").to_owned()], command(listen)].concat();
    let mut servers = vec![own("--listen stdio"), own("--listen ws://127.0.0.1:0")];
    let (mut rounds, mut only) = (3, None);
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| usage());
        match argument.as_str() {
            "--server" => servers.push(command(&value)),
            "--rounds" => rounds = value.parse().unwrap_or(0),
            "--only" => only = Some(value),
            _ => usage(),
        }
    }
    let wanted = |m: &&Measurement| only.as_ref().is_none_or(|only| m.0 == only);
    if rounds == 0 || servers.iter().any(Vec::is_empty) || MEASUREMENTS.iter().filter(wanted).count() == 0 {
        usage();
    }
    print!("{:46}{:>12}{:>12}", "", "stdio", "ws");
    for (i, server) in servers.iter().enumerate().skip(2) {
        let transport = if is_websocket(server) { "ws" } else { "stdio" };
        print!("{:>20}", format!("[{}] {transport}", i - 1));
    }
    println!();
    for measurement in MEASUREMENTS.iter().filter(wanted) {
        measure(measurement, &servers, rounds);
    }
    for (i, server) in servers.iter().enumerate().skip(2) {
        println!("[{}] {}", i - 1, server.join(" "));
    }
    let _ = fs::remove_file(stderr_path());
}

fn usage() -> ! {
    let names: Vec<_> = MEASUREMENTS.iter().map(|m| m.0).collect();
    let names = names.join("|");
    eprintln!("usage: cargo bench --bench wire -- [--server COMMAND]... [--rounds N] [--only {names}]");
    exit(2)
}

/// Lets the servers take turns, and prints the medians.
fn measure(&(_, rows, run): &Measurement, servers: &[Vec<String>], rounds: usize) {
    let mut results: Vec<Result<Vec<Vec<f64>>>> = servers.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..rounds {
        for (server, result) in servers.iter().zip(&mut results) {
            let Ok(values) = result else { continue };
            match run(server) {
                Ok(value) => values.push(value),
                Err(e) => *result = Err(e),
            }
        }
    }
    for (row, what) in rows.iter().enumerate() {
        let value = |i: usize| Some(median(results[i].as_ref().ok()?.iter().map(|v| v[row]).collect()));
        print!("{what:46}");
        for (i, server) in servers.iter().enumerate() {
            let text = match value(i) {
                None => "failed".to_owned(),
                Some(value) if value < 100.0 => format!("{value:.2}"),
                Some(value) => format!("{value:.0}"),
            };
            let ratio = value(i)
                .zip(value(is_websocket(server).into()))
                .map(|(v, own)| format!(" x {:.2}", v / own));
            match i {
                0 | 1 => print!("{text:>12}"),
                _ => print!("{text:>11}{:9}", ratio.unwrap_or_default()),
            }
        }
        println!();
    }
    for (server, result) in servers.iter().zip(&results) {
        if let Err(e) = result {
            println!("    failed: {}: {e}", server.join(" "));
        }
    }
}

/// The time from before each server's start to its answer to `initialize`.
fn start(command: &[String]) -> Result<Vec<f64>> {
    let times: Result<Vec<_>> = (0..8)
        .map(|_| Server::start(command).map(|s| s.started_in.as_secs_f64() * 1e3))
        .collect();
    let times = times?;
    Ok(vec![times.iter().copied().fold(f64::INFINITY, f64::min), median(times)])
}

/// After the handshake and one call.
fn idle(command: &[String]) -> Result<Vec<f64>> {
    let mut server = Server::start(command)?;
    server.call("fs/getMetadata", r#"{"path":"file:///"}"#)?;
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(vec![kib.ok_or("no VmRSS")?.parse()?])
}

fn run_true(command: &[String]) -> Result<Vec<f64>> {
    let mut server = Server::start(command)?;
    let times: Result<Vec<_>> = (0..300)
        .map(|_| server.run(r#"["/bin/true"]"#, 0).map(|t| t * 1e6))
        .collect();
    Ok(vec![median(times?)])
}

fn echo(command: &[String]) -> Result<Vec<f64>> {
    let mut server = Server::start(command)?;
    server.call("process/start", &start_params("cat", r#"["cat"]"#, true))?;
    let mut times = Vec::new();
    for n in 0..300 {
        let start = Instant::now();
        let params = format!(r#"{{"processId":"cat","writeId":"w{n}","chunk":"aGVsbG8K"}}"#);
        let id = server.send("process/write", &params)?;
        let (mut missing, mut answered) = (6, false);
        while missing > 0 || !answered {
            match server.read()? {
                Said::Output(n) if n <= missing => {
                    missing -= n;
                    if missing == 0 {
                        times.push(start.elapsed().as_secs_f64() * 1e6);
                    }
                }
                Said::Answer(answer) => answered |= answer == id,
                Said::Output(_) | Said::Closed => return Err("`cat` did not echo".into()),
                Said::Other => {}
            }
        }
    }
    Ok(vec![median(times)])
}

fn output(command: &[String]) -> Result<Vec<f64>> {
    let mut server = Server::start(command)?;
    let bytes = 256 << 20;
    let clock = clock_getcpuclockid(server.pid())?;
    let before = Duration::from(clock.now()?);
    let time = server.run(r#"["sh","-c","dd if=/dev/zero bs=64k count=4096 2>/dev/null"]"#, bytes)?;
    let cpu = Duration::from(clock.now()?) - before;
    Ok(vec![bytes as f64 / 1e6 / time, cpu.as_secs_f64() * GIB / bytes as f64])
}

fn lines(command: &[String]) -> Result<Vec<f64>> {
    let mut server = Server::start(command)?;
    let count = 1_000_000;
    let script = format!("yes {} | head -n {count}", "0123456789".repeat(7).split_at(63).0);
    let time = server.run(&format!(r#"["sh","-c","{script}"]"#), 64 * count)?;
    Ok(vec![count as f64 / time])
}

fn metadata(command: &[String]) -> Result<Vec<f64>> {
    let mut server = Server::start(command)?;
    let (calls, mut sent, mut answered) = (20_000, 0, 0);
    let start = Instant::now();
    while answered < calls {
        while sent < calls && sent < answered + 32 {
            server.send("fs/getMetadata", r#"{"path":"file:///etc/passwd"}"#)?;
            sent += 1;
        }
        answered += usize::from(matches!(server.read()?, Said::Answer(_)));
    }
    Ok(vec![calls as f64 / start.elapsed().as_secs_f64()])
}

fn read_file(command: &[String]) -> Result<Vec<f64>> {
    let path = format!("{TMP}/wire-{}", std::process::id());
    let params = format!(
        r#"{{"path":"file://{}"}}"#,
        path.replace('%', "%25").replace(' ', "%20")
    );
    let size = 32 << 20;
    fs::write(&path, b"0123456789abcdef".repeat(size / 16))?;
    let rate = (|| {
        let mut server = Server::start(command)?;
        let mut rates = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            server.call("fs/readFile", &params)?;
            rates.push(size as f64 / 1e6 / start.elapsed().as_secs_f64());
            let read = payload(server.text(), r#""dataBase64":""#);
            if read != Some(size) {
                return Err(format!("{read:?} bytes were read, not {size}").into());
            }
        }
        Ok(vec![median(rates)])
    })();
    fs::remove_file(&path)?;
    rate
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}
