//! The thread that reads from a connection.

use super::connection::{Conversation, Received};
use super::desk::Desk;
use super::gate::Gate;
use super::outbox::Outbox;
use super::params::Params;
use super::writer::SharedWriter;
use crate::metrics::{self, Count};
use crate::process::Audience;
use crate::protocol::error::RpcError;
use crate::protocol::message::{self, Message};
use crate::sys::defect;
use crate::transport::{Ended, Incoming, Source};
use log::error;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tungstenite::Bytes;

/// A message of at least so many bytes is large: it is worth waking a thread for, so that the next one can be received
/// while its parameters are decoded.
const LARGE_BYTES: usize = 64 * 1024;

/// The close code for a message that is too big (RFC 6455, section 7.4.1).
const TOO_BIG: u16 = 1009;

/// Parses what comes in, and takes it to the [`Desk`].
pub(super) struct Reader {
    desk: Desk,
    outbox: Arc<Outbox>,
    writer: SharedWriter,
    gate: Arc<Gate>,
    limits: message::Limits,
}

impl Reader {
    pub(super) fn new(conversation: Conversation, writer: SharedWriter) -> Reader {
        let connection = &conversation.connection;
        let config = &connection.server.config;
        Reader {
            outbox: connection.outbox.clone(),
            gate: Gate::new(config.max_unfinished_bytes),
            limits: config.message,
            writer,
            desk: Desk::new(conversation),
        }
    }

    /// Reads until nothing more comes or nobody takes it, and ends the connection then. A defect here is an end, too.
    pub(super) fn run(mut self, mut source: Box<dyn Source>) {
        self.outbox.answers_on_this_thread();
        let read = catch_unwind(AssertUnwindSafe(|| while self.next(&mut *source) {}));
        if read.is_err() {
            let reason = "reading failed in an unforeseen way";
            error!(conn = self.outbox.id(); "{reason}; the connection is closed");
            self.outbox.complain(&RpcError::internal(reason));
            let (code, reason) = (1011, reason.into());
            self.desk.take(Received::Violation { code, reason }, false);
        }
        self.write_answers();
        self.desk.end();
    }

    fn next(&mut self, source: &mut dyn Source) -> bool {
        let received = match source.next(&mut || self.write_answers()) {
            Incoming::Message { text, base64 } => self.parse(&text, base64, source.describe()),
            Incoming::Refused(reason) => {
                metrics::limit_met("max-message-bytes");
                Err(format!("failed to read {}: {reason}", source.describe()))
            }
            Incoming::Ended(Ended::Input) => return false,
            Incoming::Ended(Ended::ByPeer) => {
                self.outbox.await_nothing();
                return false;
            }
            Incoming::Ended(Ended::Violation { code, reason }) => {
                if code == TOO_BIG {
                    metrics::limit_met("max-message-bytes");
                }
                Ok((Received::Violation { code, reason }, false))
            }
        };
        match received {
            Err(complaint) => {
                self.outbox.complain(&RpcError::invalid_request(complaint));
                true
            }
            Ok((received, is_large)) => self.desk.take(received, is_large),
        }
    }

    /// What was answered on this thread goes out before it waits.
    fn write_answers(&self) {
        if self.outbox.has_answers() && !self.writer.write_answers_at_once() {
            self.outbox.ring();
        }
    }

    /// What a message says, and whether it is large.
    fn parse(&self, text: &Bytes, base64: Range<usize>, kind: &str) -> Result<(Received, bool), String> {
        defect::point("reader", || text);
        metrics::add(Count::ReceivedBytes, text.len());
        let is_large = text.len() >= LARGE_BYTES;
        if is_large {
            self.write_answers();
        }
        let permit = self.gate.admit(text.len());
        let parsed = message::parse_with_bulk(text, base64, &self.limits);
        let (message, bulk) = parsed.map_err(|e| format!("failed to parse {kind}: {e}"))?;
        let received = match message {
            Message::Request { id, method, params } => {
                let params = Params::of_message(text, params, bulk, permit);
                Received::Request {
                    id,
                    method: method.into(),
                    params,
                }
            }
            Message::Notification { method, params } => Received::Notification {
                method: method.into(),
                params: Params::of_message(text, params, bulk, permit),
            },
            Message::Response { .. } | Message::Error { .. } => Received::Answer,
        };
        Ok((received, is_large))
    }
}
