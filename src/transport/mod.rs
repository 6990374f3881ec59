//! How messages come in and go out: lines, WebSocket, within one program, and what is answered before the upgrade.

pub mod address;
pub mod admission;
pub mod auth;
mod frame_header;
pub mod frame_splitter;
pub mod http;
pub mod large_memory;
pub mod line;
mod line_buffer;
pub mod memory;
pub mod outlet;
#[cfg(feature = "signed-tokens")]
pub mod signed;
pub mod socket_file;
pub mod stdio;
pub mod upgrade;
pub mod websocket;

use log::{debug, warn};
use std::io::{self, ErrorKind};
use std::ops::Range;
use tungstenite::Bytes;

/// What comes in on a connection.
#[derive(Debug)]
pub enum Incoming {
    /// A whole message, not yet parsed.
    Message {
        /// All of it.
        text: Bytes,
        /// A part that was found to be base64 while it came in; see
        /// [`parse_with_bulk`](crate::protocol::message::parse_with_bulk).
        base64: Range<usize>,
    },
    /// Something that is no message, and why. The connection goes on.
    Refused(String),
    /// Nothing more.
    Ended(Ended),
}

impl Incoming {
    /// A message that nothing is known about.
    pub fn whole(text: Bytes) -> Incoming {
        Incoming::Message { text, base64: 0..0 }
    }
}

/// Why nothing more comes in.
#[derive(Debug)]
pub enum Ended {
    /// The other side has ended what it sends. It may still read.
    Input,
    /// The other side has said that it reads nothing more either, or is gone.
    ByPeer,
    /// The other side broke the framing in a way that leaves nothing to go on from.
    Violation {
        /// The WebSocket close code that tells it so.
        code: u16,
        /// What was wrong.
        reason: String,
    },
}

/// Logs how a connection has ended: what a client does by going away is not worth a warning, all else is.
pub fn log_end(what: &str, e: &io::Error) {
    match e.kind() {
        ErrorKind::BrokenPipe
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected
        | ErrorKind::TimedOut
        // What is left of a time limit when it is over, on a socket.
        | ErrorKind::WouldBlock
        | ErrorKind::UnexpectedEof => debug!("{what}: {e}"),
        _ => warn!("{what}: {e}"),
    }
}

/// Where messages come from.
pub trait Source: Send {
    /// What a message of this transport is called in errors.
    fn describe(&self) -> &'static str;
    /// Waits for what comes next. `before_waiting` is called each time before more is read, which may have to wait: all
    /// that came in until then was given out.
    fn next(&mut self, before_waiting: &mut dyn FnMut()) -> Incoming;
}

/// How messages are told apart in the bytes that go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A newline after each.
    Lines,
    /// A WebSocket text frame around each.
    WebSocket,
    /// Not at all: each goes by itself.
    Alone,
}

impl Framing {
    /// What goes before a message of `len` bytes. `room` is where it may be put together.
    pub fn header(self, len: usize, room: &mut [u8; 10]) -> &[u8] {
        match self {
            Framing::Lines | Framing::Alone => &[],
            Framing::WebSocket => websocket::text_frame_header(len, room),
        }
    }

    /// What goes after a message.
    pub fn trailer(self) -> &'static [u8] {
        match self {
            Framing::Lines => b"\n",
            Framing::WebSocket | Framing::Alone => b"",
        }
    }
}
