//! Telling that there is something new.

use super::deadline::Deadline;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The highest number of an event that has arrived, in order or not; it only grows. Any number of threads can wait for
/// it to grow, and nobody has to.
#[derive(Debug, Default)]
pub struct Wake {
    seen: AtomicU64,
    waiting: AtomicUsize,
    lock: Mutex<()>,
    grown: Condvar,
}

impl Wake {
    /// The highest number so far; 0 before the first event.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Waits until it is above `after`, for at most `timeout`, or for ever if that is `None`. Returns what it is then.
    pub fn wait(&self, after: u64, timeout: Option<Duration>) -> u64 {
        let deadline = Deadline::after(timeout);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted before looking, so that whoever notes something after the look finds a waiter to wake.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut in_time = true;
        while self.seen() <= after && in_time {
            (guard, in_time) = deadline.wait(&self.grown, guard);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.seen()
    }

    /// An event has arrived.
    pub(super) fn note(&self, seq: u64) {
        self.seen.fetch_max(seq, Ordering::SeqCst);
        self.wake();
    }

    /// Something happened that has no number.
    pub(super) fn bump(&self) {
        // At the end of the numbers there is no higher one to tell it with.
        let _ = self
            .seen
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |seen| seen.checked_add(1));
        self.wake();
    }

    fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // A waiter has either not looked yet or waits already.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.grown.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_grows() {
        let wake = Wake::default();
        wake.note(7);
        wake.note(3);
        assert_eq!(wake.seen(), 7);
        wake.bump();
        assert_eq!(wake.seen(), 8);
        wake.note(u64::MAX);
        wake.bump();
        assert_eq!(wake.seen(), u64::MAX);
    }

    #[test]
    fn all_who_wait_are_woken() {
        let wake = Wake::default();
        std::thread::scope(|scope| {
            let wake = &wake;
            let waiters = [0, 1, 2, 3].map(|after| scope.spawn(move || wake.wait(after, None)));
            while wake.waiting.load(Ordering::SeqCst) < waiters.len() {
                std::thread::yield_now();
            }
            wake.note(4);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 4);
            }
        });
        assert_eq!(wake.wait(3, None), 4, "nothing to wait for");
        assert_eq!(wake.wait(4, Some(Duration::from_millis(1))), 4, "time is over");
        assert_eq!(wake.waiting.load(Ordering::SeqCst), 0);
    }
}
