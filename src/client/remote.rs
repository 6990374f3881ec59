//! Connecting to a WebSocket server, wherever it listens.

use super::error::{ExecServerError, Result};
use super::options::RemoteExecServerConnectArgs;
use crate::transport::address::{Address, StreamSocket};
use crate::transport::upgrade::{UpgradeAnswer, UpgradeRequest, WebSocketUrl};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockFlag, connect, getsockopt, sockopt};
use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A WebSocket server that can be connected to again.
pub(super) struct Remote {
    url: WebSocketUrl,
    url_text: String,
    token: Option<String>,
    /// Its name is looked up once: that cannot be interrupted when the client is closed.
    addresses: Vec<Address>,
    connect_timeout: Duration,
}

impl Remote {
    /// Looks the server's name up.
    pub(super) fn find(args: &RemoteExecServerConnectArgs) -> Result<Remote> {
        let refused = |source| ExecServerError::WebSocketConnect {
            url: args.websocket_url.clone(),
            source,
        };
        let invalid = |text| refused(io::Error::new(io::ErrorKind::InvalidInput, text));
        let (url, addresses) = match Address::parse(&args.websocket_url) {
            // The request has to name some host.
            Some(address) => (WebSocketUrl::parse("ws://localhost"), vec![address.map_err(invalid)?]),
            None => {
                let url = WebSocketUrl::parse(&args.websocket_url).map_err(invalid)?;
                let addresses = (url.host.as_str(), url.port).to_socket_addrs().map_err(refused)?;
                (Ok(url), addresses.map(Address::Tcp).collect())
            }
        };
        Ok(Remote {
            addresses,
            url: url.map_err(invalid)?,
            url_text: args.websocket_url.clone(),
            token: args.auth_token.clone(),
            connect_timeout: args.connect_timeout,
        })
    }

    /// What the other side is called in errors.
    pub(super) fn url(&self) -> &str {
        &self.url_text
    }

    /// Connects, within its time and `limit`; gives up when `closed` can be read. Returns the socket and what was
    /// received behind the answer to the upgrade.
    pub(super) fn connect(&self, limit: Duration, closed: BorrowedFd<'_>) -> Result<(StreamSocket, Vec<u8>)> {
        let timeout = self.connect_timeout.min(limit);
        let deadline = Instant::now() + timeout;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in &self.addresses {
            let wait = Wait { deadline, closed };
            match open(address, &wait).and_then(|stream| self.upgrade(stream, &wait)) {
                Ok(connected) => return Ok(connected),
                Err(e) => last = e,
            }
        }
        let url = self.url_text.clone();
        Err(match last.kind() {
            io::ErrorKind::TimedOut => ExecServerError::WebSocketConnectTimeout { url, timeout },
            _ => ExecServerError::WebSocketConnect { url, source: last },
        })
    }

    fn upgrade(&self, mut stream: StreamSocket, wait: &Wait<'_>) -> io::Result<(StreamSocket, Vec<u8>)> {
        let request = UpgradeRequest::new(&self.url, self.token.as_deref())?;
        // It fits into the buffer of a socket that nothing was written to.
        stream.write_all(&request.bytes)?;
        let mut received = Vec::new();
        let mut ended = false;
        loop {
            match request.judge(&received, ended) {
                UpgradeAnswer::Upgraded(len) => {
                    stream.set_nonblocking(false)?;
                    return Ok((stream, received.split_off(len)));
                }
                UpgradeAnswer::Refused(reason) => return Err(io::Error::new(io::ErrorKind::ConnectionRefused, reason)),
                UpgradeAnswer::Incomplete => {}
            }
            let mut piece = [0; 2048];
            match stream.read(&mut piece) {
                Ok(0) => ended = true,
                Ok(n) => received.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait.until(stream.as_fd(), PollFlags::POLLIN)?,
                Err(e) => return Err(e),
            }
        }
    }
}

/// A connection to an address, which does not block.
fn open(address: &Address, wait: &Wait<'_>) -> io::Result<StreamSocket> {
    let (socket, name) = address.socket(SockFlag::SOCK_NONBLOCK)?;
    let stream = StreamSocket::from(socket);
    if let Address::Tcp(_) = address {
        stream.set_nodelay(true)?;
    }
    loop {
        match connect(stream.as_raw_fd(), &*name) {
            Ok(()) => return Ok(stream),
            // So many want to connect by a socket file that one cannot even wait for it.
            Err(Errno::EAGAIN) => wait.a_while()?,
            Err(Errno::EINPROGRESS | Errno::EINTR) => break,
            Err(e) => return Err(e.into()),
        }
    }
    wait.until(stream.as_fd(), PollFlags::POLLOUT)?;
    match getsockopt(&stream, sockopt::SocketError)? {
        0 => Ok(stream),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// How long to wait, and for what to stop.
struct Wait<'a> {
    deadline: Instant,
    closed: BorrowedFd<'a>,
}

impl Wait<'_> {
    /// Lets some milliseconds pass.
    fn a_while(&self) -> io::Result<()> {
        let soon = self.deadline.min(Instant::now() + Duration::from_millis(10));
        let soon = Wait {
            deadline: soon,
            ..*self
        };
        match soon.until(self.closed, PollFlags::POLLIN) {
            Err(e) if e.kind() == io::ErrorKind::TimedOut && Instant::now() < self.deadline => Ok(()),
            waited => waited,
        }
    }

    fn until(&self, fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
        loop {
            let mut fds = [PollFd::new(fd, events), PollFd::new(self.closed, PollFlags::POLLIN)];
            let left = self.deadline.saturating_duration_since(Instant::now());
            // Rounded up, so that it does not end a fraction of a millisecond early and begin anew.
            let left = left + Duration::from_micros(999);
            match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) if fds[1].any() == Some(true) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}
