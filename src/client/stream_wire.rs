//! Sending over a socket or a pipe.

use super::lock;
use super::outgoing::Outgoing;
use super::posted::{Posted, PostedMessage, ack_message};
use crate::protocol::bytes;
use crate::sys::random;
use crate::transport::address::StreamSocket;
use crate::transport::frame_splitter::{mask, masked_header};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, send};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// Bytes of input that are encoded at a time; a multiple of three, so that base64 can be put together from pieces.
const PIECE_BYTES: usize = 48 * 1024;

/// What is written in one go: two such pieces in base64.
const BATCH_BYTES: usize = 128 * 1024;

/// Memory that is kept for the next message.
const KEPT_BYTES: usize = 16 * 1024;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Where bytes go.
pub(super) enum Exit {
    /// To a WebSocket, in masked frames.
    Socket(StreamSocket),
    /// To a pipe that does not block, in lines; the event is to wake those who wait for it.
    Pipe(OwnedFd, EventFd),
}

impl Exit {
    /// To a pipe; and what can be read when the wire is cut.
    pub(super) fn pipe(pipe: OwnedFd) -> io::Result<(Exit, OwnedFd)> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let stopped = stop.as_fd().try_clone_to_owned()?;
        Ok((Exit::Pipe(pipe, stop), stopped))
    }

    fn write_some(&self, bytes: &[u8]) -> nix::Result<usize> {
        match self {
            Exit::Socket(socket) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(socket.as_raw_fd(), bytes, flags)
            }
            Exit::Pipe(pipe, _) => nix::unistd::write(pipe, bytes),
        }
    }

    /// Waits until something can be written, or the wire is cut.
    fn wait_writable(&self, limit: Duration) -> io::Result<()> {
        let (fd, stop): (BorrowedFd<'_>, _) = match self {
            Exit::Socket(socket) => (socket.as_fd(), None),
            Exit::Pipe(pipe, stop) => (pipe.as_fd(), Some(stop)),
        };
        let mut fds = [
            PollFd::new(fd, PollFlags::POLLOUT),
            PollFd::new(stop.map_or(fd, |stop| stop.as_fd()), PollFlags::POLLIN),
        ];
        let fds = if stop.is_some() { &mut fds[..] } else { &mut fds[..1] };
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match poll(fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
            }
            let is_cut = fds.get(1).is_some_and(|stop| stop.any() == Some(true));
            return if is_cut {
                Err(io::ErrorKind::BrokenPipe.into())
            } else {
                Ok(())
            };
        }
    }
}

/// The way to a server at the end of a socket or a pipe.
///
/// Whoever sends writes by itself, one at a time. What is posted is written by whoever has the turn, and without waiting:
/// so a thread that only posts is never held up, and the reader only posts.
pub(super) struct StreamWire {
    exit: Exit,
    turn: Mutex<Turn>,
    posted: Mutex<Posted>,
    /// How long the server may take nothing.
    limit: Duration,
    /// Called when something posted waits for room; [`flush`](StreamWire::flush) is to be called then, by a thread that may wait.
    on_blocked: Box<dyn Fn() + Send + Sync>,
}

/// What whoever writes has in hand.
struct Turn {
    is_websocket: bool,
    /// Framed; the first `written` bytes are out.
    bytes: Vec<u8>,
    written: usize,
    /// The mask of the message that is being put together, and how much of it there is.
    key: [u8; 4],
    offset: usize,
    /// Random bytes for masks, and how many are used up.
    pool: [u8; 256],
    used: usize,
    /// Somebody was asked to wait for room.
    is_flush_wanted: bool,
    /// A message may be out in part: nothing can follow.
    is_broken: bool,
}

impl StreamWire {
    pub(super) fn new(exit: Exit, limit: Duration, on_blocked: Box<dyn Fn() + Send + Sync>) -> StreamWire {
        let turn = Turn {
            is_websocket: matches!(exit, Exit::Socket(_)),
            bytes: Vec::new(),
            written: 0,
            key: [0; 4],
            offset: 0,
            pool: [0; 256],
            used: 256,
            is_flush_wanted: false,
            is_broken: false,
        };
        StreamWire {
            exit,
            turn: Mutex::new(turn),
            posted: Mutex::default(),
            limit,
            on_blocked,
        }
    }

    pub(super) fn is_websocket(&self) -> bool {
        matches!(self.exit, Exit::Socket(_))
    }

    /// Sends a message; it is out when this returns.
    ///
    /// # Errors
    /// The wire is broken, now or before. It is cut then.
    pub(super) fn send(&self, message: &Outgoing<'_>) -> io::Result<()> {
        let mut turn = lock(&self.turn);
        let result = turn.write_message(&self.exit, message, self.limit);
        self.settle(&mut turn, result.is_err());
        self.pass_on(turn);
        result
    }

