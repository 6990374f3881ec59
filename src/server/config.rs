//! Every limit of the server.

use crate::process::{self, Totals};
use crate::protocol::message;
use std::sync::Arc;
use std::time::Duration;

/// The limits of a server, each with its reason. Meeting one is answered with an error wherever the wire allows.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Bytes of one message, a line or a WebSocket message of one or more frames. 64 MiB, as Codex's exec-server takes.
    pub max_message_bytes: usize,
    /// Nesting and number of values of one message.
    pub message: message::Limits,
    /// Bytes of received messages whose requests are still being carried out, per connection; the reader pauses above
    /// it. Twice the largest message, so that one large request does not keep another from being received.
    pub max_unfinished_bytes: usize,
    /// Bytes and number of answers that wait for a client to read them; above it the connection is closed, because
    /// nothing can be answered any more. The reader cannot pause instead: a client may send a thousand requests before
    /// it reads the first answer.
    pub max_unread_bytes: usize,
    /// See `max_unread_bytes`.
    pub max_unread_answers: usize,
    /// Bytes of encoded output that are written in one go. A few of the largest events.
    pub batch_bytes: usize,
    /// Bytes of one process's output that are sent before another process has its turn.
    pub quantum_bytes: usize,
    /// The kernel's buffer for what a WebSocket client has not received. With `credit_bytes` and a batch less than
    /// `retain_bytes`, so that what a cut connection swallows can still be read after a resume.
    pub socket_send_bytes: usize,
    /// How long a session without a connection lives. Codex's exec-server keeps it 80 s.
    pub session_ttl: Duration,
    /// How long a process can be read after its last event. Codex's exec-server keeps it 80 s.
    pub retain_ended: Duration,
    /// Bytes of output that are retained per process. Codex's exec-server retains 1 MiB.
    pub retain_bytes: usize,
    /// Events that are retained per process, whatever their size.
    pub retain_events: usize,
    /// Bytes of output that are retained of all processes together. When it is met, what is retained of ended processes
    /// goes, the one that ended first in front; then the running ones keep half of `retain_bytes`; then none is started.
    pub retain_total_bytes: usize,
    /// Bytes of a process's output that an attached client may lag behind before its reading pauses.
    pub credit_bytes: usize,
    /// Bytes of a process's output that are sent ahead of what its client has acknowledged, if the client does that.
    /// Enough for a fast network's bandwidth in the time of a round trip, and less than `retain_bytes`.
    pub ack_window_bytes: usize,
    /// Bytes of queued input of a process from which on the answers to writes wait until it has read some.
    pub stdin_soft_bytes: usize,
    /// Bytes of queued input of a process from which on writes are refused. Room for one largest message.
    pub stdin_hard_bytes: usize,
    /// Bytes of queued input of all processes together from which on writes are refused.
    pub stdin_total_bytes: usize,
    /// Connections at one time.
    pub max_connections: usize,
    /// Connections whose HTTP request is not complete. Above it the oldest of these is closed, so that those who never
    /// complete theirs keep nobody out.
    pub max_handshakes: usize,
    /// Sessions at one time, attached or not.
    pub max_sessions: usize,
    /// Processes of one session, running or retained.
    pub max_processes: usize,
    /// Processes of all sessions that have not had their last event.
    pub max_running: usize,
    /// Requests of one connection that are not answered.
    pub max_requests: usize,
    /// Reads of one connection that wait for something to happen.
    pub max_long_polls: usize,
    /// File calls of one connection that are not finished.
    pub max_file_calls: usize,
    /// Files of one connection that are open by `fs/open`. Codex's exec-server has 128.
    pub max_file_handles: usize,
    /// Threads for file calls. Two keep two CPUs busy; the others are only started while those hang.
    pub max_file_workers: usize,
    /// How long a client may take for its HTTP request.
    pub upgrade_timeout: Duration,
    /// How long a WebSocket client may take then to open or resume a session. Longer than clients go on trying to.
    pub initialize_timeout: Duration,
    /// How often a WebSocket client is pinged that says nothing. Codex's exec-server does it every 30 s.
    pub ping_interval: Duration,
    /// How long a WebSocket client may be silent before it is taken for dead.
    pub silence_limit: Duration,
    /// The same when another client wants to resume its session.
    pub probe_limit: Duration,
    /// How long requests may take that were received before the end of the input.
    pub drain_limit: Duration,
    /// How long the server's own end may take.
    pub shutdown_limit: Duration,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        ServerConfig {
            max_message_bytes: 64 * MIB,
            message: message::Limits::default(),
            max_unfinished_bytes: 128 * MIB,
            max_unread_bytes: 64 * MIB,
            max_unread_answers: 65_536,
            batch_bytes: 128 * KIB,
            quantum_bytes: 64 * KIB,
            socket_send_bytes: 256 * KIB,
            session_ttl: Duration::from_secs(80),
            retain_ended: Duration::from_secs(80),
            retain_bytes: MIB,
            retain_events: 16 * KIB,
            retain_total_bytes: 256 * MIB,
            credit_bytes: 256 * KIB,
            ack_window_bytes: 512 * KIB,
            stdin_soft_bytes: MIB,
            stdin_hard_bytes: 64 * MIB,
            stdin_total_bytes: 256 * MIB,
            max_connections: 4096,
            max_handshakes: 256,
            max_sessions: 4096,
            max_processes: 16 * KIB,
            max_running: 4096,
            max_requests: 16 * KIB,
            max_long_polls: 1024,
            max_file_calls: 4096,
            max_file_handles: 128,
            max_file_workers: 64,
            upgrade_timeout: Duration::from_secs(10),
            initialize_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(30),
            silence_limit: Duration::from_secs(90),
            probe_limit: Duration::from_secs(5),
            drain_limit: Duration::from_secs(2),
            shutdown_limit: Duration::from_secs(2),
        }
    }
}

impl ServerConfig {
    /// The defaults for a program that can have so many bytes of memory: where that is little, what all clients together can
    /// have the server keep is a part of it. Four gibibytes are enough for all of the usual ones.
    pub fn within(memory: u64) -> ServerConfig {
        let mut config = ServerConfig::default();
        for (limit, part) in [
            (&mut config.retain_total_bytes, 8),
            (&mut config.retain_bytes, 32),
            (&mut config.max_message_bytes, 16),
            (&mut config.max_unfinished_bytes, 16),
            (&mut config.max_unread_bytes, 16),
            (&mut config.stdin_total_bytes, 16),
            (&mut config.stdin_hard_bytes, 16),
            (&mut config.stdin_soft_bytes, 32),
        ] {
            *limit = usize::try_from(memory / part).map_or(*limit, |most| most.clamp(1, *limit));
        }
        config
    }

    /// The limits of one process, of those that share `totals`.
    pub(super) fn process(&self, totals: &Arc<Totals>) -> process::Limits {
        process::Limits {
            retention: process::Retention {
                bytes: self.retain_bytes,
                events: self.retain_events,
                credit: self.credit_bytes.min(self.retain_bytes).max(1),
                ack_window: None,
            },
            stdin_soft: self.stdin_soft_bytes,
            stdin_hard: self.stdin_hard_bytes,
            totals: Some(totals.clone()),
        }
    }
}
