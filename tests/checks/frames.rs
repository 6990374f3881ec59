//! What comes in on a WebSocket, in any pieces, against what the tungstenite library makes of it.

use exec_server::transport::frame_splitter::{Frame, FrameSplitter};
use exec_server::transport::large_memory::LargeMemory;
use exec_server::transport::websocket::{Companion, WebSocketSource};
use exec_server::transport::{Ended, Incoming, Source};
use std::io::{self, Read, Write};
use std::sync::{Arc, LazyLock, Mutex};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// What came of the bytes: messages, what was to be sent back, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub messages: Vec<Vec<u8>>,
    pub sent: Vec<u8>,
    pub violation: Option<u16>,
}

/// How bytes come in: some with the upgrade, the others in pieces of the given sizes, over and over.
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'a> {
    pub early: usize,
    pub sizes: &'a [usize],
}

/// All at once.
pub const AT_ONCE: Pieces<'static> = Pieces { early: 0, sizes: &[] };

/// The limit of a message, small enough to be met.
const MAX_BYTES: usize = 300;

/// One piece is used again and again, so that there is something in it.
static MEMORY: LazyLock<LargeMemory> = LazyLock::new(|| LargeMemory::keeping(usize::MAX, |_| ()));

#[derive(Default)]
struct Sent(Mutex<Vec<u8>>);

impl Companion for Sent {
    fn heard(&self) {}
    fn send_frames(&self, frames: Vec<u8>) {
        self.0.lock().unwrap().extend(frames);
    }
}

/// Hands out bytes in pieces, and keeps what is written.
struct Wire<'a> {
    bytes: &'a [u8],
    sizes: &'a [usize],
    next: usize,
    written: Vec<u8>,
}

impl<'a> Wire<'a> {
    fn new(bytes: &'a [u8], sizes: &'a [usize]) -> Wire<'a> {
        Wire {
            bytes,
            sizes,
            next: 0,
            written: Vec::new(),
        }
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        assert!(!room.is_empty());
        let size = self.sizes.get(self.next).map_or(usize::MAX, |size| (*size).max(1));
        self.next = (self.next + 1) % self.sizes.len().max(1);
        let n = size.min(self.bytes.len()).min(room.len());
        let (piece, rest) = self.bytes.split_at(n);
        room[..n].copy_from_slice(piece);
        self.bytes = rest;
        Ok(n)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a server makes of the bytes.
pub fn server(bytes: &[u8], max_bytes: usize, pieces: Pieces<'_>) -> Outcome {
    let companion = Arc::new(Sent::default());
    let (early, rest) = bytes.split_at(pieces.early.min(bytes.len()));
    let wire = Wire::new(rest, pieces.sizes);
    let mut source = WebSocketSource::new(wire, early.to_vec(), max_bytes, MEMORY.clone(), companion.clone());
    let mut outcome = Outcome::default();
    outcome.violation = loop {
        match source.next(&mut || ()) {
            Incoming::Message { text, base64 } => {
                assert!(text.len() <= max_bytes);
                let run = &text[base64];
                assert!(run.len().is_multiple_of(4));
                assert!(run.iter().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(b)));
                outcome.messages.push(text.to_vec());
            }
            Incoming::Refused(reason) => panic!("a WebSocket message is never refused, but: {reason}"),
            Incoming::Ended(Ended::Input | Ended::ByPeer) => break None,
            Incoming::Ended(Ended::Violation { code, .. }) => break Some(code),
        }
    };
    outcome.sent = std::mem::take(&mut *companion.0.lock().unwrap());
    outcome
}

/// What a client makes of them, and what it would answer, in no particular form.
fn client(bytes: &[u8], max_bytes: usize, pieces: Pieces<'_>) -> Outcome {
    let (early, rest) = bytes.split_at(pieces.early.min(bytes.len()));
    let mut wire = Wire::new(rest, pieces.sizes);
    let mut splitter = FrameSplitter::new(early, max_bytes);
    let mut outcome = Outcome::default();
    loop {
        match splitter.next_frame() {
            Some(Ok(Frame::Message(message))) => outcome.messages.push(message.to_vec()),
            Some(Ok(Frame::Ping(payload))) => outcome.sent.extend([b"ping ", payload].concat()),
            Some(Ok(Frame::Pong)) => {}
            Some(Ok(Frame::Close(code, reason))) => {
                outcome.sent.extend(closed(code, reason));
                return outcome;
            }
            Some(Err(violation)) => {
                outcome.violation = Some(violation.code());
                return outcome;
            }
            None => match wire.read(splitter.spare()).unwrap() {
                0 => return outcome,
                n => splitter.filled(n),
            },
        }
    }
}

