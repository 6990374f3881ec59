//! Sending within one program.

use super::lock;
use super::outgoing::Outgoing;
use super::posted::{Posted, PostedMessage, ack_message};
use crate::protocol::message::RequestId;
use crate::transport::memory::ToServer;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use std::io;
use std::sync::Mutex;
use std::time::Duration;
use tungstenite::Bytes;

/// The way to a server in this program.
pub(super) struct MemoryWire {
    /// `None` once it is cut.
    outgoing: Mutex<Option<Sender<ToServer>>>,
    /// Gone once it is cut.
    open: Mutex<Option<Sender<()>>>,
    is_cut: Receiver<()>,
    posted: Mutex<Posted>,
    limit: Duration,
    on_blocked: Box<dyn Fn() + Send + Sync>,
}

impl MemoryWire {
    pub(super) fn new(
        outgoing: Sender<ToServer>,
        limit: Duration,
        on_blocked: Box<dyn Fn() + Send + Sync>,
    ) -> MemoryWire {
        let (open, is_cut) = bounded(0);
        MemoryWire {
            outgoing: Mutex::new(Some(outgoing)),
            open: Mutex::new(Some(open)),
            is_cut,
            posted: Mutex::default(),
            limit,
            on_blocked,
        }
    }

    /// Disconnected once the wire is cut.
    pub(super) fn is_cut(&self) -> Receiver<()> {
        self.is_cut.clone()
    }

    /// See [`StreamWire::send`](super::stream_wire::StreamWire::send).
    pub(super) fn send(&self, message: &Outgoing<'_>) -> io::Result<()> {
        self.send_to_server(to_server(message))
    }

    fn send_to_server(&self, message: ToServer) -> io::Result<()> {
        let outgoing = lock(&self.outgoing).clone();
        let outgoing = outgoing.ok_or(io::ErrorKind::BrokenPipe)?;
        select! {
            send(outgoing, message) -> sent => sent.map_err(|_| io::ErrorKind::BrokenPipe.into()),
            recv(self.is_cut) -> _ => Err(io::ErrorKind::BrokenPipe.into()),
            default(self.limit) => {
                self.cut();
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// See [`StreamWire::post`](super::stream_wire::StreamWire::post).
    pub(super) fn post(&self, post: &mut dyn FnMut(&mut Posted)) {
        post(&mut lock(&self.posted));
        self.send_posted(false);
    }

    /// See [`StreamWire::flush`](super::stream_wire::StreamWire::flush).
    pub(super) fn flush(&self) {
        self.send_posted(true);
    }

    /// Ends the connection, also for those who wait for it.
    pub(super) fn cut(&self) {
        *lock(&self.open) = None;
        *lock(&self.outgoing) = None;
    }

    /// Sends what was posted; within a program there are no pings.
    fn send_posted(&self, may_wait: bool) {
        loop {
            let next = lock(&self.posted).take_message();
            let Some(posted) = next else { return };
            let message = match &posted {
                PostedMessage::Ack(process_id, seq) => to_server(&ack_message(process_id, *seq)),
                PostedMessage::Refusal(text) => ToServer::Answer(Bytes::copy_from_slice(text)),
            };
            if may_wait {
                if self.send_to_server(message).is_err() {
                    return;
                }
                continue;
            }
            let Some(outgoing) = lock(&self.outgoing).clone() else {
                return;
            };
            match outgoing.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    lock(&self.posted).put_back(posted);
                    return (self.on_blocked)();
                }
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }
}

fn to_server(message: &Outgoing<'_>) -> ToServer {
    let params = Bytes::from(message.params_without_bulk());
    let method = message.method.into();
    match message.id {
        Some(id) => ToServer::Request {
            id: RequestId::from(id),
            method,
            params,
            bulk: message.bulk.map(|(key, bulk)| (key, Bytes::copy_from_slice(bulk))),
            raw: true,
        },
        None => ToServer::Notification { method, params },
    }
}
