//! A few threads for work that may take long.

use super::janitor::Janitor;
use crate::metrics;
use crate::sys::thread;
use log::{error, warn};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The workers that are started whenever there is work and none is free.
const USUAL_WORKERS: usize = 2;

/// How long work may lie there before a further worker is started: the others hang then, in a dead mount say.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long a worker without work waits for some before it ends.
const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// The stack of a worker.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 1024 } else { 256 } * 1024;

/// What is called to do the job, or with why it can't be done.
pub(super) type Job = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Does jobs in the order they came, as many at a time as there are workers. Cheap to clone.
#[derive(Clone)]
pub(super) struct WorkerPool {
    shared: Arc<Shared>,
    janitor: Janitor,
}

struct Shared {
    max_workers: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    workers: usize,
    idle: usize,
    /// Somebody will look whether the jobs still lie there.
    is_watched: bool,
    /// Workers do not wait for more.
    has_ended: bool,
}

impl WorkerPool {
    pub(super) fn new(max_workers: usize, janitor: Janitor) -> WorkerPool {
        let shared = Shared {
            max_workers,
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        WorkerPool {
            shared: Arc::new(shared),
            janitor,
        }
    }

    /// Has a job done.
    pub(super) fn submit(&self, job: Job) {
        let mut state = self.shared.state();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            self.shared.changed.notify_one();
        } else if state.workers < USUAL_WORKERS {
            self.start_worker(state);
        } else {
            self.watch(state);
        }
    }

    /// Workers end once they have done what there is.
    pub(super) fn end(&self) {
        self.shared.state().has_ended = true;
        self.shared.changed.notify_all();
    }

    fn start_worker(&self, mut state: MutexGuard<'_, State>) {
        let shared = self.shared.clone();
        match thread::start("file-worker", STACK_BYTES, Box::new(move || shared.work())) {
            Ok(_) => state.workers += 1,
            Err(e) if state.workers == 0 => {
                let jobs = std::mem::take(&mut state.jobs);
                drop(state);
                // Nobody would do them, perhaps for long.
                for job in jobs {
                    job(Err(io::Error::new(e.kind(), format!("failed to start a thread: {e}"))));
                }
            }
            Err(e) => {
                error!("failed to start a file worker: {e}");
                self.watch(state);
            }
        }
    }

    /// Has somebody look after a while.
    fn watch(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::replace(&mut state.is_watched, true) {
            return;
        }
        drop(state);
        let pool = self.clone();
        self.janitor.after(PATIENCE, move || pool.look());
    }

    fn look(&self) {
        let mut state = self.shared.state();
        state.is_watched = false;
        if state.jobs.is_empty() || state.idle > 0 {
            return;
        }
        if state.workers >= self.shared.max_workers {
            metrics::limit_met("max-file-workers");
            warn!(
                "{} file calls wait: all {} workers are busy",
                state.jobs.len(),
                state.workers
            );
            return self.watch(state);
        }
        self.start_worker(state);
        self.watch(self.shared.state());
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                if catch_unwind(AssertUnwindSafe(|| job(Ok(())))).is_err() {
                    error!("a file call failed in an unforeseen way");
                }
                state = self.state();
                continue;
            }
            state.idle += 1;
            let waited = self
                .changed
                .wait_timeout_while(state, IDLE_LIMIT, |state| state.jobs.is_empty() && !state.has_ended);
            let (mut awake, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            awake.idle -= 1;
            if timeout.timed_out() || (awake.has_ended && awake.jobs.is_empty()) {
                awake.workers -= 1;
                return;
            }
            state = awake;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn work_is_done_while_other_work_hangs() {
        let pool = WorkerPool::new(8, Janitor::new());
        let (done, seen) = mpsc::channel();
        let (release, hold) = mpsc::channel::<()>();
        let hold = Arc::new(Mutex::new(hold));
        for _ in 0..4 {
            let hold = hold.clone();
            pool.submit(Box::new(move |_| assert!(hold.lock().unwrap().recv().is_err())));
        }
        pool.submit(Box::new(|_| panic!("on purpose")));
        pool.submit(Box::new(move |_| done.send(()).unwrap()));
        seen.recv().unwrap();
        drop(release);
    }
}
