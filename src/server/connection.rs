//! The threads of one connection, from its first message to its last.

use super::channel_sink::ChannelSink;
use super::dispatcher::{Dispatcher, Violation};
use super::outbox::{Outbox, Outflow};
use super::params::Params;
use super::reader::Reader;
use super::stream_sink::StreamSink;
use super::writer::{SharedWriter, Sink};
use super::{Present, Server};
use crate::metrics::{self, Count};
use crate::process::Audience;
use crate::protocol::error::RpcError;
use crate::protocol::message::RequestId;
use crate::sys::thread;
use crate::transport::auth::Identity;
use crate::transport::memory::{ServerEnd, ToServer};
use crate::transport::outlet::Outlet;
use crate::transport::stdio::LineSource;
use crate::transport::{Framing, log_end};
use crossbeam_channel::{Receiver, Select, TryRecvError, bounded};
use log::{debug, error};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// The stacks of a connection's threads. The deepest they go is a message of the deepest nesting: 64 KiB, and several
/// times that without optimization.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 1024 } else { 256 } * 1024;

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

/// See [`Server::serve_lines`].
pub(super) fn serve_lines(
    server: &Arc<Server>,
    input: impl Read + Send + 'static,
    output: Outlet,
    ended: Arc<dyn Fn() + Send + Sync>,
) -> io::Result<()> {
    let on_broken = ended.clone();
    let (outbox, flow, bell) = Outbox::new(&server.config, false, Box::new(move || on_broken()));
    // One kind of line source is enough.
    let input: Box<dyn Read + Send> = Box::new(input);
    let source = LineSource::new(input, server.config.max_message_bytes, server.memory.clone());
    let Some(present) = server.connections.enter(usize::MAX) else {
        return Ok(());
    };
    let connection = Connection {
        server: server.clone(),
        outbox,
        identity: Identity::default(),
        session_ttl: Duration::ZERO,
        drain_limit: server.config.drain_limit,
        ended: Box::new(move || ended()),
        present,
    };
    let sink = StreamSink::new(output, Framing::Lines, server.config.batch_bytes);
    let (conversation, writer) = connection.open(flow, bell, Box::new(sink))?;
    spawn("reader", move || {
        Reader::new(conversation, writer).run(Box::new(source))
    })
}

