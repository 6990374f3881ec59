//! The events that wait for one reader.

use super::ExecProcessEvent;
use super::deadline::Deadline;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Events that a reader was too slow for, or too late. It goes on with the event after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{skipped} process events with {bytes} bytes of output were skipped, up to sequence {through_seq}")]
pub struct Lagged {
    /// How many.
    pub skipped: u64,
    /// How much output they had.
    pub bytes: u64,
    /// The number of the last of them.
    pub through_seq: u64,
}

impl Lagged {
    /// The number of the last event before them: a `process/read` with this as `afterSeq` has those that the server
    /// still retains.
    pub fn after_seq(&self) -> u64 {
        self.through_seq.saturating_sub(self.skipped)
    }

    /// Counts one more event.
    pub(super) fn add(&mut self, seq: u64, bytes: usize) {
        self.skipped += 1;
        self.bytes += bytes as u64;
        self.through_seq = seq;
    }
}

/// Why there is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// There is none yet.
    #[error("no process event in time")]
    Empty,
    /// Some were skipped before the next one.
    #[error(transparent)]
    Lagged(#[from] Lagged),
    /// There will be none: the last one was received.
    #[error("no more process events")]
    Ended,
}

/// What may wait in an [`EventQueue`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) events: usize,
    /// Of output, and the [`ENTRY_BYTES`] of each event.
    pub(super) bytes: usize,
}

/// What an event takes beside its output.
pub(super) const ENTRY_BYTES: usize = size_of::<Item>();

enum Item {
    Event(ExecProcessEvent),
    Lost(Lagged),
}

/// The events that wait for one reader. What writes is never held up: output for which there is no room is counted in
/// the place where it would be.
pub(super) struct EventQueue {
    state: Mutex<State>,
    readable: Condvar,
}

struct State {
    items: VecDeque<Item>,
    bytes: usize,
    bounds: Bounds,
    /// The reader sleeps.
    is_awaited: bool,
    /// The reader is gone.
    is_left: bool,
    /// The last event is in, or was.
    is_ended: bool,
    last_seq: u64,
}

impl EventQueue {
    pub(super) fn new(bounds: Bounds) -> EventQueue {
        EventQueue {
            state: Mutex::new(State {
                items: VecDeque::new(),
                bytes: 0,
                bounds,
                is_awaited: false,
                is_left: false,
                is_ended: false,
                last_seq: 0,
            }),
            readable: Condvar::new(),
        }
    }

