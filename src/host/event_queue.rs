//! What the server tells, until the consumer takes it.

use super::JsonText;
use crate::protocol::message::RequestId;
use crossbeam_channel::Sender;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tungstenite::Bytes;

/// What the server tells its client.
#[derive(Debug)]
pub enum InProcessServerEvent {
    /// It asks something, and waits for the answer.
    ServerRequest(ServerRequest),
    /// It tells something.
    ServerNotification(ServerNotification),
    /// A process has written something: the notification `process/output`.
    Output(ProcessOutput),
    /// Notifications were skipped here, because too many events waited.
    Lagged {
        /// How many.
        skipped: usize,
    },
}

/// A request of the server's.
#[derive(Debug)]
pub struct ServerRequest {
    /// Goes into the answer.
    pub id: RequestId,
    /// What it asks.
    pub method: String,
    /// The parameters; `null` if there are none.
    pub params: JsonText,
}

/// A notification of the server's.
#[derive(Debug)]
pub struct ServerNotification {
    /// What it tells.
    pub method: String,
    /// The parameters; `null` if there are none.
    pub params: JsonText,
}

/// Some output of a process.
#[derive(Debug)]
pub struct ProcessOutput {
    /// Which process.
    pub process_id: Arc<str>,
    /// The number of the event, which it shares with the other events of the process.
    pub seq: u64,
    /// `stdout`, `stderr` or `pty`.
    pub stream: &'static str,
    /// What it wrote.
    pub chunk: Bytes,
}

/// Why an event was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many events wait as may.
    Full,
    /// Nobody takes events any more.
    Closed,
}

/// What there was for the consumer.
pub(super) enum Next {
    Event(InProcessServerEvent),
    Ended,
    TimedOut,
}

/// The events that wait for the consumer.
///
/// What must be delivered is queued beyond the capacity too. There is a bound all the same: the server sends only so
/// much ahead of what is acknowledged, and that is what was taken from here.
pub(super) struct EventQueue {
    capacity: usize,
    /// Bytes and events of a process that are acknowledged together.
    ack_batch: (usize, usize),
    /// Told when there is something to acknowledge.
    consumed: Sender<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Entry>,
    /// What was taken of each process and not acknowledged: bytes and events.
    taken: HashMap<Arc<str>, (usize, usize)>,
    /// What is to be acknowledged: processes and numbers.
    due: Vec<(Arc<str>, u64)>,
    consumer_waits: bool,
    has_ended: bool,
    is_closed: bool,
}

struct Entry {
    event: InProcessServerEvent,
    /// The process whose last event it is.
    closes: Option<Box<str>>,
}