/// See [`Server::serve_memory`].
pub(super) fn serve_memory(server: &Arc<Server>, end: ServerEnd, ended: impl Fn() + Send + 'static) -> io::Result<()> {
    let (cut, is_cut) = bounded(1);
    let (outbox, flow, bell) = Outbox::new(
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
        identity: Identity::default(),
        session_ttl: Duration::ZERO,
        // Whoever would read the answers is gone.
        drain_limit: Duration::ZERO,
        ended: Box::new(ended),
        present,
    };
    let sink = ChannelSink::new(end.outgoing, is_cut);
    let incoming = end.incoming;
    let (mut conversation, _) = connection.open(flow, bell, Box::new(sink))?;
    spawn("dispatcher", move || {
        while let Some(message) = next_in_process(&incoming, &conversation.writer_ended) {
            if !conversation.carry_out(received_in_process(message)) {
                break;
            }
        }
        drop(incoming);
        conversation.end();
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

/// What a connection has beside its messages.
pub(super) struct Connection {
    pub(super) server: Arc<Server>,
    pub(super) outbox: Arc<Outbox>,
    /// Who the client is.
    pub(super) identity: Identity,
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
    /// Starts the writer, and a conversation.
    pub(super) fn open(
        self,
        flow: Outflow,
        bell: Receiver<()>,
        sink: Box<dyn Sink>,
    ) -> io::Result<(Conversation, SharedWriter)> {
        metrics::add(Count::Connections, 1);
        debug!(conn = self.outbox.id(); "connection {} is open", self.outbox.id());
        let (writer_done, writer_ended) = bounded::<()>(0);
        let writer = SharedWriter::new(sink, self.outbox.clone(), flow, self.server.config.quantum_bytes);
        self.server.outboxes().insert(self.outbox.id(), self.outbox.clone());
        let registered = Registered(self.server.clone(), self.outbox.clone());
        let writing = self.server.writers.enter(usize::MAX);
        let (shared, outbox) = (writer.clone(), self.outbox.clone());
        spawn("writer", move || {
            let result = catch_unwind(AssertUnwindSafe(|| shared.run(&bell)));
            drop((writer_done, writing));
            match result {
                Ok(Ok(())) => return,
                Ok(Err(e)) => log_end("failed to write to a client", &e),
                Err(_) => {
                    error!(conn = outbox.id(); "writing to a client failed in an unforeseen way; its connection is cut")
                }
            }
            outbox.cut();
        })?;
        let dispatcher = Dispatcher::new(self.server.clone(), self.outbox.clone(), self.identity.clone());
        let conversation = Conversation {
            connection: self,
            registered,
            dispatcher,
            violation: None,
            writer_ended,
        };
        Ok((conversation, writer))
    }
}

/// A connection, from its first message to its last.
pub(super) struct Conversation {
    pub(super) connection: Connection,
    registered: Registered,
    dispatcher: Dispatcher,
    /// Why it cannot go on.
    violation: Option<Violation>,
    /// Closes when the writer has ended.
    writer_ended: Receiver<()>,
}

impl Conversation {
    /// Carries out what was received. False if it makes no sense to go on after that. A defect concerns only this message:
    /// the responder of a request answers it when it is dropped.
    pub(super) fn carry_out(&mut self, received: Received) -> bool {
        let is_request = matches!(received, Received::Request { .. });
        let outcome = catch_unwind(AssertUnwindSafe(|| self.dispatcher.carry_out(received)));
        self.violation = outcome
            .unwrap_or_else(|_| {
                error!(conn = self.connection.outbox.id(); "a message could not be carried out: a defect of the server");
                if !is_request {
                    let error = RpcError::internal("the server has failed in an unforeseen way");
                    self.connection.outbox.complain(&error);
                }
                Ok(())
            })
            .err();
        self.violation.is_none()
    }

    /// Whether it was broken off from here.
    pub(super) fn is_broken_off(&self) -> bool {
        self.violation.is_some()
    }

    /// Ends the connection.
    pub(super) fn end(mut self) {
        let connection = &self.connection;
        let (server, outbox) = (&connection.server, &connection.outbox);
        let session = self.dispatcher.session();
        let session_ttl = if self.dispatcher.can_be_resumed() {
            connection.session_ttl
        } else {
            Duration::ZERO
        };
        // From now on its session is free for whoever wants it, though it may get more.
        outbox.set_ending();
        if self.violation.is_none() && !connection.drain_limit.is_zero() {
            outbox.wait_answered(connection.drain_limit);
        }
        self.dispatcher.end();
        match &self.violation {
            Some((code, reason)) => outbox.close(*code, reason),
            None => outbox.finish(),
        }
        let detach = || {
            if let Some(session) = &session {
                session.detach(outbox, server, session_ttl);
            }
        };
        // One that can come back finds its session free at once; for one that can't, the output comes first.
        if !session_ttl.is_zero() {
            detach();
        }
        let _ = self.writer_ended.recv_timeout(server.config.drain_limit);
        detach();
        let Connection {
            server,
            outbox,
            present,
            ended,
            ..
        } = self.connection;
        debug!(conn = outbox.id(); "connection {} is over", outbox.id());
        // All that is left of it, so that whoever is told can rely on that.
        drop((self.dispatcher, session, self.registered, present, outbox, server));
        ended();
    }
}

/// A connection whose outbox the server knows. When it is over, or has come to nothing, its writer ends; and if that is
/// because of a panic, it is cut.
struct Registered(Arc<Server>, Arc<Outbox>);

impl Drop for Registered {
    fn drop(&mut self) {
        let Registered(server, outbox) = self;
        server.outboxes().remove(&outbox.id());
        outbox.finish();
        outbox.ring();
        if std::thread::panicking() {
            outbox.cut();
        }
    }
}

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let started = thread::start(name, STACK_BYTES, Box::new(run)).map(drop);
    started.map_err(|e| io::Error::other(format!("failed to start a thread: {e}")))
}
