//! From a connected socket to a connection that is served: what its client wants to speak, and whether it is let in.

use super::connection::{Connection, spawn};
use super::outbox::Outbox;
use super::reader::Reader;
use super::stream_sink::StreamSink;
use super::{Present, Server};
use crate::metrics;
use crate::protocol::error::RpcError;
use crate::protocol::message;
use crate::transport::address::{Address, StreamSocket};
use crate::transport::admission::{Admission, Peer};
use crate::transport::auth::{Authorizer, Identity};
use crate::transport::http::{self, Verdict};
use crate::transport::outlet::Outlet;
use crate::transport::stdio::LineSource;
use crate::transport::websocket::WebSocketSource;
use crate::transport::{Framing, Source, log_end};
use log::warn;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, Cursor, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client that has connected.
pub(super) struct Arrival {
    server: Arc<Server>,
    stream: Arc<StreamSocket>,
    is_tcp: bool,
    peer: Peer,
    admission: Arc<Admission>,
    /// Called when it is gone. Nobody can resume its session then.
    ended: Option<Ended>,
}

type Ended = Box<dyn Fn() + Send + Sync>;

/// Calls what is to be called at the end, when the last part of the connection is gone.
struct Over(Ended);

impl Drop for Over {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Arrival {
    /// One that has come to `address`.
    pub(super) fn new(
        server: &Arc<Server>,
        stream: StreamSocket,
        address: &Address,
        admission: Arc<Admission>,
        ended: Option<Ended>,
    ) -> Arrival {
        Arrival {
            server: server.clone(),
            peer: admission.examine(&stream, address),
            stream: Arc::new(stream),
            is_tcp: matches!(address, Address::Tcp(_)),
            admission,
            ended,
        }
    }

    /// Serves it, if it is let in, on threads of its own.
    pub(super) fn receive(self) -> io::Result<()> {
        let (server, stream) = (self.server.clone(), self.stream.clone());
        server.handshakes.enter(&stream, server.config.max_handshakes);
        let spawned = spawn("reader", move || self.serve());
        if spawned.is_err() {
            server.handshakes.leave(&stream);
        }
        spawned
    }

    fn serve(mut self) {
        let over = self.ended.take().map(|ended| Arc::new(Over(ended)));
        let admitted = self.admit();
        self.server.handshakes.leave(&self.stream);
        let outcome = admitted.and_then(|admitted| match admitted {
            Some(admitted) => start(&self.server, self.stream, admitted, over),
            None => Ok(()),
        });
        if let Err(e) = outcome {
            log_end(&format!("client {} was not served", self.peer.name), &e);
        }
    }
}

/// The status for whoever there is no room for.
const UNAVAILABLE: &str = "503 Service Unavailable";

/// A client that is let in.
struct Admitted {
    framing: Framing,
    /// What has come after the request, or all that has come.
    early: Vec<u8>,
    /// Who has sent it.
    identity: Identity,
    present: Present,
}

/// What is to be done about what has come.
enum Opening {
    /// It is an HTTP request and gets this answer, after which the client speaks WebSocket.
    Upgrade(Vec<u8>, Identity),
    /// It is the first message, a line.
    Lines,
    /// Nothing but this answer.
    Refused(Vec<u8>),
}

impl Arrival {
    /// Answers an HTTP request, if there is one; `None` if that was all.
    fn admit(&self) -> io::Result<Option<Admitted>> {
        let limit = self.server.config.upgrade_timeout;
        let deadline = Instant::now() + limit;
        let examined = self.examine(limit, deadline);
        let mut output = &*self.stream;
        let (opening, early) = match examined {
            // Those that are turned away count until they are gone.
            _ if !self.server.handshakes.has(&self.stream) => {
                let text = "too many connections without a complete request";
                output.write_all(&http::refusal(UNAVAILABLE, text))?;
                return Ok(None);
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                metrics::limit_met("upgrade-timeout");
                let response = http::refusal("408 Request Timeout", "the request did not come in time");
                (Opening::Refused(response), Vec::new())
            }
            examined => examined?,
        };
        let (framing, answer, identity) = match opening {
            Opening::Upgrade(answer, identity) => (Framing::WebSocket, answer, identity),
            Opening::Lines => (Framing::Lines, Vec::new(), Identity::default()),
            Opening::Refused(response) => return self.refuse(&response, deadline),
        };
        let limit = self.server.config.max_connections;
        let Some(present) = self.server.connections.enter(limit) else {
            let text = format!("too many connections: the server has its limit of {limit}");
            metrics::limit_met("max-connections");
            warn!("a client is turned away: {text}");
            let response = match framing {
                Framing::WebSocket => http::refusal(UNAVAILABLE, &text),
                _ => line(&RpcError::internal(text)),
            };
            return self.refuse(&response, deadline);
        };
        self.server.handshakes.leave(&self.stream);
        output.write_all(&answer)?;
        self.stream.set_read_timeout(None)?;
        self.stream.set_write_timeout(None)?;
        Ok(Some(Admitted {
            framing,
            early,
            identity,
            present,
        }))
    }

