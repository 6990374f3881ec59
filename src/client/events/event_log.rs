//! The last events of a process, for those who come late.

use super::queue::{Bounds, EventQueue};
use super::{ExecProcessEvent, Lagged, RecvError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How many events are kept, and how many may wait for a subscriber. The number Codex's client has for both.
const MAX_EVENTS: usize = 256;

/// How many bytes of output are kept: 1 MiB, as with Codex's client.
const MAX_BYTES: usize = 1024 * 1024;

/// How many bytes may wait for a subscriber: 256 of the largest chunks that our server sends, 64 KiB.
const MAX_WAITING_BYTES: usize = MAX_EVENTS * 64 * 1024;

/// The last events of a process, up to 256 and 1 MiB of output, and those who want the ones to come.
pub struct EventLog {
    history: VecDeque<ExecProcessEvent>,
    bytes: usize,
    max_bytes: usize,
    /// What came before the history.
    evicted: Option<Lagged>,
    subscribers: Vec<Arc<EventQueue>>,
}

impl EventLog {
    /// An empty log.
    pub fn new() -> EventLog {
        EventLog::keeping(MAX_BYTES)
    }

    /// An empty log that keeps no output, only what comes after the last.
    pub fn without_output() -> EventLog {
        EventLog::keeping(0)
    }

    fn keeping(max_bytes: usize) -> EventLog {
        EventLog {
            history: VecDeque::new(),
            bytes: 0,
            max_bytes,
            evicted: None,
            subscribers: Vec::new(),
        }
    }

    /// Adds the next event. The oldest go when there is no room: also this one, if it is too much by itself, so that there
    /// is room for those that follow.
    pub fn publish(&mut self, event: ExecProcessEvent) {
        if !self.subscribers.is_empty() {
            self.subscribers.retain(|queue| queue.push(&event));
        }
        self.bytes += event.output_len();
        self.history.push_back(event);
        while self.bytes > self.max_bytes || self.history.len() > MAX_EVENTS {
            let Some(oldest) = self.history.pop_front() else { break };
            self.bytes -= oldest.output_len();
            let none = Lagged {
                skipped: 0,
                bytes: 0,
                through_seq: 0,
            };
            let evicted = self.evicted.get_or_insert(none);
            evicted.add(oldest.seq().unwrap_or(evicted.through_seq), oldest.output_len());
        }
    }

    /// The events that are kept, and those that follow, with neither gap nor double.
    pub fn subscribe(&mut self) -> EventSubscriber {
        let bounds = Bounds {
            events: MAX_EVENTS,
            bytes: MAX_WAITING_BYTES,
        };
        let queue = EventQueue::with_history(bounds, self.evicted, self.history.iter());
        self.subscribers.retain(|queue| !queue.is_left());
        self.subscribers.push(queue.clone());
        EventSubscriber { queue }
    }
}

impl Default for EventLog {
    fn default() -> EventLog {
        EventLog::new()
    }
}

/// The events of a process from an [`EventLog`]: first those that were kept, then the others as they come.
///
/// It holds nothing up. What is read too slowly, with more than 256 events or 16 MiB behind those that were there at
/// the beginning, is skipped; what was skipped, also before the beginning, is told in its place as [`Lagged`]. The exit
/// and the end are never skipped.
pub struct EventSubscriber {
    queue: Arc<EventQueue>,
}

impl EventSubscriber {
    /// Waits for the next event.
    ///
    /// # Errors
    /// `Lagged` once for all that were skipped before the next event; `Ended` for ever after the last one.
    pub fn recv(&mut self) -> Result<ExecProcessEvent, RecvError> {
        self.queue.pop(None)
    }

    /// Waits for the next event, for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv`](EventSubscriber::recv); `Empty` if there is none by then.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<ExecProcessEvent, RecvError> {
        self.queue.pop(Some(timeout))
    }

    /// The next event if it is there.
    ///
    /// # Errors
    /// As [`recv`](EventSubscriber::recv); `Empty` if there is none.
    pub fn try_recv(&mut self) -> Result<ExecProcessEvent, RecvError> {
        self.queue.pop(Some(Duration::ZERO))
    }
}

/// Waits for each event; ends after the last.
impl Iterator for EventSubscriber {
    type Item = Result<ExecProcessEvent, Lagged>;

    fn next(&mut self) -> Option<Self::Item> {
        next_item(self.recv())
    }
}

impl Drop for EventSubscriber {
    fn drop(&mut self) {
        self.queue.leave();
    }
}

