//! The thread that takes in what a server sends.

use super::connection::{Connection, Wire};
use super::incoming::{Incoming, stream_named, understand};
use super::server_command::{ServerCommand, Turn};
use super::session::Session;
use crate::sys::thread::Thread;
use crate::sys::{defect, thread};
use crate::transport::address::StreamSocket;
use crate::transport::frame_splitter::{Frame, FrameSplitter};
use crate::transport::line::LineSplitter;
use crate::transport::memory::ToClient;
use crossbeam_channel::{Receiver, select};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tungstenite::Bytes;

/// The stack of a client's threads: as deep as the deepest message, and several times that without optimization.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 1024 } else { 256 } * 1024;

/// Where a server's messages come from.
pub(super) enum Entrance {
    /// A WebSocket, and what was received behind the answer to the upgrade.
    WebSocket(StreamSocket, Vec<u8>),
    /// A command.
    Command(ServerCommand),
    /// This program.
    Memory(Receiver<ToClient>),
}

/// Starts the thread. It ends with the connection, and a defect in it is an end of that, too.
pub(super) fn start(session: Arc<Session>, connection: Arc<Connection>, entrance: Entrance) -> io::Result<Thread> {
    spawn("client reader", move || {
        let max_bytes = session.options.max_message_bytes;
        let mut reader = Reader { session, connection };
        let mut entrance = entrance;
        let read = catch_unwind(AssertUnwindSafe(|| match &mut entrance {
            Entrance::WebSocket(stream, early) => reader.read_websocket(stream, early, max_bytes),
            Entrance::Command(command) => reader.read_lines(command, max_bytes),
            Entrance::Memory(incoming) => reader.read_memory(incoming),
        }));
        let failed = |_| {
            let reason = "reading failed in an unforeseen way";
            log::error!("{reason}; the connection is closed");
            Some(reason.to_owned())
        };
        // Those who wait are told before a command has ended.
        reader.end(read.unwrap_or_else(failed));
    })
}

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    thread::start(name, STACK_BYTES, Box::new(run))
}

struct Reader {
    session: Arc<Session>,
    connection: Arc<Connection>,
}

/// Why reading ends; `None` if the other side just closed.
type Reason = Option<String>;

impl Reader {
    fn read_websocket(&mut self, mut stream: &StreamSocket, early: &[u8], max_bytes: usize) -> Reason {
        let mut splitter = FrameSplitter::new(early, max_bytes);
        loop {
            loop {
                match splitter.next_frame() {
                    None => break,
                    Some(Ok(Frame::Message(text))) => {
                        if let Err(reason) = self.take(text) {
                            return Some(reason);
                        }
                    }
                    Some(Ok(Frame::Ping(payload))) => {
                        self.connection.post(|posted| posted.pong = Some(payload.to_vec()));
                    }
                    Some(Ok(Frame::Pong)) => {}
                    Some(Ok(Frame::Close(code, reason))) => {
                        self.connection.post(|posted| posted.close = true);
                        let reason = String::from_utf8_lossy(reason);
                        return Some(format!("closed by the server: {code} {reason}").trim_end().to_owned());
                    }
                    Some(Err(violation)) => return Some(self.failed_to_read(&violation)),
                }
            }
            match stream.read(splitter.spare()) {
                Ok(0) => return None,
                Ok(n) => splitter.filled(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Some(self.failed_to_read(&e)),
            }
            self.connection.hear();
        }
    }

    fn read_lines(&mut self, command: &mut ServerCommand, max_bytes: usize) -> Reason {
        let mut lines = LineSplitter::new(max_bytes);
        let mut ended = None;
        loop {
            while let Some(line) = lines.next_line() {
                let taken = match line {
                    Ok(line) => self.take(line),
                    Err(e) => Err(self.failed_to_read(&e)),
                };
                if let Err(reason) = taken {
                    return Some(reason);
                }
            }
            if ended.is_some() {
                return ended;
            }
            match command.read(lines.spare()) {
                Ok(Turn::Read(n)) => lines.filled(n),
                Ok(Turn::Ended(reason)) => {
                    lines.finish();
                    ended = Some(reason.to_owned());
                }
                Err(e) => return Some(self.failed_to_read(&e)),
            }
        }
    }

    fn read_memory(&mut self, incoming: &Receiver<ToClient>) -> Reason {
        let Wire::Memory(wire) = &self.connection.wire else {
            return None;
        };
        let is_cut = wire.is_cut();
        loop {
            let received = select! {
                recv(incoming) -> received => received,
                recv(is_cut) -> _ => return None,
            };
            let taken = match received {
                Err(_) => return None,
                Ok(ToClient::Message(text)) => self.take(&text),
                Ok(ToClient::Answer { text, bulk }) => self.take_with(&text, bulk),
                Ok(ToClient::Output {
                    process_id,
                    seq,
                    stream,
                    chunk,
                }) => match stream_named(stream) {
                    Some(stream) => {
                        self.session.receive_shared_output(&process_id, seq, stream, chunk);
                        Ok(())
                    }
                    None => Err(format!(
                        "exec-server notification handling failed: unknown stream `{stream}`"
                    )),
                },
            };
            if let Err(reason) = taken {
                return Some(reason);
            }
        }
    }

    /// Takes a message in.
    fn take(&mut self, text: &[u8]) -> Result<(), String> {
        self.take_with(text, Vec::new())
    }

    /// The same with the bytes that empty strings in it stand for.
    fn take_with(&mut self, text: &[u8], bulk: Vec<Bytes>) -> Result<(), String> {
        defect::point("client reader", || text);
        match understand(text, &self.connection.label)? {
            Incoming::Output {
                process_id,
                seq,
                stream,
                chunk,
            } => self.session.receive_output(&process_id, seq, stream, chunk),
            Incoming::Answer { id, mut outcome } => {
                if let Ok(answer) = &mut outcome
                    && !bulk.is_empty()
                {
                    answer.bulk = bulk;
                }
                self.connection.pending.answer(id, outcome);
            }
            Incoming::Exited(exited) => self.session.receive_exited(exited),
            Incoming::Closed(closed) => self.session.receive_closed(&closed),
            Incoming::MissingChanged { watch_id } => self.session.receive_missing_changed(watch_id),
            Incoming::Request { id, method } => self.connection.post(|posted| posted.refuse(&id, &method)),
            Incoming::Nothing => {}
        }
        Ok(())
    }

    fn failed_to_read(&self, error: &dyn std::fmt::Display) -> String {
        format!("failed to read {}: {error}", self.connection.label)
    }

    fn end(&self, reason: Reason) {
        let reason = self.connection.cut_reason().or(reason);
        self.connection.cut(reason.unwrap_or_default());
        let reason = self.connection.disconnected();
        self.session.connection_ended(&self.connection, &reason);
    }
}
