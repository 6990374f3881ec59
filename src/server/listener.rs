//! WebSocket clients: from the listening socket to the upgraded connection.

use super::connection::{Connection, spawn};
use super::outbox::Outbox;
use super::reader::Reader;
use super::stream_sink::StreamSink;
use super::{Present, Server};
use crate::metrics;
use crate::process::Audience;
use crate::sys::defect;
use crate::transport::auth::{Authorizer, Identity};
use crate::transport::http::{self, Pages, Verdict};
use crate::transport::outlet::Outlet;
use crate::transport::websocket::WebSocketSource;
use crate::transport::{Framing, log_end};
use log::{debug, error, info, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A socket that WebSocket clients connect to.
pub struct WebSocketListener {
    listener: TcpListener,
    authorizer: Arc<Authorizer>,
    handshakes: Arc<Handshakes>,
}

/// Connections whose HTTP request is not complete, the oldest in front.
#[derive(Default)]
struct Handshakes(Mutex<VecDeque<Arc<TcpStream>>>);

impl Handshakes {
    /// One more; above `limit`, the oldest goes.
    fn enter(&self, stream: &Arc<TcpStream>, limit: usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= limit
            && let Some(oldest) = all.pop_front()
        {
            metrics::limit_met("max-handshakes");
            // Its thread finds nothing more to read, and says why.
            let _ = oldest.shutdown(Shutdown::Read);
        }
        all.push_back(stream.clone());
    }

    /// Whether it did not have to go.
    fn has(&self, stream: &Arc<TcpStream>) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|other| Arc::ptr_eq(other, stream))
    }

    /// One less.
    fn leave(&self, stream: &Arc<TcpStream>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| !Arc::ptr_eq(other, stream));
    }
}

impl WebSocketListener {
    /// Listens on `address`. What clients must present is for the caller to choose; nothing is only safe on loopback.
    ///
    /// # Errors
    /// What the system said, such as that the address is in use.
    pub fn bind(address: SocketAddr, authorizer: Authorizer) -> io::Result<WebSocketListener> {
        let listener = TcpListener::bind(address)?;
        // What is waited for is only that somebody is there.
        listener.set_nonblocking(true)?;
        Ok(WebSocketListener {
            listener,
            authorizer: Arc::new(authorizer),
            handshakes: Arc::default(),
        })
    }

    /// The address with the port that was really chosen.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts clients on a thread of its own, for as long as the program runs.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn serve(self, server: Arc<Server>) -> io::Result<()> {
        spawn("listener", move || self.accept(&server))
    }

    fn accept(&self, server: &Arc<Server>) {
        // When there are no descriptors left, this one makes room to accept a client and turn it away; it would stay in
        // the queue otherwise and be offered again at once, for ever.
        let open_spare = || File::open("/dev/null").ok();
        let mut spare = open_spare();
        let beat = server.pulse.beat();
        loop {
            beat.store(true, Ordering::Relaxed);
            let mut waiting = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            let accepted = match poll(&mut waiting, server.pulse.timeout()) {
                Ok(0) => continue,
                Ok(_) => self.listener.accept(),
                Err(e) => Err(e.into()),
            };
            match accepted {
                Ok((stream, peer)) => {
                    let admitted = catch_unwind(AssertUnwindSafe(|| self.admit(server, stream, peer)));
                    if admitted.is_err() {
                        error!(client:% = peer; "client {peer} is turned away: a defect of the server");
                    }
                }
                Err(e) if is_short_of_descriptors(&e) => {
                    warn!("failed to accept a client: {e}");
                    drop(spare);
                    let turned_away = self.listener.accept();
                    spare = open_spare();
                    if turned_away.is_err() || spare.is_none() {
                        std::thread::sleep(AFTER_A_FAILURE);
                    }
                }
                // It has given up before it was accepted, or only the waiting was interrupted.
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) =>
                {
                    debug!("failed to accept a client: {e}");
                }
                // The next one is another matter, but may meet with the same at once.
                Err(e) => {
                    warn!("failed to accept a client: {e}");
                    std::thread::sleep(AFTER_A_FAILURE);
                }
            }
            if spare.is_none() {
                spare = open_spare();
            }
        }
    }

    fn admit(&self, server: &Arc<Server>, stream: TcpStream, peer: SocketAddr) {
        defect::point("listener", || {
            self.listener
                .local_addr()
                .map_or_else(|_| String::new(), |address| address.port().to_string())
        });
        let (server, authorizer, handshakes) = (server.clone(), self.authorizer.clone(), self.handshakes.clone());
        let stream = Arc::new(stream);
        handshakes.enter(&stream, server.config.max_handshakes);
        let waiting = stream.clone();
        let outcome = spawn("reader", move || {
            let upgraded = upgrade(&stream, &authorizer, &handshakes, &server);
            handshakes.leave(&stream);
            let outcome = upgraded.and_then(|upgraded| match upgraded {
                Some(upgraded) => start(&server, stream, upgraded),
                None => Ok(()),
            });
            if let Err(e) = outcome {
                log_end(&format!("client {peer} did not become a WebSocket"), &e);
            }
        });
        if let Err(e) = outcome {
            self.handshakes.leave(&waiting);
            error!(client:% = peer; "client {peer} is turned away: {e}");
        }
    }
}

