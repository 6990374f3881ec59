//! The calls of one connection that wait for their answers.

use super::error::ExecServerError;
use crate::protocol::error::RpcError;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tungstenite::Bytes;

/// Calls that may wait at one time, as with Codex.
pub(super) const MAX_PENDING: usize = 1024;

/// The result of a call: its JSON text, and the bytes that empty strings stand for there. Of what comes over a wire that
/// is the one long string of base64, decoded; within a program all that would be base64.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) json: Vec<u8>,
    pub(super) bulk: Vec<Bytes>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// The connection is lost; the call may have been carried out or not.
    Lost,
    /// The answer did not come in time.
    TimedOut(ExecServerError),
    /// All else.
    Failed(ExecServerError),
}

impl From<ExecServerError> for CallError {
    fn from(error: ExecServerError) -> CallError {
        CallError::Failed(error)
    }
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Regular,
    /// It frees something on the server; there is one more place for such.
    CleanUp,
}

/// The calls that wait.
#[derive(Default)]
pub(super) struct Pending {
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    last_id: i64,
    waiting: HashMap<i64, Arc<Slot>>,
    /// Those for which nobody waits. Whoever makes them bounds them.
    expected: HashMap<i64, Taker>,
    is_closed: bool,
}

/// What is called with an answer that nobody waits for, by the thread that receives it. Dropped if there will be none.
pub(super) type Taker = Box<dyn FnOnce(std::result::Result<Answer, RpcError>) + Send>;

/// Where an answer goes.
#[derive(Default)]
struct Slot {
    outcome: Mutex<Option<Outcome>>,
    there: Condvar,
}

enum Outcome {
    Answered(std::result::Result<Answer, RpcError>),
    Lost,
}

/// A call that waits. Dropped, it is forgotten.
pub(super) struct Ticket<'a> {
    pending: &'a Pending,
    pub(super) id: i64,
    slot: Arc<Slot>,
}

