//! The client's side of one connection.

use super::Result;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{ChildStdin, ChildStdout};
use std::time::Instant;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, Utf8Bytes, WebSocket};

/// One connection, and what was received on it last.
pub(crate) struct Connection {
    wire: Wire,
    last_id: usize,
    /// The output of all processes so far.
    pub(crate) output_bytes: usize,
    /// The file that the server's standard error goes to.
    stderr: String,
}

pub(crate) enum Wire {
    Pipes {
        input: ChildStdin,
        output: BufReader<ChildStdout>,
        line: Vec<u8>,
    },
    WebSocket {
        socket: Box<WebSocket<TcpStream>>,
        text: Utf8Bytes,
    },
}

/// What one message is. Processes are known by the number in their name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said {
    /// The result of a request.
    Answer(usize),
    /// So many bytes of output.
    Output {
        process: usize,
        bytes: usize,
    },
    Closed(usize),
    Other,
}

/// What a process has for input and output.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Streams {
    /// No input.
    Output,
    /// Pipes.
    Pipes,
    Terminal,
}

impl Connection {
    pub(crate) fn new(wire: Wire, stderr: &str) -> Connection {
        Connection {
            wire,
            last_id: 0,
            output_bytes: 0,
            stderr: stderr.to_owned(),
        }
    }

