//! What asks and tells, from any thread.

use super::runtime::{Answered, Command};
use crate::protocol::error::RpcError;
use crate::protocol::message::RequestId;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use serde::{Deserialize, Serialize};
use std::io;
use tungstenite::Bytes;

/// Asks and tells. Once the handle it came from is dropped or shut down, everything is `BrokenPipe`.
#[derive(Clone)]
pub struct InProcessClientSender {
    commands: Sender<Command>,
    /// Closes when nobody takes commands any more.
    ended: Receiver<()>,
}

impl InProcessClientSender {
    pub(super) fn new(commands: Sender<Command>, ended: Receiver<()>) -> InProcessClientSender {
        InProcessClientSender { commands, ended }
    }

    /// Sends a request and waits for the answer: its result, or the error with which it was refused. No unanswered
    /// request may have the same id.
    ///
    /// # Errors
    /// `WouldBlock` when the host's queue is full, `BrokenPipe` when it has ended, `InvalidInput` for parameters that
    /// are no JSON.
    pub fn request(
        &self,
        id: impl Into<RequestId>,
        method: &str,
        params: &impl Serialize,
    ) -> io::Result<Result<JsonText, RpcError>> {
        self.request_text(id.into(), method, json_text(params)?, None)
    }

    /// The same with bytes that need no base64: `bytes.0` is the member of `params` that stands for them and has to be
    /// an empty string there, such as `chunk` of `process/write`.
    ///
    /// # Errors
    /// As [`request`](InProcessClientSender::request).
    pub fn request_with_bytes(
        &self,
        id: impl Into<RequestId>,
        method: &str,
        params: &impl Serialize,
        bytes: (&'static str, Bytes),
    ) -> io::Result<Result<JsonText, RpcError>> {
        self.request_text(id.into(), method, json_text(params)?, Some(bytes))
    }

    fn request_text(
        &self,
        id: RequestId,
        method: &str,
        params: Bytes,
        bulk: Option<(&'static str, Bytes)>,
    ) -> io::Result<Answered> {
        let (reply, answer) = bounded(1);
        self.send(Command::Request {
            id,
            method: method.into(),
            params,
            bulk,
            reply,
        })?;
        // A bounded channel keeps what is in it when its receiver goes, and so would never close this one.
        let answered = select! {
            recv(answer) -> answered => answered.ok(),
            recv(self.ended) -> _ => answer.try_recv().ok(),
        };
        answered.ok_or_else(|| {
            let error = "in-process request response channel closed: the request was dropped";
            io::Error::new(io::ErrorKind::BrokenPipe, error)
        })
    }

    /// Sends a notification. One that finds the server's queue full is dropped, which the log tells.
    ///
    /// # Errors
    /// As [`request`](InProcessClientSender::request).
    pub fn notify(&self, method: &str, params: &impl Serialize) -> io::Result<()> {
        self.notify_text(method, json_text(params)?)
    }

    pub(super) fn notify_text(&self, method: &str, params: Bytes) -> io::Result<()> {
        self.send(Command::Notify {
            method: method.into(),
            params,
        })
    }

    /// Answers a request of the server's. Nothing happens if there is none of that id that is not answered.
    ///
    /// # Errors
    /// As [`request`](InProcessClientSender::request).
    pub fn respond_to_server_request(&self, id: RequestId, result: &impl Serialize) -> io::Result<()> {
        let result = Ok(json_text(result)?);
        self.send(Command::Respond { id, result })
    }

    /// Answers a request of the server's with an error. Nothing happens if there is none of that id that is not
    /// answered.
    ///
    /// # Errors
    /// As [`request`](InProcessClientSender::request).
    pub fn fail_server_request(&self, id: RequestId, error: RpcError) -> io::Result<()> {
        let result = Err(error);
        self.send(Command::Respond { id, result })
    }

    fn send(&self, command: Command) -> io::Result<()> {
        let (kind, what) = match self.commands.try_send(command) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(_)) => (io::ErrorKind::WouldBlock, "client queue is full"),
            Err(TrySendError::Disconnected(_)) => (io::ErrorKind::BrokenPipe, "runtime is closed"),
        };
        Err(io::Error::new(kind, format!("in-process exec-server {what}")))
    }
}

fn json_text(value: &impl Serialize) -> io::Result<Bytes> {
    match serde_json::to_vec(value) {
        Ok(text) => Ok(text.into()),
        Err(e) => Err(io::Error::new(io::ErrorKind::InvalidInput, e)),
    }
}

/// Some JSON of a message, not decoded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(pub(super) Bytes);

impl JsonText {
    /// The text.
    pub fn as_json(&self) -> &[u8] {
        &self.0
    }

    /// What it says.
    ///
    /// # Errors
    /// It is not what was wanted, in serde's words.
    pub fn decode<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_never_waits_for_room() {
        let (commands, commanded) = bounded(1);
        let (_running, ended) = bounded(0);
        let sender = InProcessClientSender::new(commands, ended);
        sender.notify("a", &()).unwrap();
        let full = sender.request(1, "b", &()).unwrap_err();
        assert_eq!(
            (full.kind(), full.to_string().as_str()),
            (io::ErrorKind::WouldBlock, "in-process exec-server client queue is full")
        );
        assert_eq!(sender.notify("b", &()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(commanded);
        let gone = sender
            .fail_server_request(1.into(), RpcError::internal("x"))
            .unwrap_err();
        assert_eq!(
            (gone.kind(), gone.to_string().as_str()),
            (io::ErrorKind::BrokenPipe, "in-process exec-server runtime is closed")
        );
    }

    #[test]
    fn a_request_that_is_dropped_unanswered_fails() {
        let (commands, commanded) = bounded(1);
        let (_running, ended) = bounded(0);
        let sender = InProcessClientSender::new(commands, ended);
        let asking = std::thread::spawn(move || sender.request(1, "a", &()).unwrap_err());
        drop(commanded.recv().unwrap());
        let error = asking.join().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(
            error
                .to_string()
                .starts_with("in-process request response channel closed: ")
        );
    }
    #[test]
    fn a_request_that_nobody_takes_any_more_fails() {
        let (commands, commanded) = bounded(1);
        let (running, ended) = bounded(0);
        let sender = InProcessClientSender::new(commands, ended);
        let asking = std::thread::spawn(move || sender.request(1, "a", &()).unwrap_err());
        while commanded.is_empty() {
            std::thread::yield_now();
        }
        drop((commanded, running));
        assert_eq!(asking.join().unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
