//! A connection within one program: messages over bounded channels; output, input and the contents of files as the bytes
//! they are.

use crate::protocol::message::RequestId;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::num::NonZeroUsize;
use std::sync::Arc;
use tungstenite::Bytes;

/// What a client sends.
#[derive(Debug)]
pub enum ToServer {
    /// A call that wants an answer.
    Request {
        /// Goes into the answer.
        id: RequestId,
        /// What is called.
        method: Box<str>,
        /// The parameters as JSON text; empty if there are none.
        params: Bytes,
        /// Bytes that on a wire would be base64 in the parameters: under which key, and what they are. The parameters
        /// have an empty string there.
        bulk: Option<(&'static str, Bytes)>,
        /// Whether the answer may be a [`ToClient::Answer`]; otherwise it is JSON text with base64 in it.
        raw: bool,
    },
    /// A call that wants none.
    Notification {
        /// What is called.
        method: Box<str>,
        /// The parameters as JSON text; empty if there are none.
        params: Bytes,
    },
    /// An answer to a request of the server's: the JSON text of the whole message.
    Answer(Bytes),
}

/// What a server sends.
#[derive(Debug)]
pub enum ToClient {
    /// An answer, a notification that is rare, or a request: the JSON text of the whole message.
    Message(Bytes),
    /// An answer to a request with `raw`, as far as it has bytes that on a wire would be base64.
    Answer {
        /// The JSON text of the whole message, with an empty string for each of them.
        text: Bytes,
        /// What they are, in that order.
        bulk: Vec<Bytes>,
    },
    /// A `process/output` notification.
    Output {
        /// Which process.
        process_id: Arc<str>,
        /// The number of the event.
        seq: u64,
        /// `stdout`, `stderr` or `pty`.
        stream: &'static str,
        /// What it wrote.
        chunk: Bytes,
    },
}

/// The client's end. The connection is over when either end is gone.
pub struct ClientEnd {
    /// Waits while the server has not taken what was sent before; fails once it is gone.
    pub outgoing: Sender<ToServer>,
    /// Fails once the server is gone and everything it sent was taken.
    pub incoming: Receiver<ToClient>,
}

/// The server's end.
pub struct ServerEnd {
    /// See [`ClientEnd::outgoing`].
    pub incoming: Receiver<ToServer>,
    /// See [`ClientEnd::incoming`].
    pub outgoing: Sender<ToClient>,
}

/// A connection that holds up to `capacity` messages each way.
pub fn pair(capacity: NonZeroUsize) -> (ClientEnd, ServerEnd) {
    let (to_server, from_client) = bounded(capacity.get());
    let (to_client, from_server) = bounded(capacity.get());
    let client = ClientEnd {
        outgoing: to_server,
        incoming: from_server,
    };
    let server = ServerEnd {
        incoming: from_client,
        outgoing: to_client,
    };
    (client, server)
}
