//! What is to be sent but nobody waits for.

use super::json_object::JsonObject;
use super::outgoing::Outgoing;
use crate::protocol::error::RpcError;
use crate::protocol::message::{self, RequestId};
use std::sync::Arc;

/// Requests of the server that are refused at one time; it gets no answer to more.
const MAX_REFUSALS: usize = 64;

/// Acknowledgements, pongs and the like, from threads that must not wait for the wire. Of each kind only the newest counts,
/// so it is bounded by the number of processes.
#[derive(Default)]
pub(super) struct Posted {
    /// Up to which event each process's output was consumed.
    acks: Vec<(Arc<str>, u64)>,
    /// The payload of the last ping.
    pub(super) pong: Option<Vec<u8>>,
    pub(super) ping: bool,
    pub(super) close: bool,
    refusals: Vec<Vec<u8>>,
}

impl Posted {
    pub(super) fn is_empty(&self) -> bool {
        self.acks.is_empty() && self.pong.is_none() && !self.ping && !self.close && self.refusals.is_empty()
    }

    pub(super) fn ack(&mut self, process_id: &Arc<str>, seq: u64) {
        match self.acks.iter_mut().rfind(|(id, _)| id == process_id) {
            Some((_, posted)) => *posted = (*posted).max(seq),
            None => self.acks.push((process_id.clone(), seq)),
        }
    }

    /// Answers a request of the server, of which this client knows none.
    pub(super) fn refuse(&mut self, id: &RequestId, method: &str) {
        if self.refusals.len() >= MAX_REFUSALS {
            log::warn!("exec-server sends too many requests: `{method}` is not answered");
            return;
        }
        let error = RpcError::method_not_found(format!("exec-server client does not implement `{method}` yet"));
        let mut text = Vec::new();
        message::write_error(&mut text, Some(id), &error);
        self.refusals.push(text);
    }

    /// Takes one of the messages.
    pub(super) fn take_message(&mut self) -> Option<PostedMessage> {
        match self.acks.pop() {
            Some((process_id, seq)) => Some(PostedMessage::Ack(process_id, seq)),
            None => self.refusals.pop().map(PostedMessage::Refusal),
        }
    }

    /// Puts one back that could not be sent.
    pub(super) fn put_back(&mut self, message: PostedMessage) {
        match message {
            PostedMessage::Ack(process_id, seq) => self.ack(&process_id, seq),
            PostedMessage::Refusal(text) => self.refusals.push(text),
        }
    }
}

/// What is posted and a message, unlike a ping.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PostedMessage {
    /// Up to which event the output of a process was consumed.
    Ack(Arc<str>, u64),
    /// The text of an answer.
    Refusal(Vec<u8>),
}

/// The notification that output was consumed.
pub(super) fn ack_message(process_id: &str, seq: u64) -> Outgoing<'static> {
    Outgoing {
        id: None,
        method: "process/ack",
        params: JsonObject::new()
            .text("processId", process_id)
            .number("seq", seq)
            .done(),
        bulk: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_of_each_kind_is_kept() {
        let mut posted = Posted::default();
        assert!(posted.is_empty());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for (id, seq) in [(&a, 3), (&b, 1), (&a, 9), (&a, 7)] {
            posted.ack(id, seq);
        }
        for _ in 0..1000 {
            posted.refuse(&7.into(), "x");
        }
        let (last, first) = (posted.take_message().unwrap(), posted.take_message().unwrap());
        assert_eq!((&last, &first), (&PostedMessage::Ack(b, 1), &PostedMessage::Ack(a, 9)));
        posted.put_back(first);
        assert!(matches!(posted.take_message(), Some(PostedMessage::Ack(_, 9))));
        let refusals: Vec<_> = std::iter::from_fn(|| posted.take_message()).collect();
        assert_eq!(refusals.len(), MAX_REFUSALS);
        let text = br#"{"error":{"code":-32601,"message":"exec-server client does not implement `x` yet"},"id":7}"#;
        assert_eq!(refusals[0], PostedMessage::Refusal(text.to_vec()));
        assert!(posted.is_empty());
    }
}
