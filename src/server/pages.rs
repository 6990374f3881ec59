//! What a server says of itself over HTTP.

use super::Server;
use crate::metrics;
use crate::transport::http::Pages;
use std::sync::atomic::Ordering;

impl Server {
    /// Offers `/metrics` from now on, to whoever may connect, and takes the times that it has.
    pub fn offer_metrics(&self) {
        metrics::take_times();
        self.offers_metrics.store(true, Ordering::Relaxed);
    }
}

impl Pages for Server {
    fn is_ready(&self) -> bool {
        !self.is_draining.load(Ordering::Relaxed)
    }

    fn offers_metrics(&self) -> bool {
        self.offers_metrics.load(Ordering::Relaxed)
    }

    fn metrics(&self) -> String {
        metrics::page(&[
            ("connections", "Connections that are served", self.connections.now()),
            (
                "sessions",
                "Sessions, with a client or waiting for one",
                self.sessions.all().len(),
            ),
            (
                "processes",
                "Processes that have not had their last event",
                self.live_processes.now(),
            ),
            (
                "retained_bytes",
                "Bytes of output that are kept, with what they take beside",
                self.totals.retained_bytes(),
            ),
        ])
    }
}
