//! The threads of one connection, from its first message to its last.

use super::dispatcher::Dispatcher;
use super::gate::{Gate, Permit};
use super::outbox::{Outbox, Outflow};
use super::writer::Writer;
use super::{Present, Server};
use crate::protocol::error::RpcError;
use crate::protocol::message::{self, Bulk, Message, RequestId};
use crate::transport::stdio::LineSource;
use crate::transport::{Ended, Framing, Incoming, Source};
use crossbeam_channel::{Receiver, Sender, bounded};
use log::debug;
use std::io::{self, Read, Write};
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

/// The parameters of a request: JSON text that was checked and not yet decoded.
pub(super) struct Params {
    text: Option<Bytes>,
    /// The one long string that was taken out of the text, where an empty one stands for it, and its key.
    bulk: Option<(&'static str, Bytes)>,
    /// Counts the memory of a large message while its request is carried out.
    _permit: Option<Permit>,
}

impl Params {
    fn new(message: &Bytes, text: Option<&str>, bulk: Option<Bulk<'_>>, permit: Option<Permit>) -> Params {
        let Some((text, bulk)) = text.zip(bulk) else {
            let text = text.map(|text| message.slice_ref(text.as_bytes()));
            return Params {
                text,
                bulk: None,
                _permit: permit,
            };
        };
        let start = bulk.text.as_ptr() as usize - text.as_ptr() as usize;
        let without = [&text.as_bytes()[..start], &text.as_bytes()[start + bulk.text.len()..]].concat();
        let bulk = (bulk.key, message.slice_ref(bulk.text.as_bytes()));
        Params {
            text: Some(without.into()),
            bulk: Some(bulk),
            _permit: permit,
        }
    }

    /// The text; `null` if there were none.
    pub(super) fn as_json(&self) -> &[u8] {
        self.text.as_deref().unwrap_or(b"null")
    }

    /// The base64 that was decoded for `key`, or what was taken out in its place.
    pub(super) fn base64<'a>(&'a self, key: &str, decoded: &'a str) -> &'a [u8] {
        match &self.bulk {
            Some((bulk_key, bulk)) if *bulk_key == key => bulk,
            _ => decoded.as_bytes(),
        }
    }
}

/// See [`Server::serve_lines`].
pub(super) fn serve_lines(
    server: &Arc<Server>,
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
    ended: Arc<dyn Fn() + Send + Sync>,
) -> io::Result<()> {
    let on_broken = ended.clone();
    let (outbox, flow) = Outbox::new(&server.config, false, Box::new(move || on_broken()));
    let source = LineSource::new(input, server.config.max_message_bytes);
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
    let reader = connection.start(flow, output, Framing::Lines)?;
    spawn("reader", move || reader.run(source))
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
    /// Starts the dispatcher and the writer, and returns what the reader is to do.
    pub(super) fn start(
        self,
        flow: Outflow,
        output: impl Write + Send + 'static,
        framing: Framing,
    ) -> io::Result<Reader> {
        let (to_dispatcher, received) = bounded(QUEUED_MESSAGES);
        let (writer_done, writer_ended) = bounded::<()>(0);
        let writer = Writer::new(output, framing, self.outbox.clone(), flow, &self.server.config);
        let outbox = self.outbox.clone();
        let config = self.server.config.clone();
        self.server
            .outboxes()
            .insert(crate::process::Audience::id(&*outbox), outbox.clone());
        let writing = self.server.writers.enter(usize::MAX);
        spawn("writer", {
            let outbox = outbox.clone();
            move || {
                let result = writer.run();
                drop((writer_done, writing));
                if let Err(e) = result {
                    debug!("failed to write to a client: {e}");
                    outbox.cut();
                }
            }
        })?;
        let reader = Reader {
            to_dispatcher,
            outbox,
            gate: Gate::new(config.max_unfinished_bytes),
            limits: config.message,
        };
        spawn("dispatcher", move || self.dispatch(&received, &writer_ended))?;
        Ok(reader)
    }

    /// Carries out what comes in, and then ends the connection.
    fn dispatch(self, received: &Receiver<Received>, writer_ended: &Receiver<()>) {
        let mut dispatcher = Dispatcher::new(self.server.clone(), self.outbox.clone());
        let violation = dispatcher.run(received);
        let session = dispatcher.session();
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
                session.detach(&self.outbox, &self.server, self.session_ttl);
            }
        };
        // One that can come back finds its session free at once; for one that can't, the output comes first.
        if !self.session_ttl.is_zero() {
            detach();
        }
        let _ = writer_ended.recv_timeout(self.server.config.drain_limit);
        detach();
        self.server
            .outboxes()
            .remove(&crate::process::Audience::id(&*self.outbox));
        drop(self.present);
        (self.ended)();
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
                Incoming::Message(text) => self.parse(&text, source.describe()),
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

    fn parse(&self, text: &Bytes, kind: &str) -> Result<Received, String> {
        let permit = self.gate.admit(text.len());
        let parsed = message::parse_with_bulk(text, &self.limits);
        let (message, bulk) = parsed.map_err(|e| format!("failed to parse {kind}: {e}"))?;
        Ok(match message {
            Message::Request { id, method, params } => {
                let params = Params::new(text, params, bulk, permit);
                Received::Request {
                    id,
                    method: method.into(),
                    params,
                }
            }
            Message::Notification { method, params } => Received::Notification {
                method: method.into(),
                params: Params::new(text, params, bulk, permit),
            },
            Message::Response { .. } | Message::Error { .. } => Received::Answer,
        })
    }
}

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map(drop)
}
