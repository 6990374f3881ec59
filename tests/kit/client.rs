//! The client's side of a connection.

use super::{DEADLINE, base64, bytes};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, socket};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout};
use std::time::Instant;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// One client of the server. Nothing is read but while something is waited for.
pub(crate) struct Client {
    wire: Wire,
    last_id: i64,
    /// Received and not asked for yet.
    inbox: VecDeque<Value>,
    /// The last event of each process.
    seqs: HashMap<String, u64>,
    resumed: bool,
    pub(crate) session: String,
    /// What the server said at the end.
    pub(crate) close_frame: Option<CloseFrame>,
}

enum Wire {
    Pipes {
        input: Option<ChildStdin>,
        output: ChildStdout,
        read: Vec<u8>,
    },
    WebSocket(Box<WebSocket<TcpStream>>),
}

/// An event of a process.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// `output`, `exited` or `closed`.
    pub(crate) kind: String,
    pub(crate) params: Value,
}

/// All that a process has done, from here to its last event.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) pty: Vec<u8>,
    pub(crate) code: i64,
    pub(crate) signal: Option<String>,
    pub(crate) sandbox_denied: bool,
    /// The kinds of its events.
    pub(crate) kinds: Vec<String>,
}

impl Client {
    pub(crate) fn of_pipes(input: ChildStdin, output: ChildStdout) -> Client {
        Client::new(Wire::Pipes {
            input: Some(input),
            output,
            read: Vec::new(),
        })
    }

    pub(crate) fn of_websocket(url: &str) -> Client {
        let (url, stream) = match url.strip_prefix("ws://") {
            Some(address) => (url, TcpStream::connect(address).unwrap()),
            None => ("ws://localhost", connect(url)),
        };
        let _ = stream.set_nodelay(true);
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = tungstenite::client::client_with_config(url, stream, Some(config)).unwrap();
        Client::of_socket(socket)
    }

    /// A client that sends lines over a socket.
    pub(crate) fn of_lines(url: &str) -> Client {
        Client::of_lines_on(connect(url).into())
    }

    /// The same, over one that is connected.
    pub(crate) fn of_lines_on(socket: OwnedFd) -> Client {
        let input = socket.try_clone().unwrap();
        Client::of_pipes(input.into(), socket.into())
    }

    /// The client that has just been let in.
    pub(crate) fn of_socket(socket: WebSocket<TcpStream>) -> Client {
        Client::new(Wire::WebSocket(socket.into()))
    }

    fn new(wire: Wire) -> Client {
        Client {
            wire,
            last_id: 0,
            inbox: VecDeque::new(),
            seqs: HashMap::new(),
            resumed: false,
            session: String::new(),
            close_frame: None,
        }
    }

    pub(crate) fn is_websocket(&self) -> bool {
        matches!(self.wire, Wire::WebSocket(_))
    }

    /// The WebSocket itself.
    pub(crate) fn websocket(&mut self) -> &mut WebSocket<TcpStream> {
        match &mut self.wire {
            Wire::WebSocket(socket) => socket,
            Wire::Pipes { .. } => panic!("not a WebSocket"),
        }
    }

    /// Opens a session.
    pub(crate) fn handshake(&mut self) {
        self.initialize(json!({"clientName": "test"}));
    }

    /// Takes up a session again.
    pub(crate) fn resume(&mut self, session: &str) {
        self.resumed = true;
        self.initialize(json!({"clientName": "test", "resumeSessionId": session}));
    }

    /// Any event may be the first: the session was resumed.
    pub(crate) fn continue_at(&mut self, session: &str) {
        self.resumed = true;
        self.session = session.to_owned();
    }

