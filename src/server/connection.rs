//! The threads of one connection, from its first message to its last.

use super::channel_sink::ChannelSink;
use super::dispatcher::Dispatcher;
use super::gate::Gate;
use super::outbox::{Outbox, Outflow};
use super::params::Params;
use super::stream_sink::StreamSink;
use super::writer::{Sink, Writer};
use super::{Present, Server};
use crate::process::Audience;
use crate::protocol::error::RpcError;
use crate::protocol::message::{self, Message, RequestId};
use crate::sys::thread;
use crate::transport::memory::{ServerEnd, ToServer};
use crate::transport::stdio::LineSource;
use crate::transport::{Ended, Framing, Incoming, Source};
use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};
use log::debug;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tungstenite::Bytes;

/// The stacks of a connection's threads. The deepest they go is a message of the deepest nesting: 64 KiB, and several
/// times that without optimization.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 1024 } else { 256 } * 1024;

/// Parsed messages that wait for the dispatcher. It never blocks, so this only smooths bursts.
const QUEUED_MESSAGES: usize = 128;

/// A parsed message on its way to the dispatcher.
pub(super) enum Received {
    Request {
        id: RequestId,
        method: Box<str>,
        params: Params,
    },
    Notification {
        method: Box<str>,
        params: Params,
    },
    /// An answer, though nothing was asked.
    Answer,
    /// The other side broke the framing.
    Violation {
        code: u16,
        reason: String,
    },
}

/// Waits for what a connection receives next; see [`Connection::start`].
type Next = Box<dyn FnMut(&Receiver<()>) -> Option<Received> + Send>;

/// See [`Server::serve_lines`].
pub(super) fn serve_lines(
    server: &Arc<Server>,
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
    ended: Arc<dyn Fn() + Send + Sync>,
) -> io::Result<()> {
    let on_broken = ended.clone();
    let (outbox, flow) = Outbox::new(&server.config, false, Box::new(move || on_broken()));
    let source = LineSource::new(input, server.config.max_message_bytes, server.memory.clone());
    let Some(present) = server.connections.enter(usize::MAX) else {
        return Ok(());
    };
    let connection = Connection {
        server: server.clone(),
        outbox,
        session_ttl: Duration::ZERO,
        drain_limit: server.config.drain_limit,
        ended: Box::new(move || ended()),
        present,
    };
    let (reader, parsed) = connection.reader();
    let sink = StreamSink::new(Box::new(output), Framing::Lines, server.config.batch_bytes);
    connection.start(flow, Box::new(sink), parsed)?;
    spawn("reader", move || reader.run(source))
}

/// See [`Server::serve_memory`].
pub(super) fn serve_memory(server: &Arc<Server>, end: ServerEnd, ended: impl Fn() + Send + 'static) -> io::Result<()> {
    let (cut, is_cut) = bounded(1);
    let (outbox, flow) = Outbox::new(
        &server.config,
        false,
        Box::new(move || {
            let _ = cut.try_send(());
        }),
    );
    let Some(present) = server.connections.enter(usize::MAX) else {
        return Ok(());
    };
    let connection = Connection {
        server: server.clone(),
        outbox,
        session_ttl: Duration::ZERO,
        // Whoever would read the answers is gone.
        drain_limit: Duration::ZERO,
        ended: Box::new(ended),
        present,
    };
    let sink = ChannelSink::new(end.outgoing, is_cut);
    let incoming = end.incoming;
    connection.start(flow, Box::new(sink), move |writer_ended| {
        next_in_process(&incoming, writer_ended).map(received_in_process)
    })
}

