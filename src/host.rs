//! A server and its client in one program, joined by bounded channels: no sockets, and output as the bytes it is.
//!
//! ```
//! use exec_server::host::{InProcessServerEvent, InProcessStartArgs, start};
//! use serde_json::json;
//!
//! let mut host = start(InProcessStartArgs::new("example"))?;
//! let path = json!({"PATH": "/usr/bin:/bin"});
//! let echo = json!({"processId": "p", "argv": ["echo", "hello"], "cwd": "/", "env": path, "tty": false});
//! host.request(1, "process/start", &echo)??;
//! while let Some(event) = host.next_event() {
//!     match event {
//!         InProcessServerEvent::Output(output) => assert_eq!(output.chunk, "hello\n"),
//!         InProcessServerEvent::ServerNotification(event) if event.method == "process/closed" => break,
//!         _ => {}
//!     }
//! }
//! host.shutdown()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`start`] gives a handle that asks, tells and hears; [`connect`] only the client's end of a connection. The rules
//! are those of the in-process host of Codex's app-server, in whose messages this one names itself: `exec-server` where
//! that says `app-server`.
//!
//! - Calls never wait for room, so with a small capacity they may have to be repeated. A full queue is
//!   [`io::ErrorKind::WouldBlock`], an ended host [`io::ErrorKind::BrokenPipe`]. A request that finds the server's
//!   queue full is answered with [`OVERLOADED`], one with the id of an unanswered request with -32600; that one is not
//!   disturbed.
//! - Events are taken one by one with [`next_event`](InProcessClientHandle::next_event). Those of processes always
//!   arrive: they wait, and with them in the end the process, because the host acknowledges output (`process/ack`) only
//!   as it is taken. Other notifications are skipped and counted when as many events wait as the capacity says;
//!   [`InProcessServerEvent::Lagged`] stands where they would have been. Events that wait never hold up an answer.
//! - The methods of the first wire (`command/exec…`) are refused with -32601: their output is not acknowledged.
//! - A request of the server's never hangs: it is refused when events wait up to the capacity, when nobody takes events
//!   any more, and at the end.

#[cfg(test)]
mod defect_tests;
mod event_queue;
mod handle;
mod runtime;
mod sender;

pub use event_queue::{InProcessServerEvent, ProcessOutput, ServerNotification, ServerRequest};
pub use handle::InProcessClientHandle;
pub use sender::{InProcessClientSender, JsonText};

use crate::process::BLOCK_BYTES;
use crate::server::{Server, ServerConfig};
use crate::transport::memory::{self, ClientEnd};
use crossbeam_channel::bounded;
use runtime::Embedded;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// The code of an answer to what finds a queue full, as in Codex's app-server.
pub const OVERLOADED: i64 = -32001;

/// Messages that a queue of the host holds unless told otherwise, as in Codex's app-server.
pub const DEFAULT_CHANNEL_CAPACITY: usize = 128;

/// How a host is to be started.
#[derive(Clone, Debug)]
pub struct InProcessStartArgs {
    /// Who is calling; for the log.
    pub client_name: String,
    /// How many messages each queue holds: to the host, to the server, from it, and events. 0 is taken for 1;
    /// [`DEFAULT_CHANNEL_CAPACITY`] by default.
    pub channel_capacity: usize,
    /// The limits of the server.
    pub config: ServerConfig,
}

impl InProcessStartArgs {
    /// With everything else as it is by default.
    pub fn new(client_name: impl Into<String>) -> InProcessStartArgs {
        InProcessStartArgs {
            client_name: client_name.into(),
            channel_capacity: DEFAULT_CHANNEL_CAPACITY,
            config: ServerConfig::default(),
        }
    }

    fn capacity(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.channel_capacity).unwrap_or(NonZeroUsize::MIN)
    }
}

/// Starts a server and a connection to it, and does the handshake.
///
/// # Errors
/// `InvalidData` when the server refuses the handshake; what the system said when there are no threads to be had.
pub fn start(args: InProcessStartArgs) -> io::Result<InProcessClientHandle> {
    let server = Server::new(args.config.clone());
    let (end, server_end) = memory::pair(args.capacity());
    let (tell, ended) = bounded(1);
    server.serve_memory(server_end, move || {
        let _ = tell.try_send(());
    })?;
    InProcessClientHandle::open(end, &args, Some(Embedded { server, ended }))
}

/// The same with a server that the caller plays: it answers the handshake at the other end of `end`, by the rules of
/// [`crate::transport::memory`].
///
/// # Errors
/// As [`start`].
pub fn start_on(end: ClientEnd, args: &InProcessStartArgs) -> io::Result<InProcessClientHandle> {
    InProcessClientHandle::open(end, args, None)
}

/// Starts a server with one connection, and returns the client's end of it, on which nothing was said yet. Its session
/// ends with that end; [`Server::shut_down`] also waits for it.
///
/// # Errors
/// What the system said when there are no threads to be had.
pub fn connect(config: ServerConfig) -> io::Result<(Arc<Server>, ClientEnd)> {
    let server = Server::new(config);
    let capacity = NonZeroUsize::new(DEFAULT_CHANNEL_CAPACITY).unwrap_or(NonZeroUsize::MIN);
    let (end, server_end) = memory::pair(capacity);
    server.serve_memory(server_end, || ())?;
    Ok((server, end))
}

/// After how many bytes and events that were taken of a process they are acknowledged: with more unacknowledged at any
/// time the server would send no more.
fn ack_batch(config: &ServerConfig) -> (usize, usize) {
    let bytes = config
        .ack_window_bytes
        .saturating_sub(BLOCK_BYTES)
        .min(config.retain_bytes);
    let events = config.retain_events.min(1024);
    ((bytes / 2).max(1), (events / 2).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_comes_before_the_server_waits_for_it() {
        let mut config = ServerConfig::default();
        for window in [0, 1, BLOCK_BYTES, 100_000, 512 * 1024] {
            config.ack_window_bytes = window;
            let (bytes, events) = ack_batch(&config);
            assert!(bytes > 0 && events > 0);
            // One byte less than a batch is in flight, and still the largest event can be sent.
            assert!(bytes == 1 || bytes - 1 + BLOCK_BYTES <= window);
        }
    }
}