impl Pending {
    /// A place for one more call.
    pub(super) fn enter(&self, purpose: Purpose) -> std::result::Result<Ticket<'_>, CallError> {
        let mut calls = self.calls();
        if calls.is_closed {
            return Err(CallError::Lost);
        }
        let room = match purpose {
            Purpose::Regular => MAX_PENDING,
            Purpose::CleanUp => MAX_PENDING + 1,
        };
        if calls.waiting.len() >= room {
            return Err(CallError::Failed(ExecServerError::Protocol(format!(
                "exec-server has reached its limit of {MAX_PENDING} pending requests"
            ))));
        }
        calls.last_id += 1;
        let (id, slot) = (calls.last_id, Arc::<Slot>::default());
        calls.waiting.insert(id, slot.clone());
        Ok(Ticket {
            pending: self,
            id,
            slot,
        })
    }

    /// The id of a call whose answer goes to `taker`. `None` if there will be no more answers.
    pub(super) fn expect(&self, taker: Taker) -> Option<i64> {
        let mut calls = self.calls();
        if calls.is_closed {
            return None;
        }
        calls.last_id += 1;
        let id = calls.last_id;
        calls.expected.insert(id, taker);
        Some(id)
    }

    /// The answer to a call; nothing happens if it does not wait any more.
    pub(super) fn answer(&self, id: i64, answer: std::result::Result<Answer, RpcError>) {
        let (slot, taker) = {
            let mut calls = self.calls();
            let slot = calls.waiting.remove(&id);
            let taker = if slot.is_none() {
                calls.expected.remove(&id)
            } else {
                None
            };
            (slot, taker)
        };
        match (slot, taker) {
            (Some(slot), _) => slot.put(Outcome::Answered(answer)),
            (None, Some(taker)) => taker(answer),
            (None, None) => log::debug!("exec-server answers request {id}, which does not wait"),
        }
    }

    /// There will be no more answers.
    pub(super) fn close(&self) {
        let (waiting, _expected) = {
            let mut calls = self.calls();
            calls.is_closed = true;
            (std::mem::take(&mut calls.waiting), std::mem::take(&mut calls.expected))
        };
        for slot in waiting.values() {
            slot.put(Outcome::Lost);
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn put(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.there.notify_one();
    }
}

impl Ticket<'_> {
    /// Waits for the answer. `method` is named when the time is over.
    pub(super) fn wait_for(&self, method: &str, limit: Option<Duration>) -> std::result::Result<Answer, CallError> {
        match (self.outcome(limit), limit) {
            (Some(Outcome::Answered(answer)), _) => answer.map_err(|e| CallError::Failed(e.into())),
            (None, Some(limit)) => Err(CallError::TimedOut(ExecServerError::timed_out(method, limit))),
            _ => Err(CallError::Lost),
        }
    }

    fn outcome(&self, limit: Option<Duration>) -> Option<Outcome> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut outcome = self.slot.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = outcome.take() {
                return Some(outcome);
            }
            outcome = match deadline {
                None => self.slot.there.wait(outcome).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = self.slot.there.wait_timeout(outcome, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.pending.calls().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer {
            json: text.into(),
            bulk: Vec::new(),
        }
    }

    fn text(result: std::result::Result<Answer, CallError>) -> String {
        match result {
            Ok(answer) => String::from_utf8(answer.json).unwrap(),
            Err(CallError::Lost) => "lost".into(),
            Err(CallError::Failed(error) | CallError::TimedOut(error)) => error.to_string(),
        }
    }

    #[test]
    fn answers_find_their_calls_and_others_are_ignored() {
        let pending = Pending::default();
        let (a, b) = (
            pending.enter(Purpose::Regular).unwrap(),
            pending.enter(Purpose::Regular).unwrap(),
        );
        assert_eq!((a.id, b.id), (1, 2));
        pending.answer(7, Ok(answer("nobody's")));
        pending.answer(2, Err(RpcError::not_found("no")));
        pending.answer(1, Ok(answer("yes")));
        pending.answer(1, Ok(answer("again")));
        assert_eq!(text(a.wait_for("m", None)), "yes");
        assert_eq!(text(b.wait_for("m", None)), "exec-server rejected request (-32004): no");
    }

    #[test]
    fn an_answer_wakes_the_one_who_waits() {
        let pending = Pending::default();
        let ticket = pending.enter(Purpose::Regular).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| pending.answer(1, Ok(answer("yes"))));
            assert_eq!(text(ticket.wait_for("m", None)), "yes");
        });
    }

    #[test]
    fn abandoned_calls_leave_nothing() {
        let pending = Pending::default();
        let ticket = pending.enter(Purpose::Regular).unwrap();
        let limit = Duration::from_millis(1);
        assert_eq!(
            text(ticket.wait_for("fs/copy", Some(limit))),
            "exec-server protocol error: timed out waiting for exec-server `fs/copy` response after 1ms"
        );
        drop(ticket);
        pending.answer(1, Ok(answer("late")));
        assert!(pending.calls().waiting.is_empty());
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_handed_over_once() {
        let pending = Pending::default();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let taker = || {
            let taken = taken.clone();
            let take: Taker = Box::new(move |answer| taken.lock().unwrap().push(answer.is_ok()));
            take
        };
        assert_eq!((pending.expect(taker()), pending.expect(taker())), (Some(1), Some(2)));
        pending.answer(1, Ok(answer("yes")));
        pending.answer(1, Ok(answer("again")));
        assert_eq!(*taken.lock().unwrap(), [true]);
        pending.close();
        assert_eq!(Arc::strong_count(&taken), 1, "dropped with what it holds");
        assert_eq!(pending.expect(taker()), None);
    }

    #[test]
    fn one_place_is_kept_for_cleaning_up() {
        let pending = Pending::default();
        let regular: Vec<_> = (0..MAX_PENDING)
            .map(|_| pending.enter(Purpose::Regular).unwrap())
            .collect();
        let refused = |purpose| text(pending.enter(purpose).map(|_| Answer::default()));
        let words = "exec-server protocol error: exec-server has reached its limit of 1024 pending requests";
        assert_eq!(refused(Purpose::Regular), words);
        let clean_up = pending.enter(Purpose::CleanUp).unwrap();
        assert_eq!(refused(Purpose::CleanUp), words);
        drop((regular, clean_up));
        assert!(pending.enter(Purpose::Regular).is_ok());
    }

    #[test]
    fn the_end_fails_every_call_once_answers_are_through() {
        let pending = Pending::default();
        let (a, b) = (
            pending.enter(Purpose::Regular).unwrap(),
            pending.enter(Purpose::Regular).unwrap(),
        );
        pending.answer(1, Ok(answer("in time")));
        pending.close();
        assert_eq!(text(a.wait_for("m", None)), "in time");
        assert_eq!(text(b.wait_for("m", None)), "lost");
        assert_eq!(text(pending.enter(Purpose::CleanUp).map(|_| Answer::default())), "lost");
    }
}