/// Waits for what a client in this program sends; nothing more when either end is gone.
fn next_in_process(incoming: &Receiver<ToServer>, writer_ended: &Receiver<()>) -> Option<ToServer> {
    loop {
        if writer_ended.try_recv() == Err(TryRecvError::Disconnected) {
            return None;
        }
        match incoming.try_recv() {
            Ok(message) => return Some(message),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        let mut select = Select::new();
        select.recv(incoming);
        select.recv(writer_ended);
        select.ready();
    }
}

fn received_in_process(message: ToServer) -> Received {
    match message {
        ToServer::Request {
            id,
            method,
            params,
            bulk,
            raw,
        } => Received::Request {
            id,
            method,
            params: Params::in_process(params, bulk, raw),
        },
        ToServer::Notification { method, params } => Received::Notification {
            method,
            params: Params::in_process(params, None, false),
        },
        ToServer::Answer(_) => Received::Answer,
    }
}

/// What the threads of a connection share.
pub(super) struct Connection {
    pub(super) server: Arc<Server>,
    pub(super) outbox: Arc<Outbox>,
    /// How long the session lives on after the connection.
    pub(super) session_ttl: Duration,
    /// How long what was received before the end may take.
    pub(super) drain_limit: Duration,
    /// Called once the connection is over.
    pub(super) ended: Box<dyn Fn() + Send>,
    /// Counts it.
    pub(super) present: Present,
}

impl Connection {
    /// What is to read for this connection, and what the dispatcher gets of it.
    pub(super) fn reader(&self) -> (Reader, impl FnMut(&Receiver<()>) -> Option<Received> + Send + 'static) {
        let (to_dispatcher, received) = bounded(QUEUED_MESSAGES);
        let reader = Reader {
            to_dispatcher,
            outbox: self.outbox.clone(),
            gate: Gate::new(self.server.config.max_unfinished_bytes),
            limits: self.server.config.message,
        };
        (reader, move |_: &Receiver<()>| received.recv().ok())
    }

    /// Starts the writer, and the dispatcher with what `next` waits for. That is given a channel that closes when the
    /// writer has ended.
    pub(super) fn start(
        self,
        flow: Outflow,
        sink: Box<dyn Sink>,
        next: impl FnMut(&Receiver<()>) -> Option<Received> + Send + 'static,
    ) -> io::Result<()> {
        let (writer_done, writer_ended) = bounded::<()>(0);
        let writer = Writer::new(sink, self.outbox.clone(), flow, self.server.config.quantum_bytes);
        let outbox = self.outbox.clone();
        self.server.outboxes().insert(outbox.id(), outbox.clone());
        let writing = self.server.writers.enter(usize::MAX);
        spawn("writer", move || {
            let result = writer.run();
            drop((writer_done, writing));
            if let Err(e) = result {
                debug!("failed to write to a client: {e}");
                outbox.cut();
            }
        })?;
        let next = Box::new(next);
        spawn("dispatcher", move || self.dispatch(next, &writer_ended))
    }

    /// Carries out what comes in, and then ends the connection.
    fn dispatch(self, mut next: Next, writer_ended: &Receiver<()>) {
        let mut dispatcher = Dispatcher::new(self.server.clone(), self.outbox.clone());
        let violation = dispatcher.run(&mut std::iter::from_fn(|| next(writer_ended)));
        let session = dispatcher.session();
        let session_ttl = if dispatcher.can_be_resumed() {
            self.session_ttl
        } else {
            Duration::ZERO
        };
        if violation.is_none() && !self.drain_limit.is_zero() {
            self.outbox.wait_answered(self.drain_limit);
        }
        dispatcher.end();
        match violation {
            Some((code, reason)) => self.outbox.close(code, &reason),
            None => self.outbox.finish(),
        }
        let detach = || {
            if let Some(session) = &session {
                session.detach(&self.outbox, &self.server, session_ttl);
            }
        };
        // One that can come back finds its session free at once; for one that can't, the output comes first.
        if !session_ttl.is_zero() {
            detach();
        }
        let _ = writer_ended.recv_timeout(self.server.config.drain_limit);
        detach();
        self.server.outboxes().remove(&self.outbox.id());
        let Connection {
            server, present, ended, ..
        } = self;
        // All that is left of it, so that whoever is told can rely on that.
        drop((next, dispatcher, session, present, server));
        ended();
    }
}

/// The thread that reads.
pub(super) struct Reader {
    to_dispatcher: Sender<Received>,
    outbox: Arc<Outbox>,
    gate: Arc<Gate>,
    limits: message::Limits,
}

impl Reader {
    /// Reads until nothing more comes or nobody takes it.
    pub(super) fn run(self, mut source: impl Source) {
        loop {
            let received = match source.next() {
                Incoming::Message { text, base64 } => self.parse(&text, base64, source.describe()),
                Incoming::Refused(reason) => Err(format!("failed to read {}: {reason}", source.describe())),
                Incoming::Ended(Ended::ByPeer) => return,
                Incoming::Ended(Ended::Violation { code, reason }) => {
                    let _ = self.to_dispatcher.send(Received::Violation { code, reason });
                    return;
                }
            };
            match received {
                Err(complaint) => self.outbox.complain(&RpcError::invalid_request(complaint)),
                Ok(received) => {
                    if self.to_dispatcher.send(received).is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn parse(&self, text: &Bytes, base64: Range<usize>, kind: &str) -> Result<Received, String> {
        let permit = self.gate.admit(text.len());
        let parsed = message::parse_with_bulk(text, base64, &self.limits);
        let (message, bulk) = parsed.map_err(|e| format!("failed to parse {kind}: {e}"))?;
        Ok(match message {
            Message::Request { id, method, params } => {
                let params = Params::of_message(text, params, bulk, permit);
                Received::Request {
                    id,
                    method: method.into(),
                    params,
                }
            }
            Message::Notification { method, params } => Received::Notification {
                method: method.into(),
                params: Params::of_message(text, params, bulk, permit),
            },
            Message::Response { .. } | Message::Error { .. } => Received::Answer,
        })
    }
}

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::start(name, STACK_BYTES, Box::new(run)).map(drop)
}
