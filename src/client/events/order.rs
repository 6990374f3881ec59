//! Putting events in order.

use super::ExecProcessEvent;
use std::collections::BTreeMap;

/// How many events wait for an earlier one, at most. The number Codex's client has.
pub(super) const MAX_PENDING_EVENTS: usize = 256;

/// How many bytes of output wait for an earlier event, at most: 1 MiB, as with Codex's client.
pub(super) const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// Why an event that came too early could not wait for those before it. The texts are those of Codex's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReorderError {
    /// Too many wait already.
    #[error("process event reorder buffer exceeds {MAX_PENDING_EVENTS} entries")]
    Events,
    /// Those that wait have too much output.
    #[error("process event reorder buffer exceeds {MAX_PENDING_BYTES} bytes")]
    Bytes,
    /// It has too much output by itself.
    #[error("process event exceeds {MAX_PENDING_BYTES} bytes")]
    Event,
}

/// The events of one process on their way from the wire, where they may come in any order and more than once, to those
/// who read them, who get them in order and once.
///
/// The next event in order always passes, whatever its size. Others wait, up to 256 events and 1 MiB of output.
#[derive(Debug, Default)]
pub struct EventOrder {
    /// The number of the last event that was published; everything up to it was.
    pub(super) published: u64,
    /// Events after a gap.
    pub(super) pending: BTreeMap<u64, ExecProcessEvent>,
    pub(super) pending_bytes: usize,
    pub(super) exit_published: bool,
    /// Nothing is taken any more.
    ended: bool,
    /// The gap is known and about to be filled.
    pub(super) recovering: bool,
    /// The highest number of an event for which there was no room while `recovering`.
    pub(super) left_out: u64,
}

impl EventOrder {
    /// Before the first event, which has number 1.
    pub fn new() -> EventOrder {
        EventOrder::default()
    }

    /// The number of the last event that was published; everything before it was, too.
    pub fn last_published(&self) -> u64 {
        self.published
    }

    /// Takes an event from the wire and publishes what can be by now. One that was published before, or waits already,
    /// is dropped, and so is everything after the last event or [`end`](EventOrder::end).
    ///
    /// # Errors
    /// There is no room for it to wait in. The order is then to be ended: the event will not come again.
    pub fn take(
        &mut self,
        event: ExecProcessEvent,
        publish: &mut dyn FnMut(ExecProcessEvent),
    ) -> Result<(), ReorderError> {
        let Some(seq) = event.seq() else { return Ok(()) };
        if self.ended || seq <= self.published {
            return Ok(());
        }
        if seq == self.published + 1 {
            self.pass(event, publish);
            if !self.pending.is_empty() {
                self.publish_pending(publish);
            }
            return Ok(());
        }
        if self.pending.contains_key(&seq) {
            return Ok(());
        }
        if let Err(e) = self.has_room(event.output_len()) {
            if self.recovering {
                self.left_out = self.left_out.max(seq);
                return Ok(());
            }
            return Err(e);
        }
        self.put_aside(seq, event);
        Ok(())
    }

    /// From now on until the gap is filled by [`recover`](EventOrder::recover) an event for which there is no room is no
    /// error: it is left out, and `recover` says that it must be asked for.
    pub fn begin_recovery(&mut self) {
        self.recovering = !self.ended;
    }

    /// Takes no more events and forgets those that wait.
    pub fn end(&mut self) {
        self.ended = true;
        self.recovering = false;
        self.pending = BTreeMap::new();
        self.pending_bytes = 0;
    }

