//! What is to happen at a certain time.

use crate::sys::thread;
use log::error;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The stack of the janitor's thread.
const STACK_BYTES: usize = 128 * 1024;

type Task = Box<dyn FnOnce() + Send>;

/// Names a task that was asked for.
pub(super) type TaskKey = (Instant, u64);

/// One thread that sleeps until the next deadline there is. It is started with the first.
#[derive(Clone)]
pub(super) struct Janitor(Arc<Shared>);

struct Shared {
    agenda: Mutex<Agenda>,
    changed: Condvar,
}

#[derive(Default)]
struct Agenda {
    /// By key. Most come last, where adding costs nothing.
    tasks: VecDeque<(TaskKey, Task)>,
    next_serial: u64,
    is_running: bool,
    has_ended: bool,
}

impl Janitor {
    pub(super) fn new() -> Janitor {
        Janitor(Arc::new(Shared {
            agenda: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Has `task` done after `delay`. A delay too long to be told is for ever: then there is no key. Where there is no
    /// thread to be had it comes later, if ever; see [`is_running`](Janitor::is_running).
    pub(super) fn after(&self, delay: Duration, task: impl FnOnce() + Send + 'static) -> Option<TaskKey> {
        self.put(delay, Box::new(task))
    }

    fn put(&self, delay: Duration, task: Task) -> Option<TaskKey> {
        let at = Instant::now().checked_add(delay)?;
        let mut agenda = self.0.agenda();
        if agenda.has_ended {
            return None;
        }
        let key = (at, agenda.next_serial);
        agenda.next_serial += 1;
        let place = agenda.tasks.partition_point(|(earlier, _)| *earlier < key);
        agenda.tasks.insert(place, (key, task));
        if !agenda.is_running {
            let shared = self.0.clone();
            match thread::start("janitor", STACK_BYTES, Box::new(move || shared.run())) {
                Ok(_) => agenda.is_running = true,
                // The next task tries again; until then nothing expires.
                Err(e) => error!("failed to start the janitor: {e}"),
            }
        } else if place == 0 {
            self.0.changed.notify_one();
        }
        Some(key)
    }

    /// Whether there is a thread that does what is due.
    pub(super) fn is_running(&self) -> bool {
        self.0.agenda().is_running
    }

    /// Nothing is of interest any more: what was not done yet is forgotten.
    pub(super) fn end(&self) {
        let mut agenda = self.0.agenda();
        agenda.has_ended = true;
        let forgotten = std::mem::take(&mut agenda.tasks);
        self.0.changed.notify_one();
        drop(agenda);
        // They may own what takes time to drop, and what comes back here.
        drop(forgotten);
    }

    /// Forgets a task that was not done yet.
    pub(super) fn cancel(&self, key: TaskKey) {
        let mut agenda = self.0.agenda();
        if let Ok(place) = agenda.tasks.binary_search_by_key(&key, |(key, _)| *key) {
            agenda.tasks.remove(place);
        }
    }
}

impl Shared {
    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut agenda = self.agenda();
        while !agenda.has_ended {
            let now = Instant::now();
            let due = agenda.tasks.front().map(|((at, _), _)| *at);
            agenda = match due {
                None => self.changed.wait(agenda).unwrap_or_else(PoisonError::into_inner),
                Some(at) if at <= now => {
                    let task = agenda.tasks.pop_front();
                    if agenda.tasks.len() < agenda.tasks.capacity() / 4 {
                        let enough = agenda.tasks.capacity() / 2;
                        agenda.tasks.shrink_to(enough);
                    }
                    drop(agenda);
                    // There is no other that could do what is to come.
                    if let Some((_, task)) = task
                        && catch_unwind(AssertUnwindSafe(task)).is_err()
                    {
                        error!("something that was due failed in an unforeseen way");
                    }
                    self.agenda()
                }
                Some(at) => {
                    let waited = self.changed.wait_timeout(agenda, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn tasks_are_done_in_the_order_of_their_times() {
        let janitor = Janitor::new();
        let (done, seen) = mpsc::channel();
        let task = |n: u32| {
            let done = done.clone();
            move || done.send(n).unwrap()
        };
        janitor.after(Duration::ZERO, || panic!("on purpose"));
        janitor.after(Duration::from_millis(40), task(3));
        janitor.after(Duration::from_millis(20), task(2));
        let never = janitor.after(Duration::from_millis(10), task(0)).unwrap();
        janitor.after(Duration::ZERO, task(1));
        janitor.cancel(never);
        assert!(janitor.after(Duration::MAX, task(0)).is_none());
        assert_eq!([(); 3].map(|()| seen.recv().unwrap()), [1, 2, 3]);
    }

    #[test]
    fn nothing_is_done_after_the_end_and_nothing_is_kept() {
        let janitor = Janitor::new();
        let (done, seen) = mpsc::channel();
        let task = || {
            let done = done.clone();
            move || done.send(()).unwrap()
        };
        janitor.after(Duration::from_secs(3600), task());
        janitor.end();
        assert!(janitor.after(Duration::ZERO, task()).is_none());
        drop(done);
        assert!(seen.recv().is_err());
    }
}
