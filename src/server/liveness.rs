//! Whether clients are still there.

use super::Server;
use super::outbox::Outbox;
use crate::metrics;
use crate::process::Audience;
use crate::protocol::error::RpcError;
use log::info;
use std::sync::Arc;

impl Server {
    /// Turns a client away that is there for no session.
    pub(super) fn expect_session(&self, outbox: &Arc<Outbox>) {
        let (awaited, janitor) = (Arc::downgrade(outbox), self.janitor.clone());
        let (limit, drain_limit) = (self.config.initialize_timeout, self.config.drain_limit);
        self.janitor.after(limit, move || {
            let Some(outbox) = awaited.upgrade().filter(|outbox| !outbox.has_session()) else {
                return;
            };
            metrics::limit_met("initialize-timeout");
            let reason = "there was no initialize in time";
            if !outbox.is_websocket() {
                outbox.complain(&RpcError::invalid_request(reason));
            }
            outbox.close(1008, reason);
            janitor.after(drain_limit, move || {
                if let Some(outbox) = awaited.upgrade() {
                    outbox.cut();
                }
            });
        });
    }

    /// Pings a client that says nothing for a while, and cuts it off when it says nothing for long.
    pub(super) fn keep_alive(self: &Arc<Server>, outbox: &Arc<Outbox>) {
        let (server, watched) = (Arc::downgrade(self), Arc::downgrade(outbox));
        let next = self
            .config
            .ping_interval
            .saturating_sub(outbox.silence())
            .max(self.config.ping_interval / 2);
        self.janitor.after(next, move || {
            let (Some(server), Some(outbox)) = (server.upgrade(), watched.upgrade()) else {
                return;
            };
            if outbox.silence() >= server.config.silence_limit {
                metrics::limit_met("silence-limit");
                info!(conn = outbox.id(); "a client is silent for {:?}: its connection is cut", outbox.silence());
                return outbox.cut();
            }
            if outbox.silence() >= server.config.ping_interval {
                outbox.ping();
            }
            server.keep_alive(&outbox);
        });
    }

    /// Finds out whether the client is still there whose session another one wants; if it says nothing, it is cut off,
    /// and its session can be resumed.
    pub(super) fn probe(self: &Arc<Server>, outbox: &Arc<Outbox>) {
        if !outbox.begin_probe() {
            return;
        }
        outbox.ping();
        let probed = Arc::downgrade(outbox);
        let limit = self.config.probe_limit;
        self.janitor.after(limit, move || {
            let Some(outbox) = probed.upgrade() else { return };
            if outbox.silence() >= limit {
                info!(
                    conn = outbox.id();
                    "client {} is silent and its session is wanted: its connection is cut",
                    outbox.id()
                );
                outbox.cut();
            }
            outbox.end_probe();
        });
    }
}
