//! What a client knows of one process.

use super::deadline::Deadline;
use super::event_log::{EventLog, EventSubscriber};
use super::order::EventOrder;
use super::queue::{Bounds, EventQueue};
use super::stream::{AckSink, Acks, ProcessEvents, Unacked};
use super::{ExecProcessEvent, ReadResponse, RecoverError, Recovery, Wake};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Limits of a [`ProcessState`].
#[derive(Clone, Copy, Debug)]
pub struct ProcessOptions {
    /// How many bytes may wait for the reader of [`ProcessEvents`], with some 64 for each event. 64 MiB. It is not met
    /// with servers that take acknowledgements, which send no more than their window.
    pub max_queued_bytes: usize,
    /// After how many bytes of consumed output they are acknowledged. 128 KiB, a quarter of our server's window, so that
    /// it always has something to send. Must be less than the window, or the process stops.
    pub ack_bytes: usize,
    /// Whether subscribers get output from before they came. True. If false, they are told as
    /// [`Lagged`](super::Lagged) how much there was, and no output is held but what waits for readers.
    pub replay: bool,
}

impl Default for ProcessOptions {
    fn default() -> ProcessOptions {
        ProcessOptions {
            max_queued_bytes: 64 * 1024 * 1024,
            ack_bytes: 128 * 1024,
            replay: true,
        }
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessExit {
    /// The code it gave, or 128 + n after signal n.
    pub exit_code: i32,
    /// The name of the signal that ended it, where the server tells.
    pub signal: Option<String>,
    /// Whether its sandbox is thought to have stopped it; `None` from servers that do not tell.
    pub sandbox_denied: Option<bool>,
    /// Which limit it was ended for, where the server tells: `timeout`, `idleTimeout` or `outputLimit`.
    pub ended_by: Option<String>,
}

/// What is to be expected of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More events.
    Open,
    /// Nothing: its last event was published.
    Closed,
    /// Nothing: it has failed. If it was this event's doing, the process may still run on the server.
    Failed,
}

/// Why a process was not waited for until its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The time is over.
    #[error("timed out waiting for the process")]
    Timeout,
    /// It cannot be known any more; why.
    #[error("{0}")]
    Failed(String),
}

/// What a client knows of one process: the events that arrive are put in order and handed to the one reader of
/// [`ProcessEvents`] and any number of subscribers.
///
/// When it is dropped before the last event, the process fails: nobody waits for ever.
pub struct ProcessState {
    inner: Mutex<Inner>,
    /// The exit, the end or a failure was published.
    changed: Condvar,
    wake: Wake,
    acks: Arc<Acks>,
    has_replay: bool,
}

struct Inner {
    order: EventOrder,
    record: Record,
    /// How many threads wait for `changed`.
    waiting: usize,
}

/// What was published.
struct Record {
    log: EventLog,
    stream: Arc<EventQueue>,
    exit: Option<ProcessExit>,
    closed: bool,
    failure: Option<String>,
    /// What was published since the stream was discarded.
    unacked: Unacked,
    due: Option<u64>,
    /// Waiters must look again.
    is_news: bool,
}

impl ProcessState {
    /// A process before its first event, and the reader of its events. To be made before `process/start` is sent: events
    /// may arrive before the answer.
    ///
    /// `acks` is for servers that take acknowledgements (`processAck` in their capabilities) and a process that was
    /// started with `ackOutput`.
    pub fn new(
        process_id: Arc<str>,
        options: &ProcessOptions,
        acks: Option<Arc<dyn AckSink>>,
    ) -> (Arc<ProcessState>, ProcessEvents) {
        let acks = Arc::new(Acks::new(process_id, acks, options.ack_bytes));
        let stream = Arc::new(EventQueue::new(Bounds {
            events: usize::MAX,
            bytes: options.max_queued_bytes,
        }));
        let events = ProcessEvents::new(stream.clone(), acks.clone());
        let record = Record {
            log: match options.replay {
                true => EventLog::new(),
                false => EventLog::without_output(),
            },
            stream,
            exit: None,
            closed: false,
            failure: None,
            unacked: Unacked::default(),
            due: None,
            is_news: false,
        };
        let order = EventOrder::new();
        let state = ProcessState {
            inner: Mutex::new(Inner {
                order,
                record,
                waiting: 0,
            }),
            changed: Condvar::new(),
            wake: Wake::default(),
            acks,
            has_replay: options.replay,
        };
        (Arc::new(state), events)
    }