    /// Whether no more events are taken.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    fn has_room(&self, bytes: usize) -> Result<(), ReorderError> {
        if bytes > MAX_PENDING_BYTES {
            Err(ReorderError::Event)
        } else if self.pending.len() >= MAX_PENDING_EVENTS {
            Err(ReorderError::Events)
        } else if self.pending_bytes + bytes > MAX_PENDING_BYTES {
            Err(ReorderError::Bytes)
        } else {
            Ok(())
        }
    }

    pub(super) fn put_aside(&mut self, seq: u64, event: ExecProcessEvent) {
        self.pending_bytes += event.output_len();
        self.pending.insert(seq, event);
    }

    /// Publishes those that waited for what has been published by now.
    pub(super) fn publish_pending(&mut self, publish: &mut dyn FnMut(ExecProcessEvent)) {
        while let Some(entry) = self.pending.first_entry()
            && *entry.key() == self.published + 1
        {
            let event = entry.remove();
            self.pending_bytes -= event.output_len();
            self.pass(event, publish);
        }
    }

    fn pass(&mut self, event: ExecProcessEvent, publish: &mut dyn FnMut(ExecProcessEvent)) {
        self.published += 1;
        match event {
            ExecProcessEvent::Exited { .. } => self.exit_published = true,
            ExecProcessEvent::Closed { .. } => self.end(),
            _ => {}
        }
        publish(event);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{closed, exited, output, zeros};
    use super::*;

    fn take(order: &mut EventOrder, event: ExecProcessEvent) -> Result<Vec<u64>, ReorderError> {
        let mut seqs = Vec::new();
        order.take(event, &mut |event| seqs.extend(event.seq()))?;
        Ok(seqs)
    }

    #[test]
    fn only_the_contiguous_run_is_published() {
        let mut order = EventOrder::new();
        assert_eq!(take(&mut order, output(3, "c")), Ok(vec![]));
        assert_eq!(take(&mut order, output(1, "a")), Ok(vec![1]));
        assert_eq!(order.last_published(), 1);
        assert_eq!(take(&mut order, output(5, "e")), Ok(vec![]));
        assert_eq!(take(&mut order, output(2, "b")), Ok(vec![2, 3]));
        assert_eq!(take(&mut order, output(4, "d")), Ok(vec![4, 5]));
        assert_eq!((order.pending.len(), order.pending_bytes), (0, 0));
    }

    #[test]
    fn what_came_before_is_dropped() {
        let mut order = EventOrder::new();
        assert_eq!(take(&mut order, output(0, "none has number 0")), Ok(vec![]));
        assert_eq!(take(&mut order, output(3, "c")), Ok(vec![]));
        assert_eq!(take(&mut order, output(3, "another c")), Ok(vec![]));
        assert_eq!(order.pending_bytes, 1);
        assert_eq!(take(&mut order, output(1, "a")), Ok(vec![1]));
        assert_eq!(take(&mut order, output(1, "a")), Ok(vec![]));
        let mut published = Vec::new();
        order.take(output(2, "b"), &mut |event| published.push(event)).unwrap();
        assert_eq!(published, [output(2, "b"), output(3, "c")]);
    }

    #[test]
    fn nothing_follows_the_end() {
        let mut order = EventOrder::new();
        assert_eq!(take(&mut order, closed(3)), Ok(vec![]));
        assert_eq!(take(&mut order, output(4, "after the end")), Ok(vec![]));
        assert_eq!(take(&mut order, exited(2)), Ok(vec![]));
        assert!(!order.is_ended());
        assert_eq!(take(&mut order, output(1, "a")), Ok(vec![1, 2, 3]));
        assert!(order.is_ended() && order.pending.is_empty());
        assert_eq!(take(&mut order, output(4, "after the end")), Ok(vec![]));

        let mut order = EventOrder::new();
        assert_eq!(take(&mut order, output(2, "b")), Ok(vec![]));
        order.end();
        assert_eq!(take(&mut order, output(1, "a")), Ok(vec![]));
    }

    #[test]
    fn so_many_events_wait() {
        let mut order = EventOrder::new();
        for seq in 2..2 + MAX_PENDING_EVENTS as u64 {
            assert_eq!(take(&mut order, output(seq, "")), Ok(vec![]));
        }
        assert_eq!(take(&mut order, output(7, "")), Ok(vec![]), "it waits already");
        let e = take(&mut order, exited(999)).unwrap_err();
        assert_eq!(e.to_string(), "process event reorder buffer exceeds 256 entries");
        assert_eq!(take(&mut order, output(1, "")).unwrap().len(), MAX_PENDING_EVENTS + 1);
    }

    #[test]
    fn so_much_output_waits() {
        let mut order = EventOrder::new();
        let half = MAX_PENDING_BYTES / 2;
        assert_eq!(take(&mut order, zeros(2, half)), Ok(vec![]));
        assert_eq!(take(&mut order, zeros(4, half)), Ok(vec![]));
        let e = take(&mut order, zeros(5, 1)).unwrap_err();
        assert_eq!(e.to_string(), "process event reorder buffer exceeds 1048576 bytes");
        assert_eq!(take(&mut order, exited(5)), Ok(vec![]), "it has no output");
        assert_eq!(take(&mut order, zeros(1, half)), Ok(vec![1, 2]));
        assert_eq!(take(&mut order, zeros(6, half)), Ok(vec![]));
    }

    #[test]
    fn one_event_may_be_too_much_unless_it_is_the_next() {
        let mut order = EventOrder::new();
        let e = take(&mut order, zeros(2, MAX_PENDING_BYTES + 1)).unwrap_err();
        assert_eq!(e.to_string(), "process event exceeds 1048576 bytes");
        assert_eq!(take(&mut order, zeros(2, MAX_PENDING_BYTES)), Ok(vec![]));
        assert_eq!(take(&mut order, zeros(1, MAX_PENDING_BYTES + 1)), Ok(vec![1, 2]));
    }
}
