//! Filling the gap that a lost connection has left.

use super::order::EventOrder;
use super::{ExecProcessEvent, ProcessOutputChunk};

/// What `process/read` answers.
#[derive(Clone, Debug, Default)]
pub struct ReadResponse {
    /// The output, in order.
    pub chunks: Vec<ProcessOutputChunk>,
    /// The number from which to go on: the next read's `after_seq` is one less. Without a bound on the output, that of the
    /// next event.
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
    /// Which limit it, or what it has left, was ended for, where the server tells: `timeout`, `idleTimeout` or `outputLimit`.
    pub ended_by: Option<String>,
    /// How much of the output that was asked for is gone, in bytes; 0 from servers that do not tell. To fill a gap it is
    /// not needed: what was evicted is one, unless it has arrived as events, and is counted all the same.
    pub lost_bytes: u64,
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
        snapshot: ReadResponse,
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
                ended_by: snapshot.ended_by,
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
    pub(super) fn skip_lost(&mut self, snapshot: &ReadResponse) {
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
#[path = "recover_tests.rs"]
mod tests;