    /// Takes an event from the wire, in any order. One for which the gap before it is too large makes the process fail.
    pub fn on_event(&self, event: ExecProcessEvent) -> Progress {
        let Some(seq) = event.seq() else {
            if let ExecProcessEvent::Failed(message) = event {
                self.fail(message);
            }
            return self.inner().progress();
        };
        let mut inner = self.inner();
        let Inner { order, record, .. } = &mut *inner;
        let was_ended = order.is_ended();
        let taken = order.take(event, &mut |event| record.publish(event, &self.acks));
        if let Err(e) = taken {
            inner.fail(e.to_string());
        }
        let progress = inner.progress();
        self.settle(inner);
        if !was_ended {
            self.wake.note(seq);
        }
        if taken.is_err() {
            self.wake.bump();
        }
        progress
    }

    /// The connection is lost. Until [`recover`](ProcessState::recover) has filled the gap, too many events after it are
    /// no failure.
    pub fn begin_recovery(&self) {
        self.inner().order.begin_recovery();
    }

    /// Merges what `process/read` answered on a new connection, asked for what comes after
    /// [`last_published`](ProcessState::last_published), with the events that have arrived on it, also before the answer.
    ///
    /// Once the new connection is in use, [`repeat_ack`](ProcessState::repeat_ack) is to be called.
    ///
    /// # Errors
    /// Why the events cannot be had. The process has failed then, with `failed to recover process X: …`, and is to be
    /// terminated.
    pub fn recover(&self, snapshot: ReadResponse) -> Result<Recovery, RecoverError> {
        let mut inner = self.inner();
        let Inner { order, record, .. } = &mut *inner;
        let recovered = order.recover(snapshot, &mut |event| record.publish(event, &self.acks));
        if let Err(e) = &recovered {
            inner.fail(format!("failed to recover process {}: {e}", self.process_id()));
        }
        let last_published = inner.order.last_published();
        self.settle(inner);
        match &recovered {
            Ok(_) => self.wake.note(last_published),
            Err(_) => self.wake.bump(),
        }
        recovered
    }

    /// The same for a process whose first events nobody here has seen: those that are not retained any more are skipped.
    ///
    /// # Errors
    /// As [`recover`](ProcessState::recover).
    pub fn take_up(&self, snapshot: ReadResponse) -> Result<Recovery, RecoverError> {
        self.inner().order.skip_lost(&snapshot);
        self.recover(snapshot)
    }

    /// Acknowledges again what was acknowledged last: that may have been lost with the connection, and the server would
    /// wait for it.
    pub fn repeat_ack(&self) {
        self.acks.repeat();
    }

    /// No more events are to be had. Those who wait are told why. Does nothing after the last event or another failure.
    pub fn fail(&self, message: impl Into<String>) {
        let mut inner = self.inner();
        if inner.order.is_ended() {
            return;
        }
        inner.fail(message.into());
        self.settle(inner);
        self.wake.bump();
    }

    /// The client's name for the process.
    pub fn process_id(&self) -> &Arc<str> {
        self.acks.process_id()
    }

    /// The number of the last event that was published; all before it were, too.
    pub fn last_published(&self) -> u64 {
        self.inner().order.last_published()
    }

    /// Whether output is kept for those who subscribe late.
    pub fn has_replay(&self) -> bool {
        self.has_replay
    }

    /// The events that are kept, at most 256 with 1 MiB, and those that follow.
    pub fn subscribe(&self) -> EventSubscriber {
        self.inner().record.log.subscribe()
    }