    pub(crate) fn initialize(&mut self, params: Value) {
        let result = self.call("initialize", params);
        self.session = result["sessionId"].as_str().unwrap().to_owned();
        self.send(&json!({"method": "initialized"}));
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    /// Sends any text as a message.
    pub(crate) fn send_text(&mut self, text: &str) {
        match &mut self.wire {
            Wire::Pipes { input: Some(input), .. } => input.write_all(format!("{text}\n").as_bytes()).unwrap(),
            Wire::Pipes { .. } => panic!("the input is closed"),
            Wire::WebSocket(socket) => socket.send(Message::text(text)).unwrap(),
        }
    }

    /// Sends any bytes as a message.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        match &mut self.wire {
            Wire::Pipes { input: Some(input), .. } => input.write_all(&[bytes, b"\n"].concat()).unwrap(),
            Wire::Pipes { .. } => panic!("the input is closed"),
            Wire::WebSocket(socket) => socket.send(Message::binary(bytes.to_vec())).unwrap(),
        }
    }

    /// Ends the server's input.
    pub(crate) fn close_input(&mut self) {
        match &mut self.wire {
            Wire::Pipes { input, .. } => *input = None,
            Wire::WebSocket(socket) => socket.get_ref().shutdown(std::net::Shutdown::Write).unwrap(),
        }
    }

    /// Sends a line without its end.
    pub(crate) fn send_unfinished(&mut self, text: &str) {
        match &mut self.wire {
            Wire::Pipes { input: Some(input), .. } => input.write_all(text.as_bytes()).unwrap(),
            _ => panic!("not an open pipe"),
        }
    }

    /// Reads no more, ever; the server's input stays open as long as what is returned.
    pub(crate) fn close_output(self) -> Option<ChildStdin> {
        match self.wire {
            Wire::Pipes { input, .. } => input,
            Wire::WebSocket(_) => panic!("not a pipe"),
        }
    }

    /// Sends a request and returns its id.
    pub(crate) fn request(&mut self, method: &str, params: Value) -> i64 {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&json!({"id": id, "method": method, "params": params}));
        id
    }

    /// The result of a request; it must not fail.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params);
        self.result(id)
    }

    /// The code and words with which a request is refused.
    pub(crate) fn refusal(&mut self, method: &str, params: Value) -> (i64, String) {
        let id = self.request(method, params);
        self.error(id)
    }

    /// The answer to the request with that id.
    pub(crate) fn answer(&mut self, id: i64) -> Value {
        self.wait_for(&format!("the answer to request {id}"), |m| {
            m["id"] == id && m.get("method").is_none()
        })
    }

    pub(crate) fn result(&mut self, id: i64) -> Value {
        let mut answer = self.answer(id);
        assert!(answer.get("error").is_none(), "{answer:.300}");
        answer["result"].take()
    }

    pub(crate) fn error(&mut self, id: i64) -> (i64, String) {
        let answer = self.answer(id);
        let error = &answer["error"];
        let text = error["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
        (error["code"].as_i64().unwrap(), text.to_owned())
    }

    /// Whether the answer to a request is there by the time a later one is answered.
    pub(crate) fn is_answered(&mut self, id: i64) -> bool {
        self.call("environment/status", Value::Null);
        self.inbox.iter().any(|m| m["id"] == id)
    }

    /// Starts a process; it must start.
    pub(crate) fn start(&mut self, params: Value) {
        let id = params["processId"].clone();
        let sandbox = if params["sandbox"].is_null() {
            "none"
        } else {
            "linuxSeccomp"
        };
        let result = self.call("process/start", params);
        assert_eq!(result, json!({"processId": id, "sandboxType": sandbox}));
    }

    /// Starts a process and waits for its last event.
    pub(crate) fn run(&mut self, params: Value) -> Run {
        let id = params["processId"].as_str().unwrap().to_owned();
        self.start(params);
        self.finish(&id)
    }

    /// The next event of a process.
    pub(crate) fn event(&mut self, process: &str) -> Event {
        let message = self.wait_for(&format!("an event of {process}"), |m| {
            m["params"]["processId"] == process && m.get("method").is_some()
        });
        let method = message["method"].as_str().unwrap();
        Event {
            kind: method.strip_prefix("process/").unwrap().to_owned(),
            params: message["params"].clone(),
        }
    }

    /// All events of a process from here to its last.
    pub(crate) fn finish(&mut self, process: &str) -> Run {
        let mut run = Run::default();
        while run.kinds.last().is_none_or(|kind| kind != "closed") {
            let event = self.event(process);
            if event.kind == "exited" {
                run.code = event.params["exitCode"].as_i64().unwrap();
                run.signal = event.params["signal"].as_str().map(str::to_owned);
                run.sandbox_denied = event.params["sandboxDenied"].as_bool().unwrap();
            } else if event.kind == "output" {
                let stream = match event.params["stream"].as_str().unwrap() {
                    "stdout" => &mut run.stdout,
                    "stderr" => &mut run.stderr,
                    _ => &mut run.pty,
                };
                stream.extend(bytes(&event.params["chunk"]));
            }
            run.kinds.push(event.kind);
        }
        run
    }

    /// Waits until a process has said something, and returns all it has said up to and with that.
    pub(crate) fn output_until(&mut self, process: &str, text: &str) -> String {
        let mut output = Vec::new();
        while !String::from_utf8_lossy(&output).contains(text) {
            let event = self.event(process);
            let said = || String::from_utf8_lossy(&output).into_owned();
            assert_ne!(event.kind, "closed", "{text:?} is missing in {:?}", said());
            if event.kind == "exited" {
                continue;
            }
            output.extend(bytes(&event.params["chunk"]));
        }
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Writes to a process and returns the status.
    pub(crate) fn write(&mut self, process: &str, write_id: &str, input: &str) -> String {
        let result = self.call("process/write", write(process, write_id, input));
        result["status"].as_str().unwrap().to_owned()
    }

    /// Takes the first message that is there, or comes, and for which `wanted` is true.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(i) = self.inbox.iter().position(&wanted) {
            return self.inbox.remove(i).unwrap();
        }
        let start = Instant::now();
        loop {
            let message = self.read(start);
            let message = message.unwrap_or_else(|| panic!("the connection ended before {what} came"));
            if wanted(&message) {
                return message;
            }
            self.inbox.push_back(message);
        }
    }

    /// The next message, in the order they come; `None` at the end of the connection.
    pub(crate) fn next(&mut self) -> Option<Value> {
        match self.inbox.pop_front() {
            Some(message) => Some(message),
            None => self.read(Instant::now()),
        }
    }

    /// The messages up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The next message from the wire. The events of a process must have the numbers 1, 2, 3 …
    fn read(&mut self, since: Instant) -> Option<Value> {
        let text = self.read_text(since)?;
        let message: Value = serde_json::from_slice(&text).expect("JSON");
        if let Some(seq) = message["params"]["seq"].as_u64() {
            let process = message["params"]["processId"].as_str().unwrap();
            let last = self.seqs.insert(process.to_owned(), seq);
            let expected = match last {
                Some(last) => last + 1,
                None if self.resumed => seq,
                None => 1,
            };
            assert_eq!(seq, expected, "{:.200}", message.to_string());
        }
        Some(message)
    }

    fn read_text(&mut self, since: Instant) -> Option<Vec<u8>> {
        match &mut self.wire {
            Wire::Pipes { output, read, .. } => {
                let mut searched = 0;
                loop {
                    if let Some(end) = read[searched..].iter().position(|byte| *byte == b'\n') {
                        let rest = read.split_off(searched + end + 1);
                        read.pop();
                        return Some(std::mem::replace(read, rest));
                    }
                    searched = read.len();
                    let left = DEADLINE.saturating_sub(since.elapsed());
                    let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
                    let ready = poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
                    assert!(ready > 0, "nothing comes from the server");
                    read.resize(searched + 65536, 0);
                    let n = output.read(&mut read[searched..]).unwrap();
                    read.truncate(searched + n);
                    if n == 0 {
                        assert!(read.is_empty(), "the last line has no end");
                        return None;
                    }
                }
            }
            Wire::WebSocket(socket) => loop {
                let left = DEADLINE.saturating_sub(since.elapsed());
                assert!(!left.is_zero(), "nothing comes from the server");
                socket.get_ref().set_read_timeout(Some(left)).unwrap();
                match socket.read() {
                    Ok(Message::Text(text)) => return Some(text.as_bytes().to_vec()),
                    Ok(Message::Close(frame)) => self.close_frame = frame,
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    Ok(other) => panic!("{other:?}"),
                    Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => return None,
                    Err(Error::Io(e)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        panic!("nothing comes from the server")
                    }
                    // A wait with a time limit is not taken up again after a signal, such as of a child's end.
                    Err(Error::Io(e)) if e.kind() == ErrorKind::Interrupted => {}
                    Err(Error::Io(_)) => return None,
                    Err(e) => panic!("{e}"),
                }
            },
        }
    }
}

/// A connection to a URL that is not of TCP. To a stream of TCP all connected sockets are the same.
pub(crate) fn connect(url: &str) -> TcpStream {
    let socket: OwnedFd = if let Some(path) = url.strip_prefix("unix://") {
        UnixStream::connect(path).unwrap().into()
    } else {
        let (cid, port) = url.strip_prefix("vsock://").unwrap().split_once(':').unwrap();
        let address = VsockAddr::new(cid.parse().unwrap(), port.parse().unwrap());
        let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::connect(socket.as_raw_fd(), &address).unwrap();
        socket
    };
    socket.into()
}

/// The parameters of a write.
pub(crate) fn write(process: &str, write_id: &str, input: &str) -> Value {
    json!({"processId": process, "writeId": write_id, "chunk": base64(input)})
}
