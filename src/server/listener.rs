//! WebSocket clients: from the listening socket to the upgraded connection.

use super::Server;
use super::connection::{Connection, spawn};
use super::outbox::Outbox;
use super::reader::Reader;
use super::stream_sink::StreamSink;
use crate::process::Audience;
use crate::sys::defect;
use crate::transport::auth::{Authorizer, Identity};
use crate::transport::http::{self, Verdict};
use crate::transport::outlet::Outlet;
use crate::transport::websocket::WebSocketSource;
use crate::transport::{Framing, log_end};
use log::{debug, error, info, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A socket that WebSocket clients connect to.
pub struct WebSocketListener {
    listener: TcpListener,
    authorizer: Arc<Authorizer>,
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
        loop {
            let mut waiting = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            let accepted = match poll(&mut waiting, PollTimeout::NONE) {
                Ok(_) => self.listener.accept(),
                Err(e) => Err(e.into()),
            };
            match accepted {
                Ok((stream, peer)) => {
                    let admitted = catch_unwind(AssertUnwindSafe(|| self.admit(server, stream, peer)));
                    if admitted.is_err() {
                        error!("client {peer} is turned away: a defect of the server");
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

    fn admit(&self, server: &Arc<Server>, mut stream: TcpStream, peer: SocketAddr) {
        let Some(present) = server.connections.enter(server.config.max_connections) else {
            warn!(
                "client {peer} is turned away: {} connections are open",
                server.config.max_connections
            );
            let _ = stream.set_write_timeout(Some(Duration::from_millis(1)));
            let _ =
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        };
        defect::point("listener", || {
            self.listener
                .local_addr()
                .map_or_else(|_| String::new(), |address| address.port().to_string())
        });
        let (server, authorizer) = (server.clone(), self.authorizer.clone());
        let outcome = spawn("reader", move || {
            let upgraded = match upgrade(&mut stream, &authorizer, server.config.upgrade_timeout) {
                Ok(Some((early, identity))) => start(&server, stream, early, identity, present),
                Ok(None) => return,
                Err(e) => Err(e),
            };
            if let Err(e) = upgraded {
                log_end(&format!("client {peer} did not become a WebSocket"), &e);
            }
        });
        if let Err(e) = outcome {
            error!("client {peer} is turned away: {e}");
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

/// Answers the HTTP request. If it becomes a WebSocket, returns what has come after it, and who has sent it.
fn upgrade(
    stream: &mut TcpStream,
    authorizer: &Authorizer,
    limit: Duration,
) -> io::Result<Option<(Vec<u8>, Identity)>> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(limit))?;
    let deadline = Instant::now() + limit;
    let mut head = Vec::new();
    loop {
        match http::examine(&head, authorizer) {
            Verdict::Upgrade {
                accept,
                identity,
                head_len,
            } => {
                stream.write_all(&http::upgrade_response(&accept))?;
                stream.set_read_timeout(None)?;
                stream.set_write_timeout(None)?;
                return Ok(Some((head.split_off(head_len), identity)));
            }
            Verdict::Respond(response) => {
                stream.write_all(&response)?;
                linger(stream, deadline);
                return Ok(None);
            }
            Verdict::Incomplete => {}
        }
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
    }
}

/// Waits for the client to close after a response: closing with something unread would reset the connection, and the
/// response might never be seen.
fn linger(stream: &mut TcpStream, deadline: Instant) {
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
fn start(
    server: &Arc<Server>,
    stream: TcpStream,
    early: Vec<u8>,
    identity: Identity,
    present: super::Present,
) -> io::Result<()> {
    // What is in flight when the connection is cut must be less than what is retained.
    setsockopt(&stream, sockopt::SndBuf, &server.config.socket_send_bytes)?;
    let socket = Arc::new(stream);
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
        drain_limit: Duration::ZERO,
        ended: close_later(server, &socket),
        present,
    };
    let output = Outlet::Tcp(socket.clone());
    let sink = StreamSink::new(output, Framing::WebSocket, server.config.batch_bytes);
    let (conversation, writer) = connection.open(flow, bell, Box::new(sink))?;
    server.keep_alive(&outbox);
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
                info!("a client is silent for {:?}: its connection is cut", outbox.silence());
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
                    "client {} is silent and its session is wanted: its connection is cut",
                    outbox.id()
                );
                outbox.cut();
            }
            outbox.end_probe();
        });
    }
}
