//! A bound on the bytes of requests that are being carried out.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Messages below this pass freely: their number is bounded elsewhere.
const FREE_BYTES: usize = 64 * 1024;

/// Lets large messages in while there is room for them.
pub(super) struct Gate {
    limit: usize,
    inside: Mutex<usize>,
    left: Condvar,
}

impl Gate {
    pub(super) fn new(limit: usize) -> Arc<Gate> {
        Arc::new(Gate {
            limit,
            inside: Mutex::new(0),
            left: Condvar::new(),
        })
    }

    /// Waits until a message of `bytes` may come in. It counts until the permit is dropped. One that is larger than
    /// the limit itself comes in alone.
    pub(super) fn admit(self: &Arc<Gate>, bytes: usize) -> Option<Permit> {
        if bytes < FREE_BYTES {
            return None;
        }
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |inside: &mut usize| *inside > 0 && *inside + bytes > self.limit;
        *self
            .left
            .wait_while(inside, is_full)
            .unwrap_or_else(PoisonError::into_inner) += bytes;
        Some(Permit {
            gate: self.clone(),
            bytes,
        })
    }
}

/// A message inside a [`Gate`].
pub(super) struct Permit {
    gate: Arc<Gate>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.gate.inside.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.gate.left.notify_one();
    }
}
