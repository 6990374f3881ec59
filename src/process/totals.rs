//! Bounds on what all processes of a server have together.

use super::handle::Process;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What all processes of a server have together, shared by them.
pub struct Totals {
    retained: Arc<Total>,
    stdin: Arc<Total>,
    /// Ended processes that retain output, the one that ended first in front.
    ended: Mutex<VecDeque<Weak<Process>>>,
}

/// Bytes that lie in many places.
struct Total {
    limit: usize,
    bytes: AtomicUsize,
}

impl Totals {
    /// Nothing yet; and how many bytes of output may be retained, and how many of input may be queued.
    pub fn new(retained: usize, stdin: usize) -> Arc<Totals> {
        let total = |limit| {
            Arc::new(Total {
                limit,
                bytes: AtomicUsize::new(0),
            })
        };
        Arc::new(Totals {
            retained: total(retained),
            stdin: total(stdin),
            ended: Mutex::default(),
        })
    }

    /// A process has had its last event. What it retains goes when there is too much.
    pub fn ended(&self, process: &Arc<Process>) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while ended.front().is_some_and(|first| first.strong_count() == 0) {
            ended.pop_front();
        }
        if process.snapshot().retained_bytes > 0 {
            ended.push_back(Arc::downgrade(process));
        }
    }

    /// What is retained of the output of all processes.
    pub fn retained_bytes(&self) -> usize {
        self.retained.bytes.load(Ordering::Relaxed)
    }

    /// Has ended processes give up what they retain, while there is too much. What an attached client has yet to take,
    /// or to acknowledge, stays until it has. Returns whether there is room now.
    pub fn make_room(&self) -> bool {
        while self.retained.is_over() {
            let oldest = self.ended.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match oldest {
                None => return false,
                Some(process) => drop(process.upgrade().inspect(|process| process.keep_nothing())),
            }
        }
        true
    }
}

impl Total {
    fn is_over(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.limit
    }
}

/// The part of a total that lies in one place. Dropped, it is none.
pub(super) struct Share {
    total: Option<Arc<Total>>,
    bytes: usize,
}

impl Share {
    /// Of the output that is retained.
    pub(super) fn of_retained(totals: Option<&Arc<Totals>>) -> Share {
        Share {
            total: totals.map(|totals| totals.retained.clone()),
            bytes: 0,
        }
    }

    /// Of the input that is queued.
    pub(super) fn of_stdin(totals: Option<&Arc<Totals>>) -> Share {
        Share {
            total: totals.map(|totals| totals.stdin.clone()),
            bytes: 0,
        }
    }

    /// It is so many bytes now.
    pub(super) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if let Some(total) = self.total.as_ref().filter(|_| bytes != before) {
            // Wraps around, and back again.
            total.bytes.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Makes it more by `bytes`, if the total may be.
    pub(super) fn try_add(&mut self, bytes: usize) -> bool {
        if let Some(total) = &self.total {
            let more = |sum: usize| sum.checked_add(bytes).filter(|sum| *sum <= total.limit);
            if total
                .bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .is_err()
            {
                return false;
            }
        }
        self.bytes += bytes;
        true
    }

    /// Whether the total is more than it may be.
    pub(super) fn is_of_too_much(&self) -> bool {
        self.total.as_ref().is_some_and(|total| total.is_over())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_up_the_total() {
        let totals = Totals::new(10, 10);
        let (mut a, mut b) = (Share::of_retained(Some(&totals)), Share::of_retained(Some(&totals)));
        a.set(10);
        assert!(!b.is_of_too_much() && totals.make_room());
        assert!(!b.try_add(1) && b.try_add(0));
        b.set(1);
        assert!(a.is_of_too_much() && !totals.make_room());
        a.set(9);
        assert!(!a.is_of_too_much());
        drop(a);
        assert!(b.try_add(9) && !b.try_add(1));
        let other = Share::of_stdin(Some(&totals));
        assert!(!other.is_of_too_much() && Share::of_stdin(None).try_add(usize::MAX));
    }
}
