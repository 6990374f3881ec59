//! A queue from threads to one thread.
//!
//! For what nobody selects from and where a wake-up more does not matter: a channel of `crossbeam-channel` takes some
//! 8 KiB of code for each type that is sent, this one.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Puts items into a queue. When all are dropped, it ends behind its last item.
pub struct Sender<T>(Arc<Queue<T>>);

/// Takes items from a queue. When it is dropped, they are as well.
pub struct Receiver<T>(Arc<Queue<T>>);

struct Queue<T> {
    state: Mutex<State<T>>,
    /// There is an item or room where there was none, or one side is gone.
    changed: Condvar,
    capacity: usize,
}

struct State<T> {
    items: VecDeque<T>,
    senders: usize,
    has_receiver: bool,
}

/// The other side is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Why there is no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// None came in time.
    TimedOut,
    /// There will be no more.
    Closed,
}

/// A queue for up to so many items.
pub fn queue<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(Queue {
        state: Mutex::new(State {
            items: VecDeque::new(),
            senders: 1,
            has_receiver: true,
        }),
        changed: Condvar::new(),
        capacity,
    });
    (Sender(queue.clone()), Receiver(queue))
}

impl<T> Queue<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change until a certain time; `None` if that is over.
    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>, until: Option<Instant>) -> Option<MutexGuard<'a, State<T>>> {
        let Some(until) = until else {
            return Some(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let waited = self.changed.wait_timeout(state, left);
        Some(waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl<T> Sender<T> {
    /// Puts an item into the queue, once there is room.
    ///
    /// # Errors
    /// The receiver is gone, and the item with it.
    pub fn send(&self, item: T) -> Result<(), Closed> {
        let mut state = self.0.state();
        while state.has_receiver && state.items.len() >= self.0.capacity {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.has_receiver {
            return Err(Closed);
        }
        state.items.push_back(item);
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Whether the queue is full, and to send would wait.
    pub fn is_full(&self) -> bool {
        self.0.state().items.len() >= self.0.capacity
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest item, once there is one, if that is before a certain time.
    ///
    /// # Errors
    /// There is none by then, or will not be.
    pub fn recv(&self, until: Option<Instant>) -> Result<T, RecvError> {
        let mut state = self.0.state();
        loop {
            if let Some(item) = state.items.pop_front() {
                drop(state);
                self.0.changed.notify_all();
                return Ok(item);
            }
            if state.senders == 0 {
                return Err(RecvError::Closed);
            }
            state = self.0.wait(state, until).ok_or(RecvError::TimedOut)?;
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.state().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state().senders -= 1;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let items = {
            let mut state = self.0.state();
            state.has_receiver = false;
            std::mem::take(&mut state.items)
        };
        self.0.changed.notify_all();
        // Not while the lock is held: they may have senders of this queue.
        drop(items);
    }
}

#[cfg(test)]
mod tests {
    use super::{Closed, RecvError, queue};
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn items_come_in_order_and_then_the_end() {
        let (sender, receiver) = queue(8);
        let other = sender.clone();
        assert_eq!(sender.send(1), Ok(()));
        assert_eq!(other.send(2), Ok(()));
        drop(sender);
        assert_eq!(receiver.recv(None), Ok(1));
        assert_eq!(receiver.recv(None), Ok(2));
        let soon = Instant::now() + Duration::from_millis(1);
        assert_eq!(receiver.recv(Some(soon)), Err(RecvError::TimedOut));
        drop(other);
        assert_eq!(receiver.recv(None), Err(RecvError::Closed));
    }

    #[test]
    fn a_full_queue_is_waited_for() {
        let (sender, receiver) = queue(1);
        assert!(!sender.is_full());
        assert_eq!(sender.send(0), Ok(()));
        assert!(sender.is_full());
        thread::scope(|scope| {
            scope.spawn(move || (1..1000).for_each(|i| sender.send(i).unwrap()));
            (0..1000).for_each(|i| assert_eq!(receiver.recv(None), Ok(i)));
        });
    }

    #[test]
    fn with_the_receiver_the_items_are_gone_and_nobody_waits() {
        let (sender, receiver) = queue(1);
        let item = Arc::new(());
        assert_eq!(sender.send(item.clone()), Ok(()));
        thread::scope(|scope| {
            let waits = scope.spawn(|| sender.send(item.clone()));
            drop(receiver);
            assert_eq!(waits.join().unwrap(), Err(Closed));
        });
        assert_eq!(Arc::strong_count(&item), 1);
    }

    #[test]
    fn an_end_and_an_item_wake_the_receiver() {
        for item in [Some(1), None] {
            let (sender, receiver) = queue(1);
            thread::scope(|scope| {
                let waits = scope.spawn(move || receiver.recv(None));
                if let Some(item) = item {
                    sender.send(item).unwrap();
                }
                drop(sender);
                assert_eq!(waits.join().unwrap(), item.ok_or(RecvError::Closed));
            });
        }
    }
}
