//! From few to many: what must not grow.

use super::processes::run_many;
use crate::Result;
use crate::connection::{Said, Streams, start_params};
use crate::results::Values;
use crate::server::{Server, TMP};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File, OpenOptions};
use std::time::{Duration, Instant};

/// What takes long may take that long.
const DEADLINE: Duration = Duration::from_secs(400);
/// What would take longer than this, going by what took less, is left out.
const PATIENCE_SECONDS: f64 = 45.0;
/// How long the ended processes are retained, and somewhat more.
const RETAINED: Duration = Duration::from_secs(85);

/// The same volume from one process and from up to a thousand: as fast as they can, and in single events that come a
/// millisecond after each other, so that none is taken together with the next.
///
/// The processes all wait for a file to be opened, and again before they end, so that only their output is counted.
pub(super) fn curve(command: &[String], values: &mut Values) -> Result<()> {
    const WRITES: usize = 3000;
    for processes in [1, 10, 100, 300, 1000] {
        let count = WRITES / processes;
        let (cpu, events) = cost(command, processes, WRITES << 16, |_| {
            format!("dd if=/dev/zero bs=64k count={count} status=none")
        })?;
        let megabytes = (WRITES << 16) as f64 / 1e6;
        let title = "output as fast as it can, CPU of the server per MB";
        values.put_at(processes, title, "us", cpu / megabytes);
        let title = "output as fast as it can, CPU of the server per event";
        values.put_at(processes, title, "us", cpu / events);
        let line = "0123456789".repeat(7).split_at(63).0.to_owned();
        let (cpu, events) = cost(command, processes, WRITES * 64, |n| {
            let (first, pause) = (n as f64 / 1e3, processes as f64 / 1e3);
            format!(
                "read -t {first:.3} <&3; for ((i = 0; i < {count}; i++)); do echo {line}; read -t {pause:.3} <&3; done"
            )
        })?;
        let title = "an event each millisecond, CPU of the server per event";
        values.put_at(processes, title, "us", cpu / events);
    }
    Ok(())
}