fn closed(code: u16, reason: &[u8]) -> Vec<u8> {
    [b"close ", &code.to_be_bytes()[..], reason].concat()
}

/// What tungstenite makes of them.
fn reference(bytes: &[u8], max_bytes: usize, role: Role) -> Outcome {
    let config = WebSocketConfig::default()
        .max_message_size(Some(max_bytes))
        .max_frame_size(Some(max_bytes));
    let mut socket = WebSocket::from_raw_socket(Wire::new(bytes, &[]), role, Some(config));
    let mut outcome = Outcome::default();
    outcome.violation = loop {
        match socket.read() {
            Ok(Message::Text(text)) => outcome.messages.push(text.as_bytes().to_vec()),
            Ok(Message::Binary(message)) => outcome.messages.push(message.to_vec()),
            Ok(Message::Ping(payload)) if role == Role::Client => {
                outcome.sent.extend([b"ping ", &payload[..]].concat())
            }
            Ok(Message::Close(frame)) if role == Role::Client => {
                let (code, reason) = frame.map_or((1005, "".into()), |frame| (frame.code.into(), frame.reason));
                outcome.sent.extend(closed(code, reason.as_bytes()));
                break None;
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed) => break None,
            Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => break None,
            Err(Error::Capacity(_)) => break Some(1009),
            Err(Error::Utf8(_)) => break Some(1007),
            Err(Error::Protocol(_)) => break Some(1002),
            Err(e) => panic!("{e}"),
        }
    };
    if role == Role::Server {
        outcome.sent = std::mem::take(&mut socket.get_mut().written);
    }
    outcome
}

/// Panics unless both sides make of the bytes what tungstenite does.
pub fn compare(bytes: &[u8], max_bytes: usize, pieces: Pieces<'_>) {
    for role in [Role::Server, Role::Client] {
        let ours = match role {
            Role::Server => server(bytes, max_bytes, pieces),
            Role::Client => client(bytes, max_bytes, pieces),
        };
        let mut theirs = reference(bytes, max_bytes, role);
        if ours.violation.is_some() && theirs.violation.is_none() {
            // It waits for the whole frame before it says what is wrong with the header.
            let whole = [bytes, &vec![0; max_bytes + 14]].concat();
            theirs = reference(&whole, max_bytes, role);
        }
        if role == Role::Client && theirs.violation == Some(1007) {
            // A client leaves it to the JSON parser to find that something is not UTF-8.
            assert!(ours.messages.starts_with(&theirs.messages), "{role:?}");
            continue;
        }
        // Not `assert_eq`, which would print all of large messages.
        assert!(ours.messages == theirs.messages, "{role:?}: other messages");
        assert_eq!((ours.violation, ours.sent), (theirs.violation, theirs.sent), "{role:?}");
    }
}

/// The first byte says how much has come with the request, the next four the sizes of the pieces, the rest is the wire.
#[allow(dead_code)]
pub fn check(data: &[u8]) {
    let Some((head, bytes)) = data.split_at_checked(5) else {
        return;
    };
    let sizes: Vec<usize> = head[1..].iter().map(|size| usize::from(*size) % 40 + 1).collect();
    let early = usize::from(head[0]);
    compare(bytes, MAX_BYTES, AT_ONCE);
    compare(bytes, MAX_BYTES, Pieces { early, sizes: &sizes });
}

/// A frame as a client sends it, masked with `key`; without one, as a server does.
#[allow(dead_code)]
pub fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if key.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..126 => frame.push(masked | n as u8),
        n @ 126..65536 => {
            frame.push(masked | 126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(masked | 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    frame.extend(key.iter().flatten());
    let key = key.unwrap_or_default();
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}
