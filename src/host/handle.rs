//! The client's handle: what it asks goes through the sender, what it hears comes from the queue.

use super::event_queue::{EventQueue, InProcessServerEvent, Next};
use super::runtime::{Embedded, Runtime};
use super::sender::{InProcessClientSender, JsonText};
use super::{InProcessStartArgs, ack_batch};
use crate::protocol::error::RpcError;
use crate::protocol::message::RequestId;
use crate::transport::memory::ClientEnd;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Serialize;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tungstenite::Bytes;

/// How long [`InProcessClientHandle::shutdown`] may take.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// How long dropping a handle may take.
const DROP_LIMIT: Duration = Duration::from_millis(500);

/// The client of an in-process server: asks, and takes events. Dropping it ends the server and all it has started, like
/// [`shutdown`](InProcessClientHandle::shutdown), but waits for that only briefly.
pub struct InProcessClientHandle {
    sender: InProcessClientSender,
    events: Arc<EventQueue>,
    /// Until it is shut down.
    life: Option<Life>,
}

struct Life {
    /// Closed to end the host.
    open: Sender<()>,
    /// Closes when it has ended.
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl InProcessClientHandle {
    /// Starts the thread, and does the handshake.
    pub(super) fn open(
        end: ClientEnd,
        args: &InProcessStartArgs,
        embedded: Option<Embedded>,
    ) -> io::Result<InProcessClientHandle> {
        let (commands, commanded) = bounded(args.capacity().get());
        let (consumed, was_consumed) = bounded(1);
        let (open, is_open) = bounded(0);
        let (running, ended) = bounded(0);
        let events = Arc::new(EventQueue::new(
            args.capacity().get(),
            ack_batch(&args.config),
            consumed,
        ));
        let runtime = Runtime::new(end, commanded, events.clone(), was_consumed, is_open);
        let thread = std::thread::Builder::new()
            .name("in-process-host".into())
            .spawn(move || {
                // Dropped when all is done, also by a panic.
                let _running = running;
                runtime.run(embedded);
            })?;
        let handle = InProcessClientHandle {
            sender: InProcessClientSender::new(commands, ended.clone()),
            events,
            life: Some(Life { open, ended, thread }),
        };
        handle.handshake(&args.client_name)?;
        Ok(handle)
    }

    fn handshake(&self, client_name: &str) -> io::Result<()> {
        let params = Initialize {
            client_name,
            extended_signals: true,
            ack_output: true,
        };
        let failed = |what: &str| {
            let error = format!("in-process initialize failed: {what}");
            io::Error::new(io::ErrorKind::InvalidData, error)
        };
        if let Err(error) = self.request(0, "initialize", &params)? {
            return Err(failed(&error.message));
        }
        self.sender.notify_text("initialized", Bytes::new())
    }

    /// See [`InProcessClientSender::request`].
    ///
    /// # Errors
    /// As that.
    pub fn request(
        &self,
        id: impl Into<RequestId>,
        method: &str,
        params: &impl Serialize,
    ) -> io::Result<Result<JsonText, RpcError>> {
        self.sender.request(id, method, params)
    }

    /// See [`InProcessClientSender::request_with_bytes`].
    ///
    /// # Errors
    /// As that.
    pub fn request_with_bytes(
        &self,
        id: impl Into<RequestId>,
        method: &str,
        params: &impl Serialize,
        bytes: (&'static str, Bytes),
    ) -> io::Result<Result<JsonText, RpcError>> {
        self.sender.request_with_bytes(id, method, params, bytes)
    }

    /// See [`InProcessClientSender::notify`].
    ///
    /// # Errors
    /// As that.
    pub fn notify(&self, method: &str, params: &impl Serialize) -> io::Result<()> {
        self.sender.notify(method, params)
    }

    /// See [`InProcessClientSender::respond_to_server_request`].
    ///
    /// # Errors
    /// As that.
    pub fn respond_to_server_request(&self, id: RequestId, result: &impl Serialize) -> io::Result<()> {
        self.sender.respond_to_server_request(id, result)
    }

    /// See [`InProcessClientSender::fail_server_request`].
    ///
    /// # Errors
    /// As that.
    pub fn fail_server_request(&self, id: RequestId, error: RpcError) -> io::Result<()> {
        self.sender.fail_server_request(id, error)
    }

    /// What asks and tells beside this handle, from other threads.
    pub fn sender(&self) -> InProcessClientSender {
        self.sender.clone()
    }

    /// Waits for the next event. `None` when the server has ended and all events were taken.
    pub fn next_event(&mut self) -> Option<InProcessServerEvent> {
        match self.events.next(None) {
            Next::Event(event) => Some(event),
            Next::Ended | Next::TimedOut => None,
        }
    }

    /// The same for at most `limit`.
    ///
    /// # Errors
    /// `TimedOut` when there is no event by then.
    pub fn next_event_timeout(&mut self, limit: Duration) -> io::Result<Option<InProcessServerEvent>> {
        // A limit too far off to be told is none.
        match self.events.next(Instant::now().checked_add(limit)) {
            Next::Event(event) => Ok(Some(event)),
            Next::Ended => Ok(None),
            Next::TimedOut => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Ends the server, its session and everything it has started. What waits for an answer, on either side, gets an
    /// error. Takes 5 s at most, whether or not events were taken.
    ///
    /// # Errors
    /// `TimedOut` when it has not ended by then; it still goes on to.
    pub fn shutdown(mut self) -> io::Result<()> {
        self.end(SHUTDOWN_LIMIT)
    }

    fn end(&mut self, limit: Duration) -> io::Result<()> {
        let Some(Life { open, ended, thread }) = self.life.take() else {
            return Ok(());
        };
        self.events.close();
        drop(open);
        if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            let error = format!("in-process exec-server runtime has not ended after {limit:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        // A panic was told where it happened, and it has ended all the same.
        let _ = thread.join();
        Ok(())
    }
}

impl Drop for InProcessClientHandle {
    fn drop(&mut self) {
        if let Err(e) = self.end(DROP_LIMIT) {
            log::warn!("{e}");
        }
    }
}

/// Params of `initialize`, as the host sends it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Initialize<'a> {
    client_name: &'a str,
    extended_signals: bool,
    ack_output: bool,
}