    /// A queue with events that do not count towards the bounds, perhaps after some that are lost.
    pub(super) fn with_history<'a>(
        bounds: Bounds,
        lost: Option<Lagged>,
        history: impl ExactSizeIterator<Item = &'a ExecProcessEvent>,
    ) -> Arc<EventQueue> {
        let mut queue = EventQueue::new(Bounds {
            events: usize::MAX,
            bytes: usize::MAX,
        });
        let state = queue.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.items.reserve(history.len() + 1);
        state.items.extend(lost.map(Item::Lost));
        for event in history {
            state.put(event);
        }
        state.bounds = Bounds {
            events: bounds.events + state.items.len(),
            bytes: bounds.bytes + state.bytes,
        };
        Arc::new(queue)
    }

    /// Adds an event, or counts it as lost. False if nobody will read it.
    pub(super) fn push(&self, event: &ExecProcessEvent) -> bool {
        let mut state = self.state();
        if state.is_left {
            return false;
        }
        state.put(event);
        if std::mem::take(&mut state.is_awaited) {
            drop(state);
            self.readable.notify_one();
        }
        true
    }

    /// The next event; waits for it, for ever if there is no `timeout`.
    pub(super) fn pop(&self, timeout: Option<Duration>) -> Result<ExecProcessEvent, RecvError> {
        let mut state = self.state();
        let mut deadline = None;
        loop {
            match state.items.pop_front() {
                Some(Item::Event(event)) => {
                    state.bytes -= ENTRY_BYTES + event.output_len();
                    return Ok(event);
                }
                Some(Item::Lost(lost)) => return Err(lost.into()),
                None if state.is_ended => return Err(RecvError::Ended),
                None if timeout == Some(Duration::ZERO) => return Err(RecvError::Empty),
                None => {}
            }
            state.is_awaited = true;
            let deadline = deadline.get_or_insert_with(|| Deadline::after(timeout));
            let (guard, in_time) = deadline.wait(&self.readable, state);
            state = guard;
            if !in_time {
                state.is_awaited = false;
                return Err(RecvError::Empty);
            }
        }
    }

    /// The reader is gone: what waits is forgotten, and nothing will. Returns the number of the last event so far, unless
    /// that was the last of all.
    pub(super) fn leave(&self) -> Option<u64> {
        let mut state = self.state();
        state.is_left = true;
        let items = std::mem::take(&mut state.items);
        let last_seq = (!state.is_ended).then_some(state.last_seq);
        // Freeing much takes its time.
        drop(state);
        drop(items);
        last_seq
    }

    pub(super) fn is_left(&self) -> bool {
        self.state().is_left
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, event: &ExecProcessEvent) {
        self.is_ended |= event.is_last();
        let len = event.output_len();
        if let ExecProcessEvent::Output(output) = event
            && !self.has_room(len)
        {
            self.last_seq = output.seq;
            return self.lose(output.seq, len);
        }
        self.last_seq = event.seq().unwrap_or(self.last_seq);
        self.bytes += ENTRY_BYTES + len;
        self.items.push_back(Item::Event(event.clone()));
    }

    /// There is always room for one event, or it would never come.
    fn has_room(&self, len: usize) -> bool {
        let room = self.bounds.bytes.saturating_sub(self.bytes);
        self.items.is_empty() || (self.items.len() < self.bounds.events && ENTRY_BYTES + len <= room)
    }

    fn lose(&mut self, seq: u64, len: usize) {
        if let Some(Item::Lost(lost)) = self.items.back_mut() {
            return lost.add(seq, len);
        }
        let mut lost = Lagged {
            skipped: 0,
            bytes: 0,
            through_seq: 0,
        };
        lost.add(seq, len);
        self.items.push_back(Item::Lost(lost));
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{closed, exited, output, zeros};
    use super::*;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn lost(skipped: u64, bytes: u64, through_seq: u64) -> Result<ExecProcessEvent, RecvError> {
        Err(RecvError::Lagged(Lagged {
            skipped,
            bytes,
            through_seq,
        }))
    }

    #[test]
    fn what_has_no_room_is_counted_where_it_would_be() {
        let queue = EventQueue::new(Bounds {
            events: 2,
            bytes: usize::MAX,
        });
        for seq in 1..=4 {
            assert!(queue.push(&output(seq, "abc")));
        }
        assert_eq!(queue.pop(NOW), Ok(output(1, "abc")));
        assert!(queue.push(&output(5, "de")));
        assert!(queue.push(&exited(6)) && queue.push(&output(7, "f")) && queue.push(&closed(8)));
        assert_eq!(queue.pop(NOW), Ok(output(2, "abc")));
        assert_eq!(queue.pop(NOW), lost(3, 8, 5));
        assert_eq!(
            queue.pop(NOW),
            Ok(exited(6)),
            "there is always room for what comes once"
        );
        assert_eq!(queue.pop(NOW), lost(1, 1, 7));
        assert_eq!(queue.pop(NOW), Ok(closed(8)));
        assert_eq!(queue.pop(NOW), Err(RecvError::Ended));
    }

    #[test]
    fn bytes_are_bounded_and_one_event_always_fits() {
        let queue = EventQueue::new(Bounds {
            events: 100,
            bytes: 2 * (ENTRY_BYTES + 10),
        });
        assert!(queue.push(&zeros(1, 1000)) && queue.push(&zeros(2, 1)));
        assert_eq!(queue.pop(NOW).unwrap().output_len(), 1000);
        assert_eq!(queue.pop(NOW), lost(1, 1, 2));
        for seq in 3..=5 {
            assert!(queue.push(&zeros(seq, 10)));
        }
        assert_eq!(queue.pop(NOW), Ok(zeros(3, 10)));
        assert_eq!(queue.pop(NOW), Ok(zeros(4, 10)));
        assert_eq!(queue.pop(NOW), lost(1, 10, 5));
        assert_eq!(queue.state().bytes, 0);
    }

    #[test]
    fn a_loss_tells_where_to_read_on() {
        let lost = Lagged {
            skipped: 3,
            bytes: 8,
            through_seq: 5,
        };
        assert_eq!(lost.after_seq(), 2);
        assert_eq!(
            lost.to_string(),
            "3 process events with 8 bytes of output were skipped, up to sequence 5"
        );
    }

    #[test]
    fn waiting_ends_with_an_event_or_the_time() {
        let queue = EventQueue::new(Bounds { events: 9, bytes: 999 });
        assert_eq!(queue.pop(Some(Duration::from_millis(1))), Err(RecvError::Empty));
        assert!(!queue.state().is_awaited);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| queue.pop(None));
            while !queue.state().is_awaited {
                std::thread::yield_now();
            }
            queue.push(&output(1, "a"));
            assert_eq!(reader.join().unwrap(), Ok(output(1, "a")));
        });
    }

    #[test]
    fn nothing_is_kept_for_a_reader_that_left() {
        let queue = EventQueue::new(Bounds { events: 9, bytes: 999 });
        assert!(queue.push(&output(1, "a")));
        assert_eq!(queue.leave(), Some(1));
        assert!(!queue.push(&output(2, "b")));
        assert!(queue.is_left() && queue.state().items.is_empty());
    }
}
