//! Filling the gap that a lost connection has left.

use super::order::EventOrder;
use super::{ExecProcessEvent, ProcessOutputChunk};

/// What `process/read` answered on a new connection, asked without `maxBytes` for what comes after the last event that
/// was published.
///
/// The answer's `lostBytes` is not needed: what was evicted is a gap unless it has arrived as events, and then it is
/// not lost, though the server counts it.
#[derive(Clone, Debug, Default)]
pub struct ReadSnapshot {
    /// The output, in order.
    pub chunks: Vec<ProcessOutputChunk>,
    /// The number the next event will get; every event before it had happened.
    pub next_seq: u64,
    /// Whether the process had ended.
    pub exited: bool,
    /// How.
    pub exit_code: Option<i32>,
    /// The signal that ended it, where the server tells.
    pub signal: Option<String>,
    /// Whether the last event had happened.
    pub closed: bool,
    /// Why there are no events to be had.
    pub failure: Option<String>,
    /// Whether the sandbox is thought to have stopped the process; `None` from servers that do not tell.
    pub sandbox_denied: Option<bool>,
}

/// Whether the gap is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Recovery {
    /// It is.
    Complete,
    /// More events arrived meanwhile than could wait: ask again, for what comes after the last that is published now.
    Again,
}

/// Why the gap cannot be filled. The texts are those of Codex's client, but for `Failed` and `ExitConflict`, which it
/// does not look for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// Events are missing.
    #[error("process events are no longer retained while recovering through sequence {0}")]
    NotRetained(u64),
    /// The last event is not the last.
    #[error("process close sequence {0} conflicts with recovered output")]
    CloseConflict(u64),
    /// There is output where the process ended.
    #[error("process exit sequence {0} conflicts with recovered output")]
    ExitConflict(u64),
    /// There is output that should not have a number yet.
    #[error("recovered process output sequence {seq} exceeds target sequence {target}")]
    BeyondTarget {
        /// Its number.
        seq: u64,
        /// The last number that was given.
        target: u64,
    },
    /// It ended, nobody knows how.
    #[error("recovering exited process did not include its exit code")]
    NoExitCode,
    /// The server said so.
    #[error("{0}")]
    Failed(String),
}

impl EventOrder {
    /// Merges the answer to a `process/read` with the events that have arrived, and publishes all that are in order then.
    ///
    /// The events that the answer does not list are told from the gaps: the last number is that of `closed`, if it is
    /// closed; and one number that is missing is that of `exited`, if it has and that event was not seen.
    ///
    /// # Errors
    /// What does not fit together. Nothing was published, and the order is to be ended.
    pub fn recover(
        &mut self,
        snapshot: ReadSnapshot,
        publish: &mut dyn FnMut(ExecProcessEvent),
    ) -> Result<Recovery, RecoverError> {
        if self.is_ended() {
            return Ok(Recovery::Complete);
        }
        if let Some(failure) = snapshot.failure {
            return Err(RecoverError::Failed(failure));
        }
        let target = snapshot.next_seq.saturating_sub(1);
        self.add_chunks(snapshot.chunks, target)?;
        if snapshot.closed {
            self.add_close(target)?;
        }
        self.check_close(target)?;
        let exit_seq = match snapshot.exited && !self.is_exit_known() {
            true => Some(self.only_gap(target)?),
            false => self.no_gap(target).map(|()| None)?,
        };
        if let Some(seq) = exit_seq {
            let exited = ExecProcessEvent::Exited {
                seq,
                exit_code: snapshot.exit_code.ok_or(RecoverError::NoExitCode)?,
                signal: snapshot.signal,
                sandbox_denied: snapshot.sandbox_denied,
            };
            self.put_aside(seq, exited);
        }
        self.publish_pending(publish);
        self.recovering = self.left_out > self.published && !self.is_ended();
        Ok(match self.recovering {
            true => Recovery::Again,
            false => Recovery::Complete,
        })
    }

    /// Gives up what the snapshot does not have any more before its oldest event.
    pub(super) fn skip_lost(&mut self, snapshot: &ReadSnapshot) {
        let closed = u64::from(snapshot.closed);
        let mut oldest = match snapshot.chunks.first() {
            Some(chunk) => chunk.seq,
            None => snapshot.next_seq.saturating_sub(closed),
        };
        // Without a number of its own among those, the exit came before them.
        let present = snapshot.chunks.len() as u64 + closed;
        let is_exit_missing = snapshot.exited && !self.is_exit_known();
        if is_exit_missing && snapshot.next_seq.saturating_sub(oldest) == present {
            oldest = oldest.saturating_sub(1);
        }
        if self.is_ended() || oldest <= self.published + 1 {
            return;
        }
        self.published = oldest - 1;
        while let Some(entry) = self.pending.first_entry()
            && *entry.key() < oldest
        {
            self.pending_bytes -= entry.remove().output_len();
        }
    }

