//! A server that is measured, and the client's side of its connection.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, Utf8Bytes, WebSocket};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A server that takes longer for one measurement is killed.
const DEADLINE: Duration = Duration::from_secs(120);
pub(crate) const TMP: &str = env!("CARGO_TARGET_TMPDIR");

/// A server with a session, killed when it goes out of scope.
pub(crate) struct Server {
    child: Child,
    wire: Wire,
    /// Kills the server at the deadline, so that nothing waits for it; ends with the sender.
    watch: Option<(Sender<()>, JoinHandle<()>)>,
    /// From before its start to its answer to `initialize`.
    pub(crate) started_in: Duration,
    last_id: usize,
}

enum Wire {
    None,
    Pipes {
        input: ChildStdin,
        output: BufReader<ChildStdout>,
        line: Vec<u8>,
    },
    /// The output is held open.
    WebSocket {
        socket: Box<WebSocket<TcpStream>>,
        text: Utf8Bytes,
        _output: BufReader<ChildStdout>,
    },
}

/// What one message is.
pub(crate) enum Said {
    /// The result of a request.
    Answer(usize),
    /// So many bytes of output.
    Output(usize),
    Closed,
    Other,
}

impl Server {
    pub(crate) fn start(command: &[String]) -> Result<Server> {
        let start = Instant::now();
        let child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(stderr_path())?)
            .spawn()?;
        let pid = Pid::from_raw(child.id() as i32);
        let (sender, receiver) = channel();
        let watch = thread::spawn(move || {
            if receiver.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let (watch, wire, started_in) = (Some((sender, watch)), Wire::None, Duration::ZERO);
        let mut server = Server {
            child,
            wire,
            watch,
            started_in,
            last_id: 0,
        };
        server
            .connect(is_websocket(command))
            .and_then(|()| server.call("initialize", r#"{"clientName":"bench"}"#))?;
        server.started_in = start.elapsed();
        server.wire.send(r#"{"method":"initialized"}"#.to_owned())?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The message that was read last.
    pub(crate) fn text(&self) -> &[u8] {
        self.wire.text()
    }

    fn connect(&mut self, websocket: bool) -> Result<()> {
        let (input, output) = self
            .child
            .stdin
            .take()
            .zip(self.child.stdout.take())
            .ok_or("no pipes")?;
        let mut output = BufReader::with_capacity(1 << 20, output);
        if !websocket {
            self.wire = Wire::Pipes {
                input,
                output,
                line: Vec::new(),
            };
            return Ok(());
        }
        let mut url = String::new();
        output.read_line(&mut url)?;
        let address = url
            .trim_end()
            .strip_prefix("ws://")
            .ok_or_else(|| ended(&format!("not a URL: {url:?}")))?;
        let stream = TcpStream::connect(address.split('/').next().unwrap_or_default())?;
        stream.set_nodelay(true)?;
        let limit = Some(1 << 30);
        let config = WebSocketConfig::default()
            .read_buffer_size(1 << 20)
            .max_message_size(limit)
            .max_frame_size(limit);
        let (socket, _) = tungstenite::client::client_with_config(url.trim_end(), stream, Some(config))?;
        self.wire = Wire::WebSocket {
            socket: socket.into(),
            text: Utf8Bytes::default(),
            _output: output,
        };
        Ok(())
    }

    pub(crate) fn send(&mut self, method: &str, params: &str) -> Result<usize> {
        self.last_id += 1;
        self.wire.send(format!(
            r#"{{"id":{},"method":"{method}","params":{params}}}"#,
            self.last_id
        ))?;
        Ok(self.last_id)
    }

    pub(crate) fn call(&mut self, method: &str, params: &str) -> Result<()> {
        let id = self.send(method, params)?;
        while !matches!(self.read()?, Said::Answer(answer) if answer == id) {}
        Ok(())
    }

    /// The seconds from the start of a command to its last event; it must have that much output.
    pub(crate) fn run(&mut self, argv: &str, expected: usize) -> Result<f64> {
        let start = Instant::now();
        let id = self.send(
            "process/start",
            &start_params(&format!("p{}", self.last_id), argv, false),
        )?;
        let (mut bytes, mut answered, mut time) = (0, false, None);
        while !answered || time.is_none() {
            match self.read()? {
                Said::Answer(answer) => answered |= answer == id,
                Said::Output(n) => bytes += n,
                Said::Closed => time = Some(start.elapsed().as_secs_f64()),
                Said::Other => {}
            }
        }
        if bytes != expected {
            return Err(format!("{bytes} bytes of output came, not {expected}").into());
        }
        time.ok_or_else(|| "not closed".into())
    }

    /// The next message, looked at without reading it as JSON: large ones must not cost the client more than the server.
    pub(crate) fn read(&mut self) -> Result<Said> {
        self.wire.read()?;
        let text = self.wire.text();
        let head = String::from_utf8_lossy(&text[..text.len().min(200)]);
        let Some((_, method)) = head.split_once(r#""method":""#) else {
            let (_, id) = head
                .split_once(r#""id":"#)
                .ok_or_else(|| format!("not understood: {head}"))?;
            let id = id.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            return match head.contains(r#""result":"#) {
                true => Ok(Said::Answer(id.parse()?)),
                false => Err(head.into()),
            };
        };
        Ok(match method.split('"').next() {
            Some("process/output") => Said::Output(payload(text, r#""chunk":""#).ok_or("output without a chunk")?),
            Some("process/closed") => Said::Closed,
            _ => Said::Other,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The watch goes first: a pid that was waited for may be another's.
        if let Some((sender, watch)) = self.watch.take() {
            drop(sender);
            let _ = watch.join();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Wire {
    fn send(&mut self, mut text: String) -> Result<()> {
        match self {
            Wire::None => return Err("not connected".into()),
            Wire::Pipes { input, .. } => {
                text.push('\n');
                input.write_all(text.as_bytes()).map_err(|e| ended(&e.to_string()))?;
            }
            Wire::WebSocket { socket, .. } => socket.send(Message::text(text))?,
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        match self {
            Wire::None => return Err("not connected".into()),
            Wire::Pipes { output, line, .. } => {
                line.clear();
                if output.read_until(b'\n', line)? == 0 {
                    return Err(ended("the server ended, or was killed at the deadline").into());
                }
            }
            Wire::WebSocket { socket, text, .. } => loop {
                match socket.read().map_err(|e| ended(&e.to_string()))? {
                    Message::Text(read) => break *text = read,
                    Message::Close(frame) => return Err(format!("the server closed: {frame:?}").into()),
                    _ => {}
                }
            },
        }
        Ok(())
    }

    fn text(&self) -> &[u8] {
        match self {
            Wire::None => &[],
            Wire::Pipes { line, .. } => line,
            Wire::WebSocket { text, .. } => text.as_bytes(),
        }
    }
}

pub(crate) fn is_websocket(command: &[String]) -> bool {
    command.iter().any(|argument| argument.contains("ws://"))
}

pub(crate) fn start_params(id: &str, argv: &str, pipe_stdin: bool) -> String {
    let env = r#"{"PATH":"/usr/bin:/bin"}"#;
    format!(r#"{{"processId":"{id}","argv":{argv},"cwd":"file:///","env":{env},"tty":false,"pipeStdin":{pipe_stdin}}}"#)
}

/// The number of bytes that the base64 text after `key`, which is near the beginning, stands for.
pub(crate) fn payload(text: &[u8], key: &str) -> Option<usize> {
    let head = &text[..text.len().min(400)];
    let start = head.windows(key.len()).position(|part| part == key.as_bytes())? + key.len();
    let mut rest = &text[start..];
    // As fast as `memchr`.
    let length = rest.skip_until(b'"').ok()?.checked_sub(1)?;
    let padding = text[start..start + length]
        .iter()
        .rev()
        .take_while(|byte| **byte == b'=')
        .count();
    Some(length / 4 * 3 - padding)
}

pub(crate) fn stderr_path() -> String {
    format!("{TMP}/wire-{}-stderr", std::process::id())
}

/// A reason, with the last thing that the server said about it.
fn ended(reason: &str) -> String {
    let stderr = fs::read(stderr_path()).unwrap_or_default();
    let stderr = String::from_utf8_lossy(&stderr);
    format!("{reason} ({})", stderr.lines().last().unwrap_or("and said nothing"))
}
