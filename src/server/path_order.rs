//! File calls that touch the same path keep their order.

use std::collections::VecDeque;
use std::path::PathBuf;

/// What a call touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Touch {
    /// A file, or a directory with everything below it.
    pub(super) path: PathBuf,
    /// Whether it may change it.
    pub(super) writes: bool,
}

impl Touch {
    fn disturbs(&self, other: &Touch) -> bool {
        (self.writes || other.writes) && (self.path.starts_with(&other.path) || other.path.starts_with(&self.path))
    }
}

/// The unfinished calls of one connection, in the order they came. One waits while an earlier one touches the same
/// path, or one above or below, and either of the two writes.
pub(super) struct PathOrder<T> {
    next_ticket: u64,
    /// By ticket.
    calls: VecDeque<Call<T>>,
    writing: usize,
}

struct Call<T> {
    ticket: u64,
    touches: Vec<Touch>,
    writes: bool,
    /// There while it waits.
    job: Option<T>,
}

impl<T> PathOrder<T> {
    pub(super) fn new() -> PathOrder<T> {
        PathOrder {
            next_ticket: 0,
            calls: VecDeque::new(),
            writing: 0,
        }
    }

    /// The calls that are not finished.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether a call is unfinished that may change something.
    pub(super) fn is_writing(&self) -> bool {
        self.writing > 0
    }

    /// Adds a call. It is returned, with the ticket to [`finish`](PathOrder::finish) it by, if it need not wait.
    pub(super) fn add(&mut self, touches: Vec<Touch>, job: T) -> Option<(u64, T)> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let writes = touches.iter().any(|touch| touch.writes);
        let waits = (writes || self.writing > 0) && self.waits(self.calls.len(), &touches);
        self.writing += usize::from(writes);
        let (ready, job) = if waits {
            (None, Some(job))
        } else {
            (Some((ticket, job)), None)
        };
        self.calls.push_back(Call {
            ticket,
            touches,
            writes,
            job,
        });
        ready
    }

    /// A call is done: those are returned that need not wait any more.
    pub(super) fn finish(&mut self, ticket: u64) -> Vec<(u64, T)> {
        let Ok(place) = self.calls.binary_search_by_key(&ticket, |call| call.ticket) else {
            return Vec::new();
        };
        let Some(done) = self.calls.remove(place) else {
            return Vec::new();
        };
        self.writing -= usize::from(done.writes);
        let mut ready = Vec::new();
        for i in place..self.calls.len() {
            let call = &self.calls[i];
            // Others have waited for it only if they touch what it touched.
            if call.job.is_some() && disturb(&done.touches, &call.touches) && !self.waits(i, &call.touches) {
                let call = &mut self.calls[i];
                ready.extend(call.job.take().map(|job| (call.ticket, job)));
            }
        }
        ready
    }

    /// Whether a call waits for one of the first `n`.
    fn waits(&self, n: usize, touches: &[Touch]) -> bool {
        self.calls
            .iter()
            .take(n)
            .any(|earlier| disturb(&earlier.touches, touches))
    }
}

fn disturb(a: &[Touch], b: &[Touch]) -> bool {
    a.iter().any(|a| b.iter().any(|b| a.disturbs(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &str, writes: bool) -> Vec<Touch> {
        vec![Touch {
            path: path.into(),
            writes,
        }]
    }

    #[test]
    fn calls_wait_only_for_earlier_ones_on_the_same_path() {
        let mut order = PathOrder::new();
        assert_eq!(order.add(touch("/a/b", true), "write"), Some((0, "write")));
        assert_eq!(order.add(touch("/a/b", false), "read"), None);
        assert_eq!(order.add(touch("/a/bc", false), "other"), Some((2, "other")));
        assert_eq!(order.add(touch("/a", true), "remove the parent"), None);
        assert_eq!(order.add(touch("/a/b/c", false), "read below"), None);
        assert_eq!(order.finish(2), []);
        assert_eq!(order.finish(0), [(1, "read")]);
        assert_eq!(order.finish(1), [(3, "remove the parent")]);
        assert_eq!(order.finish(3), [(4, "read below")]);
        assert_eq!(order.finish(4), []);
        assert_eq!(order.len(), 0);
    }

    #[test]
    fn reads_do_not_wait_for_each_other() {
        let mut order = PathOrder::new();
        assert!(order.add(touch("/a", false), 0).is_some());
        assert!(order.add(touch("/a", false), 1).is_some());
        assert!(order.add(touch("/a", true), 2).is_none());
        assert!(order.add(touch("/a", false), 3).is_none());
        assert_eq!(order.finish(1), []);
        assert_eq!(order.finish(0), [(2, 2)]);
        assert_eq!(order.finish(2), [(3, 3)]);
    }
}
