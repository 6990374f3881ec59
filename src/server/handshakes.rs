//! How many may be about to connect.

use crate::metrics;
use crate::transport::address::StreamSocket;
use std::collections::VecDeque;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of which it is not known yet what they become, the oldest in front.
#[derive(Default)]
pub(super) struct Handshakes(Mutex<VecDeque<Arc<StreamSocket>>>);

impl Handshakes {
    /// One more; above `limit`, the oldest goes.
    pub(super) fn enter(&self, stream: &Arc<StreamSocket>, limit: usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= limit
            && let Some(oldest) = all.pop_front()
        {
            metrics::limit_met("max-handshakes");
            // Its thread finds nothing more to read, and says why.
            let _ = oldest.shutdown(Shutdown::Read);
        }
        all.push_back(stream.clone());
    }

    /// Whether it did not have to go.
    pub(super) fn has(&self, stream: &Arc<StreamSocket>) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|other| Arc::ptr_eq(other, stream))
    }

    /// One less.
    pub(super) fn leave(&self, stream: &Arc<StreamSocket>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| !Arc::ptr_eq(other, stream));
    }
}