    /// Sends something small, by and by. Never waits.
    pub(super) fn post(&self, post: &mut dyn FnMut(&mut Posted)) {
        post(&mut lock(&self.posted));
        self.write_posted();
    }

    /// Writes what was posted, and waits for room.
    pub(super) fn flush(&self) {
        let mut turn = lock(&self.turn);
        turn.is_flush_wanted = false;
        let result = turn.write_out(&self.exit, Some(self.limit));
        self.settle(&mut turn, result.is_err());
        self.pass_on(turn);
    }

    /// Ends the connection, also for those who wait for it.
    pub(super) fn cut(&self) {
        match &self.exit {
            Exit::Socket(socket) => drop(socket.shutdown(Shutdown::Both)),
            Exit::Pipe(_, stop) => drop(stop.write(1)),
        }
    }

    fn settle(&self, turn: &mut Turn, failed: bool) {
        if failed && !turn.is_broken {
            turn.is_broken = true;
            self.cut();
        }
    }

    fn write_posted(&self) {
        match self.turn.try_lock() {
            Ok(turn) => self.pass_on(turn),
            Err(TryLockError::Poisoned(turn)) => self.pass_on(turn.into_inner()),
            // Whoever has the turn looks for what was posted before and after giving it up.
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Writes what was posted meanwhile, and gives the turn up.
    fn pass_on(&self, turn: MutexGuard<'_, Turn>) {
        let mut turn = turn;
        loop {
            match turn.write_posted(&self.exit, &self.posted) {
                Ok(true) => {}
                // What is posted from now on is held together there until there is room.
                Ok(false) => {
                    if !std::mem::replace(&mut turn.is_flush_wanted, true) {
                        (self.on_blocked)();
                    }
                    return;
                }
                Err(_) => self.settle(&mut turn, true),
            }
            drop(turn);
            if lock(&self.posted).is_empty() {
                return;
            }
            turn = match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
        }
    }
}

impl Turn {
    fn write_message(&mut self, exit: &Exit, message: &Outgoing<'_>, limit: Duration) -> io::Result<()> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (head, tail) = message.text();
        self.open(TEXT, head.len() + message.bulk_len() + tail.len())?;
        self.append(&head);
        if let Some((_, bulk)) = message.bulk {
            for piece in bulk.chunks(PIECE_BYTES) {
                let at = self.bytes.len();
                bytes::append(piece, &mut self.bytes);
                self.mask_from(at);
                if self.bytes.len() - self.written >= BATCH_BYTES {
                    self.write_out(exit, Some(limit))?;
                }
            }
        }
        self.append(tail);
        self.close();
        self.write_out(exit, Some(limit)).map(drop)
    }

    /// Writes what was left over, and what is posted. Whether all of it is out.
    fn write_posted(&mut self, exit: &Exit, posted: &Mutex<Posted>) -> io::Result<bool> {
        if self.is_broken {
            *lock(posted) = Posted::default();
            return Ok(true);
        }
        if !self.write_out(exit, None)? {
            return Ok(false);
        }
        let mut posted = std::mem::take(&mut *lock(posted));
        while let Some(message) = posted.take_message() {
            match message {
                PostedMessage::Ack(process_id, seq) => self.put(TEXT, &ack_message(&process_id, seq).text().0)?,
                PostedMessage::Refusal(text) => self.put(TEXT, &text)?,
            }
        }
        if self.is_websocket {
            if posted.ping {
                self.put(PING, b"")?;
            }
            if let Some(payload) = posted.pong {
                self.put(PONG, &payload)?;
            }
            if posted.close {
                self.put(CLOSE, &1000u16.to_be_bytes())?;
            }
        }
        self.write_out(exit, None)
    }

    fn put(&mut self, opcode: u8, text: &[u8]) -> io::Result<()> {
        self.open(opcode, text.len())?;
        self.append(text);
        self.close();
        Ok(())
    }

    fn open(&mut self, opcode: u8, len: usize) -> io::Result<()> {
        if !self.is_websocket {
            return Ok(());
        }
        if self.used == self.pool.len() {
            random::fill(&mut self.pool)?;
            self.used = 0;
        }
        self.key.copy_from_slice(&self.pool[self.used..self.used + 4]);
        self.used += 4;
        self.offset = 0;
        masked_header(opcode, len, self.key, &mut self.bytes);
        Ok(())
    }

    fn append(&mut self, text: &[u8]) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(text);
        self.mask_from(at);
    }

    fn mask_from(&mut self, at: usize) {
        if self.is_websocket {
            mask(&mut self.bytes[at..], self.key, self.offset);
            self.offset += self.bytes.len() - at;
        }
    }

    fn close(&mut self) {
        if !self.is_websocket {
            self.bytes.push(b'\n');
        }
    }

    /// Writes what there is; waits for room if there is a limit. Whether all of it is out.
    fn write_out(&mut self, exit: &Exit, limit: Option<Duration>) -> io::Result<bool> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        while self.written < self.bytes.len() {
            match exit.write_some(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => match limit {
                    Some(limit) => exit.wait_writable(limit)?,
                    None => return Ok(false),
                },
                Err(e) => return Err(e.into()),
            }
        }
        self.bytes.clear();
        self.written = 0;
        self.bytes.shrink_to(KEPT_BYTES);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tungstenite::protocol::Role;
    use tungstenite::{Message, WebSocket};

    /// A wire, the server's end of it, and how often somebody was asked to flush.
    fn wire(limit: Duration) -> (Arc<StreamWire>, TcpStream, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let on_blocked = {
            let asked = asked.clone();
            move || {
                asked.fetch_add(1, Ordering::SeqCst);
            }
        };
        let wire = StreamWire::new(Exit::Socket(client), limit, Box::new(on_blocked));
        (Arc::new(wire), server, asked)
    }

    fn write(bulk: &[u8]) -> Outgoing<'_> {
        Outgoing {
            id: Some(1),
            method: "process/write",
            params: b"{}".to_vec(),
            bulk: Some(("chunk", bulk)),
        }
    }