/// The microseconds of CPU that it takes a server to pass on so many bytes from that many processes together, and the
/// number of events. `script` is what each process does, for its number; from descriptor 3 there is never anything to
/// be read.
fn cost(command: &[String], processes: usize, expected: usize, script: impl Fn(usize) -> String) -> Result<(f64, f64)> {
    let gates = Gates::new()?;
    let mut server = Server::start(command)?;
    let [go, never, end] = GATES.map(|name| gates.path(name));
    let start = |n| {
        let argv = format!(r#"["bash","-c","exec 3<>{never}; : <{go}; {}; : <{end}"]"#, script(n));
        ("process/start", start_params(n, &argv, Streams::Output))
    };
    server.call_many(processes, 64, start, |_| ())?;
    let before = server.cpu()?;
    let _gate = gates.open("go")?;
    let (mut total, mut events) = (0, 0);
    while total < expected {
        match server.read()? {
            Said::Output { bytes, .. } => {
                total += bytes;
                events += 1;
            }
            Said::Closed(process) => return Err(format!("process {process} ended early").into()),
            _ => {}
        }
    }
    let cpu = server.cpu()? - before;
    let _gate = gates.open("end")?;
    let mut closed = 0;
    while closed < processes {
        closed += usize::from(matches!(server.read()?, Said::Closed(_)));
    }
    Ok((cpu.as_secs_f64() * 1e6, events as f64))
}

const GATES: [&str; 3] = ["go", "never", "end"];

/// FIFOs: whoever opens one to read it waits until it is opened here.
struct Gates(String);

impl Gates {
    fn new() -> Result<Gates> {
        let gates = Gates(format!("{TMP}/wire-{}-gate", std::process::id()));
        for name in GATES {
            mkfifo(gates.path(name).as_str(), Mode::S_IRWXU)?;
        }
        Ok(gates)
    }

    fn path(&self, name: &str) -> String {
        format!("{}-{name}", self.0)
    }

    fn open(&self, name: &str) -> Result<File> {
        // To read as well, as that never waits.
        Ok(OpenOptions::new().read(true).write(true).open(self.path(name))?)
    }
}

impl Drop for Gates {
    fn drop(&mut self) {
        for name in GATES {
            let _ = fs::remove_file(self.path(name));
        }
    }
}

/// Processes that do nothing, started and ended, 64 calls at a time: 5000 in the end, or as many as the limit of
/// descriptors has room for, and as this server can do in reasonable time.
pub(super) fn sleepers(command: &[String], values: &mut Values) -> Result<()> {
    let (mut most, mut seconds_each) = (usize::MAX, 0.0);
    for wanted in [1000, 2000, 5000] {
        let processes = wanted.min(most);
        if processes as f64 * seconds_each > PATIENCE_SECONDS {
            break;
        }
        let room = make_room(processes)?;
        let mut server = Server::start_within(DEADLINE, command)?;
        server.call("environment/status", "{}")?;
        let (descriptors_before, cpu_before) = (server.descriptors()?, server.cpu()?.as_secs_f64());
        let (before, begin) = (server.kib("VmRSS")?, Instant::now());
        let start = |n| ("process/start", start_params(n, r#"["sleep","1000"]"#, Streams::Output));
        server.call_many(processes, 64, start, |_| ())?;
        let started = begin.elapsed().as_secs_f64();
        let cpu = server.cpu()?.as_secs_f64() - cpu_before;
        let memory = server.kib("VmRSS")? - before;
        let descriptors = server.descriptors()? - descriptors_before;
        most = (room - 500) * processes / descriptors.max(1);
        let (begin, mut closed) = (Instant::now(), 0);
        let terminate = |n| ("process/terminate", format!(r#"{{"processId":"p{n}"}}"#));
        server.call_many(processes, 64, terminate, |said| {
            closed += usize::from(matches!(said, Said::Closed(_)));
        })?;
        while closed < processes {
            closed += usize::from(matches!(server.read()?, Said::Closed(_)));
        }
        let ended = begin.elapsed().as_secs_f64();
        seconds_each = (started + ended) / processes as f64;
        let each = 1e6 / processes as f64;
        values.put_at(processes, "to start a sleeping process", "us", started * each);
        values.put_at(processes, "the same, CPU of the server", "us", cpu * each);
        values.put_at(processes, "to end a sleeping process", "us", ended * each);
        values.put_at(
            processes,
            "descriptors for a sleeping process",
            "fd",
            descriptors as f64 / processes as f64,
        );
        values.put_at(
            processes,
            "resident memory for a sleeping process",
            "KiB",
            memory / processes as f64,
        );
    }
    Ok(())
}

/// Connections with a session each, made in blocks.
pub(super) fn connections(command: &[String], values: &mut Values) -> Result<()> {
    const BLOCK: usize = 50;
    make_room(0)?;
    let server = Server::start_within(DEADLINE, command)?;
    let before = server.kib("VmRSS")?;
    let mut connections = Vec::new();
    for count in [250, 500, 1000] {
        let (begin, old) = (Instant::now(), connections.len());
        while connections.len() < count {
            let mut block = Vec::new();
            for _ in 0..BLOCK {
                let mut connection = server.another()?;
                let id = connection.send("initialize", r#"{"clientName":"bench"}"#)?;
                block.push((connection, id));
            }
            for (mut connection, id) in block {
                connection.initialized(id)?;
                connection.call("environment/status", "{}")?;
                connections.push(connection);
            }
        }
        let took = begin.elapsed().as_secs_f64() * 1e6 / (count - old) as f64;
        let memory = (server.kib("VmRSS")? - before) / count as f64;
        values.put_at(count, "to connect, of so many", "us", took);
        values.put_at(count, "resident memory for a connection", "KiB", memory);
    }
    Ok(())
}

/// What is left of ten thousand processes, while they can still be read and when not any more.
pub(super) fn ended(command: &[String], values: &mut Values) -> Result<()> {
    const COUNT: usize = 10_000;
    let mut server = Server::start_within(DEADLINE, command)?;
    // What the first process of all needs is there already.
    server.run(r#"["/bin/true"]"#, Streams::Output, 0)?;
    let new = server.kib("VmRSS")?;
    run_many(&mut server, COUNT)?;
    let retained = server.kib("VmRSS")?;
    std::thread::sleep(RETAINED);
    values.put("resident memory, new", "KiB", new);
    values.put(
        "resident memory for an ended process that can still be read",
        "KiB",
        (retained - new) / COUNT as f64,
    );
    values.put(
        "resident memory after 10000 processes, none of which can be read",
        "KiB",
        server.kib("VmRSS")?,
    );
    Ok(())
}

/// Takes all descriptors that may be had, also for the servers started from now on, and says how many those are.
///
/// # Errors
/// When the machine has no room for so many processes with a thread each in the server.
fn make_room(processes: usize) -> Result<usize> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    for limit in [
        "/proc/sys/kernel/pid_max",
        "/proc/sys/kernel/threads-max",
        "/sys/fs/cgroup/pids.max",
    ] {
        let most = fs::read_to_string(limit).unwrap_or_default().trim().parse();
        if most.is_ok_and(|most: usize| most < 2 * processes + 1000) {
            return Err(format!("{limit} leaves no room for {processes} processes").into());
        }
    }
    Ok(usize::try_from(most)?)
}
