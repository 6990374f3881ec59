//! The one reader of a process that misses nothing.

use super::event_log::next_item;
use super::queue::EventQueue;
use super::{ExecProcessEvent, Lagged, RecvError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Tells a server what has been consumed, with `process/ack`.
pub trait AckSink: Send + Sync {
    /// Everything up to number `seq` has been consumed. Called without any lock held, on the thread that consumes the
    /// events or, when nobody does, on the one that delivers them; so it must not wait for that one. When both call, a
    /// lower number may come after a higher one and says nothing new.
    fn ack(&self, process_id: &str, seq: u64);
}

/// How many events are consumed before they are acknowledged, however small: a fraction of what a server retains.
const ACK_EVENTS: usize = 256;

/// When the reader is about to wait, or is done, it acknowledges what it has consumed if it is at least this many bytes
/// or events. Less is not worth a message: an interactive program would cost one for each echo, and one that writes
/// small pieces without a pause one for each piece. Far less than a server's window.
const WORTH_AN_ACK: (usize, usize) = (32 * 1024, 32);

/// The acknowledgements of one process.
pub(super) struct Acks {
    process_id: Arc<str>,
    sink: Option<Arc<dyn AckSink>>,
    /// After how many bytes.
    every: usize,
    acked: AtomicU64,
}

impl Acks {
    /// With no `sink` nothing is acknowledged.
    pub(super) fn new(process_id: Arc<str>, sink: Option<Arc<dyn AckSink>>, every: usize) -> Acks {
        Acks {
            process_id,
            sink,
            every,
            acked: AtomicU64::new(0),
        }
    }

    pub(super) fn process_id(&self) -> &Arc<str> {
        &self.process_id
    }

    /// Acknowledges everything up to `seq`, unless that was done.
    pub(super) fn send(&self, seq: u64) {
        if let Some(sink) = &self.sink
            && self.acked.fetch_max(seq, Ordering::SeqCst) < seq
        {
            sink.ack(&self.process_id, seq);
        }
    }

    /// Acknowledges the same again.
    pub(super) fn repeat(&self) {
        let acked = self.acked.load(Ordering::SeqCst);
        if let Some(sink) = &self.sink
            && acked > 0
        {
            sink.ack(&self.process_id, acked);
        }
    }
}

/// What has been consumed and not acknowledged.
#[derive(Default)]
pub(super) struct Unacked {
    /// Everything up to this is consumed.
    seq: u64,
    acked: u64,
    bytes: usize,
    events: usize,
}

impl Unacked {
    /// One event was consumed, and with it everything up to `through_seq`.
    pub(super) fn add(&mut self, bytes: usize, through_seq: u64) {
        self.bytes += bytes;
        self.events += 1;
        self.seq = through_seq;
    }

    /// The event was consumed after all those before it. Returns what to acknowledge.
    pub(super) fn consume(&mut self, event: &ExecProcessEvent, acks: &Acks) -> Option<u64> {
        self.add(event.output_len(), event.seq()?);
        match event.is_last() {
            true => self.take_worthwhile(),
            false => self.take_due(acks),
        }
    }

    /// What to acknowledge while events are being consumed.
    pub(super) fn take_due(&mut self, acks: &Acks) -> Option<u64> {
        self.take_above(acks.every, ACK_EVENTS)
    }

    /// What to acknowledge before a pause.
    pub(super) fn take_worthwhile(&mut self) -> Option<u64> {
        self.take_above(WORTH_AN_ACK.0, WORTH_AN_ACK.1)
    }

    fn take_above(&mut self, bytes: usize, events: usize) -> Option<u64> {
        if (self.bytes < bytes && self.events < events) || self.seq <= self.acked {
            return None;
        }
        self.acked = self.seq;
        self.bytes = 0;
        self.events = 0;
        Some(self.seq)
    }
}

/// All the events of a process, from the first. There is one of these for each process.
///
/// A server that takes acknowledgements never sends more than a window of output (512 KiB) that has not been consumed
/// here, and drops nothing that is not acknowledged. So if nobody reads, the process stops like one whose pipe is full,
/// and if the connection is lost, nothing is.
///
/// A server that takes none sends on: then what waits here is bounded by
/// [`ProcessOptions::max_queued_bytes`](super::ProcessOptions), and what comes beyond is skipped and told in its place
/// as [`Lagged`]. The exit and the end are never skipped.
///
/// To drop it is to [`discard`](ProcessEvents::discard) it.
pub struct ProcessEvents {
    queue: Arc<EventQueue>,
    pub(super) acks: Arc<Acks>,
    unacked: Unacked,
}

impl ProcessEvents {
    pub(super) fn new(queue: Arc<EventQueue>, acks: Arc<Acks>) -> ProcessEvents {
        ProcessEvents {
            queue,
            acks,
            unacked: Unacked::default(),
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// `Lagged` once for all that were skipped before the next event; `Ended` for ever after the last one.
    pub fn recv(&mut self) -> Result<ExecProcessEvent, RecvError> {
        self.receive(None)
    }

    /// Waits for the next event, for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv`](ProcessEvents::recv); `Empty` if there is none by then.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<ExecProcessEvent, RecvError> {
        self.receive(Some(timeout))
    }

    /// The next event if it is there.
    ///
    /// # Errors
    /// As [`recv`](ProcessEvents::recv); `Empty` if there is none.
    pub fn try_recv(&mut self) -> Result<ExecProcessEvent, RecvError> {
        self.receive(Some(Duration::ZERO))
    }

    /// From now on nothing waits here: the process runs on whether anybody reads or not, and what it writes is
    /// acknowledged as it arrives.
    pub fn discard(self) {}

    /// The next event without acknowledging it.
    pub(super) fn pull(&self, timeout: Option<Duration>) -> Result<ExecProcessEvent, RecvError> {
        self.queue.pop(timeout)
    }

    fn receive(&mut self, timeout: Option<Duration>) -> Result<ExecProcessEvent, RecvError> {
        let mut received = self.pull(Some(Duration::ZERO));
        if received == Err(RecvError::Empty) {
            if let Some(seq) = self.unacked.take_worthwhile() {
                self.acks.send(seq);
            }
            if timeout != Some(Duration::ZERO) {
                received = self.pull(timeout);
            }
        }
        if let Ok(event) = &received
            && let Some(seq) = self.unacked.consume(event, &self.acks)
        {
            self.acks.send(seq);
        }
        received
    }
}

/// Waits for each event; ends after the last.
impl Iterator for ProcessEvents {
    type Item = Result<ExecProcessEvent, Lagged>;

    fn next(&mut self) -> Option<Self::Item> {
        next_item(self.recv())
    }
}

impl Drop for ProcessEvents {
    fn drop(&mut self) {
        if let Some(seq) = self.queue.leave() {
            self.acks.send(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Acked, NONE, closed, exited, output, zeros};
    use super::super::{ProcessOptions, ProcessState};
    use super::*;

    const KIB: usize = 1024;

    fn process() -> (Arc<ProcessState>, ProcessEvents, Arc<Acked>) {
        let acked = Acked::new();
        let (state, events) = ProcessState::new("p".into(), &ProcessOptions::default(), Some(acked.clone()));
        (state, events, acked)
    }

    fn receive(events: &mut ProcessEvents, n: usize) {
        for _ in 0..n {
            events.try_recv().unwrap();
        }
    }

    #[test]
    fn what_was_consumed_is_acknowledged_in_batches() {
        let (state, mut events, acked) = process();
        for seq in 1..=6 {
            state.on_event(zeros(seq, 64 * KIB));
        }
        assert_eq!(acked.take(), NONE, "nobody has consumed anything");
        receive(&mut events, 1);
        assert_eq!(acked.take(), NONE);
        receive(&mut events, 1);
        assert_eq!(acked.take(), [2]);
        receive(&mut events, 3);
        assert_eq!(acked.take(), [4]);
        for seq in 7..=400 {
            state.on_event(output(seq, ""));
        }
        receive(&mut events, 1);
        assert_eq!(acked.take(), [6]);
        receive(&mut events, 300);
        assert_eq!(acked.take(), [262]);
    }

    #[test]
    fn a_reader_that_waits_acknowledges_what_is_worth_it() {
        let (state, mut events, acked) = process();
        state.on_event(zeros(1, 32 * KIB - 1));
        receive(&mut events, 1);
        assert_eq!(events.try_recv(), Err(RecvError::Empty));
        assert_eq!(acked.take(), NONE);
        state.on_event(output(2, "x"));
        receive(&mut events, 1);
        assert_eq!(acked.take(), NONE, "it may have more to read");
        assert_eq!(events.recv_timeout(Duration::from_millis(1)), Err(RecvError::Empty));
        assert_eq!(acked.take(), [2]);
        for seq in 3..=34 {
            state.on_event(output(seq, "x"));
            receive(&mut events, 1);
            assert_eq!(events.try_recv(), Err(RecvError::Empty));
        }
        assert_eq!(acked.take(), [34]);
        state.on_event(zeros(35, 33 * KIB));
        state.on_event(closed(36));
        receive(&mut events, 2);
        assert_eq!(acked.take(), [36], "nothing will come for which it might wait");
        drop(events);
        assert_eq!(acked.take(), NONE);
    }

    #[test]
    fn discarded_events_are_acknowledged_as_they_arrive() {
        let (state, mut events, acked) = process();
        for seq in 1..=4 {
            state.on_event(output(seq, "abc"));
        }
        receive(&mut events, 1);
        events.discard();
        assert_eq!(acked.take(), [4]);
        state.on_event(zeros(5, 128 * KIB - 1));
        assert_eq!(acked.take(), NONE);
        state.on_event(zeros(6, 1));
        assert_eq!(acked.take(), [6]);
        state.on_event(zeros(8, 1));
        state.on_event(zeros(9, 128 * KIB));
        assert_eq!(acked.take(), NONE, "it may be lost with the connection");
        state.on_event(exited(7));
        assert_eq!(acked.take(), [9]);
        state.on_event(closed(10));
        assert_eq!(acked.take(), NONE, "not worth a message");
        assert_eq!(state.exit().map(|exit| exit.exit_code), Some(3));
    }

    #[test]
    fn the_last_acknowledgement_can_be_repeated() {
        let (state, mut events, acked) = process();
        state.repeat_ack();
        assert_eq!(acked.take(), NONE);
        state.on_event(zeros(1, 128 * KIB));
        receive(&mut events, 1);
        state.repeat_ack();
        assert_eq!(acked.take(), [1, 1]);
    }

    #[test]
    fn without_acknowledgements_the_queue_is_bounded() {
        let options = ProcessOptions {
            max_queued_bytes: 1000,
            ..ProcessOptions::default()
        };
        let (state, mut events) = ProcessState::new("p".into(), &options, None);
        for seq in 1..=4 {
            state.on_event(zeros(seq, 500));
        }
        state.on_event(exited(5));
        state.on_event(closed(6));
        let received: Vec<_> = events.by_ref().collect();
        let lagged = Lagged {
            skipped: 3,
            bytes: 1500,
            through_seq: 4,
        };
        assert_eq!(received, [Ok(zeros(1, 500)), Err(lagged), Ok(exited(5)), Ok(closed(6))]);
        assert_eq!(events.recv(), Err(RecvError::Ended));
    }

    #[test]
    fn a_state_that_is_dropped_does_not_leave_its_reader_waiting() {
        let (state, mut events, _) = process();
        state.on_event(output(1, "a"));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| events.by_ref().flatten().collect::<Vec<_>>());
            drop(state);
            let failed = ExecProcessEvent::Failed("exec-server transport closed".into());
            assert_eq!(reader.join().unwrap(), [output(1, "a"), failed]);
        });
    }
}