/// After how long accepting clients is tried again that has failed for a reason that may last.
const AFTER_A_FAILURE: Duration = Duration::from_millis(50);

fn is_short_of_descriptors(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE)
    )
}

/// The status for whoever there is no room for.
const UNAVAILABLE: &str = "503 Service Unavailable";

/// What has become a WebSocket.
struct Upgraded {
    /// What has come after the request.
    early: Vec<u8>,
    /// Who has sent it.
    identity: Identity,
    present: Present,
}

/// Answers the HTTP request; `None` if it does not become a WebSocket.
fn upgrade(
    stream: &Arc<TcpStream>,
    authorizer: &Authorizer,
    handshakes: &Handshakes,
    server: &Server,
) -> io::Result<Option<Upgraded>> {
    let limit = server.config.upgrade_timeout;
    let deadline = Instant::now() + limit;
    let examined = examine(stream, authorizer, server, limit, deadline);
    let mut output = &**stream;
    let response = match examined {
        // Those that are turned away count until they are gone.
        _ if !handshakes.has(stream) => {
            let text = "too many connections without a complete request";
            output.write_all(&http::refusal(UNAVAILABLE, text))?;
            return Ok(None);
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
            metrics::limit_met("upgrade-timeout");
            http::refusal("408 Request Timeout", "the request did not come in time")
        }
        Err(e) => return Err(e),
        Ok((Ok((upgrade, identity)), early)) => {
            let limit = server.config.max_connections;
            if let Some(present) = server.connections.enter(limit) {
                handshakes.leave(stream);
                output.write_all(&upgrade)?;
                stream.set_read_timeout(None)?;
                stream.set_write_timeout(None)?;
                return Ok(Some(Upgraded {
                    early,
                    identity,
                    present,
                }));
            }
            let text = format!("too many connections: the server has its limit of {limit}");
            metrics::limit_met("max-connections");
            warn!("a client is turned away: {text}");
            http::refusal(UNAVAILABLE, &text)
        }
        Ok((Err(response), _)) => response,
    };
    output.write_all(&response)?;
    linger(stream, deadline.max(Instant::now() + Duration::from_millis(100)));
    Ok(None)
}

/// What an HTTP request is answered with: the upgrade, and who it is for, or anything else. And what came behind it.
type Examined = (Result<(Vec<u8>, Identity), Vec<u8>>, Vec<u8>);

/// Reads until it is clear what to do about the HTTP request, and returns that with all that was read.
fn examine(
    mut stream: &TcpStream,
    authorizer: &Authorizer,
    pages: &dyn Pages,
    limit: Duration,
    deadline: Instant,
) -> io::Result<Examined> {
    stream.set_nodelay(true)?;
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
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        match http::examine_for(&head, authorizer, pages) {
            Verdict::Incomplete => {}
            Verdict::Respond(response) => return Ok((Err(response), head)),
            Verdict::Upgrade {
                accept,
                identity,
                head_len,
            } => {
                let early = head.split_off(head_len);
                return Ok((Ok((http::upgrade_response(&accept), identity)), early));
            }
        }
    }
}

/// Waits for the client to close after a response: closing with something unread would reset the connection, and the
/// response might never be seen.
fn linger(mut stream: &TcpStream, deadline: Instant) {
    let deadline = deadline.min(Instant::now() + Duration::from_secs(1));
    let mut rest = [0; 2048];
    let _ = stream.shutdown(Shutdown::Write);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        if !matches!(stream.read(&mut rest), Ok(1..)) {
            return;
        }
    }
}