impl EventQueue {
    pub(super) fn new(capacity: usize, ack_batch: (usize, usize), consumed: Sender<()>) -> EventQueue {
        EventQueue {
            capacity,
            ack_batch,
            consumed,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Queues an event if there is room.
    pub(super) fn offer(&self, event: InProcessServerEvent) -> Result<(), Refused> {
        let state = self.state();
        if !state.is_closed && state.events.len() >= self.capacity {
            return Err(Refused::Full);
        }
        self.push(state, event, None)
    }

    /// Queues an event, however many wait. `closes` names the process whose last it is.
    pub(super) fn deliver(&self, event: InProcessServerEvent, closes: Option<Box<str>>) -> Result<(), Refused> {
        self.push(self.state(), event, closes)
    }

    /// Counts one that was not queued.
    pub(super) fn skip(&self) {
        let mut state = self.state();
        let last = state.events.back_mut().map(|entry| &mut entry.event);
        if let Some(InProcessServerEvent::Lagged { skipped }) = last {
            *skipped += 1;
            return;
        }
        let _ = self.push(state, InProcessServerEvent::Lagged { skipped: 1 }, None);
    }

    fn push(
        &self,
        mut state: MutexGuard<'_, State>,
        event: InProcessServerEvent,
        closes: Option<Box<str>>,
    ) -> Result<(), Refused> {
        if state.is_closed {
            return Err(Refused::Closed);
        }
        state.events.push_back(Entry { event, closes });
        if state.consumer_waits {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits for an event, until `deadline` if there is one.
    pub(super) fn next(&self, deadline: Option<Instant>) -> Next {
        let mut state = self.state();
        loop {
            if let Some(entry) = state.events.pop_front() {
                if state.count(&entry, self.ack_batch) {
                    // It is full if the runtime is still to come by for what was due before.
                    let _ = self.consumed.try_send(());
                }
                return Next::Event(entry.event);
            }
            if state.has_ended {
                return Next::Ended;
            }
            state.consumer_waits = true;
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        state.consumer_waits = false;
                        return Next::TimedOut;
                    }
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.consumer_waits = false;
        }
    }

    /// What is to be acknowledged by now.
    pub(super) fn take_due(&self) -> Vec<(Arc<str>, u64)> {
        std::mem::take(&mut self.state().due)
    }

    /// No more events come; those that wait can still be taken.
    pub(super) fn end(&self) {
        self.state().has_ended = true;
        self.changed.notify_all();
    }

    /// Nobody takes events any more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let untaken = std::mem::take(&mut state.events);
        drop(state);
        drop(untaken);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an event that is taken; whether something is to be acknowledged now.
    fn count(&mut self, entry: &Entry, (batch_bytes, batch_events): (usize, usize)) -> bool {
        if let Some(process) = &entry.closes {
            self.taken.remove(&**process);
        }
        let InProcessServerEvent::Output(output) = &entry.event else {
            return false;
        };
        let taken = match self.taken.get_mut(&output.process_id) {
            Some(taken) => taken,
            None => self.taken.entry(output.process_id.clone()).or_default(),
        };
        taken.0 += output.chunk.len();
        taken.1 += 1;
        if taken.0 < batch_bytes && taken.1 < batch_events {
            return false;
        }
        *taken = (0, 0);
        match self.due.iter_mut().find(|(process, _)| *process == output.process_id) {
            Some((_, seq)) => *seq = output.seq,
            None => self.due.push((output.process_id.clone(), output.seq)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    fn notification(method: &str) -> InProcessServerEvent {
        InProcessServerEvent::ServerNotification(ServerNotification {
            method: method.to_owned(),
            params: JsonText(Bytes::from_static(b"null")),
        })
    }

    fn output(process: &str, seq: u64, len: usize) -> InProcessServerEvent {
        InProcessServerEvent::Output(ProcessOutput {
            process_id: process.into(),
            seq,
            stream: "stdout",
            chunk: vec![0; len].into(),
        })
    }

    /// In short: `!n` for what was skipped.
    fn take(queue: &EventQueue) -> String {
        match queue.next(Some(Instant::now())) {
            Next::Event(InProcessServerEvent::ServerNotification(n)) => n.method,
            Next::Event(InProcessServerEvent::Output(output)) => format!("{}{}", output.process_id, output.seq),
            Next::Event(InProcessServerEvent::Lagged { skipped }) => format!("!{skipped}"),
            Next::Event(InProcessServerEvent::ServerRequest(request)) => request.id.to_string(),
            Next::Ended => "ended".into(),
            Next::TimedOut => "nothing".into(),
        }
    }

    #[test]
    fn what_is_skipped_is_told_where_it_would_have_been() {
        let queue = EventQueue::new(2, (100, 100), bounded(1).0);
        for name in ["a", "b"] {
            assert_eq!(queue.offer(notification(name)), Ok(()));
        }
        for _ in 0..2 {
            assert_eq!(queue.offer(notification("lost")), Err(Refused::Full));
            queue.skip();
        }
        queue.deliver(notification("c"), None).unwrap();
        queue.skip();
        assert_eq!([(); 3].map(|()| take(&queue)), ["a", "b", "!2"]);
        assert_eq!(queue.offer(notification("lost")), Err(Refused::Full));
        queue.skip();
        queue.end();
        assert_eq!([(); 3].map(|()| take(&queue)), ["c", "!2", "ended"]);
    }

    #[test]
    fn what_was_taken_is_acknowledged_in_batches() {
        let (consumed, was_consumed) = bounded(1);
        let queue = EventQueue::new(1, (10, 3), consumed);
        let lens = [4, 4, 4, 1, 1, 1, 9, 1];
        for (seq, len) in (1..).zip(lens) {
            queue.deliver(output("p", seq, len), None).unwrap();
        }
        queue.deliver(output("q", 1, 20), None).unwrap();
        let due = |taken: usize| {
            (0..taken).for_each(|_| drop(take(&queue)));
            let due = queue.take_due();
            assert_eq!(was_consumed.try_recv().is_ok(), !due.is_empty());
            due.iter()
                .map(|(process, seq)| format!("{process}{seq}"))
                .collect::<Vec<_>>()
        };
        assert!(due(2).is_empty());
        assert_eq!(due(1), ["p3"]);
        assert_eq!(due(3), ["p6"]);
        assert_eq!(due(3), ["p8", "q1"]);
        assert_eq!(take(&queue), "nothing");
        // Nothing is remembered of a process that is closed.
        queue.deliver(output("p", 9, 1), None).unwrap();
        queue.deliver(notification("closed"), Some("p".into())).unwrap();
        assert!(due(2).is_empty());
        assert!(!queue.state().taken.contains_key("p"));
    }

    #[test]
    fn nothing_waits_for_a_consumer_that_is_gone() {
        let queue = EventQueue::new(1, (1, 1), bounded(1).0);
        queue.deliver(notification("a"), None).unwrap();
        queue.close();
        assert_eq!(queue.deliver(notification("b"), None), Err(Refused::Closed));
        assert_eq!(queue.offer(notification("b")), Err(Refused::Closed));
        queue.skip();
        assert!(queue.state().events.is_empty());
    }
}