    /// Grows with the number of each event that arrives, and once more when the process fails.
    pub fn wake(&self) -> &Wake {
        &self.wake
    }

    /// How the process ended, once that was published.
    pub fn exit(&self) -> Option<ProcessExit> {
        self.inner().record.exit.clone()
    }

    /// Whether the last event was published.
    pub fn is_closed(&self) -> bool {
        self.inner().record.closed
    }

    /// Why no more events are to be had.
    pub fn failure(&self) -> Option<String> {
        self.inner().record.failure.clone()
    }

    /// Waits until the process has ended, for at most `timeout`, or for ever if that is `None`.
    ///
    /// From a server that takes acknowledgements the exit comes after all output before it was consumed, so somebody must
    /// read the [`ProcessEvents`], or have discarded them.
    ///
    /// # Errors
    /// The time is over, or the process has failed.
    pub fn wait_exit(&self, timeout: Option<Duration>) -> Result<ProcessExit, WaitError> {
        let end = self.wait(timeout, |record| record.exit.is_some())?;
        let no_exit = || WaitError::Failed("the process was closed without an exit code".into());
        end.record.exit.clone().ok_or_else(no_exit)
    }

    /// Waits until there will be no more events, otherwise like [`wait_exit`](ProcessState::wait_exit).
    ///
    /// # Errors
    /// The time is over, or the process has failed.
    pub fn wait_closed(&self, timeout: Option<Duration>) -> Result<(), WaitError> {
        self.wait(timeout, |_| false).map(|_| ())
    }

    fn wait(
        &self,
        timeout: Option<Duration>,
        is_enough: fn(&Record) -> bool,
    ) -> Result<MutexGuard<'_, Inner>, WaitError> {
        let deadline = Deadline::after(timeout);
        let mut inner = self.inner();
        let mut in_time = true;
        loop {
            let record = &inner.record;
            if record.closed || is_enough(record) {
                return Ok(inner);
            }
            if let Some(failure) = &record.failure {
                return Err(WaitError::Failed(failure.clone()));
            }
            if !in_time {
                return Err(WaitError::Timeout);
            }
            inner.waiting += 1;
            (inner, in_time) = deadline.wait(&self.changed, inner);
            inner.waiting -= 1;
        }
    }

    /// Does what must not be done under the lock.
    fn settle(&self, mut inner: MutexGuard<'_, Inner>) {
        let due = inner.record.due.take();
        let is_awaited = std::mem::take(&mut inner.record.is_news) && inner.waiting > 0;
        drop(inner);
        if is_awaited {
            self.changed.notify_all();
        }
        if let Some(seq) = due {
            self.acks.send(seq);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ProcessState {
    fn drop(&mut self) {
        self.fail("exec-server transport closed");
    }
}

impl Inner {
    fn fail(&mut self, message: String) {
        self.order.end();
        self.record.failure = Some(message.clone());
        self.record.is_news = true;
        let event = ExecProcessEvent::Failed(message);
        self.record.stream.push(&event);
        self.record.log.publish(event);
    }

    fn progress(&self) -> Progress {
        match (self.record.closed, &self.record.failure) {
            (true, _) => Progress::Closed,
            (false, Some(_)) => Progress::Failed,
            (false, None) => Progress::Open,
        }
    }
}

impl Record {
    fn publish(&mut self, event: ExecProcessEvent, acks: &Acks) {
        match &event {
            ExecProcessEvent::Exited {
                exit_code,
                signal,
                sandbox_denied,
                ended_by,
                ..
            } => {
                self.exit.get_or_insert_with(|| ProcessExit {
                    exit_code: *exit_code,
                    signal: signal.clone(),
                    sandbox_denied: *sandbox_denied,
                    ended_by: ended_by.clone(),
                });
                self.is_news = true;
            }
            ExecProcessEvent::Closed { .. } => {
                self.closed = true;
                self.is_news = true;
            }
            _ => {}
        }
        if !self.stream.push(&event) {
            self.due = self.unacked.consume(&event, acks).or(self.due);
        }
        self.log.publish(event);
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