    fn add_chunks(&mut self, chunks: Vec<ProcessOutputChunk>, target: u64) -> Result<(), RecoverError> {
        for chunk in chunks {
            let seq = chunk.seq;
            if seq > target {
                return Err(RecoverError::BeyondTarget { seq, target });
            }
            if seq <= self.published {
                continue;
            }
            match self.pending.get(&seq) {
                None => self.put_aside(seq, ExecProcessEvent::Output(chunk)),
                Some(ExecProcessEvent::Exited { .. }) => return Err(RecoverError::ExitConflict(seq)),
                Some(ExecProcessEvent::Closed { .. }) => return Err(RecoverError::CloseConflict(seq)),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn add_close(&mut self, target: u64) -> Result<(), RecoverError> {
        match self.pending.get(&target) {
            None if target > self.published => self.put_aside(target, ExecProcessEvent::Closed { seq: target }),
            Some(ExecProcessEvent::Closed { .. }) => {}
            _ => return Err(RecoverError::CloseConflict(target)),
        }
        Ok(())
    }

    /// Nothing has a number after that of the last event.
    fn check_close(&self, target: u64) -> Result<(), RecoverError> {
        let mut before_target = self.pending.range(..target);
        match before_target.find(|(_, event)| matches!(event, ExecProcessEvent::Closed { .. })) {
            Some((&seq, _)) => Err(RecoverError::CloseConflict(seq)),
            None => Ok(()),
        }
    }

    fn is_exit_known(&self) -> bool {
        let mut pending = self.pending.values();
        self.exit_published || pending.any(|event| matches!(event, ExecProcessEvent::Exited { .. }))
    }

    fn no_gap(&self, target: u64) -> Result<(), RecoverError> {
        match self.gaps(target) {
            (0, _) => Ok(()),
            _ => Err(RecoverError::NotRetained(target)),
        }
    }

    fn only_gap(&self, target: u64) -> Result<u64, RecoverError> {
        match self.gaps(target) {
            (1, seq) => Ok(seq),
            _ => Err(RecoverError::NotRetained(target)),
        }
    }

    /// How many numbers up to `target` are missing, and the last of them.
    fn gaps(&self, target: u64) -> (u64, u64) {
        if target <= self.published {
            return (0, 0);
        }
        let present = self.pending.range(..=target).count() as u64;
        let missing = target - self.published - present;
        // From the top down: the first number that is not there.
        let mut seq = target;
        for (&next, _) in self.pending.range(..=target).rev() {
            if next != seq {
                break;
            }
            seq -= 1;
        }
        (missing, seq)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ExecOutputStream::Stdout;
    use super::super::fixture::{chunk, closed, exited, output, zeros};
    use super::super::order::{MAX_PENDING_BYTES, MAX_PENDING_EVENTS};
    use super::*;

    /// An order that has published `published` events of output and then got `arrived`.
    fn order(published: u64, arrived: impl IntoIterator<Item = ExecProcessEvent>) -> EventOrder {
        let mut order = EventOrder::new();
        order.begin_recovery();
        for event in (1..=published).map(|seq| output(seq, "before")).chain(arrived) {
            order.take(event, &mut |_| ()).unwrap();
        }
        order
    }

    fn snapshot(chunks: impl IntoIterator<Item = u64>, next_seq: u64) -> ReadSnapshot {
        ReadSnapshot {
            chunks: chunks.into_iter().map(|seq| chunk(seq, Stdout, "read")).collect(),
            next_seq,
            ..ReadSnapshot::default()
        }
    }

    fn ended(chunks: impl IntoIterator<Item = u64>, next_seq: u64, closed: bool) -> ReadSnapshot {
        ReadSnapshot {
            exited: true,
            exit_code: Some(137),
            signal: Some("KILL".into()),
            closed,
            sandbox_denied: Some(true),
            ..snapshot(chunks, next_seq)
        }
    }

    #[test]
    fn what_is_lost_is_not_waited_for() {
        let table: [(&[ExecProcessEvent], ReadSnapshot, &[u64]); 7] = [
            (&[], snapshot([1, 2], 3), &[1, 2]),
            (&[], snapshot([5, 6], 7), &[5, 6]),
            (&[output(3, "x"), output(7, "y")], snapshot([5, 6], 7), &[5, 6, 7]),
            (&[], ended([5, 7], 8, false), &[5, 6, 7]),
            (&[], ended([5, 6], 7, false), &[4, 5, 6]),
            (&[], ended([], 9, true), &[7, 8]),
            (&[], snapshot([], 9), &[]),
        ];
        for (arrived, snapshot, expected) in table {
            let mut order = order(0, arrived.iter().cloned());
            let mut seqs = Vec::new();
            order.skip_lost(&snapshot);
            let text = format!("{snapshot:?}");
            let recovered = order.recover(snapshot, &mut |event| seqs.extend(event.seq()));
            assert_eq!(recovered, Ok(Recovery::Complete), "{text}");
            assert_eq!(seqs, expected, "{text}");
        }
    }

    fn exit(seq: u64) -> ExecProcessEvent {
        ExecProcessEvent::Exited {
            seq,
            exit_code: 137,
            signal: Some("KILL".into()),
            sandbox_denied: Some(true),
        }
    }

    fn recover(order: &mut EventOrder, snapshot: ReadSnapshot) -> Result<Vec<ExecProcessEvent>, String> {
        let mut published = Vec::new();
        match order.recover(snapshot, &mut |event| published.push(event)) {
            Ok(recovery) => {
                assert_eq!(recovery, Recovery::Complete);
                Ok(published)
            }
            Err(e) => {
                assert_eq!(published, []);
                Err(e.to_string())
            }
        }
    }

    #[test]
    fn nothing_was_missed() {
        assert_eq!(recover(&mut order(3, []), snapshot([], 4)), Ok(vec![]));
        assert_eq!(recover(&mut order(0, []), snapshot([], 1)), Ok(vec![]));
        let mut order = order(5, []);
        assert_eq!(
            recover(&mut order, snapshot([2, 3], 4)),
            Ok(vec![]),
            "an answer that is older"
        );
        assert_eq!(order.last_published(), 5);
    }

    #[test]
    fn output_was_missed() {
        let published = recover(&mut order(1, []), snapshot([2, 3], 4));
        assert_eq!(published, Ok(vec![output(2, "read"), output(3, "read")]));
    }

    #[test]
    fn what_arrived_before_the_answer_counts() {
        let published = recover(
            &mut order(1, [output(4, "live"), output(6, "live")]),
            snapshot([2, 3, 4], 5),
        );
        assert_eq!(
            published,
            Ok(vec![output(2, "read"), output(3, "read"), output(4, "live")]),
            "number 5 is still on its way"
        );
        let mut order = order(1, [output(4, "live"), output(5, "live")]);
        assert_eq!(recover(&mut order, snapshot([2, 3], 4)).unwrap().len(), 4);
        assert_eq!(order.last_published(), 5);
    }

    #[test]
    fn one_gap_is_the_exit() {
        let published = recover(&mut order(1, []), ended([2, 4], 5, false));
        assert_eq!(published, Ok(vec![output(2, "read"), exit(3), output(4, "read")]));
        let published = recover(&mut order(1, []), ended([2], 4, false));
        assert_eq!(published, Ok(vec![output(2, "read"), exit(3)]));
        let published = recover(&mut order(1, []), ended([3], 5, true));
        assert_eq!(published, Ok(vec![exit(2), output(3, "read"), closed(4)]));
        let published = recover(&mut order(1, []), ended([], 4, true));
        assert_eq!(published, Ok(vec![exit(2), closed(3)]));
    }

    #[test]
    fn the_exit_that_was_seen_is_no_gap() {
        let published = recover(&mut order(1, [exited(2)]), ended([3], 5, true));
        assert_eq!(published, Ok(vec![output(3, "read"), closed(4)]));
        let published = recover(&mut order(1, [exited(3)]), ended([2], 5, true));
        assert_eq!(published, Ok(vec![output(2, "read"), exited(3), closed(4)]));
        let e = recover(&mut order(1, [exited(4)]), ended([2], 6, true));
        assert_eq!(
            e.unwrap_err(),
            "process events are no longer retained while recovering through sequence 5"
        );
    }

    #[test]
    fn the_end_that_was_seen_is_no_gap() {
        let mut order = order(1, [closed(4)]);
        assert_eq!(recover(&mut order, ended([3], 5, true)).unwrap().len(), 3);
        assert!(order.is_ended());
        assert_eq!(recover(&mut order, snapshot([], 99)), Ok(vec![]), "nothing follows");
    }

    #[test]
    fn other_gaps_are_losses() {
        let lost = |n| {
            Err(format!(
                "process events are no longer retained while recovering through sequence {n}"
            ))
        };
        assert_eq!(recover(&mut order(1, []), snapshot([3], 4)), lost(3));
        assert_eq!(
            recover(&mut order(1, []), snapshot([2], 4)),
            lost(3),
            "it has not exited"
        );
        assert_eq!(
            recover(&mut order(1, []), ended([4], 5, false)),
            lost(4),
            "two in one place"
        );
        assert_eq!(
            recover(&mut order(1, []), ended([3, 5], 6, false)),
            lost(5),
            "two places"
        );
        assert_eq!(
            recover(&mut order(1, []), ended([2], 3, false)),
            lost(2),
            "none for the exit"
        );
        assert_eq!(recover(&mut order(1, []), snapshot([], u64::MAX)), lost(u64::MAX - 1));
    }

    #[test]
    fn conflicts_are_told() {
        let close_conflict = |n| Err(format!("process close sequence {n} conflicts with recovered output"));
        assert_eq!(recover(&mut order(1, []), ended([2, 3, 4], 5, true)), close_conflict(4));
        assert_eq!(
            recover(&mut order(1, [output(4, "live")]), ended([2], 5, true)),
            close_conflict(4)
        );
        assert_eq!(recover(&mut order(4, []), ended([], 5, true)), close_conflict(4));
        assert_eq!(
            recover(&mut order(1, [closed(3)]), snapshot([2, 3], 5)),
            close_conflict(3)
        );
        assert_eq!(
            recover(&mut order(1, [closed(3)]), snapshot([2, 4], 5)),
            close_conflict(3)
        );
        assert_eq!(
            recover(&mut order(1, [exited(3)]), snapshot([2, 3], 5)).unwrap_err(),
            "process exit sequence 3 conflicts with recovered output"
        );
        assert_eq!(
            recover(&mut order(1, []), snapshot([2, 3, 4], 4)).unwrap_err(),
            "recovered process output sequence 4 exceeds target sequence 3"
        );
        let no_code = ReadSnapshot {
            exit_code: None,
            ..ended([2], 4, false)
        };
        assert_eq!(
            recover(&mut order(1, []), no_code.clone()).unwrap_err(),
            "recovering exited process did not include its exit code"
        );
        assert_eq!(
            recover(&mut order(1, [exited(3)]), no_code).unwrap().len(),
            2,
            "it is known"
        );
        let failed = ReadSnapshot {
            failure: Some("out of memory".into()),
            ..snapshot([2], 3)
        };
        assert_eq!(recover(&mut order(1, []), failed).unwrap_err(), "out of memory");
    }

    #[test]
    fn what_had_no_room_meanwhile_is_asked_for() {
        let last = 3 + MAX_PENDING_EVENTS as u64;
        let mut order = order(1, (3..=last).map(|seq| output(seq, "live")));
        assert!(!order.pending.contains_key(&last));
        let mut published = 0;
        let recovery = order.recover(snapshot([2], 3), &mut |_| published += 1);
        assert_eq!((recovery, published), (Ok(Recovery::Again), MAX_PENDING_EVENTS + 1));
        order
            .take(zeros(last + 2, MAX_PENDING_BYTES + 1), &mut |_| panic!())
            .unwrap();
        let recovery = order.recover(snapshot([last], last + 1), &mut |_| ());
        assert_eq!(recovery, Ok(Recovery::Again));
        let recovery = order.recover(snapshot([last + 1, last + 2], last + 3), &mut |_| ());
        assert_eq!((recovery, order.last_published()), (Ok(Recovery::Complete), last + 2));
        order
            .take(zeros(last + 4, MAX_PENDING_BYTES + 1), &mut |_| panic!())
            .unwrap_err();
    }

    #[test]
    fn what_had_no_room_and_was_read_is_not_asked_for() {
        let last = 3 + MAX_PENDING_EVENTS as u64;
        let mut order = order(1, (3..=last).map(|seq| output(seq, "live")));
        assert_eq!(
            recover(&mut order, snapshot(2..=last, last + 1)).unwrap().len() as u64,
            last - 1
        );
    }
}
