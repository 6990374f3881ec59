//! Starts the built server and talks to it. Everything that is waited for has a deadline, and nothing waits longer
//! than it has to.

#![allow(dead_code, unused_imports)]

mod cli;
mod client;
mod fault_proxy;
mod mounts;
mod process;
mod scripted_server;
mod unshared;

pub(crate) use cli::{Cli, Ended, cli};
pub(crate) use client::{Client, Event, Run, connect, write};
pub(crate) use fault_proxy::{Fault, FaultProxy};
pub(crate) use mounts::server_where;
pub(crate) use process::{
    children, is_alive, keepers, processes, processor_time, stat, threads_and_fds, wait_until_blocked,
};
pub(crate) use scripted_server::{ScriptedServer, scripted};
pub(crate) use unshared::{Unshared, UnsharedEnd};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up: far more than it takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The program that was built.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_exec-server");

/// The program under test: the one that was built, or what the variable `EXEC_SERVER_PROGRAM` names, such as a script that
/// runs that of another processor.
pub(crate) fn exec_server() -> &'static str {
    static NAMED: OnceLock<String> = OnceLock::new();
    NAMED.get_or_init(|| std::env::var("EXEC_SERVER_PROGRAM").unwrap_or_else(|_| PROGRAM.to_owned()))
}

/// The search path of commands.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A running server, ended when it goes out of scope.
pub(crate) struct Server {
    child: Child,
    url: Option<String>,
}

impl Server {
    /// A server on its standard streams, and its only client.
    pub(crate) fn stdio() -> (Server, Client) {
        Server::on_pipes(command(&["--listen", "stdio"]))
    }

    /// The same, started by any command.
    pub(crate) fn on_pipes(mut command: Command) -> (Server, Client) {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        (Server { child, url: None }, Client::of_pipes(input, output))
    }

    /// A server for WebSocket clients on a free port, with more arguments.
    pub(crate) fn websocket(arguments: &[&str]) -> Server {
        let server = Server::on_port(command(&[&["--listen", "ws://127.0.0.1:0"], arguments].concat()));
        assert!(server.url().starts_with("ws://127.0.0.1:"), "{:?}", server.url());
        server
    }

    /// The same, started by any command: a server that tells where it listens.
    pub(crate) fn on_port(mut command: Command) -> Server {
        command.stdin(Stdio::null());
        Server::with_its_input(command)
    }

    /// The same, with an input of its own.
    pub(crate) fn with_its_input(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        assert!(url.ends_with('\n'), "it does not tell where it listens");
        let url = Some(url.trim_end().to_owned());
        Server { child, url }
    }

    /// The URL it listens at.
    pub(crate) fn url(&self) -> &str {
        self.url.as_deref().unwrap()
    }

    /// The address it listens on, such as `127.0.0.1:1234`.
    pub(crate) fn address(&self) -> &str {
        self.url.as_deref().and_then(|url| url.strip_prefix("ws://")).unwrap()
    }

    /// A connection that has not said anything yet.
    pub(crate) fn connect(&self) -> Client {
        Client::of_websocket(self.url.as_deref().unwrap())
    }

    /// A connection with a session of its own.
    pub(crate) fn client(&self) -> Client {
        let mut client = self.connect();
        client.handshake();
        client
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the end of the server", || self.child.try_wait().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first, so that it ends what it has started.
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::SIGTERM);
        }
        let start = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if start.elapsed() > DEADLINE {
                let _ = self.child.kill();
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// Sends an HTTP request, in lines, and returns the status and the whole answer.
pub(crate) fn http(server: &Server, request: &str) -> (String, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = request.replace('\n', "\r\n");
    stream.write_all(format!("{request}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.lines().next().unwrap_or_default();
    let status = status.strip_prefix("HTTP/1.1 ").unwrap_or(status).to_owned();
    (status, answer)
}

/// A program that was started, ended when it goes out of scope.
pub(crate) struct Started(pub(crate) Child);

impl Started {
    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the end of the program", || self.0.try_wait().unwrap())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program with arguments.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(exec_server());
    command.args(arguments);
    command
}

/// Runs a test with a client over each transport.
pub(crate) fn both(test: impl Fn(&Server, &mut Client)) {
    println!("over stdio");
    let (server, mut client) = Server::stdio();
    client.handshake();
    test(&server, &mut client);
    drop((client, server));
    println!("over WebSocket");
    let server = Server::websocket(&[]);
    test(&server, &mut server.client());
}

/// Waits for a state that nothing announces: looks again and again, with short breaks, until `look` finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "{what} does not come");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A directory that is removed with all that is in it.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("exec-server-test-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Dir(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The URI of a file in it.
    pub(crate) fn uri(&self, name: &str) -> String {
        uri(&self.path(name))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The URI of a path that needs no escapes.
pub(crate) fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// The parameters that start a command with pipes.
pub(crate) fn program(id: &str, argv: &[&str]) -> Value {
    json!({"processId": id, "argv": argv, "cwd": "file:///", "env": {"PATH": PATH}, "tty": false})
}

/// The parameters that start a shell script with pipes.
pub(crate) fn script(id: &str, text: &str) -> Value {
    program(id, &["/bin/sh", "-c", text])
}

/// The same with a pipe for input.
pub(crate) fn with_stdin(mut start: Value) -> Value {
    start["pipeStdin"] = true.into();
    start
}

/// The same on a terminal.
pub(crate) fn on_terminal(mut start: Value) -> Value {
    start["tty"] = true.into();
    start
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub(crate) fn bytes(base64: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap()
}