pub(super) fn next_item(received: Result<ExecProcessEvent, RecvError>) -> Option<Result<ExecProcessEvent, Lagged>> {
    match received {
        Ok(event) => Some(Ok(event)),
        Err(RecvError::Lagged(lagged)) => Some(Err(lagged)),
        Err(RecvError::Empty | RecvError::Ended) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{closed, exited, output, zeros};
    use super::*;

    /// The numbers of the events that are there, up to a loss.
    fn seqs(subscriber: &mut EventSubscriber) -> Vec<u64> {
        std::iter::from_fn(|| subscriber.try_recv().ok())
            .filter_map(|event| event.seq())
            .collect()
    }

    fn lagged(skipped: u64, bytes: u64, through_seq: u64) -> Result<ExecProcessEvent, RecvError> {
        Err(RecvError::Lagged(Lagged {
            skipped,
            bytes,
            through_seq,
        }))
    }

    #[test]
    fn a_late_subscriber_gets_the_past_and_then_the_present() {
        let mut log = EventLog::new();
        log.publish(output(1, "a"));
        let mut early = log.subscribe();
        log.publish(output(2, "b"));
        let mut late = log.subscribe();
        log.publish(exited(3));
        log.publish(closed(4));
        let past = log.subscribe();
        assert_eq!(early.by_ref().flatten().count(), 4);
        assert_eq!(seqs(&mut late), [1, 2, 3, 4]);
        assert_eq!(late.try_recv(), Err(RecvError::Ended));
        assert_eq!(past.flatten().count(), 4, "it does not wait for more");
    }

    #[test]
    fn so_many_events_are_kept() {
        let mut log = EventLog::new();
        for seq in 1..=300 {
            log.publish(output(seq, "ab"));
        }
        let mut subscriber = log.subscribe();
        assert_eq!(subscriber.try_recv(), lagged(44, 88, 44));
        assert_eq!(seqs(&mut subscriber), (45..=300).collect::<Vec<_>>());
    }

    #[test]
    fn so_much_output_is_kept() {
        let mut log = EventLog::new();
        for seq in 1..=5 {
            log.publish(zeros(seq, MAX_BYTES / 4));
        }
        let mut subscriber = log.subscribe();
        assert_eq!(subscriber.try_recv(), lagged(1, MAX_BYTES as u64 / 4, 1));
        assert_eq!(seqs(&mut subscriber), [2, 3, 4, 5]);
    }

    #[test]
    fn output_that_is_too_large_does_not_cost_the_exit() {
        let mut log = EventLog::new();
        log.publish(output(1, "a"));
        let mut live = log.subscribe();
        log.publish(zeros(2, MAX_BYTES + 1));
        log.publish(exited(3));
        log.publish(closed(4));
        assert_eq!(log.bytes, 0);
        let mut late = log.subscribe();
        assert_eq!(late.try_recv(), lagged(2, MAX_BYTES as u64 + 2, 2));
        assert_eq!(seqs(&mut late), [3, 4]);
        assert_eq!(seqs(&mut live), [1, 2, 3, 4]);
    }

    #[test]
    fn without_output_only_the_end_is_kept() {
        let mut log = EventLog::without_output();
        let mut live = log.subscribe();
        log.publish(output(1, "abc"));
        let mut late = log.subscribe();
        log.publish(output(2, "de"));
        log.publish(exited(3));
        log.publish(output(4, "f"));
        log.publish(closed(5));
        assert_eq!(seqs(&mut live), [1, 2, 3, 4, 5]);
        assert_eq!(late.try_recv(), lagged(1, 3, 1));
        assert_eq!(seqs(&mut late), [2, 3, 4, 5]);
        let mut last = log.subscribe();
        assert_eq!(last.try_recv(), lagged(4, 6, 4));
        assert_eq!(last.try_recv(), Ok(closed(5)));
        assert_eq!(last.try_recv(), Err(RecvError::Ended));
    }

    #[test]
    fn a_slow_subscriber_is_told_and_goes_on() {
        let mut log = EventLog::new();
        for seq in 1..=10 {
            log.publish(output(seq, "x"));
        }
        let mut slow = log.subscribe();
        for seq in 11..=300 {
            log.publish(output(seq, "x"));
        }
        for seq in 1..=266 {
            assert_eq!(slow.try_recv(), Ok(output(seq, "x")), "the past takes no room");
        }
        assert_eq!(slow.try_recv(), lagged(34, 34, 300));
        assert_eq!(slow.try_recv(), Err(RecvError::Empty));
        log.publish(output(301, "x"));
        assert_eq!(seqs(&mut slow), [301]);
    }

    #[test]
    fn those_who_left_are_forgotten() {
        let mut log = EventLog::new();
        drop(log.subscribe());
        let _stays = log.subscribe();
        assert_eq!(log.subscribers.len(), 1);
        drop(log.subscribe());
        log.publish(output(1, "a"));
        assert_eq!(log.subscribers.len(), 1);
    }
}