    /// Begins the session.
    pub(crate) fn initialize(&mut self) -> Result<()> {
        let id = self.send("initialize", r#"{"clientName":"bench"}"#)?;
        self.initialized(id)
    }

    /// Ends the handshake once request `id` is answered.
    pub(crate) fn initialized(&mut self, id: usize) -> Result<()> {
        self.wait_answer(id)?;
        self.write(r#"{"method":"initialized"}"#.to_owned())
    }

    /// The message that was read last.
    pub(crate) fn text(&self) -> &[u8] {
        match &self.wire {
            Wire::Pipes { line, .. } => line,
            Wire::WebSocket { text, .. } => text.as_bytes(),
        }
    }

    pub(crate) fn send(&mut self, method: &str, params: &str) -> Result<usize> {
        self.last_id += 1;
        self.write(format!(
            r#"{{"id":{},"method":"{method}","params":{params}}}"#,
            self.last_id
        ))?;
        Ok(self.last_id)
    }

    pub(crate) fn call(&mut self, method: &str, params: &str) -> Result<()> {
        let id = self.send(method, params)?;
        self.wait_answer(id)
    }

    fn wait_answer(&mut self, id: usize) -> Result<()> {
        while !matches!(self.read()?, Said::Answer(answer) if answer == id) {}
        Ok(())
    }

    /// The seconds from the start of a command to its last event; it must have that much output.
    pub(crate) fn run(&mut self, argv: &str, streams: Streams, expected: usize) -> Result<f64> {
        let start = Instant::now();
        let process = self.last_id;
        let id = self.send("process/start", &start_params(process, argv, streams))?;
        let (mut total, mut answered, mut time) = (0, false, None);
        while !answered || time.is_none() {
            match self.read()? {
                Said::Answer(answer) => answered |= answer == id,
                Said::Output { bytes, .. } => total += bytes,
                Said::Closed(_) => time = Some(start.elapsed().as_secs_f64()),
                Said::Other => {}
            }
        }
        if total != expected {
            return Err(format!("{total} bytes of output came, not {expected}").into());
        }
        time.ok_or_else(|| "not closed".into())
    }

    /// Sends that many requests, a few ahead of their answers, and gives what else is said to `other`.
    pub(crate) fn call_many(
        &mut self,
        count: usize,
        ahead: usize,
        mut request: impl FnMut(usize) -> (&'static str, String),
        mut other: impl FnMut(Said),
    ) -> Result<()> {
        let (mut sent, mut answered) = (0, 0);
        while answered < count {
            while sent < count && sent < answered + ahead {
                let (method, params) = request(sent);
                self.send(method, &params)?;
                sent += 1;
            }
            match self.read()? {
                Said::Answer(_) => answered += 1,
                said => other(said),
            }
        }
        Ok(())
    }

    /// The next message, looked at without reading it as JSON: large ones must not cost the client more than the server.
    pub(crate) fn read(&mut self) -> Result<Said> {
        self.wire_read()?;
        let text = self.text();
        let head = String::from_utf8_lossy(&text[..text.len().min(200)]);
        let Some((_, method)) = head.split_once(r#""method":""#) else {
            let (_, id) = head
                .split_once(r#""id":"#)
                .ok_or_else(|| format!("not understood: {head}"))?;
            return match head.contains(r#""result":"#) {
                true => Ok(Said::Answer(leading_number(id)?)),
                false => Err(head.into()),
            };
        };
        let process = || {
            let (_, id) = method.split_once(r#""processId":"p"#).ok_or("an event of no process")?;
            leading_number(id)
        };
        let said = match method.split('"').next() {
            Some("process/output") => Said::Output {
                process: process()?,
                bytes: payload(text, r#""chunk":""#).ok_or("output without a chunk")?,
            },
            Some("process/closed") => Said::Closed(process()?),
            _ => Said::Other,
        };
        if let Said::Output { bytes, .. } = said {
            self.output_bytes += bytes;
        }
        Ok(said)
    }

    fn write(&mut self, text: String) -> Result<()> {
        self.wire.send(text).map_err(|e| ended(&e.to_string(), &self.stderr))
    }

    fn wire_read(&mut self) -> Result<()> {
        match &mut self.wire {
            Wire::Pipes { output, line, .. } => {
                line.clear();
                if output.read_until(b'\n', line)? == 0 {
                    return Err(ended("the server ended, or was killed at the deadline", &self.stderr));
                }
            }
            Wire::WebSocket { socket, text } => loop {
                match socket.read().map_err(|e| ended(&e.to_string(), &self.stderr))? {
                    Message::Text(read) => break *text = read,
                    Message::Close(frame) => return Err(format!("the server closed: {frame:?}").into()),
                    _ => {}
                }
            },
        }
        Ok(())
    }
}

impl Wire {
    /// A WebSocket connection that reads so many bytes at a time.
    pub(crate) fn connect(url: &str, buffer: usize) -> Result<Wire> {
        let address = url.strip_prefix("ws://").ok_or_else(|| format!("not a URL: {url:?}"))?;
        let stream = TcpStream::connect(address.split('/').next().unwrap_or_default())?;
        stream.set_nodelay(true)?;
        let limit = Some(1 << 30);
        let config = WebSocketConfig::default()
            .read_buffer_size(buffer)
            .max_message_size(limit)
            .max_frame_size(limit);
        let (socket, _) =
            tungstenite::client::client_with_config(url, stream, Some(config)).map_err(|e| e.to_string())?;
        Ok(Wire::WebSocket {
            socket: socket.into(),
            text: Utf8Bytes::default(),
        })
    }

    fn send(&mut self, mut text: String) -> Result<()> {
        match self {
            Wire::Pipes { input, .. } => {
                text.push('\n');
                input.write_all(text.as_bytes())?;
            }
            Wire::WebSocket { socket, .. } => socket.send(Message::text(text))?,
        }
        Ok(())
    }
}

fn leading_number(text: &str) -> Result<usize> {
    Ok(text
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default()
        .parse()?)
}

pub(crate) fn start_params(process: usize, argv: &str, streams: Streams) -> String {
    let env = r#"{"PATH":"/usr/bin:/bin"}"#;
    let (tty, pipe) = (streams == Streams::Terminal, streams == Streams::Pipes);
    format!(r#"{{"processId":"p{process}","argv":{argv},"cwd":"file:///","env":{env},"tty":{tty},"pipeStdin":{pipe}}}"#)
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

/// A reason, with the last thing that the server said about it.
pub(crate) fn ended(reason: &str, stderr: &str) -> Box<dyn std::error::Error> {
    let stderr = fs::read(stderr).unwrap_or_default();
    let stderr = String::from_utf8_lossy(&stderr);
    format!("{reason} ({})", stderr.lines().last().unwrap_or("and said nothing")).into()
}
