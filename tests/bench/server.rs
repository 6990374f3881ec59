//! A server that is measured, and the client's side of its connections.

use super::Result;
use super::connection::{Connection, Wire, ended};
use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::ops::{Deref, DerefMut};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A server that takes longer for one measurement is killed.
const DEADLINE: Duration = Duration::from_secs(120);
pub(crate) const TMP: &str = env!("CARGO_TARGET_TMPDIR");

/// A server with a session, killed when it goes out of scope.
pub(crate) struct Server {
    child: Child,
    connection: Connection,
    /// Where a WebSocket server listens.
    url: Option<String>,
    stderr: String,
    /// Kills the server at the deadline, so that nothing waits for it; ends with the sender.
    watch: Option<(Sender<()>, JoinHandle<()>)>,
    /// From before its start to its answer to `initialize`.
    pub(crate) started_in: Duration,
    /// What a WebSocket server prints is held open.
    _output: Option<BufReader<ChildStdout>>,
}

impl Server {
    pub(crate) fn start(command: &[String]) -> Result<Server> {
        Server::start_within(DEADLINE, command)
    }

    /// The same for a measurement that may take that long.
    pub(crate) fn start_within(deadline: Duration, command: &[String]) -> Result<Server> {
        let stderr = stderr_path();
        let start = Instant::now();
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?)
            .spawn()?;
        let pid = Pid::from_raw(child.id() as i32);
        let (sender, receiver) = channel();
        let watch = thread::spawn(move || {
            if receiver.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let (input, output) = child.stdin.take().zip(child.stdout.take()).ok_or("no pipes")?;
        let mut output = BufReader::with_capacity(1 << 20, output);
        let connected: Result<_> = match is_websocket(command) {
            false => {
                let line = Vec::new();
                Ok((Wire::Pipes { input, output, line }, None, None))
            }
            true => {
                let mut url = String::new();
                let read = output.read_line(&mut url).map_err(|e| e.to_string().into());
                read.and_then(|_| Ok((Wire::connect(url.trim_end(), 1 << 20)?, Some(url), Some(output))))
            }
        };
        let connected = connected.and_then(|(wire, url, output)| {
            let mut connection = Connection::new(wire, &stderr);
            connection.initialize()?;
            Ok((connection, url, output))
        });
        let started_in = start.elapsed();
        match connected {
            Ok((connection, url, output)) => Ok(Server {
                child,
                connection,
                url,
                stderr,
                watch: Some((sender, watch)),
                started_in,
                _output: output,
            }),
            Err(e) => {
                end(&mut child, Some((sender, watch)));
                let e = ended(&e.to_string(), &stderr);
                let _ = fs::remove_file(stderr);
                Err(e)
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Another connection, with a session of its own, to a WebSocket server.
    pub(crate) fn another(&self) -> Result<Connection> {
        let url = self.url.as_ref().ok_or("has one connection only")?;
        let wire = Wire::connect(url.trim_end(), 4096)?;
        Ok(Connection::new(wire, &self.stderr))
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(clock_getcpuclockid(self.pid())?.now()?.into())
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// A line of its status that counts kibibytes, such as `VmRSS`.
    pub(crate) fn kib(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kib = status.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?.strip_prefix(':')?;
            rest.trim().strip_suffix(" kB")
        });
        Ok(kib.ok_or_else(|| format!("no {name}"))?.parse()?)
    }
}

impl Deref for Server {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child, self.watch.take());
        let _ = fs::remove_file(&self.stderr);
    }
}

fn end(child: &mut Child, watch: Option<(Sender<()>, JoinHandle<()>)>) {
    // The watch goes first: a pid that was waited for may be another's.
    if let Some((sender, watch)) = watch {
        drop(sender);
        let _ = watch.join();
    }
    end_commands(child.id());
    let _ = child.kill();
    let _ = child.wait();
}

/// Kills the commands that a server runs. It is stopped first: so none of them is waited for, and no pid is another's.
fn end_commands(server: u32) {
    let _ = kill(Pid::from_raw(server as i32), Signal::SIGSTOP);
    let threads = fs::read_dir(format!("/proc/{server}/task"))
        .into_iter()
        .flatten()
        .flatten();
    for thread in threads {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()) {
            // Each has a process group of its own; if not, there is none of that number.
            let _ = kill(Pid::from_raw(-child), Signal::SIGKILL);
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
    }
}

pub(crate) fn is_websocket(command: &[String]) -> bool {
    command.iter().any(|argument| argument.contains("ws://"))
}

fn stderr_path() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{TMP}/wire-{}-{count}-stderr", std::process::id())
}
