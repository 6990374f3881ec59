//! Reads that wait for something to happen.

use super::janitor::{Janitor, TaskKey};
use crate::process::{Process, WaitOutcome};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// The waiting reads of one connection. A waiting read is an entry here and a call-back at its process; it holds no
/// thread and nothing up.
pub(super) struct LongPolls {
    limit: usize,
    janitor: Janitor,
    waiting: Mutex<HashMap<u64, Parked>>,
}

struct Parked {
    process: Weak<Process>,
    deadline: Option<TaskKey>,
}

impl LongPolls {
    pub(super) fn new(limit: usize, janitor: Janitor) -> Arc<LongPolls> {
        Arc::new(LongPolls {
            limit,
            janitor,
            waiting: Mutex::default(),
        })
    }

    /// Calls `answer` once `process` has had an event after number `after` or `wait` is over. False, and nothing, if too
    /// many wait already.
    pub(super) fn park(
        self: &Arc<LongPolls>,
        process: &Arc<Process>,
        after: u64,
        wait: Duration,
        answer: impl FnOnce() + Send + 'static,
    ) -> bool {
        static TOKENS: AtomicU64 = AtomicU64::new(0);
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        {
            let mut waiting = self.waiting();
            if waiting.len() >= self.limit {
                return false;
            }
            waiting.insert(
                token,
                Parked {
                    process: Arc::downgrade(process),
                    deadline: None,
                },
            );
        }
        let polls = self.clone();
        let then = Box::new(move || {
            polls.unpark(token);
            answer();
        });
        if let WaitOutcome::Ready(then) = process.wait(token, after, then) {
            then();
            return true;
        }
        let waiter = Arc::downgrade(process);
        let deadline = self.janitor.after(wait, move || {
            if let Some(then) = waiter.upgrade().and_then(|process| process.stop_waiting(token)) {
                then();
            }
        });
        if deadline.is_some() && !self.janitor.is_running() {
            // Nobody would end the wait: it is over now.
            if let Some(then) = process.stop_waiting(token) {
                then();
            }
        }
        match (self.waiting().get_mut(&token), deadline) {
            (Some(parked), _) => parked.deadline = deadline,
            // Answered meanwhile.
            (None, Some(deadline)) => self.janitor.cancel(deadline),
            (None, None) => {}
        }
        true
    }

    /// Forgets all that wait; they are not answered.
    pub(super) fn cancel_all(&self) {
        for (token, parked) in std::mem::take(&mut *self.waiting()) {
            if let Some(deadline) = parked.deadline {
                self.janitor.cancel(deadline);
            }
            if let Some(process) = parked.process.upgrade() {
                drop(process.stop_waiting(token));
            }
        }
    }

    fn unpark(&self, token: u64) {
        let parked = self.waiting().remove(&token);
        if let Some(deadline) = parked.and_then(|parked| parked.deadline) {
            self.janitor.cancel(deadline);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Parked>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
