//! The end of a server that lets its commands finish first.

use super::Server;
use crate::protocol::error::{DRAINING, RpcError};
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Server {
    /// Opens no sessions from now on, and says that it is not ready. Those that there are go on, can be resumed, and
    /// may start processes.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is left to wait for: no process runs, and every client was told all there is, but for those that
    /// may not come back. A session whose last events nobody was there for is waited for until it is resumed or over.
    pub fn is_drained(&self) -> bool {
        self.live_processes.now() == 0 && self.sessions.all().iter().all(|session| session.is_told())
    }

    /// Ends everything as [`shut_down`](Server::shut_down) does, and lets clients take `limit` to read what they were sent,
    /// if that is more.
    pub fn finish(&self, limit: Duration) {
        self.end_all(limit.max(self.config.shutdown_limit));
        // They close once they have read that they are to; what is still in a socket may be lost before that.
        let is_awaited = self.outboxes().values().any(|outbox| outbox.is_websocket());
        if is_awaited {
            self.connections.wait_zero(self.config.shutdown_limit);
        }
    }

    pub(super) fn check_not_draining(&self) -> Result<(), RpcError> {
        if self.is_draining.load(Ordering::Relaxed) {
            return Err(RpcError::new(
                DRAINING,
                "the server is about to end: it opens no sessions",
            ));
        }
        Ok(())
    }
}
