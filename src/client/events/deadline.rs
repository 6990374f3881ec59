//! Waiting with an end.

use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Until when to wait; for ever if there is no such moment.
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// `timeout` from now; `None` is for ever.
    pub(super) fn after(timeout: Option<Duration>) -> Deadline {
        Deadline(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// Waits for `changed`, which may also return without reason. False if the time is over.
    pub(super) fn wait<'a, T>(&self, changed: &Condvar, guard: MutexGuard<'a, T>) -> (MutexGuard<'a, T>, bool) {
        let Some(end) = self.0 else {
            return (changed.wait(guard).unwrap_or_else(PoisonError::into_inner), true);
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return (guard, false);
        }
        let (guard, _) = changed
            .wait_timeout(guard, left)
            .unwrap_or_else(PoisonError::into_inner);
        (guard, true)
    }
}