    /// Fills the wire without anybody who reads.
    fn fill(wire: &StreamWire) {
        let mut turn = lock(&wire.turn);
        loop {
            let text = [b'x'; 4096];
            turn.put(TEXT, &text).unwrap();
            if !turn.write_out(&wire.exit, None).unwrap() {
                return;
            }
        }
    }

    #[test]
    fn a_server_that_takes_nothing_is_given_up() {
        let (wire, mut server, _) = wire(Duration::from_millis(50));
        fill(&wire);
        let error = wire.send(&write(b"more")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // A message may be out in part: nothing follows it.
        assert_eq!(
            wire.send(&write(b"more")).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).unwrap();
        assert!(!rest.is_empty());
    }

    #[test]
    fn whoever_posts_never_waits_and_nothing_is_lost() {
        let (wire, server, asked) = wire(Duration::from_secs(30));
        fill(&wire);
        let id: Arc<str> = "p".into();
        for seq in 1..=1000 {
            wire.post(&mut |posted| posted.ack(&id, seq));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "one flush writes all of it");
        let flushed = std::thread::spawn({
            let wire = wire.clone();
            move || wire.flush()
        });
        let mut socket = WebSocket::from_raw_socket(server, Role::Server, None);
        loop {
            let Message::Text(text) = socket.read().unwrap() else {
                continue;
            };
            if !text.starts_with('x') {
                assert_eq!(
                    text,
                    r#"{"method":"process/ack","params":{"processId":"p","seq":1000}}"#
                );
                break;
            }
        }
        flushed.join().unwrap();
    }

    #[test]
    fn messages_of_many_threads_do_not_mix() {
        let (wire, server, _) = wire(Duration::from_secs(30));
        let id: Arc<str> = "p".into();
        let mut socket = WebSocket::from_raw_socket(server, Role::Server, None);
        std::thread::scope(|scope| {
            for letter in *b"abcd" {
                let (wire, id) = (&wire, &id);
                scope.spawn(move || {
                    let bulk = vec![letter; 200_000];
                    for seq in 0..20 {
                        wire.send(&write(&bulk)).unwrap();
                        wire.post(&mut |posted| posted.ack(id, seq));
                    }
                });
            }
            let mut writes = 0;
            while writes < 80 {
                let Message::Text(text) = socket.read().unwrap() else {
                    continue;
                };
                if let Some(rest) = text.strip_prefix(r#"{"id":1,"method":"process/write","params":{"chunk":""#) {
                    let chunk = bytes::decode(rest.strip_suffix(r#""}}"#).unwrap().as_bytes()).unwrap();
                    assert!(chunk.len() == 200_000 && chunk.iter().all(|b| *b == chunk[0]));
                    writes += 1;
                }
            }
        });
    }

    #[test]
    fn a_cut_ends_those_who_wait_for_a_pipe() {
        let (_output, input) = nix::unistd::pipe().unwrap();
        let (exit, _stopped) = Exit::pipe(input).unwrap();
        let wire = StreamWire::new(exit, Duration::from_secs(60), Box::new(|| ()));
        fill(&wire);
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| wire.send(&write(b"more")));
            wire.cut();
            assert_eq!(sent.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        });
    }
}