/// Runs an upgraded connection; returns when nothing more comes in.
fn start(server: &Arc<Server>, socket: Arc<TcpStream>, upgraded: Upgraded) -> io::Result<()> {
    let Upgraded {
        early,
        identity,
        present,
    } = upgraded;
    // What is in flight when the connection is cut must be less than what is retained.
    setsockopt(&socket, sockopt::SndBuf, &server.config.socket_send_bytes)?;
    let cut = socket.clone();
    let (outbox, flow, bell) = Outbox::new(
        &server.config,
        true,
        Box::new(move || drop(cut.shutdown(Shutdown::Both))),
    );
    let max_bytes = server.config.max_message_bytes;
    let source = WebSocketSource::new(
        SharedSocket(socket.clone()),
        early,
        max_bytes,
        server.memory.clone(),
        outbox.clone(),
    );
    let connection = Connection {
        server: server.clone(),
        outbox: outbox.clone(),
        identity,
        session_ttl: server.config.session_ttl,
        drain_limit: server.config.drain_limit,
        ended: close_later(server, &socket),
        present,
    };
    let output = Outlet::Tcp(socket.clone());
    let sink = StreamSink::new(output, Framing::WebSocket, server.config.batch_bytes);
    let (conversation, writer) = connection.open(flow, bell, Box::new(sink))?;
    server.keep_alive(&outbox);
    server.expect_session(&outbox);
    Reader::new(conversation, writer).run(source);
    discard(&socket);
    Ok(())
}

/// The socket, to be read from.
struct SharedSocket(Arc<TcpStream>);

impl Read for SharedSocket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(room)
    }
}

/// Lets the client know that nothing more comes, and cuts it off if it then goes on for long. To close at once, with
/// something unread, would reset the connection, and the client might never see the close frame.
fn close_later(server: &Server, socket: &Arc<TcpStream>) -> Box<dyn Fn() + Send> {
    let (socket, janitor, limit) = (
        Arc::downgrade(socket),
        server.janitor.clone(),
        server.config.drain_limit,
    );
    Box::new(move || {
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
fn discard(mut socket: &TcpStream) {
    let mut rest = [0; 4096];
    loop {
        match socket.read(&mut rest) {
            Ok(1..) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

impl Server {
    /// Turns a client away that is there for no session.
    fn expect_session(&self, outbox: &Arc<Outbox>) {
        let (awaited, janitor) = (Arc::downgrade(outbox), self.janitor.clone());
        let (limit, drain_limit) = (self.config.initialize_timeout, self.config.drain_limit);
        self.janitor.after(limit, move || {
            let Some(outbox) = awaited.upgrade().filter(|outbox| !outbox.has_session()) else {
                return;
            };
            metrics::limit_met("initialize-timeout");
            outbox.close(1008, "there was no initialize in time");
            janitor.after(drain_limit, move || {
                if let Some(outbox) = awaited.upgrade() {
                    outbox.cut();
                }
            });
        });
    }

    /// Pings a client that says nothing for a while, and cuts it off when it says nothing for long.
    fn keep_alive(self: &Arc<Server>, outbox: &Arc<Outbox>) {
        let (server, watched) = (Arc::downgrade(self), Arc::downgrade(outbox));
        let next = self
            .config
            .ping_interval
            .saturating_sub(outbox.silence())
            .max(self.config.ping_interval / 2);
        self.janitor.after(next, move || {
            let (Some(server), Some(outbox)) = (server.upgrade(), watched.upgrade()) else {
                return;
            };
            if outbox.silence() >= server.config.silence_limit {
                metrics::limit_met("silence-limit");
                info!(conn = outbox.id(); "a client is silent for {:?}: its connection is cut", outbox.silence());
                return outbox.cut();
            }
            if outbox.silence() >= server.config.ping_interval {
                outbox.ping();
            }
            server.keep_alive(&outbox);
        });
    }

    /// Finds out whether the client is still there whose session another one wants; if it says nothing, it is cut off,
    /// and its session can be resumed.
    pub(super) fn probe(self: &Arc<Server>, outbox: &Arc<Outbox>) {
        if !outbox.begin_probe() {
            return;
        }
        outbox.ping();
        let probed = Arc::downgrade(outbox);
        let limit = self.config.probe_limit;
        self.janitor.after(limit, move || {
            let Some(outbox) = probed.upgrade() else { return };
            if outbox.silence() >= limit {
                info!(
                    conn = outbox.id();
                    "client {} is silent and its session is wanted: its connection is cut",
                    outbox.id()
                );
                outbox.cut();
            }
            outbox.end_probe();
        });
    }
}