    /// Reads until it is clear what to do, and returns that with what is to be read again.
    fn examine(&self, limit: Duration, deadline: Instant) -> io::Result<(Opening, Vec<u8>)> {
        let mut stream = &*self.stream;
        if self.is_tcp {
            stream.set_nodelay(true)?;
        }
        stream.set_write_timeout(Some(limit))?;
        let mut head = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            let mut piece = [0; 2048];
            match stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => head.extend_from_slice(&piece[..n]),
                // A server that was stopped and continued: reads with a time limit are not taken up again by themselves.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            // An HTTP request begins with neither.
            if self.peer.speaks_lines && matches!(head[0], b'{' | b' ' | b'\t' | b'\r' | b'\n') {
                return Ok((self.examine_lines(), head));
            }
            if let Some(text) = &self.peer.stranger {
                return Ok((Opening::Refused(http::refusal("403 Forbidden", text)), head));
            }
            match http::examine_for(&head, &self.admission.authorizer, &*self.server) {
                Verdict::Incomplete => {}
                Verdict::Respond(response) => return Ok((Opening::Refused(response), head)),
                Verdict::Upgrade {
                    accept,
                    identity,
                    head_len,
                } => {
                    let early = head.split_off(head_len);
                    return Ok((Opening::Upgrade(http::upgrade_response(&accept), identity), early));
                }
            }
        }
    }

    fn examine_lines(&self) -> Opening {
        let refused = |text: &str| Opening::Refused(line(&RpcError::invalid_request(text)));
        match (&self.peer.stranger, &self.admission.authorizer) {
            (Some(text), _) => refused(text),
            (None, Authorizer::None) => Opening::Lines,
            _ => refused("a token is wanted, which only a WebSocket client can present"),
        }
    }

    /// Answers, and waits for the client to close: closing with something unread would reset the connection, and the
    /// response might never be seen.
    fn refuse(&self, response: &[u8], deadline: Instant) -> io::Result<Option<Admitted>> {
        let mut stream = &*self.stream;
        stream.write_all(response)?;
        let now = Instant::now();
        let deadline = deadline.clamp(now + Duration::from_millis(100), now + Duration::from_secs(1));
        let mut rest = [0; 2048];
        let _ = stream.shutdown(Shutdown::Write);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
                return Ok(None);
            }
            if !matches!(stream.read(&mut rest), Ok(1..)) {
                return Ok(None);
            }
        }
    }
}

/// An error for a client that speaks lines, in answer to no particular request.
fn line(error: &RpcError) -> Vec<u8> {
    let mut line = Vec::new();
    message::write_error(&mut line, None, error);
    line.push(b'\n');
    line
}

/// Runs a connection; returns when nothing more comes in.
fn start(
    server: &Arc<Server>,
    socket: Arc<StreamSocket>,
    admitted: Admitted,
    over: Option<Arc<Over>>,
) -> io::Result<()> {
    let Admitted {
        framing,
        early,
        identity,
        present,
    } = admitted;
    let config = &server.config;
    let is_websocket = framing == Framing::WebSocket;
    // What is in flight when the connection is cut must be less than what is retained.
    setsockopt(&socket, sockopt::SndBuf, &config.socket_send_bytes)?;
    let cut = socket.clone();
    let (outbox, flow, bell) = Outbox::new(
        config,
        is_websocket,
        Box::new(move || drop(cut.shutdown(Shutdown::Both))),
    );
    let (max_bytes, memory) = (config.max_message_bytes, server.memory.clone());
    let input = SharedSocket(socket.clone(), (!is_websocket).then(|| outbox.clone()));
    let source: Box<dyn Source> = if is_websocket {
        let source = WebSocketSource::new(input, early, max_bytes, memory, outbox.clone());
        Box::new(source)
    } else {
        let input: Box<dyn Read + Send> = Box::new(Cursor::new(early).chain(input));
        Box::new(LineSource::new(input, max_bytes, memory).called("JSON-RPC message from exec-server socket"))
    };
    let connection = Connection {
        server: server.clone(),
        outbox: outbox.clone(),
        identity,
        session_ttl: match over {
            Some(_) => Duration::ZERO,
            None => config.session_ttl,
        },
        drain_limit: config.drain_limit,
        ended: close_later(server, &socket, over.clone()),
        present,
    };
    let output = Outlet::Shared(socket.clone());
    let sink = StreamSink::new(output, framing, config.batch_bytes);
    let (conversation, writer) = connection.open(flow, bell, Box::new(sink))?;
    if is_websocket {
        server.keep_alive(&outbox);
    }
    server.expect_session(&outbox);
    drop(outbox);
    Reader::new(conversation, writer).run(source);
    discard(&socket);
    Ok(())
}

/// The socket, to be read from. With an outbox, that one is told when the other side is gone altogether, and not only
/// done with sending.
struct SharedSocket(Arc<StreamSocket>, Option<Arc<Outbox>>);

impl Read for SharedSocket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let n = (&*self.0).read(room)?;
        if let (0, Some(outbox)) = (n, &self.1) {
            let mut hung_up = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
            if poll(&mut hung_up, PollTimeout::ZERO).is_ok_and(|n| n > 0) {
                outbox.cut();
            }
        }
        Ok(n)
    }
}

/// Lets the client know that nothing more comes, and cuts it off if it then goes on for long. To close at once, with
/// something unread, would reset the connection, and the client might never see the close frame.
fn close_later(server: &Server, socket: &Arc<StreamSocket>, over: Option<Arc<Over>>) -> Box<dyn Fn() + Send> {
    let (socket, janitor, limit) = (
        Arc::downgrade(socket),
        server.janitor.clone(),
        server.config.drain_limit,
    );
    Box::new(move || {
        // Gone with this, or after it.
        let _over = &over;
        let Some(open) = socket.upgrade() else { return };
        let _ = open.shutdown(Shutdown::Write);
        let socket = socket.clone();
        janitor.after(limit, move || {
            if let Some(open) = socket.upgrade() {
                let _ = open.shutdown(Shutdown::Both);
            }
        });
    })
}

/// Reads until the client has closed or is cut off.
fn discard(mut socket: &StreamSocket) {
    let mut rest = [0; 4096];
    loop {
        match socket.read(&mut rest) {
            Ok(1..) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}
