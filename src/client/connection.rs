//! One connection to a server: calls over it, and what is heard.

use super::lock;
use super::memory_wire::MemoryWire;
use super::outgoing::Outgoing;
use super::pending::{Answer, CallError, Pending, Purpose};
use super::posted::Posted;
use super::stream_wire::StreamWire;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The way to the server.
pub(super) enum Wire {
    Stream(Box<StreamWire>),
    Memory(MemoryWire),
}

/// A connection. It is over when its reader ends.
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) pending: Pending,
    /// What the other side and its messages are called in errors.
    pub(super) label: String,
    /// When something was last received, in milliseconds since `epoch`.
    heard: AtomicU64,
    epoch: Instant,
    /// Why it was cut from this side.
    reason: Mutex<Option<String>>,
    /// Its reader has ended.
    pub(super) has_ended: AtomicBool,
}

impl Connection {
    pub(super) fn new(wire: Wire, label: String) -> Connection {
        Connection {
            wire,
            pending: Pending::default(),
            label,
            heard: AtomicU64::new(0),
            epoch: Instant::now(),
            reason: Mutex::default(),
            has_ended: AtomicBool::new(false),
        }
    }

    /// Makes a call and waits for its answer.
    pub(super) fn call(
        &self,
        purpose: Purpose,
        limit: Option<Duration>,
        mut message: Outgoing<'_>,
    ) -> Result<Answer, CallError> {
        let ticket = match self.pending.enter(purpose) {
            // Nothing can be freed any more but by ending the connection.
            Err(CallError::Failed(e)) if purpose == Purpose::CleanUp => {
                self.cut("there is no room for a call that cleans up".into());
                return Err(CallError::Failed(e));
            }
            entered => entered?,
        };
        message.id = Some(ticket.id);
        let method = message.method;
        self.send(&message)?;
        ticket.wait_for(method, limit)
    }

    /// Sends a message.
    pub(super) fn send(&self, message: &Outgoing<'_>) -> Result<(), CallError> {
        let sent = match &self.wire {
            Wire::Stream(wire) => wire.send(message),
            Wire::Memory(wire) => wire.send(message),
        };
        sent.map_err(|e| {
            self.note_failure(&e);
            CallError::Lost
        })
    }

    /// Sends something small without waiting.
    pub(super) fn post(&self, mut post: impl FnMut(&mut Posted)) {
        match &self.wire {
            Wire::Stream(wire) => wire.post(&mut post),
            Wire::Memory(wire) => wire.post(&mut post),
        }
    }

    /// Writes what was posted and found no room.
    pub(super) fn flush(&self) {
        match &self.wire {
            Wire::Stream(wire) => wire.flush(),
            Wire::Memory(wire) => wire.flush(),
        }
    }

    /// Ends it; its reader will notice.
    pub(super) fn cut(&self, reason: String) {
        lock(&self.reason).get_or_insert(reason);
        match &self.wire {
            Wire::Stream(wire) => wire.cut(),
            Wire::Memory(wire) => wire.cut(),
        }
    }

    /// Why it was cut from this side, if it was.
    pub(super) fn cut_reason(&self) -> Option<String> {
        lock(&self.reason).clone()
    }

    /// Why there is nothing more, in the words of Codex's client.
    pub(super) fn disconnected(&self) -> String {
        match self.cut_reason() {
            Some(reason) if !reason.is_empty() => format!("exec-server transport disconnected: {reason}"),
            _ => "exec-server transport disconnected".into(),
        }
    }

    /// Something was received.
    pub(super) fn hear(&self) {
        let now = self.epoch.elapsed().as_millis() as u64;
        self.heard.store(now, Ordering::Relaxed);
    }

    /// How long nothing was received.
    pub(super) fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        self.epoch.elapsed().saturating_sub(heard)
    }

    fn note_failure(&self, error: &io::Error) {
        // When the other side is gone, the reader knows better why.
        if error.kind() == io::ErrorKind::TimedOut {
            self.cut(format!("failed to write {}: nothing is taken", self.label));
        }
    }
}
